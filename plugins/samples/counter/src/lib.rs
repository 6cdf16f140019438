//! The smallest plugin with state: a counter.
//!
//! Methods: `add` adds the decimal number in the request (1 if it is empty) and answers with
//! the sum, `get` answers with the sum.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicI64, Ordering};

use hotmerge_sdk::{Call, Error, Host, Method, Plugin, Reply};

const TEXT: &[&str] = &["text/plain; charset=utf-8"];

const METHODS: &[Method] = &[
    Method::new(
        "add",
        "Adds a decimal number, 1 if the request is empty, and answers with the sum",
    )
    .takes(TEXT)
    .replies(TEXT)
    .example("40"),
    Method::new("get", "Answers with the sum")
        .replies(TEXT)
        .example(""),
];

/// A sum that starts at zero.
#[derive(Debug)]
pub struct Counter {
    sum: AtomicI64,
}

impl Plugin for Counter {
    fn start(_host: Host, _config: &[u8]) -> Result<Self, Error> {
        Ok(Self {
            sum: AtomicI64::new(0),
        })
    }

    fn call(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error> {
        let sum = match call.method() {
            "add" => {
                let step = step(call.request())?;
                self.sum
                    .fetch_add(step, Ordering::Relaxed)
                    .wrapping_add(step)
            }
            "get" => self.sum.load(Ordering::Relaxed),
            _ => return Err(Error::NoMethod),
        };
        reply.text(&sum.to_string())
    }

    fn describe(&self) -> &[Method] {
        METHODS
    }

    fn save(&self, state: &mut Reply<'_>) -> Result<(), Error> {
        state.bytes(&self.sum.load(Ordering::Relaxed).to_le_bytes())
    }

    fn restore(&self, _from: &str, state: &[u8]) -> Result<(), Error> {
        let bytes = state
            .try_into()
            .map_err(|_| Error::bad_request("a counter's state is 8 bytes"))?;
        self.sum.store(i64::from_le_bytes(bytes), Ordering::Relaxed);
        Ok(())
    }
}

fn step(request: &[u8]) -> Result<i64, Error> {
    let text = request.trim_ascii();
    if text.is_empty() {
        return Ok(1);
    }
    str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::bad_request("`add` takes a decimal number, or nothing for 1"))
}

hotmerge_sdk::export_plugin!(Counter);

#[cfg(test)]
mod tests {
    use hotmerge_sdk::{abi, testing::Instance};

    use super::Counter;

    #[test]
    fn adds_and_answers_with_the_sum() {
        let counter = Instance::<Counter>::start("{}").unwrap();
        assert_eq!(counter.call("add", b"40").unwrap().bytes, b"40");
        assert_eq!(counter.call("add", b"").unwrap().bytes, b"41");
        assert_eq!(counter.call("get", b"").unwrap().bytes, b"41");
    }

    #[test]
    fn it_is_as_it_describes_itself() {
        let counter = Instance::<Counter>::start("{}").unwrap();
        counter.check_description();
    }

    #[test]
    fn a_bad_number_is_a_bad_request() {
        let counter = Instance::<Counter>::start("{}").unwrap();
        let refused = counter.call("add", b"four").unwrap_err();
        assert_eq!(refused.status, abi::STATUS_BAD_REQUEST);
        assert!(refused.reason.contains("decimal"), "{}", refused.reason);
    }

    #[test]
    fn state_is_handed_to_the_next_version() {
        let old = Instance::<Counter>::start("{}").unwrap();
        old.call("add", b"7").unwrap();
        let new = Instance::<Counter>::start("{}").unwrap();
        new.restore("0.1.0", &old.save().unwrap()).unwrap();
        assert_eq!(new.call("get", b"").unwrap().bytes, b"7");
    }
}

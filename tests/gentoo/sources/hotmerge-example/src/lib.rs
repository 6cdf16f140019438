//! An example of a plugin from a source tree of its own: it greets.
//!
//! Method `greet`: the request is a name, the reply a greeting.

#![forbid(unsafe_code)]

use hotmerge_sdk::{Call, Error, Host, Plugin, Reply};

/// What every greeting begins with.
const GREETING: &str = "Hello";

/// A plugin without state.
#[derive(Debug)]
pub struct Example;

impl Plugin for Example {
    fn start(_host: Host, _config: &[u8]) -> Result<Self, Error> {
        Ok(Self)
    }

    fn call(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error> {
        match call.method() {
            "greet" => {
                let name = str::from_utf8(call.request())
                    .map_err(|_| Error::bad_request("`greet` takes a name as UTF-8"))?;
                reply.text(&format!("{GREETING}, {}!", name.trim()))
            }
            _ => Err(Error::NoMethod),
        }
    }
}

hotmerge_sdk::export_plugin!(Example);

#[cfg(test)]
mod tests {
    use hotmerge_sdk::testing::Instance;

    use super::Example;

    #[test]
    fn greets_by_name() {
        let example = Instance::<Example>::start("{}").unwrap();
        assert_eq!(
            example.call("greet", b"Larry").unwrap().bytes,
            b"Hello, Larry!"
        );
    }
}

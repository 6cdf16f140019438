//! What the benchmarks load: as small as a plugin gets, in two variants.

#![forbid(unsafe_code)]

use hotmerge_sdk::{Call, Error, Host, Plugin, Reply};

/// Edited by the benchmark to make another version.
const VARIANT: &[u8] = b"1";

struct Subject {
    /// Whether it hands state over to the next version; the configuration says so.
    state: bool,
}

impl Plugin for Subject {
    fn start(_host: Host, config: &[u8]) -> Result<Self, Error> {
        Ok(Self {
            state: config == br#"{"state":true}"#,
        })
    }

    fn call(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error> {
        match call.method() {
            "nothing" => Ok(()),
            "variant" => reply.bytes(VARIANT),
            _ => Err(Error::NoMethod),
        }
    }

    fn save(&self, state: &mut Reply<'_>) -> Result<(), Error> {
        if self.state {
            state.bytes(&[0; 1024])
        } else {
            Err(Error::Unsupported)
        }
    }

    fn restore(&self, _from: &str, _state: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}

hotmerge_sdk::export_plugin!(Subject);

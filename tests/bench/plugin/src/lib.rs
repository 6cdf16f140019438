//! What the benchmarks load: as small as a plugin gets, in two variants.

#![forbid(unsafe_code)]

use hotmerge_sdk::{Call, Error, Host, Plugin, Reply};

/// Edited by the benchmark to make another version.
const VARIANT: &[u8] = b"1";

struct Subject;

impl Plugin for Subject {
    fn start(_host: Host, _config: &[u8]) -> Result<Self, Error> {
        Ok(Self)
    }

    fn call(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error> {
        match call.method() {
            "nothing" => Ok(()),
            "variant" => reply.bytes(VARIANT),
            _ => Err(Error::NoMethod),
        }
    }
}

hotmerge_sdk::export_plugin!(Subject);

//! `hotmerge stop`: end the host.

use std::time::Duration;

use clap::Args;
use hotmerge_meta::control::method;

use super::host::HostArguments;
use crate::exit::CommandError;

/// Ask the host to stop once running calls have finished; do not wait for that.
#[derive(Args, Debug)]
pub(super) struct Stop {
    #[command(flatten)]
    host: HostArguments,
}

impl Stop {
    pub(super) fn run(self) -> Result<(), CommandError> {
        self.host.ask(method::STOP, &(), Duration::from_secs(10))
    }
}

//! The program's log, whose sinks get some time in the end for what waits for them.
//!
//! Absent on purpose: the sinks themselves.

use std::{sync::Arc, time::Duration};

use hotmerge_meta::{count, plain};
use hotmerge_observe::{
    log::{self, Format, LogError},
    records::Records,
    sinks::{Plan, Router},
};

use crate::output;

/// How long the sinks may take in the end.
const FLUSH: Duration = Duration::from_secs(2);

/// The log, until it is dropped.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) router: Arc<Router>,
}

impl Log {
    /// Starts logging as planned and, with `records`, into memory.
    ///
    /// # Errors
    /// If `filter` is not a filter.
    pub(crate) fn start(
        format: Format,
        filter: &str,
        records: Option<&Arc<Records>>,
        plan: Plan,
    ) -> Result<Self, LogError> {
        let router = Router::start(plan);
        let log = Self { router };
        log::start(format, filter, records, &log.router)?;
        Ok(log)
    }
}

impl Drop for Log {
    /// Gives the sinks their time, and says what they have not delivered.
    fn drop(&mut self) {
        for left in self.router.close(FLUSH) {
            output::complain(format_args!(
                "the log sink `{}` did not deliver {} in time\n",
                plain(&left.sink),
                count(left.records, "record")
            ));
        }
    }
}

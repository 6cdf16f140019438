//! A version of a plugin that can take calls.

use hotmerge_instance::Instance;
use hotmerge_lifecycle::Ticket;
use hotmerge_meta::Digest;

/// A version that can take calls.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) instance: Instance,
    pub(crate) ticket: Ticket,
    pub(crate) generation: u64,
    pub(crate) hash: Digest,
}

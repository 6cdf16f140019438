//! What the host is asked once a second, and what it says.

use hotmerge_meta::{
    PluginName,
    control::{Status, Transition},
};

/// Whose history is wanted beside the status.
pub(super) type Question = Option<PluginName>;

/// What the host says.
pub(super) struct Answer {
    pub(super) status: Status,
    /// Of the plugin that was asked about.
    pub(super) history: Option<(PluginName, Vec<Transition>)>,
}

//! A host's counts and measurements since its start, as plain data.
//!
//! Invariant: the number of figures depends on the plugins in the directory, never on what callers
//! send.
//!
//! Absent on purpose: counting, measuring, and any format.

use crate::PluginName;

/// A host's counts and measurements that its status does not have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// When the host started, in seconds since 1970.
    pub started: f64,
    /// Each plugin that the host knows.
    pub plugins: Vec<PluginFigures>,
    /// Changes of all plugins together, including plugins that are gone.
    pub changes: Vec<ChangeFigure>,
    /// How long changes took that ended with a version going live.
    pub change: Distribution,
    /// How long calls waited for a version to take over the state.
    pub pause: Distribution,
    /// How long replaced versions waited for their last call.
    pub drain: Distribution,
}

/// The counts and measurements of one plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginFigures {
    /// The plugin.
    pub plugin: PluginName,
    /// Calls that have ended, by outcome.
    pub calls: Vec<(&'static str, u64)>,
    /// Calls in progress.
    pub in_flight: u64,
    /// How long calls took.
    pub latency: Distribution,
    /// How often it crashed or the host caught its panic.
    pub crashes: u64,
}

/// How often changes ended in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeFigure {
    /// How they ended.
    pub outcome: &'static str,
    /// Their cause.
    pub cause: &'static str,
    /// How many.
    pub count: u64,
}

/// A histogram of durations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// The sum, in seconds.
    pub sum: f64,
    /// Pairs of an upper bound in seconds and the number of durations up to it and above the bound before
    /// it; ascending, the last bound infinite.
    pub buckets: Vec<(f64, u64)>,
}

impl Distribution {
    /// How many were measured.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

//! What a host has counted and measured since its start, as plain data.
//!
//! Invariant: the number of figures depends on the plugins in the directory, never on what callers
//! send.
//!
//! Absent on purpose: how figures are written down, and where they are counted.

use crate::PluginName;

/// What a host has counted and measured, as far as its status does not have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// When the host started, in seconds since 1970.
    pub started: f64,
    /// Each plugin that the host knows.
    pub plugins: Vec<PluginFigures>,
    /// Changes of all plugins together, of which plugins that are gone had some.
    pub changes: Vec<ChangeFigure>,
    /// How long changes took that ended with a version going live.
    pub change: Distribution,
    /// How long calls waited for a version to take over the state.
    pub pause: Distribution,
    /// How long replaced versions waited for their last call.
    pub drain: Distribution,
}

/// What a host has counted and measured of one plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginFigures {
    /// The plugin.
    pub plugin: PluginName,
    /// Calls that have ended, by outcome.
    pub calls: Vec<(&'static str, u64)>,
    /// Calls that have begun and not ended.
    pub in_flight: u64,
    /// How long calls took.
    pub latency: Distribution,
    /// How often it crashed or a panic of it was caught.
    pub crashes: u64,
}

/// How often changes ended in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeFigure {
    /// How they ended.
    pub outcome: &'static str,
    /// What had led to them.
    pub cause: &'static str,
    /// How many.
    pub count: u64,
}

/// How many of what was measured was how long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// The sum, in seconds.
    pub sum: f64,
    /// Upper bounds in seconds, ascending, the last one infinite; and how many lie below each and not
    /// below the one before.
    pub buckets: Vec<(f64, u64)>,
}

impl Distribution {
    /// How many were measured.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

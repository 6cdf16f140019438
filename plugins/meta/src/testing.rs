//! Entries of a `plugin.meta` for the tests of the crates above, where no file is behind them.

use crate::{Abi, Digest, Handover, PluginMeta, Requires, Wants};

/// An entry in which only the arguments matter; its hash depends on all of them.
///
/// # Panics
/// If `name` or `version` is not valid.
pub fn plugin(name: &str, version: &str, requires: Vec<Requires>) -> PluginMeta {
    let seed = format!("{name} {version} {requires:?}");
    PluginMeta {
        name: name.parse().expect("a valid name"),
        version: version.parse().expect("a valid version"),
        file: "libx.so".parse().expect("a valid file name"),
        hash: Digest::of(seed.as_bytes()),
        size: 1,
        abi: Abi::CURRENT,
        target: "any".to_owned(),
        handover: Handover::Pause,
        requires,
        wants: Wants::default(),
    }
}

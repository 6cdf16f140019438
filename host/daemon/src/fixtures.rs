//! What stands for a plugin in the tests of this crate.

use hotmerge_meta::{Abi, Digest, Handover, PluginMeta, Requires, Wants};

/// What a plugin's meta says, with a hash that depends on all arguments.
pub(crate) fn meta(name: &str, version: &str, requires: Vec<Requires>) -> PluginMeta {
    let seed = format!("{name} {version} {requires:?}");
    PluginMeta {
        name: name.parse().expect("a name"),
        version: version.parse().expect("a version"),
        file: "libx.so".parse().expect("a file name"),
        hash: Digest::of(seed.as_bytes()),
        size: 1,
        abi: Abi::CURRENT,
        target: "any".to_owned(),
        handover: Handover::Pause,
        requires,
        wants: Wants::default(),
    }
}

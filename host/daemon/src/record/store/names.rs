//! The names of the store's files.

use hotmerge_meta::{Digest, PluginName};

/// A plugin's record.
pub(super) fn record_name(plugin: &PluginName) -> String {
    format!("{plugin}.json")
}

/// A version's image.
pub(super) fn image_name(hash: &Digest) -> String {
    let hash = hash.to_string();
    format!("{}.so", hash.strip_prefix("sha256:").unwrap_or(&hash))
}

//! Prometheus and its lint, as Debian ships them.
//!
//! Absent on purpose: unpacking them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use crate::debian::unpacked;

/// The directory of the programs.
static PROGRAMS: LazyLock<PathBuf> =
    LazyLock::new(|| unpacked("prometheus", &["prometheus"]).join("usr/bin"));

/// `prometheus` or `promtool`.
pub fn prometheus(program: &str) -> Command {
    Command::new(Path::join(&PROGRAMS, program))
}

/// The names of the host's metrics in a text, without what a histogram adds to them.
pub fn hotmerge_metrics(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |it: char| it.is_ascii_lowercase() || it == '_';
    text.split(move |it: char| !is_part(it))
        .filter(|word| word.starts_with("hotmerge_") && !word.ends_with('_'))
        .map(|name| {
            let bare = ["_bucket", "_count", "_sum"];
            let bare = bare.iter().find_map(|ending| name.strip_suffix(ending));
            bare.unwrap_or(name)
        })
}

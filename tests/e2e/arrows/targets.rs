//! Every log record of the host has one of the documented targets, because users filter by them.

use std::{collections::BTreeSet, fs, path::Path};

use hotmerge_tests::repository;

const MACROS: &[&str] = &[
    "trace!(",
    "debug!(",
    "info!(",
    "warn!(",
    "error!(",
    "event!(",
    "enabled!(",
    "trace_span!(",
    "debug_span!(",
    "info_span!(",
    "warn_span!(",
    "error_span!(",
    "span!(",
];

/// What records of the host go to, and its plugins' own.
const TARGETS: &[&str] = &[
    "hotmerge::audit",
    "hotmerge::door",
    "hotmerge::host",
    "hotmerge::plugin",
    "hotmerge::watch",
    "hotmerge::worker",
    "plugin",
];

/// The calls of the tracing macros in a source text: line, and target if it is the first argument.
fn calls(text: &str) -> Vec<(usize, Option<&str>)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("!(") {
        let name_from = text[..at]
            .rfind(|sign: char| !(sign.is_alphanumeric() || sign == '_'))
            .map_or(0, |before| before + 1);
        if !MACROS.contains(&&text[name_from..at + 2]) {
            continue;
        }
        let arguments = text[at + 2..].trim_start();
        let target = arguments
            .strip_prefix("target: \"")
            .and_then(|rest| rest.split_once('"'))
            .map(|(target, _)| target);
        found.push((text[..at].lines().count(), target));
    }
    found
}

fn sources(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_log_record_has_a_documented_target() {
    let mut files = Vec::new();
    for name in ["daemon", "door", "instance", "observe", "program"] {
        sources(
            &repository().join("host").join(name).join("src"),
            &mut files,
        );
    }
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for file in &files {
        // What tests log to is theirs.
        let text = fs::read_to_string(file).expect("a source");
        let text = text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or(&text);
        for (line, target) in calls(text) {
            match target {
                Some(target) if TARGETS.contains(&target) => drop(used.insert(target.to_owned())),
                _ => wrong.push(format!("{}:{line}", file.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "no target of {TARGETS:?} at {wrong:#?}");
    assert!(used.iter().eq(TARGETS), "some are used nowhere: {used:?}");
}

#[test]
fn the_readme_lists_every_log_target() {
    let readme = fs::read_to_string(repository().join("README.md")).expect("a readme");
    for target in TARGETS {
        assert!(readme.contains(&format!("| `{target}` |")), "{target}");
    }
}

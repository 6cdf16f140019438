//! Every log record of the host has one of the documented targets, because users filter by them; and
//! what happens is recorded in one place.

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

/// Those of what an operator gets unasked. An `event!` may have any level.
const UNASKED: &[&str] = &["info!(", "warn!(", "error!(", "event!("];

/// Where the host's library writes them: of its events, and of what its plugins say.
const UNASKED_IN: &[&str] = &["daemon/src/record/log.rs", "instance/src/log.rs"];

/// A call of a tracing macro in a source text.
struct Call<'a> {
    name: &'a str,
    line: usize,
    /// If it is the first argument.
    target: Option<&'a str>,
}

/// The calls of the tracing macros in a source text.
fn calls(text: &str) -> Vec<Call<'_>> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("!(") {
        let name_from = text[..at]
            .rfind(|sign: char| !(sign.is_alphanumeric() || sign == '_'))
            .map_or(0, |before| before + 1);
        let name = &text[name_from..at + 2];
        if !MACROS.contains(&name) {
            continue;
        }
        let arguments = text[at + 2..].trim_start();
        let target = arguments
            .strip_prefix("target: \"")
            .and_then(|rest| rest.split_once('"'))
            .map(|(target, _)| target);
        let line = text[..at].lines().count();
        found.push(Call { name, line, target });
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

/// The sources of crates of the host: name below `host`, and text. What tests log to is theirs.
fn sources_of(crates: &[&str]) -> Vec<(String, String)> {
    let host = repository().join("host");
    let mut files = Vec::new();
    for name in crates {
        sources(&host.join(name).join("src"), &mut files);
    }
    let read = |file: std::path::PathBuf| {
        let text = fs::read_to_string(&file).expect("a source");
        let code = text.split("#[cfg(test)]\nmod tests").next();
        let name = file.strip_prefix(&host).expect("below it").display();
        (name.to_string(), code.unwrap_or_default().to_owned())
    };
    files.into_iter().map(read).collect()
}

/// An event that is logged past `record/events.rs` is missing in history, figures and subscriptions.
#[test]
fn what_happens_is_logged_in_one_place() {
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for (file, text) in sources_of(&["daemon", "instance"]) {
        for Call { name, line, .. } in calls(&text) {
            match UNASKED.contains(&name) {
                true if UNASKED_IN.contains(&&*file) => drop(used.insert(file.clone())),
                true => wrong.push(format!("{file}:{line}")),
                false => {}
            }
        }
    }
    assert!(wrong.is_empty(), "not in {UNASKED_IN:?}: {wrong:#?}");
    assert!(used.iter().eq(UNASKED_IN), "only in {used:?}");
}

#[test]
fn every_log_record_has_a_documented_target() {
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for (file, text) in sources_of(&["daemon", "door", "instance", "observe", "program"]) {
        for Call { line, target, .. } in calls(&text) {
            match target {
                Some(target) if TARGETS.contains(&target) => drop(used.insert(target.to_owned())),
                _ => wrong.push(format!("{file}:{line}")),
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

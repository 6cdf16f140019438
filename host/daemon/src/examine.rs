//! Tries what a host with this configuration needs from the system, without starting one.
//!
//! Invariant: it finds everything that keeps a host from starting or from running any plugin; what only
//! degrades it is a note. It leaves nothing behind but changed times of directories.
//!
//! Absent on purpose: single plugins, which [`judge`](crate::judge()) judges.

use std::time::{Duration, Instant};

use hotmerge_instance::{Isolation, Workers, settings::OnDegraded};
use rustix::process::{Resource, getrlimit};

use crate::{
    Config, StoreError,
    find::scan::Scanner,
    record::store::{Room, Store},
};

/// Descriptors of a plugin in a worker: the image, the process, its pipes and memory.
const PER_WORKER: u64 = 8;
/// Descriptors of a plugin in the host's process.
const PER_PLUGIN: u64 = 2;
/// Descriptors of the host itself: the store, watches, connections, and a start in progress.
const OF_THE_HOST: u64 = 128;

/// The finding about one part of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The name of the part.
    pub part: &'static str,
    /// Whether it suffices for a host.
    pub verdict: Verdict,
    /// What was found and, if it does not suffice, what to do about it.
    pub text: String,
}

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is in order.
    Good,
    /// A host runs, but not as well as it could.
    Less,
    /// A host does not start, or refuses every plugin.
    Bad,
}

/// Tries what a host with this configuration needs from the system.
pub fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![memory(), sandbox(config)];
    findings.extend(state_dir(config));
    findings.push(open_files(config));
    findings
}

fn finding(part: &'static str, verdict: Verdict, text: impl Into<String>) -> Finding {
    let text = text.into();
    Finding {
        part,
        verdict,
        text,
    }
}

fn memory() -> Finding {
    match hotmerge_loader::try_memory() {
        Ok(()) => finding("memory for plugins", Verdict::Good, "can be sealed and run"),
        Err(error) => finding("memory for plugins", Verdict::Bad, error.to_string()),
    }
}

/// Whether any plugin is to run in its own process.
fn wants_processes(config: &Config) -> bool {
    let all = config.isolation.unwrap_or(Isolation::Process);
    let own = config.plugin.values().filter_map(|own| own.isolation);
    own.chain([all]).any(|it| it != Isolation::Host)
}

fn sandbox(config: &Config) -> Finding {
    let part = "sandbox";
    if !wants_processes(config) {
        return finding(
            part,
            Verdict::Good,
            "not needed: plugins run in the host's own process",
        );
    }
    let workers = Workers::new(config.settings());
    let missing = workers.missing().join("; ");
    let refuses = config.degraded == OnDegraded::Refuse;
    match (workers.available(), missing.is_empty()) {
        (true, true) => finding(part, Verdict::Good, "complete"),
        (true, false) if refuses => finding(
            part,
            Verdict::Bad,
            format!("incomplete, and the configuration says `degraded = \"refuse\"`: {missing}"),
        ),
        (true, false) => finding(part, Verdict::Less, format!("degraded: {missing}")),
        (false, _) => without_processes(&workers, config, &missing),
    }
}

/// The finding that no worker can be started.
fn without_processes(workers: &Workers, config: &Config, missing: &str) -> Finding {
    let part = "sandbox";
    // The isolation of a plugin without its own settings.
    match workers.isolation("") {
        Err(_) => finding(
            part,
            Verdict::Bad,
            format!("plugins must run in worker processes: {missing}"),
        ),
        Ok(_) if config.isolation == Some(Isolation::Host) => finding(
            part,
            Verdict::Less,
            format!("plugins that must run in worker processes are refused: {missing}"),
        ),
        Ok(_) => finding(
            part,
            Verdict::Less,
            format!("plugins run in the host's own process: {missing}"),
        ),
    }
}

fn state_dir(config: &Config) -> Option<Finding> {
    let part = "state directory";
    let default = Config::default_state_dir().filter(|_| config.state_dir.is_none());
    let is_default = default.is_some();
    let dir = config.state_dir.clone().or(default)?;
    let shown = dir.display();
    let unusable = match is_default {
        // A host runs without one that nobody configured.
        true => Verdict::Less,
        false => Verdict::Bad,
    };
    Some(match Store::examine(&dir) {
        Ok(Room { exists, free_bytes }) => {
            let needed = stored_bytes(config);
            let (free, wanted) = (free_bytes >> 20, needed.div_ceil(1 << 20));
            if free_bytes < needed {
                let text = format!(
                    "`{shown}` has {free} MiB free, and {wanted} MiB are needed for a copy of every \
                     plugin: versions are kept only as far as there is room"
                );
                finding(part, Verdict::Less, text)
            } else if exists {
                let text = format!("`{shown}` can be written, {free} MiB are free");
                finding(part, Verdict::Good, text)
            } else {
                let text =
                    format!("`{shown}` does not exist yet and can be created, {free} MiB are free");
                finding(part, Verdict::Good, text)
            }
        }
        // Root may check a configuration that another user will run.
        Err(StoreError::Unsafe { owner, .. }) if is_another_users(owner) => finding(
            part,
            Verdict::Less,
            format!("`{shown}` belongs to the user {owner}: only a host of that user can use it"),
        ),
        Err(error) => finding(part, unusable, error.to_string()),
    })
}

fn is_another_users(owner: u32) -> bool {
    rustix::process::geteuid().is_root() && owner != 0
}

/// The size of one copy of every plugin, in bytes.
fn stored_bytes(config: &Config) -> u64 {
    found(config).map(|(_, bytes)| bytes).sum()
}

/// For each plugin of the directory: whether it runs in its own process, and its size.
fn found(config: &Config) -> impl Iterator<Item = (bool, u64)> {
    let dir = config.plugin_dir.clone().unwrap_or_default();
    let findings = Scanner::new(dir, Duration::ZERO)
        .trusting(config.trust())
        .scan(Instant::now());
    let all = config.isolation;
    findings.changed.into_iter().map(move |found| {
        let own = config.plugin.get(&found.meta.name);
        let isolation = own.and_then(|own| own.isolation).or(all);
        (isolation != Some(Isolation::Host), found.meta.size)
    })
}

/// Compares the number of files that a host of these plugins opens with the hard limit; the host raises
/// the soft one itself.
fn open_files(config: &Config) -> Finding {
    let part = "open files";
    let (in_workers, in_host): (Vec<_>, Vec<_>) = found(config).partition(|(apart, _)| *apart);
    let plugins = in_workers.len() + in_host.len();
    let once = in_workers.len() as u64 * PER_WORKER + in_host.len() as u64 * PER_PLUGIN;
    // The store keeps none open, but every old version runs on until its successor has taken over.
    let (least, most) = (once + OF_THE_HOST, 2 * once + OF_THE_HOST);
    let plugins = hotmerge_meta::count(plugins as u64, "plugin");
    let need =
        format!("a host with {plugins} needs {least}, and {most} while all of them are replaced");
    let Some(limit) = getrlimit(Resource::Nofile).maximum else {
        return finding(part, Verdict::Good, format!("{need}; there is no limit"));
    };
    let need = format!("{need}; the limit is {limit}");
    match limit {
        limit if limit >= most => finding(part, Verdict::Good, need),
        limit if limit >= least => finding(
            part,
            Verdict::Less,
            format!("{need}, so replacements wait for each other: raise it ({RAISE})"),
        ),
        _ => finding(
            part,
            Verdict::Less,
            format!("{need}, so some plugins wait until it is raised ({RAISE})"),
        ),
    }
}

const RAISE: &str = "`ulimit -Hn`, `LimitNOFILE=`, or `rc_ulimit`";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn config(dir: &std::path::Path) -> Config {
        Config {
            plugin_dir: Some(dir.to_owned()),
            isolation: Some(Isolation::Host),
            ..Config::default()
        }
    }

    #[test]
    fn a_bad_state_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.state_dir = Some(dir.path().join("new"));
        let found = state_dir(&config).unwrap();
        assert_eq!(found.verdict, Verdict::Good, "{found:?}");
        assert!(found.text.contains("does not exist yet"), "{found:?}");
        assert!(!dir.path().join("new").exists(), "it was made");

        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        config.state_dir = Some(state.clone());
        let found = state_dir(&config).unwrap();
        assert_eq!(found.verdict, Verdict::Good, "{found:?}");
        assert_eq!(std::fs::read_dir(&state).unwrap().count(), 0);

        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o777)).unwrap();
        let found = state_dir(&config).unwrap();
        assert_eq!(found.verdict, Verdict::Bad, "{found:?}");
        assert!(found.text.contains("chmod go-w"), "{found:?}");

        std::fs::write(dir.path().join("file"), "").unwrap();
        config.state_dir = Some(dir.path().join("file/below"));
        let found = state_dir(&config).unwrap();
        assert_eq!(found.verdict, Verdict::Bad, "{found:?}");
        assert!(found.text.contains("Not a directory"), "{found:?}");
    }
}

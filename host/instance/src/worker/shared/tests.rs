//! What a host decides about workers before any runs.

use super::*;
use crate::{settings::PluginSettings, worker::fixtures::settings};

impl Workers {
    pub(in crate::worker) fn without_processes(settings: Settings) -> Arc<Self> {
        Arc::new(Self::unprepared(settings))
    }

    /// Launches this program instead of the worker program, without namespaces.
    pub(in crate::worker) fn with_program(settings: Settings, program: OwnedFd) -> Arc<Self> {
        let unprepared = Self::unprepared(settings);
        unprepared.expect_signals().unwrap();
        let policy = policies::syscalls(&unprepared.settings().policies).unwrap();
        Arc::new(Self {
            program: Some(program),
            policy: Some(policy),
            namespaces: false,
            own_users: false,
            ..unprepared
        })
    }
}

/// How a plugin runs that wants this, on a host that has processes or not, and lacks parts or not.
fn isolation(
    wanted: Option<Isolation>,
    degraded: OnDegraded,
    has_processes: bool,
    missing: &[&str],
) -> Result<Isolation, String> {
    let settings = Settings {
        degraded,
        by_default: PluginSettings {
            isolation: wanted,
            ..PluginSettings::default()
        },
        ..settings()
    };
    let null = File::open("/dev/null").unwrap();
    let workers = Workers {
        program: has_processes.then(|| null.into()),
        missing: missing.iter().map(ToString::to_string).collect(),
        ..Workers::unprepared(settings)
    };
    workers.isolation("one").map_err(|error| error.to_string())
}

#[test]
fn plugins_run_in_workers_where_there_are_any() {
    use Isolation::{Host, Process};
    let run = OnDegraded::Run;
    assert_eq!(isolation(None, run, true, &[]), Ok(Process));
    assert_eq!(isolation(None, run, true, &["Landlock"]), Ok(Process));
    assert_eq!(isolation(Some(Host), run, true, &[]), Ok(Host));
    assert_eq!(isolation(None, run, false, &["workers"]), Ok(Host));
    let refused = isolation(Some(Process), run, false, &["workers"]).unwrap_err();
    assert!(refused.contains("workers"), "{refused}");
}

#[test]
fn a_strict_operator_gets_no_degraded_sandbox() {
    use Isolation::{Host, Process};
    let refuse = OnDegraded::Refuse;
    assert_eq!(isolation(None, refuse, true, &[]), Ok(Process));
    assert_eq!(isolation(Some(Host), refuse, false, &["workers"]), Ok(Host));
    for (wanted, has_processes) in [(None, true), (Some(Process), true), (None, false)] {
        let refused = isolation(wanted, refuse, has_processes, &["Landlock"]).unwrap_err();
        assert!(refused.contains("Landlock"), "{refused}");
    }
}

#[test]
fn an_untrusted_program_moves_nothing_into_the_host() {
    let workers = Workers {
        never_in_host: true,
        missing: vec!["workers: others may write to it".to_owned()],
        ..Workers::unprepared(settings())
    };
    let refused = workers.isolation("one").unwrap_err();
    assert!(matches!(refused, IsolationError::NoProcess(_)), "{refused}");
}

#[test]
fn a_missing_program_is_named() {
    let path = Path::new("/nowhere/worker");
    let error = Workers::find_program(Some(path), &Trust::anybody())
        .unwrap_err()
        .to_string();
    assert!(error.contains("`/nowhere/worker`"), "{error}");
}

#[test]
fn signals_between_two_reports_count_once() {
    let workers = Workers::unprepared(settings());
    assert_eq!(workers.crash_signals(), 0);
    workers.signalled.store(true, Ordering::Relaxed);
    workers.signalled.store(true, Ordering::Relaxed);
    assert_eq!((workers.crash_signals(), workers.crash_signals()), (1, 1));
}

#[test]
fn only_a_root_host_changes_users() {
    let null = File::open("/dev/null").unwrap();
    let workers = Workers::with_program(settings(), null.into());
    let none = Default::default();
    let refused = workers.launch(Parts {
        image: None,
        plugin: "one",
        libraries: &[],
        header: [0; 16],
        constructors: &none,
        grants: &[],
        judged: &[],
        limits: Default::default(),
        calls_others: false,
        user: Some(70_000),
    });
    let refused = refused.map(drop).unwrap_err();
    assert!(matches!(refused, LaunchError::OtherUser), "{refused}");
}

#[test]
fn the_worker_is_looked_for_where_it_says() {
    let places = |dir: &str| {
        let places = places(Path::new(dir)).into_iter();
        places.map(|place| place.display().to_string())
    };
    assert!(places("/opt/bin").eq(["/opt/bin", "/opt/bin/../libexec/hotmerge", LIBEXEC]));
    assert!(places("/w/target/debug/examples").eq([
        "/w/target/debug/examples",
        "/w/target/debug/examples/..",
        "/w/target/debug/examples/../libexec/hotmerge",
        LIBEXEC,
    ]));
}

//! The reaction to a panic when no thread is available.

use hotmerge_instance::{Report, Upward as _};
use hotmerge_lifecycle::{Machine, Next, Origin, Step, Target};
use hotmerge_meta::testing;

use super::*;
use crate::{
    Config,
    supervise::{services::Services, threads::trial},
};

/// A host that takes a plugin for running.
fn host(dir: &tempfile::TempDir) -> (Arc<Supervisor>, Services) {
    let host = Supervisor::new(
        Config::default(),
        dir.path().to_owned(),
        None,
        Arc::new(|| {}),
        Arc::new(drop),
    );
    let meta = Arc::new(testing::plugin("a", "1.0.0", Vec::new()));
    let name = meta.name.clone();
    let target = Target {
        meta: Arc::clone(&meta),
        origin: Origin::Package("p".parse().expect("a name")),
        takes_state: true,
        is_ordered: false,
    };
    let mut state = host.state();
    let machine = &mut state.machine;
    let begun: Vec<Step> = machine.scanned(vec![(target, Why::Changed)], &[]);
    drop(begun);
    let (ticket, _) = machine.slot("a").and_then(Slot::candidate).expect("one");
    let go = |machine: &mut Machine, event| drop(machine.apply(&name, event));
    go(machine, Event::Verified { ticket });
    let next = Next::Switch;
    go(machine, Event::Started { ticket, next });
    drop(state);
    let host = Arc::new(host);
    let services = Services::new(&meta, ticket, Arc::default(), Arc::downgrade(&host));
    (host, services)
}

fn status(host: &Supervisor) -> hotmerge_meta::control::PluginStatus {
    host.snapshot().plugins.pop().expect("it is known")
}

#[test]
fn a_panic_without_a_free_thread_is_queued() {
    let dir = tempfile::tempdir().expect("a directory");
    let (host, services) = host(&dir);
    let was_replaced = || {
        let history = &host.state().history;
        let mut told = history.transitions(None);
        told.any(|it| it.reason.contains("a replacement takes over"))
    };
    trial::NONE.set(true);
    services.report(Report::Panicked {
        failure: Failure::from("panicked: no"),
        state_age: None,
    });
    let first = status(&host);
    let [why] = &*first.waiting else {
        panic!("it says so: {:?}", first.waiting);
    };
    assert!(
        why.contains("no thread was available to replace it after it panicked: no"),
        "{why}"
    );
    // The clock retries, still without a thread.
    let next = host
        .background
        .retry(&host, Instant::now())
        .expect("when to try again");
    host.background.retry(&host, next);
    let next = host
        .background
        .retry(&host, Instant::now())
        .expect("when to try again");
    assert!(status(&host).waiting.len() == 1 && !was_replaced());
    assert_eq!(trial::join(), 0);

    trial::NONE.set(false);
    assert_eq!(host.background.retry(&host, next), None);
    assert_eq!(trial::join(), 1);
    assert!(was_replaced());
    let then = status(&host);
    assert_eq!(then.waiting, [""; 0]);
    assert_eq!(then.last_failure.expect("it is told").what, "panicked: no");
    assert_eq!(host.background.retry(&host, Instant::now()), None, "once");
}

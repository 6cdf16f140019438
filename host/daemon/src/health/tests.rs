//! What becomes of a panic for which there is no thread.

use super::*;
use crate::{
    Config,
    lifecycle::{Machine, Next, Origin, Step, Target, tests::meta},
    threads::trial,
};

/// A host that believes that a plugin runs.
fn host(dir: &tempfile::TempDir) -> (Arc<Supervisor>, Reporter) {
    let host = Supervisor::new(Config::default(), dir.path().to_owned(), None);
    let meta = meta("a", "1.0.0", Vec::new());
    let name = meta.name.clone();
    let target = Target {
        meta: Arc::new(meta),
        origin: Origin::Package("p".parse().expect("a name")),
        takes_state: true,
    };
    let mut state = host.state();
    let machine = &mut state.machine;
    let begun: Vec<Step> = machine.look(vec![(target, false)], &[]);
    drop(begun);
    let (ticket, _) = machine.slot("a").and_then(Slot::candidate).expect("one");
    let go = |machine: &mut Machine, event| drop(machine.apply(&name, event));
    go(machine, Event::Verified { ticket });
    let next = Next::Switch;
    go(machine, Event::Started { ticket, next });
    drop(state);
    let host = Arc::new(host);
    let reporter = Reporter::new(name, ticket, Arc::downgrade(&host));
    (host, reporter)
}

fn status(host: &Supervisor) -> crate::status::PluginStatus {
    let (mut plugins, _) = host.plugin_status();
    plugins.pop().expect("it is known")
}

#[test]
fn a_panic_for_which_there_is_no_thread_is_shown_and_seen_to_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let (host, reporter) = host(&dir);
    let was_replaced = || {
        let history = &host.state().history;
        let mut told = history.transitions(None);
        told.any(|it| it.reason.contains("another one takes its place"))
    };
    trial::NONE.set(true);
    reporter.caught(Failure::from("panicked: no"), None);
    let first = status(&host);
    let why = first.not_replaced.expect("it says so");
    assert!(why.contains("failed to start a thread"), "{why}");
    // The clock is to come back, and does so in vain.
    let next = host.attend(Instant::now()).expect("when to try again");
    host.attend(next);
    let next = host.attend(Instant::now()).expect("when to try again");
    assert!(status(&host).not_replaced.is_some() && !was_replaced());
    assert_eq!(trial::join(), 0);

    trial::NONE.set(false);
    assert_eq!(host.attend(next), None);
    assert_eq!(trial::join(), 1);
    assert!(was_replaced());
    let then = status(&host);
    assert_eq!(then.not_replaced, None);
    assert_eq!(then.last_failure.expect("it is told").what, "panicked: no");
    assert_eq!(host.attend(Instant::now()), None, "once");
}

//! In which order the thread of a worker learns of things.

use hotmerge_meta::testing::plugin;

use super::*;
use crate::{
    settings::RestartConfig,
    worker::{
        fixtures::{self, Host, settings},
        process::tests::child,
    },
};

/// On a busy machine the whole teardown may pass while the thread sleeps.
#[test]
fn an_ordered_end_is_never_a_crash() {
    let (host, reports) = Host::alone();
    let worker = fixtures::worker(settings(), host);
    let name = plugin("one", "1.0.0", Vec::new()).name;
    let (mut machine, _) = Machine::begin(name, RestartConfig::default());
    let _ = machine.on(Event::Started, Instant::now());
    let mut life = Life {
        worker: Arc::clone(&worker),
        machine,
        current: Some(child("exit 0")),
        next: None,
        starting: None,
        events: VecDeque::new(),
    };
    worker.state().ending = true;
    life.note_current(Some((Observed::default(), true)));
    while let Some(event) = life.events.pop_front() {
        life.handle(event);
    }
    assert!(life.machine.has_ended());
    let report = reports.try_recv();
    assert!(report.is_err(), "{report:?}");
}

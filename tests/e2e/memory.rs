//! A thousand reloads leave nothing in the host's memory.

use hotmerge_meta::control::Client;
use hotmerge_tests::{Lab, Variant, actor, call, reload_after};

/// What a reload may leave behind on average, in KiB: its outcome and its transitions in the
/// host's history (0.7 to 1.1 were seen), which is bounded. A version that stays mapped leaves
/// more than a hundred times this.
const RELOAD_KIB: u64 = 2;

/// Versions that take turns.
struct Turns {
    lab: Lab,
    versions: [Variant; 2],
    turn: usize,
}

impl Turns {
    fn new() -> Self {
        let turns = Self {
            lab: Lab::new(),
            versions: [actor("mark=even"), actor("mark=odd")],
            turn: 0,
        };
        turns.lab.package("one").put(&[&turns.versions[0]]);
        turns
    }

    /// Reloads so often, over one connection, with a call of each version.
    fn reload(&mut self, times: usize, client: &mut Client, name: &str) {
        for _ in 0..times {
            self.turn += 1;
            let next = &self.versions[self.turn % 2];
            let report = reload_after(client, || self.lab.package("one").put(&[next]));
            assert_eq!(report.plugins[0].generation, Some(self.turn as u64 + 1));
            call(client, "actor", name, b"").unwrap();
        }
    }
}

#[test]
fn a_thousand_reloads_leak_no_mapping() {
    let mut turns = Turns::new();
    let host = turns.lab.start_with_one_heap();
    let mut client = host.client();
    turns.reload(100, &mut client, "mark");
    let before = host.at_rest();
    turns.reload(900, &mut client, "mark");
    let after = host.holds_no_more_than(&before, 900 * RELOAD_KIB);

    let status = host.status();
    assert_eq!((status.host.retained, status.plugins[0].retained), (0, 0));
    assert_eq!(status.plugins[0].generation, 1001);
    println!("before 900 reloads {before:?}, after them {after:?}");
    host.stop();
}

#[test]
fn versions_that_stay_mapped_are_reported() {
    const RELOADS: u64 = 20;
    for keeps in ["cling", "leave-thread"] {
        let mut turns = Turns::new();
        let host = turns.lab.start_with_one_heap();
        // This connection's thread lives on in the host, and with it what it touched.
        let mut client = host.client();
        call(&mut client, "actor", keeps, b"").unwrap();
        let before = host.at_rest();
        turns.reload(RELOADS as usize, &mut client, keeps);
        host.wait_for("all old versions counted", |status| {
            (status.host.retained == RELOADS).then_some(())
        });
        let plugin = host.plugin("actor");
        assert_eq!(plugin.retained, RELOADS);
        let after = host.at_rest();
        assert!(
            after.mappings >= before.mappings + 2 * RELOADS as usize,
            "{keeps}: they are unmapped: {before:?} {after:?}"
        );
        let shown = turns.lab.hotmerge(["status"]).ok().text();
        assert!(
            shown.contains("20 old versions could not be unmapped"),
            "{shown}"
        );
        assert!(shown.contains("20 old versions still mapped"), "{shown}");
        assert_eq!(host.text("actor", "mark"), "even");
        host.stop();
    }
}

#[test]
fn a_refused_version_leaves_no_mapping() {
    let turns = Turns::new();
    let host = turns.lab.start_with_one_heap();
    let refused = |number: usize| {
        let script = ["start=refuse", "start=panic", "check=refuse"][number % 3];
        let bad = actor(&format!("mark={number} {script}"));
        let report = host.reload_after(|| turns.lab.package("one").put(&[&bad]));
        assert!(report.plugins[0].reason.is_some());
    };
    (0..30).for_each(refused);
    let before = host.at_rest();
    (30..130).for_each(refused);
    host.holds_no_more_than(&before, 100 * RELOAD_KIB);
    assert_eq!(host.plugin("actor").generation, 1);
    host.stop();
}

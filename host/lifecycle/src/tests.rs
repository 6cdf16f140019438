//! Random orders of events, before a host that is only a model.

use std::sync::{Arc, LazyLock};

use hotmerge_meta::{OnReplace, PluginMeta, PluginName, Requires, testing::plugin as meta};
use proptest::{collection::vec, prelude::*};

use super::*;

mod calls;
mod cases;
mod model;

use calls::Calls;
use model::{Model, Place};

const PLUGINS: usize = 4;
/// Versions of a plugin that differ in number, code and requirements.
const KINDS: usize = 6;

static NAMES: LazyLock<Vec<PluginName>> = LazyLock::new(|| {
    (0..PLUGINS)
        .map(|index| format!("p{index}").parse().expect("a name"))
        .collect()
});

static METAS: LazyLock<Vec<Vec<Arc<PluginMeta>>>> = LazyLock::new(|| {
    (0..PLUGINS)
        .map(|plugin| {
            (0..KINDS)
                .map(|kind| Arc::new(kind_of(plugin, kind)))
                .collect()
        })
        .collect()
});

/// Kinds 0 to 4 require nothing or plugins before them; 5 may close a circle.
fn kind_of(plugin: usize, kind: usize) -> PluginMeta {
    let requires = |other: usize, version: &str, on_replace| Requires {
        name: NAMES[other].clone(),
        version: version.parse().expect("a requirement"),
        on_replace,
    };
    let before = plugin.checked_sub(1);
    let requires = match (kind, before) {
        (2, Some(before)) => vec![requires(before, "^1", OnReplace::Rebind)],
        (3, Some(before)) => vec![requires(before, ">=1", OnReplace::Reload)],
        (4, Some(before)) => vec![requires(before, "^2", OnReplace::Rebind)],
        (5, _) => vec![requires((plugin + 1) % PLUGINS, ">=1", OnReplace::Rebind)],
        _ => Vec::new(),
    };
    meta(
        NAMES[plugin].as_str(),
        if kind.is_multiple_of(2) {
            "1.0.0"
        } else {
            "2.0.0"
        },
        requires,
    )
}

fn staged(meta: &Arc<PluginMeta>) -> Target {
    Target {
        meta: Arc::clone(meta),
        origin: Origin::Package("p".parse().expect("a package")),
        takes_state: true,
        is_ordered: false,
    }
}

fn run(orders: &[(u8, u8)]) {
    let mut model = Model::default();
    for (what, how) in orders {
        model.act(*what, *how);
    }
    model.come_to_rest();
    model.check_at_rest();
    model.stopping = true;
    model.directory.clear();
    let steps = model.machine.stop();
    model.carry_out(steps);
    model.come_to_rest();
    model.check_at_rest();
    assert!(model.machine.slots().is_empty(), "something is left");
    let ended = |(_, place): &(PluginName, Place)| *place == Place::Ended;
    assert!(model.started.values().all(ended), "a version was not ended");
}

/// Found by chance: a candidate in the place of one that crashed, and one that an operator chose,
/// which require each other.
#[test]
fn mutually_dependent_candidates_do_not_deadlock() {
    run(&[
        (16, 142),
        (192, 185),
        (112, 27),
        (119, 0),
        (55, 10),
        (0, 92),
        (6, 0),
        (103, 2),
        (96, 123),
        (55, 82),
        (39, 0),
        (39, 74),
        (231, 2),
        (0, 1),
        (71, 24),
        (16, 2),
        (16, 238),
        (23, 1),
        (96, 20),
        (102, 118),
        (38, 0),
        (166, 0),
        (80, 2),
        (53, 4),
        (80, 62),
        (7, 152),
        (5, 219),
    ]);
}

/// Found by chance: a version that crashed on its way out, and stays because of a choice.
#[test]
fn a_plugin_that_crashed_while_leaving_returns_replaced() {
    run(&[
        (96, 76),
        (0, 38),
        (23, 0),
        (7, 18),
        (7, 1),
        (96, 41),
        (23, 18),
        (7, 10),
        (183, 42),
        (7, 0),
        (0, 1),
        (0, 41),
        (229, 112),
        (20, 72),
        (38, 12),
        (16, 56),
    ]);
}

/// Found by chance: a version was refused, then a restart of the live one, which succeeds at last.
#[test]
fn a_refused_restart_hides_no_refused_version() {
    run(&[
        (96, 5),
        (208, 18),
        (40, 2),
        (56, 2),
        (136, 74),
        (8, 2),
        (0, 73),
        (151, 165),
        (94, 0),
        (165, 66),
        (24, 1),
        (56, 216),
        (0, 70),
        (0, 2),
        (55, 173),
    ]);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: orders(),
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn promises_hold_in_any_order_of_events(orders in vec(any::<(u8, u8)>(), 0..64)) {
        run(&orders);
    }
}

/// `HOTMERGE_ORDERS` says how many; a million and more take minutes, and an optimised build.
fn orders() -> u32 {
    let asked = std::env::var("HOTMERGE_ORDERS").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(10_000)
}

//! Plugins that attack while state is handed over and while they end: a new version takes over
//! or the old one stays, and nothing is left behind.

use std::time::Duration;

use hotmerge_tests::{Lab, Neighbour, TestHost, UNTIRING, Variant, actor, attacks_at};

/// What a plugin may do at the worst moment, each in its own way.
const ATTACKS: [&str; 8] = [
    "hang",
    "segv",
    "exec",
    "exit",
    "exit-thread",
    "kill-all",
    "print-flood",
    // What it failed with is 64 MiB long.
    "fail-long",
];

fn start(lab: &Lab) -> Option<TestHost> {
    lab.package("hostile").put(&[&attacks_at("")]);
    lab.package("good").put(&[&actor("mark=1")]);
    lab.start_sandboxed(&format!(
        "{UNTIRING}teardown_ms = 300\nhandover_ms = 300\nstart_ms = 4000\n"
    ))
}

/// The one reason for which a good version may be kept out.
const NOT_SAVED: &str = "did not save its state";

/// Goes from one version to another, for each attack; then to an honest one.
fn attack(scripts: impl Fn(&str) -> [Variant; 2]) {
    let lab = Lab::new();
    let Some(host) = start(&lab) else {
        return;
    };
    let mut neighbour = Neighbour::of(&host, "actor", "mark");
    let package = lab.package("hostile");
    let tries = |name: &str| {
        for version in scripts(name) {
            package.put(&[&version]);
            host.reload();
            host.answers_again("attacks");
        }
        let refused = host.plugin("attacks").refused.map(|attempt| attempt.reason);
        let reason = refused.unwrap_or_else(|| NOT_SAVED.to_owned());
        assert!(reason.contains(NOT_SAVED), "after {name}: {reason}");
        // What cannot hand over its state can still be taken away.
        package.remove();
        host.reload();
        package.put(&[&attacks_at(&format!("after={name}"))]);
        host.reload();
        host.answers_again("attacks");
        let refused = host.plugin("attacks").refused;
        let said = lab.hotmerge(["status"]).ok().text().len();
        assert!(said < 64 << 10, "after {name}: a status of {said} bytes");
        assert!(refused.is_none(), "after {name}: {refused:?}");
    };
    // What is made once, such as the log's room and versions that are kept, is no leak.
    for name in ["print-flood", "segv", "fail-long"] {
        tries(name);
    }
    neighbour.remember(&host);
    for name in ATTACKS {
        tries(name);
        neighbour.goes_on(&host, name);
    }
    let log = neighbour.unharmed(host);
    let longest = log.messages().iter().map(String::len).max();
    assert!(longest < Some(16 << 10), "{longest:?} bytes in one record");
}

#[test]
fn an_attack_in_save_only_blocks_the_reload() {
    attack(|name| [attacks_at(&format!("save={name}")), attacks_at("")]);
}

#[test]
fn an_attack_in_restore_affects_only_itself() {
    attack(|name| [attacks_at(&format!("restore={name}")), attacks_at("")]);
}

#[test]
fn an_attack_in_teardown_does_not_block_reloads() {
    attack(|name| [attacks_at(&format!("teardown={name}")), attacks_at("")]);
}

/// The teardown, a second for the end of the process, and a second for the host itself.
const HINDERED: Duration = Duration::from_millis(300 + 1000 + 1000);

#[test]
fn hostile_plugins_cannot_block_a_shutdown() {
    let lab = Lab::new();
    let variants: Vec<_> = ATTACKS
        .iter()
        .map(|name| attacks_at(&format!("teardown={name}")).named(name))
        .collect();
    lab.package("hostile")
        .put(&variants.iter().collect::<Vec<_>>());
    lab.package("good").put(&[&actor("mark=1")]);
    let Some(host) = lab.start_sandboxed("teardown_ms = 300\n") else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    neighbour.unharmed_within(host, HINDERED);
}

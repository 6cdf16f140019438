//! Plugins that attack while state is handed over and while they end: a new version takes over
//! or the old one stays, and nothing is left behind.

use std::time::Duration;

use hotmerge_tests::{Lab, Neighbour, TestHost, UNTIRING, actor, attacks_at, cause};

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

/// Nothing is saved but when a version is replaced.
const LIMITS: &str = "teardown_ms = 3000\nhandover_ms = 15000\nsave_s = 0\n";

fn start(lab: &Lab) -> Option<TestHost> {
    lab.package("hostile").put(&[&attacks_at("")]);
    lab.package("good").put(&[&actor("mark=1")]);
    lab.start_sandboxed(&format!("{UNTIRING}{LIMITS}"))
}

const DEADLINE: &str = "the deadline of the call has passed";
const TOO_LATE: &str = "its state was not handed over within 15000 ms; its worker is ended";
const ADVICE: &str = "; `hotmerge reload attacks --without-state` replaces it without its state";

/// How an attack ends its worker, if it does.
fn killed(name: &str, step: &str) -> Option<String> {
    let how = match name {
        "segv" => "was killed by SIGSEGV at 0x8",
        "exec" => "was killed by SIGSYS: it made a system call that is never allowed",
        "exit" => "exited with status 0 without being asked to",
        _ => return None,
    };
    Some(format!("{how}, while {step}"))
}

/// Why a step fails, if it does and the reason is reported. In a teardown nothing but its end is expected.
fn failure(name: &str, step: &str) -> Option<String> {
    let told = killed(name, step).map(|how| format!("the plugin {how}"));
    told.or_else(|| (name == "fail-long").then(|| "x … (… bytes left out) … x".to_owned()))
}

/// A reason without most of its 64 MiB.
fn squeezed(reason: &str) -> String {
    let mut squeezed = String::new();
    for sign in cause(reason).chars() {
        let is_number = sign.is_ascii_digit() && squeezed.ends_with(['(', '…']);
        match sign {
            'x' if squeezed.ends_with('x') => {}
            _ if is_number => {
                if squeezed.ends_with('(') {
                    squeezed.push('…');
                }
            }
            sign => squeezed.push(sign),
        }
    }
    squeezed
}

/// Why the version that was put last was refused, if it was.
fn refused(host: &TestHost) -> Option<String> {
    let refused = host.plugin("attacks").refused?;
    Some(squeezed(&refused.reason))
}

/// Goes from one version to another, for each attack, which `check` looks at; then to an honest one.
fn attack(check: impl Fn(&TestHost, &str, &dyn Fn(&str))) {
    let lab = Lab::new();
    let Some(host) = start(&lab) else {
        return;
    };
    let mut neighbour = Neighbour::of(&host, "actor", "mark");
    let package = lab.package("hostile");
    let put = |script: &str| {
        package.put(&[&attacks_at(script)]);
        host.reload();
        host.answers_again("attacks");
    };
    let tries = |name: &str| {
        check(&host, name, &put);
        // What cannot hand over its state can still be taken away.
        package.remove();
        host.reload();
        put(&format!("after={name}"));
        let refused = host.plugin("attacks").refused;
        let said = lab.hotmerge(["status"]).ok().text().len();
        assert!(said < 64 << 10, "after {name}: a status of {said} bytes");
        assert!(refused.is_none(), "after {name}: {refused:?}");
    };
    // What is made once, such as the log's room and versions that are kept, is not a leak.
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
    attack(|host, name, put| {
        let step = "it saved its state";
        put(&format!("save={name}"));
        assert_eq!(refused(host), None, "{name}");
        let restarts = host.plugin("attacks").restarts;
        put("");
        let reason = match name {
            "hang" | "exit-thread" | "print-flood" => Some(DEADLINE.to_owned()),
            _ => failure(name, step),
        };
        let reason =
            reason.map(|why| format!("the running version did not save its state: {why}{ADVICE}"));
        // Whether the host takes a flood in time depends on when it began.
        let is_in_time = name == "print-flood" && refused(host).is_none();
        assert!(
            is_in_time || refused(host) == reason,
            "{name}: {:?}",
            refused(host)
        );
        let ended = match name {
            "hang" | "exit-thread" => Some(format!(
                "hung: a call continued after its deadline, while {step}"
            )),
            _ => killed(name, step),
        };
        if let Some(ended) = ended {
            assert_eq!(cause(&host.replaced("attacks", restarts + 1)), ended);
        }
    });
}

#[test]
fn an_attack_in_restore_affects_only_itself() {
    attack(|host, name, put| {
        put(&format!("restore={name}"));
        let failure = failure(name, "it restored a state").map(|why| {
            format!("it did not take over the state of the running version: {why}{ADVICE}")
        });
        let reason = match name {
            "hang" | "exit-thread" => Some(format!("{TOO_LATE}{ADVICE}")),
            _ => failure,
        };
        assert_eq!(refused(host), reason, "{name}");
        put("");
        assert_eq!(refused(host), None, "{name}");
        assert_eq!(host.plugin("attacks").restarts, 0, "{name}");
    });
}

#[test]
fn an_attack_in_teardown_does_not_block_reloads() {
    attack(|host, name, put| {
        put(&format!("teardown={name}"));
        let logged = host.log().len();
        put("");
        assert_eq!(refused(host), None, "{name}");
        let why = match name {
            "hang" | "exit-thread" => Some(DEADLINE.to_owned()),
            _ => failure(name, "it was torn down"),
        };
        if let Some(why) = why {
            host.log()
                .wait_from(logged, "why the teardown failed", |record| {
                    let text = record["message"].as_str().unwrap_or_default();
                    squeezed(text) == format!("teardown failed: {why}")
                });
        }
        assert_eq!(host.plugin("attacks").restarts, 0, "{name}");
    });
}

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
    neighbour.unharmed_though(host, Duration::from_millis(300));
}

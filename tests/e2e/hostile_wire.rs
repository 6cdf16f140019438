//! Plugins that write to the memory shared by host and worker: the host trusts
//! nothing that it has not checked, and no other plugin notices.

use std::thread;

use hotmerge_meta::{
    OnReplace,
    control::{CallParams, CallReply, Client, ClientError, method},
};
use hotmerge_tests::{
    HANGS_MS, Lab, Neighbour, SOON, TestHost, UNTIRING, Vitals, actor, attacks, call_params,
};
use hotmerge_wire::Geometry;

/// How many bytes lie in front of the payloads.
fn head() -> usize {
    let geometry = Geometry::default();
    let slots = geometry.slots as usize * 2 * geometry.small_bytes as usize;
    let areas = geometry.areas as usize * 2 * geometry.area_bytes as usize;
    geometry.bytes() - slots - areas
}

/// The memory through which a plugin calls others; see `host/instance/src/worker/outgoing.rs`.
fn outgoing() -> usize {
    let geometry = Geometry {
        slots: 8,
        area_bytes: 16 << 20,
        ..Geometry::default()
    };
    geometry.bytes()
}

/// The request of an attack on the memory, long enough to lie where payloads do.
fn places(more: impl std::fmt::Display) -> String {
    format!("{:<100}", format!("{} {more}", head()))
}

/// Calls, and waits no longer than a call should take whose answer was destroyed.
fn call(
    client: &mut Client,
    plugin: &str,
    name: &str,
    input: &str,
) -> Result<CallReply, ClientError> {
    let params = CallParams {
        deadline_ms: Some(200),
        ..call_params(plugin, name, input.as_bytes())
    };
    client.request(method::CALL, &params, SOON)
}

/// Lets the worker end, which it may have done already, and waits for another.
fn renew(host: &TestHost, plugin: &str, restarts: u64) {
    host.wait_for("a worker that nobody disturbs", |_| {
        if host.plugin(plugin).restarts == restarts {
            let _ = call(&mut host.client(), plugin, "exit-raw", "");
        }
        let is_new = host.plugin(plugin).restarts > restarts;
        (is_new && call(&mut host.client(), plugin, "echo", "").is_ok()).then_some(())
    });
}

/// Every answer must be one: a reply or a definite error.
fn answered(outcome: &Result<CallReply, ClientError>) {
    if let Err(error) = outcome {
        assert!(
            matches!(error, ClientError::Refused(_)),
            "no answer: {error}"
        );
    }
}

fn start(lab: &Lab, hostile: &[&str]) -> Option<TestHost> {
    let variants: Vec<_> = hostile.iter().map(|name| attacks().named(name)).collect();
    lab.package("hostile")
        .put(&variants.iter().collect::<Vec<_>>());
    lab.package("good").put(&[&actor("mark=1")]);
    lab.start_sandboxed(UNTIRING)
}

#[test]
fn one_forged_write_ends_at_most_one_worker() {
    let lab = Lab::new();
    let Some(host) = start(&lab, &["attacks"]) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    let size = places(Geometry::default().bytes());
    for name in ["scribble", "zero", "punch", "fill", "unmap"] {
        for _ in 0..2 {
            let restarts = host.plugin("attacks").restarts;
            answered(&call(&mut host.client(), "attacks", name, &size));
            answered(&call(&mut host.client(), "attacks", "echo", ""));
            renew(&host, "attacks", restarts);
        }
        neighbour.goes_on(&host, name);
    }
    neighbour.unharmed(host);
}

#[test]
fn forged_writes_during_calls_never_escape() {
    let lab = Lab::new();
    let Some(host) = start(&lab, &["attacks"]) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    for round in 0..10 {
        let restarts = host.plugin("attacks").restarts;
        answered(&call(&mut host.client(), "attacks", "storm", &places("")));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = host.client();
                    for _ in 0..5 {
                        answered(&call(&mut client, "attacks", "echo", "some bytes"));
                    }
                });
            }
        });
        renew(&host, "attacks", restarts);
        neighbour.goes_on(&host, &format!("storm {round}"));
    }
    neighbour.unharmed(host);
}

/// The words of the common head and of the first slot.
const WORDS: usize = 128;

#[test]
fn forging_any_shared_word_never_harms_the_host() {
    let lab = Lab::new();
    let names = ["one", "two", "three", "four"];
    let Some(host) = start(&lab, &names) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    thread::scope(|scope| {
        for (first, name) in names.iter().enumerate() {
            let host = &host;
            scope.spawn(move || {
                for word in (first..WORDS).step_by(names.len()) {
                    let restarts = host.plugin(name).restarts;
                    let mut client = host.client();
                    answered(&call(&mut client, name, "hammer", &places(word)));
                    for _ in 0..3 {
                        answered(&call(&mut client, name, "echo", "some bytes"));
                    }
                    renew(host, name, restarts);
                }
            });
        }
    });
    neighbour.goes_on(&host, "every word");
    neighbour.unharmed(host);
}

/// The host's plugin whose memory through which it calls others is attacked.
fn start_calling(lab: &Lab) -> Option<TestHost> {
    lab.package("good").put(&[&actor("mark=1")]);
    lab.package("hostile")
        .put(&[&attacks().requiring("actor", "*", OnReplace::Rebind)]);
    lab.start_sandboxed(UNTIRING)
}

#[test]
fn no_thread_stays_behind_whose_bell_was_moved() {
    let lab = Lab::new();
    let Some(host) = start_calling(&lab) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    for round in 1..=5 {
        let said = host.call("attacks", "move-away", places(outgoing()).as_bytes());
        let said = String::from_utf8(said.expect("it answers").output_base64.0).unwrap();
        assert_eq!(said, "did it: 1");
        host.call("attacks", "exit-raw", b"").expect_err("it ends");
        let failure = host.replaced("attacks", round);
        assert!(failure.contains("exited with status 3"), "{failure}");
        neighbour.goes_on(&host, "a bell that was moved");
    }
    neighbour.unharmed(host);
}

/// What replies that wait for their workers may take, in KiB: what one worker can call for.
const REPLIES_KIB: u64 = 8 * (16 << 10);

/// Three workers call for as many large replies as they can, and take none.
#[test]
fn replies_that_nobody_takes_are_bounded() {
    let lab = Lab::new();
    lab.package("good").put(&[&actor("mark=1")]);
    let names = ["one", "two", "three"];
    let hostile = names.map(|name| {
        let hostile = attacks().named(name);
        hostile.requiring("actor", "*", OnReplace::Rebind)
    });
    lab.package("hostile").put(&hostile.each_ref());
    // No reply is given up because it takes long.
    let Some(host) = lab.start_sandboxed(&format!("{UNTIRING}call_ms = 600000\n")) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    let before = Vitals::of(&host);
    for name in names {
        let said = host.call(name, "take-no-reply", places(outgoing()).as_bytes());
        said.expect("it answers");
    }
    // Of 24 replies 8 may wait.
    host.log().wait_from(0, "that 16 are given up", |record| {
        let text = record["message"].as_str().unwrap_or_default();
        text.starts_with("dropped a reply to this plugin") && record["times"] == 16
    });
    assert_eq!(host.status().host.replies_given_up, 16);
    host.wait_for("room for what may wait", |_| {
        let now = Vitals::of(&host);
        (now.private_kib <= before.private_kib + REPLIES_KIB + (8 << 10)).then_some(())
    });
    for name in names {
        host.call(name, "exit-raw", b"").expect_err("it ends");
        host.replaced(name, 1);
    }
    neighbour.goes_on(&host, "replies that nobody takes");
    neighbour.unharmed(host);
}

/// None of them is one too many: only their time is up.
#[test]
fn replies_are_given_up_after_call_ms() {
    let lab = Lab::new();
    lab.package("good").put(&[&actor("mark=1")]);
    lab.package("hostile")
        .put(&[&attacks().requiring("actor", "*", OnReplace::Rebind)]);
    // Enough for the other plugin to answer.
    let Some(host) = lab.start_sandboxed(&format!("{UNTIRING}call_ms = 5000\n")) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    let ask = |name: &str| {
        let said = host.call("attacks", name, places(outgoing()).as_bytes());
        String::from_utf8(said.expect("it answers").output_base64.0).unwrap()
    };
    ask("take-no-reply");
    host.wait_for("that all eight are given up", |_| {
        (ask("count-refused-replies") == "did it: 8").then_some(())
    });
    assert_eq!(host.status().host.replies_given_up, 0);
    assert_eq!(host.plugin("attacks").restarts, 0);
    host.call("attacks", "exit-raw", b"").expect_err("it ends");
    host.replaced("attacks", 1);
    neighbour.unharmed(host);
}

#[test]
fn a_bell_rung_for_nothing_ends_the_worker() {
    let lab = Lab::new();
    let Some(host) = start_calling(&lab) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    for round in 1..=3 {
        let _ = host.call("attacks", "ring", places(outgoing()).as_bytes());
        let failure = host.replaced("attacks", round);
        assert!(failure.contains("keeps waking threads"), "{failure}");
        neighbour.goes_on(&host, "a bell that rings for nothing");
    }
    neighbour.unharmed(host);
}

#[test]
fn a_worker_that_wakes_callers_needlessly_ends() {
    let lab = Lab::new();
    let Some(host) = start_calling(&lab) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    let _ = host.call("attacks", "wake-callers", places("").as_bytes());
    let params = CallParams {
        deadline_ms: Some(60 * HANGS_MS),
        ..call_params("attacks", "sleep", b"")
    };
    let reply: Result<CallReply, _> = host.client().request(method::CALL, &params, SOON);
    let error = reply.expect_err("it does not answer").to_string();
    assert!(
        error.contains("waking its caller without an answer"),
        "{error}"
    );
    let failure = host.replaced("attacks", 1);
    assert!(
        failure.contains("waking its caller without an answer"),
        "{failure}"
    );
    neighbour.goes_on(&host, "calls that were woken for nothing");
    neighbour.unharmed(host);
}

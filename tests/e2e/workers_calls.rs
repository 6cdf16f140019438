//! Sandboxed plugins that call what they require, and what passes between a worker and its host
//! besides small calls.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    thread,
};

use hotmerge_meta::{
    OnReplace,
    control::{CallParams, CallReply, ClientError, method},
};
use hotmerge_tests::{
    Gate, HANGS_MS, Lab, SOON, TestHost, UNTIRING, Variant, actor, attacks, call_params,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A host with `user`, which requires `base`; `None` where there is no whole sandbox.
fn start(lab: &Lab, base: &Variant, more: &str) -> Option<TestHost> {
    let user = actor("mark=user").named("user");
    let user = user.requiring("base", "*", OnReplace::Rebind);
    lab.put(&user);
    lab.put(base);
    lab.start_sandboxed(&format!("watch = false\n{more}"))
}

fn base(mark: &str) -> Variant {
    actor(&format!("mark={mark}")).named("base")
}

fn ask(host: &TestHost, request: &[u8]) -> Result<Vec<u8>, String> {
    let answer = host.call("user", "ask", request);
    let reply = answer.map_err(|error| error.to_string())?;
    Ok(reply.output_base64.0)
}

fn pid(host: &TestHost, plugin: &str) -> i32 {
    host.worker(plugin).pid.expect("it runs")
}

#[test]
fn sandboxed_calls_reach_the_live_requirement() {
    let lab = Lab::new();
    let Some(host) = start(&lab, &base("b1"), "") else {
        return;
    };
    assert_eq!(ask(&host, b"base mark").unwrap(), b"b1");
    let before = pid(&host, "user");
    lab.put(&base("b2"));
    host.reload();
    assert_eq!(ask(&host, b"base mark").unwrap(), b"b2");
    assert_eq!(pid(&host, "user"), before, "it was not touched");
    for (question, words) in [
        (&b"user mark"[..], "does not require it"),
        (b"nobody mark", "does not require it"),
        (b"base fail", "asked to fail"),
        (b"base no-such", "no method"),
        (b"base panic", "asked to panic"),
    ] {
        let error = ask(&host, question).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    let error = host.call("base", "ask", b"user mark").unwrap_err();
    assert!(error.to_string().contains("does not require it"), "{error}");
    host.stop();
}

#[test]
fn a_sandboxed_plugin_calls_one_in_the_host() {
    let lab = Lab::new();
    let more = "[plugin.base]\nisolation = \"host\"\n";
    let Some(host) = start(&lab, &base("inside"), more) else {
        return;
    };
    assert!(host.plugin("base").worker.is_none());
    assert_eq!(ask(&host, b"base mark").unwrap(), b"inside");
    let error = ask(&host, b"base panic").unwrap_err();
    assert!(error.contains("asked to panic"), "{error}");
    host.stop();
}

#[test]
fn oversized_requests_and_replies_are_refused() {
    let lab = Lab::new();
    let Some(host) = start(&lab, &base("b"), "") else {
        return;
    };
    for size in [0, 60_000, 70_000, 1 << 20] {
        let bytes = vec![b'z'; size];
        let question = [b"base echo\n", &bytes[..]].concat();
        assert!(ask(&host, &question).unwrap() == bytes, "{size}");
    }
    let error = ask(&host, b"base flood").unwrap_err();
    assert!(error.contains("larger than the limit"), "{error}");
    assert_eq!(ask(&host, b"base mark").unwrap(), b"b");
    host.stop();
}

#[test]
fn calls_from_a_plugins_own_threads_are_answered() {
    let lab = Lab::new();
    let Some(host) = start(&lab, &base("b"), "") else {
        return;
    };
    let reply = host.call("user", "ask-all", b"base echo\nhello ").unwrap();
    assert_eq!(reply.output_base64.0, b"hello ".repeat(20));
    host.stop();
}

#[test]
fn nested_calls_inherit_deadline_and_trace() {
    let lab = Lab::new();
    let Some(host) = start(&lab, &attacks().named("base"), "") else {
        return;
    };
    let before = pid(&host, "user");
    let ask = |question: &[u8], deadline| -> Result<CallReply, ClientError> {
        let params = CallParams {
            deadline_ms: deadline,
            trace: Some(format!("00-{TRACE}-00f067aa0ba902b7-01").parse().unwrap()),
            ..call_params("user", "ask", question)
        };
        host.client().request(method::CALL, &params, SOON)
    };
    let error = ask(b"base hang", Some(HANGS_MS)).unwrap_err().to_string();
    assert!(error.contains("deadline"), "{error}");
    // It goes on after its deadline, and is ended for that.
    host.log().wait("hung");
    assert_eq!(pid(&host, "user"), before, "it has done nothing wrong");
    let error = ask(b"base segv", None).unwrap_err().to_string();
    assert!(
        error.contains("SIGSEGV") && error.contains(TRACE),
        "{error}"
    );
    host.stop();
}

#[test]
fn a_caller_survives_the_callees_crash() {
    let lab = Lab::new();
    let Some(host) = start(&lab, &attacks().named("base"), UNTIRING) else {
        return;
    };
    let before = pid(&host, "user");
    for (crash, words) in [("abort", "aborted"), ("exit", "exited"), ("exec", "SIGSYS")] {
        let error = ask(&host, format!("base {crash}").as_bytes()).unwrap_err();
        assert!(error.contains(words), "{error}");
        assert_eq!(ask(&host, b"base echo\nagain").unwrap(), b"again");
    }
    assert_eq!(pid(&host, "user"), before);
    host.stop();
}

#[test]
fn a_worker_dying_during_nested_calls_is_replaced() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    let more = format!(
        "[plugin.base]\nisolation = \"host\"\n{}",
        gate.config("base")
    );
    let Some(host) = start(&lab, &base("b"), &more) else {
        return;
    };
    thread::scope(|scope| {
        let asks = scope.spawn(|| ask(&host, b"base wait"));
        let visitor = gate.visitor();
        host.kill_worker("user");
        let error = asks.join().unwrap().unwrap_err();
        assert!(error.contains("SIGKILL"), "{error}");
        // What the dead one asked for goes on, and keeps nobody from asking.
        assert_eq!(ask(&host, b"base mark").unwrap(), b"b");
        let all = host.call("user", "ask-all", b"base echo\n.").unwrap();
        assert_eq!(all.output_base64.0, b".".repeat(20));
        visitor.let_go();
    });
    host.stop();
}

/// More than a worker has slots.
const MANY: u64 = 20;

/// Waits until so many calls of `base` were cancelled.
fn cancelled(host: &TestHost, calls: u64) {
    host.wait_for("a cancelled call", |status| {
        let mut plugins = status.plugins.iter();
        let base = plugins.find(|it| it.name == "base")?;
        (base.calls_cancelled == calls).then_some(())
    });
}

/// A client whose call `wait` of `base` is in the plugin, over a bare stream.
fn asks(lab: &Lab, more: &str) -> UnixStream {
    let mut client = UnixStream::connect(lab.runtime_dir().control_socket()).unwrap();
    let params = format!(r#"{{"plugin":"base","method":"wait","input_base64":""{more}}}"#);
    let request = format!(r#"{{"jsonrpc":"2.0","method":"call","params":{params},"id":1}}"#);
    writeln!(client, "{request}").unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client
}

#[test]
fn a_disconnecting_client_cancels_its_call() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    let Some(host) = start(&lab, &base("b"), &gate.config_in_worker("base")) else {
        return;
    };
    let before = pid(&host, "base");
    for calls in 1..=MANY {
        let client = asks(&lab, "");
        let visitor = gate.visitor();
        drop(client);
        // The plugin has not returned: its caller has.
        cancelled(&host, calls);
        visitor.let_go();
    }
    assert_eq!(host.text("base", "mark"), "b");
    assert_eq!(pid(&host, "base"), before, "none was past its deadline");
    assert_eq!(host.plugin("base").calls_failed, 0);
    host.stop();
}

#[test]
fn a_half_closed_client_still_gets_its_reply() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    let Some(host) = start(&lab, &base("b"), &gate.config_in_worker("base")) else {
        return;
    };
    let mut client = asks(&lab, "");
    let visitor = gate.visitor();
    client.shutdown(Shutdown::Write).unwrap();
    // One that is gone is noticed meanwhile.
    let gone = asks(&lab, "");
    let other = gate.visitor();
    drop(gone);
    cancelled(&host, 1);
    drop((visitor, other));
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    assert!(reply.contains("\"result\""), "{reply}");
    host.stop();
}

#[test]
fn a_hanging_cancelled_call_ends_at_its_deadline() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    let more = format!("{UNTIRING}{}", gate.config_in_worker("base"));
    let Some(host) = start(&lab, &base("b"), &more) else {
        return;
    };
    let client = asks(&lab, &format!(r#","deadline_ms":{}"#, 3 * HANGS_MS));
    let _stays = gate.visitor();
    drop(client);
    cancelled(&host, 1);
    assert_eq!(host.text("base", "mark"), "b");
    let failure = host.replaced("base", 1);
    assert!(failure.contains("after its deadline"), "{failure}");
    assert_eq!(host.text("base", "mark"), "b");
    host.stop();
}

#[test]
fn states_of_any_size_are_handed_over() {
    let lab = Lab::new();
    let keeper = |mark: &str| actor(&format!("mark={mark} state=1000000")).named("base");
    let Some(host) = start(&lab, &keeper("1"), "") else {
        return;
    };
    let count = || host.count("base");
    assert_eq!((count(), count()), (1, 2));
    lab.put(&keeper("2"));
    host.reload();
    assert_eq!(host.text("base", "mark"), "2");
    assert_eq!(count(), 3);
    // An instance that panicked is replaced by one with the state that was handed over.
    host.call("base", "panic", b"").expect_err("it panics");
    let after = host.wait_for("the state of the handover", |_| {
        Some(count()).filter(|it| *it == 3)
    });
    assert_eq!(after, 3);
    host.stop();
}

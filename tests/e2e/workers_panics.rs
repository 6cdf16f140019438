//! A worker whose panic was caught continues to answer until another has replaced it: whatever
//! happens to it meanwhile, each of its calls is answered.

use std::thread;

use hotmerge_meta::control::{Transition, method};
use hotmerge_tests::{Gate, Lab, SOON, TestHost, actor};

/// A host with an actor that comes to the gate when it starts; `None` where there is no whole
/// sandbox.
fn start(lab: &Lab, gate: &Gate) -> Option<TestHost> {
    lab.put(&actor("mark=1 start=wait"));
    let config = gate.config_in_worker("actor");
    // A crash after the first is followed by the longest pause there is.
    let restart = "restart = { most = 1000, pause_ms = 2000 }";
    let more = format!("watch = false\n{restart}\n{config}");
    thread::scope(|scope| {
        let host = scope.spawn(|| lab.start_sandboxed(&more));
        gate.visitor().let_go();
        let host = host.join().expect("it starts")?;
        host.wait_for("it is started", |_| host.call("actor", "echo", b"").ok());
        Some(host)
    })
}

fn panic(host: &TestHost) {
    let error = host.call("actor", "panic", b"").unwrap_err().to_string();
    assert!(error.contains("it was asked to panic"), "{error}");
}

fn crashes(host: &TestHost) -> usize {
    let history: Vec<Transition> = host.client().request(method::HISTORY, &(), SOON).unwrap();
    history.iter().filter(|it| it.to == "crashed").count()
}

fn crashed(host: &TestHost, times: usize) {
    host.wait_for("the crash is seen", |_| {
        (crashes(host) == times).then_some(())
    });
}

/// Kills the worker under a call, which is answered, and the next one is, by the replacement.
fn killed_under_a_call(host: &TestHost, gate: &Gate, held: bool, restarts: u64) {
    thread::scope(|scope| {
        let hangs = scope.spawn(|| host.call("actor", "wait", b""));
        let _in_call = gate.visitor();
        panic(host);
        crashed(host, restarts as usize);
        let starting = held.then(|| gate.visitor());
        host.kill_worker("actor");
        let error = hangs.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("was killed by SIGKILL"), "{error}");
        // Nothing has taken its place: that comes to the gate before.
        let plugin = host.plugin("actor");
        assert_eq!(plugin.restarts, restarts - 1);
        assert_eq!(plugin.worker.expect("it has a worker").pid, None);
        let next = scope.spawn(|| host.text("actor", "mark"));
        starting.unwrap_or_else(|| gate.visitor()).let_go();
        assert_eq!(next.join().unwrap(), "1");
        assert_eq!(host.plugin("actor").restarts, restarts);
    });
}

#[test]
fn a_worker_dying_mid_replacement_blocks_no_call() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    let Some(host) = start(&lab, &gate) else {
        return;
    };
    // While the other one starts, for there is no pause; then while it pauses.
    killed_under_a_call(&host, &gate, true, 1);
    killed_under_a_call(&host, &gate, false, 2);
    assert_eq!(crashes(&host), 2);
    host.stop();
}

#[test]
fn any_number_of_panics_is_survived() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    let Some(host) = start(&lab, &gate) else {
        return;
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| host.text("actor", "wait"));
        let in_call = gate.visitor();
        panic(&host);
        let starting = gate.visitor();
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| panic(&host)));
        }
        host.wait_for("all are answered", |status| {
            (status.plugins[0].calls_panicked == 201).then_some(())
        });
        starting.let_go();
        host.replaced("actor", 1);
        assert_eq!(host.text("actor", "mark"), "1");
        in_call.let_go();
        assert_eq!(other.join().unwrap(), "1");
    });
    assert_eq!(crashes(&host), 1);
    for line in host.stop().messages() {
        assert!(!line.contains("broke the protocol"), "{line}");
    }
}

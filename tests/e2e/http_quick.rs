//! Quick calls run on the threads that serve connections; one that hangs there holds up nobody.

use hotmerge_tests::{Gate, Http, Lab, TestHost, actor, open_http};

/// Calls after which a method counts as quick, on a busy machine too.
const ENOUGH: usize = 500;
/// More than there are threads that serve connections.
const HANGING: usize = 8;

/// A host with a plugin whose method `wait` has been quick so far.
fn quick(lab: &Lab, gate: &Gate, isolation: &str) -> (TestHost, Http) {
    lab.put(&actor("mark=one"));
    let config = lab.living_in(isolation) + &open_http("") + &gate.config_in_worker("actor");
    let (host, http) = Http::start(lab, &config);
    for _ in 0..ENOUGH {
        assert_eq!(http.post("/plugins/actor/wait", b"pass").status, 200);
    }
    (host, http)
}

fn hang(http: &Http) -> std::net::TcpStream {
    http.send(b"POST /plugins/actor/wait HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
}

fn hanging_calls_delay_no_client(isolation: &str) {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    let (_host, http) = quick(&lab, &gate, isolation);
    let calls: Vec<_> = (0..HANGING)
        .map(|_| {
            let stream = hang(&http);
            // Each hangs before the next one comes.
            (gate.visitor(), stream)
        })
        .collect();
    for _ in 0..HANGING {
        assert_eq!(http.get("/healthz").status, 200);
        assert_eq!(http.post("/plugins/actor/mark", b"").status, 200);
    }
    drop(calls);
    assert_eq!(http.post("/plugins/actor/wait", b"pass").status, 200);
}

#[test]
fn quick_calls_that_hang_in_hosts_delay_nobody() {
    hanging_calls_delay_no_client("host");
}

#[test]
fn quick_calls_that_hang_in_workers_delay_nobody() {
    hanging_calls_delay_no_client("process");
}

#[test]
fn a_client_that_goes_cancels_its_quick_call() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    let (host, http) = quick(&lab, &gate, "process");
    let stream = hang(&http);
    let _visitor = gate.visitor();
    drop(stream);
    host.wait_for("the call is cancelled", |status| {
        (status.plugins[0].calls_cancelled == 1).then_some(())
    });
}

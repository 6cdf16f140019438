//! The control socket serves modest clients, whatever other clients do.

use std::{io::Write as _, os::unix::net::UnixStream, process::Command, sync::mpsc, thread};

use hotmerge_meta::control::{Client, ClientError, code, method};
use hotmerge_tests::{
    Footprint, Gate, Lab, SOON, TestHost, actor, call, call_params, copy_environment, run, skipped,
};
use serde_json::{Value, json};

/// What operators need most still answers.
fn is_open(lab: &Lab) {
    for command in [&["status"][..], &["reload"], &["history"]] {
        lab.hotmerge(command.iter().copied()).ok();
    }
}

#[test]
fn idle_connections_make_room_the_oldest_first() {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    let host = lab.start();
    let ask = |client: &mut Client| client.request::<Value>(method::POSITION, &(), SOON);
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut client = host.client();
        ask(&mut client).expect("each is let in");
        idle.push(client);
    }
    is_open(&lab);
    let oldest = ask(&mut idle[0]).unwrap_err();
    assert!(matches!(oldest, ClientError::Closed), "{oldest}");
    ask(&mut idle[199]).expect("the newest is still there");
    lab.hotmerge(["stop"]).ok();
}

#[test]
fn slow_calls_leave_the_door_open() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    lab.put(&actor("mark=1"));
    let mut host = lab.start_with(&gate.config("actor"));
    let (told, ends) = mpsc::channel();
    let threads: Vec<_> = (0..70)
        .map(|_| {
            let (mut client, told) = (host.client(), told.clone());
            thread::spawn(move || {
                let ended = call(&mut client, "actor", "wait", b"").map(drop);
                // The test may have ended.
                let _ = told.send(ended);
            })
        })
        .collect();
    // Those without a place are refused at once; the others wait in the plugin.
    for _ in 0..6 {
        let ended = ends.recv_timeout(SOON).unwrap();
        let Err(ClientError::Refused(why)) = &ended else {
            panic!("{ended:?}");
        };
        assert_eq!(why.code(), code::BUSY, "{why}");
    }
    is_open(&lab);
    lab.hotmerge(["stop"]).ok();
    // A waiting call finds a gate that is gone.
    drop(gate);
    host.ended();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn replies_that_nobody_reads_are_given_up() {
    const MIB: u64 = 1 << 10;

    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    let host = lab.start();
    host.text("actor", "mark");
    let before = Footprint::of(host.pid());
    let input = vec![b'x'; 8 << 20];
    let params = call_params("actor", "echo", &input);
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method::CALL, "params": params});
    let request = format!("{request}\n");
    // More of them than would fit below if none was given up.
    let clients: Vec<_> = (0..30)
        .map(|_| {
            let socket = lab.runtime_dir().control_socket();
            let mut stream = UnixStream::connect(socket).unwrap();
            // The oldest ones are closed meanwhile.
            let _ = stream.write_all(request.as_bytes());
            stream
        })
        .collect();
    // That is when the last ones are answered.
    for client in &clients[26..] {
        client.set_read_timeout(Some(SOON)).unwrap();
        let mut first = [0];
        std::io::Read::read_exact(&mut &*client, &mut first).unwrap();
    }
    // 64 MiB of replies, and what is in work.
    wait_for_memory(&host, before.rss_kib + 200 * MIB);
    is_open(&lab);
    drop(clients);
    wait_for_memory(&host, before.rss_kib + 48 * MIB);
    host.stop();
}

fn wait_for_memory(host: &TestHost, most_kib: u64) {
    host.wait_for(&format!("{most_kib} KiB of memory"), |_| {
        (Footprint::of(host.pid()).rss_kib <= most_kib).then_some(())
    });
}

/// A container has a process namespace of its own: the number of a process outside means nothing there.
#[test]
fn peers_of_another_process_namespace_are_served() {
    let apart = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"];
    let behind = |command: &Command| {
        let mut all = Command::new(apart[0]);
        all.args(&apart[1..]).arg(command.get_program());
        all.args(command.get_args());
        copy_environment(command, &mut all);
        all
    };
    if run(&mut behind(&Command::new("true")), SOON).code != Some(0) {
        return skipped("this user may not have a process namespace");
    }
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    let mut status = lab.command();
    status.arg("status");
    let mut host = lab.start_by(behind(&lab.serve("")));
    run(&mut status, SOON).ok();
    assert_eq!(host.text("actor", "mark"), "1");
    lab.hotmerge(["stop"]).ok();
    assert!(host.ended().success());
    let host = lab.start();
    run(&mut behind(&status), SOON).ok();
    host.stop();
}

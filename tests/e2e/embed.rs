//! The host as a library: the example that embeds it, run as its comments say.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use hotmerge_daemon::{
    Call, CallError, Cancel, Config, Host, Reply, StartError,
    config::{Isolation, OnDegraded, Symbols},
    context,
};
use hotmerge_tests::{Gate, Lab, Process, SOON, abrupt, actor, example, run, skipped, worker};

/// What a child writes, line by line as it comes.
fn lines(process: &mut Process) -> Receiver<String> {
    let output = process.child().stdout.take().expect("it is a pipe");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[test]
fn an_embedded_host_reloads_and_keeps_good_versions() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    let mut program = Process::spawn(
        Command::new(example("embed"))
            .arg(lab.plugin_dir())
            .args(["actor", "mark"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    let answers = lines(&mut program);
    let answer = || answers.recv_timeout(SOON).expect("the program answers");
    let mut asking = program.child().stdin.take().expect("it is a pipe");
    let mut ask = || {
        asking.write_all(b"\n").expect("the program reads");
        answer()
    };
    assert_eq!(answer(), "generation 1: 1");
    assert_eq!(ask(), "generation 1: 1");
    lab.package("one").put(&[&actor("mark=2")]);
    assert_eq!(ask(), "generation 2: 2");
    lab.package("one").put(&[&actor("start=refuse")]);
    assert_eq!(ask(), "generation 2: 2");
    drop(asking);
    let status = program.wait(SOON).expect("it ends with its input");
    assert!(status.success(), "the program ended with {status}");
}

#[test]
fn an_embedded_host_runs_plugins_in_named_workers() {
    let lab = Lab::new();
    lab.put(&abrupt());
    let mut program = Command::new(example("embed"));
    program.arg(lab.plugin_dir());
    program.args(["small", "answer", "process"]);
    program.env("HOTMERGE_WORKER", worker());
    let ran = run(&mut program, SOON).ok();
    assert_eq!(ran.text(), "generation 1: one\n", "{ran:?}");
}

#[test]
fn an_embedded_host_without_worker_says_so() {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    let mut program = Command::new(example("embed"));
    program.arg(lab.plugin_dir());
    program.args(["actor", "mark", "process"]);
    program.env("HOTMERGE_WORKER", lab.path("nowhere"));
    program.env_remove("RUST_BACKTRACE");
    let ran = run(&mut program, SOON).ended_with(1);
    let ran = ran.said(&["worker processes", "nowhere"]);
    assert!(ran.stdout.is_empty(), "{ran:?}");
}

#[test]
fn a_host_without_isolation_does_not_start() {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    let mut config = Config::default();
    config.plugin_dir = Some(lab.plugin_dir());
    config.symbols = Symbols::Off;
    // An available worker is not an answer.
    config.worker = Some(worker().to_owned());
    let refused = Host::start(config.clone()).expect_err("nobody said where plugins run");
    assert!(matches!(refused, StartError::NoIsolation), "{refused}");
    assert!(
        refused.to_string().contains("Config::isolation"),
        "{refused}"
    );
    // A worker that is missed is no reason for less.
    config.worker = Some(lab.path("nowhere"));
    config.isolation = Some(Isolation::Process);
    let host = Host::start(config.clone()).unwrap();
    host.settle();
    let plugin = host.status().plugins.remove(0);
    let reason = plugin.refused.expect("it is refused").reason;
    assert!(reason.contains("nowhere"), "{reason}");
    assert_eq!(host.stop(), 0);
    // Unless that is what was asked for.
    config.isolation = Some(Isolation::Auto);
    let host = Host::start(config).unwrap();
    host.settle();
    let plugin = host.status().plugins.remove(0);
    assert_eq!(plugin.isolation.as_deref(), Some("host"));
    assert_eq!(host.stop(), 0);
}

/// A host in this process, with the fixture `actor` in the given isolation, and its gate.
fn embedded(lab: &Lab, isolation: Isolation, more: &str) -> Host {
    lab.put(&actor("mark=1"));
    let path = lab.path("embedded.toml");
    std::fs::write(&path, more).unwrap();
    let mut config = Config::read(&path).unwrap();
    config.plugin_dir = Some(lab.plugin_dir());
    config.worker = Some(worker().to_owned());
    config.isolation = Some(isolation);
    config.symbols = Symbols::Off;
    config.degraded = OnDegraded::Run;
    let host = Host::start(config).unwrap();
    host.settle();
    host
}

fn is_cancelled(error: &CallError) -> bool {
    error.to_string() == "the call was cancelled"
}

#[test]
fn another_thread_cancels_a_call_in_a_worker() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    let allow = "allow = [\"net\"]\n[plugin.actor.config]";
    let more = gate.config("actor");
    let more = match more.contains("allow") {
        true => more,
        false => more.replace("[plugin.actor.config]", &format!("[plugin.actor]\n{allow}")),
    };
    let host = embedded(&lab, Isolation::Process, &more);
    let degraded = host.status().host.degraded;
    if !degraded.is_empty() {
        return skipped(&format!("no whole sandbox: {}", degraded.join("; ")));
    }
    let plugin = host.plugin("actor").unwrap();
    let cancel = Cancel::default();
    let call = || {
        let reply = &mut Reply::default();
        plugin.call(
            &Call::new(&context(None), "wait", b"").cancelled_by(&cancel),
            reply,
        )
    };
    let visitor = thread::scope(|scope| {
        let waits = scope.spawn(call);
        let visitor = gate.visitor();
        cancel.cancel();
        assert!(is_cancelled(&waits.join().unwrap().unwrap_err()));
        visitor
    });
    // It lasts, and ends none that does not have it.
    assert!(is_cancelled(&call().unwrap_err()));
    let mut reply = Reply::default();
    plugin
        .call(&Call::new(&context(None), "mark", b""), &mut reply)
        .unwrap();
    assert_eq!(reply.bytes(), b"1");
    visitor.let_go();
    assert_eq!(host.stop(), 0);
}

#[test]
fn a_cancelled_call_never_starts_in_the_host() {
    let lab = Lab::new();
    let host = embedded(&lab, Isolation::Host, "");
    let plugin = host.plugin("actor").unwrap();
    let cancel = Cancel::default();
    let call = || {
        let reply = &mut Reply::default();
        let outcome = plugin.call(
            &Call::new(&context(None), "count", b"").cancelled_by(&cancel),
            reply,
        );
        outcome.map(|_| reply.bytes().to_vec())
    };
    assert_eq!(call().unwrap(), 1_u64.to_le_bytes());
    cancel.cancel();
    assert!(is_cancelled(&call().unwrap_err()));
    let mut reply = Reply::default();
    plugin
        .call(&Call::new(&context(None), "count", b""), &mut reply)
        .unwrap();
    assert_eq!(
        reply.bytes(),
        2_u64.to_le_bytes(),
        "the second was not begun"
    );
    assert_eq!(host.stop(), 0);
}

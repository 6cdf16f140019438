//! What `hotmerge serve` inherits from its parent, and which signals it handles.

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process::Command,
};

use hotmerge_tests::{Lab, SOON, TestHost, actor, copy_environment, run};
use rustix::process::Signal;

fn lab() -> Lab {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    lab
}

/// Sends a signal by its number: some have no name that everybody knows.
fn send(host: &TestHost, signal: &str) {
    let pid = host.pid().to_string();
    run(
        Command::new("kill").args([&format!("-{signal}"), &pid]),
        SOON,
    )
    .ok();
}

/// The same command with another program in front of it.
fn behind(program: &[&str], command: &Command) -> Command {
    let mut all = Command::new(program[0]);
    all.args(&program[1..]).arg(command.get_program());
    all.args(command.get_args());
    copy_environment(command, &mut all);
    all
}

/// A set of signals that `/proc/PID/status` shows.
fn signals(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    u64::from_str_radix(line.expect("the kernel tells").trim(), 16).expect("it is a number")
}

#[test]
fn a_signal_without_a_meaning_is_logged() {
    let lab = lab();
    let host = lab.start();
    // SIGVTALRM means something to the host itself, and comes too often to be logged.
    send(&host, "26");
    let named = [
        (14, "SIGALRM"),
        (16, "SIGSTKFLT"),
        (25, "SIGXFSZ"),
        (27, "SIGPROF"),
        (29, "SIGIO"),
        (30, "SIGPWR"),
    ];
    let named = named.map(|(number, name)| (number, name.to_owned()));
    let real_time = (34..=64).map(|number| (number, format!("SIGRTMIN+{}", number - 34)));
    for (number, name) in named.into_iter().chain(real_time) {
        send(&host, &number.to_string());
        host.log()
            .wait_from(0, &name, |record| record["signal"] == *name);
    }
    assert_eq!(host.text("actor", "mark"), "1");
    let log = host.stop();
    assert!(!log.to_string().contains("SIGVTALRM"), "{log}");
}

#[test]
fn signals_for_other_uses_end_no_host() {
    let lab = lab();
    let host = lab.start();
    // SIGUSR1, which reports crashes, SIGCHLD and SIGVTALRM.
    for number in ["10", "17", "26"] {
        send(&host, number);
        assert_eq!(host.text("actor", "mark"), "1", "after signal {number}");
    }
    host.stop();
}

#[test]
fn used_up_processor_time_stops_a_host_gracefully() {
    let lab = lab();
    let mut host = lab.start();
    send(&host, "24");
    host.log().wait_from(0, "the reason", |record| {
        let message = record["message"].as_str();
        message.is_some_and(|message| message.contains("SIGXCPU"))
    });
    assert!(host.ended().success());
}

#[test]
fn many_such_signals_do_not_fill_the_log() {
    let lab = lab();
    let host = lab.start();
    for _ in 0..200 {
        host.signal(Signal::ALARM);
    }
    let log = host.stop();
    let told = log.count("ignored a signal");
    assert!((1..=8).contains(&told), "{told} records\n{log}");
}

#[test]
fn some_signals_end_a_host_well() {
    for (signal, message) in [
        (Signal::QUIT, "report"),
        (
            Signal::XCPU,
            "the limit of processor time is used up (SIGXCPU)",
        ),
        (Signal::TERM, "stopping"),
        (Signal::INT, "stopping"),
    ] {
        let lab = lab();
        let mut host = lab.start();
        host.signal(signal);
        let told = |record: &serde_json::Value| record["message"] == message;
        host.log().wait_from(0, message, told);
        assert!(host.ended().success(), "{signal:?}");
        assert_eq!(host.log().count("stopping"), 1, "{signal:?}");
    }
}

#[test]
fn signal_settings_of_the_starter_are_reset() {
    let lab = lab();
    let serve = lab.serve("isolation = \"process\"\n");
    let starter = [
        "env",
        "--block-signal",
        "--ignore-signal=HUP,INT,QUIT,CHLD,USR1,USR2,TTOU",
    ];
    let host = lab.start_by(behind(&starter, &serve));
    let worker = host.plugin("actor").worker.and_then(|worker| worker.pid);
    let worker = worker.expect("it is in a process of its own") as u32;
    // Rust ignores SIGPIPE; 32 and 33 are the C library's own, whose `posix_spawn` ignores them.
    let others = [Signal::PIPE.as_raw(), 32, 33].map(|signal| 1_u64 << (signal - 1));
    let others = others.iter().fold(0, |all, one| all | one);
    for pid in [host.pid(), worker] {
        assert_eq!(signals(pid, "SigBlk:"), 0, "blocked");
        assert_eq!(signals(pid, "SigIgn:") & !others, 0, "ignored");
    }
    host.stop();
}

#[test]
fn a_host_raises_its_soft_limit_of_files() {
    let lab = lab();
    let serve = lab.serve("");
    let host = lab.start_by(behind(&["prlimit", "--nofile=64:"], &serve));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", host.pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let mut numbers = line.expect("it is listed").split_ascii_whitespace().skip(3);
    let soft: u64 = numbers.next().unwrap().parse().expect("a number");
    assert!(soft > 64, "{line:?}");
    host.stop();
}

#[test]
fn an_abstract_notify_socket_is_notified() {
    let lab = lab();
    let name = format!("hotmerge-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&address).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let mut serve = lab.serve("");
    serve.env("NOTIFY_SOCKET", format!("@{name}"));
    let host = lab.start_by(serve);
    let mut message = [0; 100];
    let len = manager
        .recv(&mut message)
        .expect("it says that it is ready");
    assert_eq!(&message[..len], b"READY=1\n");
    host.stop();
}

#[test]
fn a_host_without_proc_says_so() {
    let lab = lab();
    let without = "mount -t tmpfs none /proc && exec \"$@\"";
    let starter = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        without,
        "sh",
    ];
    let ran = run(&mut behind(&starter, &lab.serve("")), SOON).ended_with(1);
    assert!(!ran.stderr.contains("hotmerge.pid"), "{}", ran.stderr);
    ran.said(&["start time of this process", "mount `/proc`"]);
}

#[test]
fn a_file_size_limit_is_a_sentence() {
    let lab = lab();
    let limited = "ulimit -f 0 && exec \"$@\"";
    let starter = ["sh", "-c", limited, "sh"];
    run(
        &mut behind(&starter, &lab.serve("isolation = \"host\"")),
        SOON,
    )
    .ended_with(1)
    .said(&["File too large"]);
    let mut policy = lab.command();
    policy.args(["policy", "symbols"]);
    let into_file = format!("ulimit -f 0 && exec \"$@\" > {}", lab.path("out").display());
    run(&mut behind(&["sh", "-c", &into_file, "sh"], &policy), SOON)
        .ended_with(1)
        .said(&["failed to write to standard output", "File too large"]);
}

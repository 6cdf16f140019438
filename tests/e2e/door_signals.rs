//! Signals: what each does, that none ends a host by accident, and that none is lost in a storm of
//! them.

use std::{
    env, fs,
    os::unix::net::UnixDatagram,
    process::Command,
    time::{Duration, Instant},
};

use hotmerge_tests::{Gate, Lab, SOON, TestHost, actor, call, copy_environment};
use rustix::{
    process::Signal,
    time::{ClockId, clock_gettime},
};

fn lab() -> Lab {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    lab
}

/// How often something is done; the variable says how often in a long run.
fn times(variable: &str, in_ci: usize) -> usize {
    env::var(variable).map_or(in_ci, |text| text.parse().expect("a number"))
}

/// The same command, started with those signals blocked, so that none comes before the program runs.
fn with_signals_blocked(command: &Command) -> Command {
    let mut all = Command::new("env");
    all.arg("--block-signal=HUP,USR1,VTALRM");
    all.arg(command.get_program());
    all.args(command.get_args());
    copy_environment(command, &mut all);
    all
}

/// Whether the process keeps SIGHUP, SIGUSR1 and SIGVTALRM back or catches them.
fn outlives_signals(pid: u32) -> bool {
    const ALL: u64 = 1 | 1 << 9 | 1 << 25;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let sets = status.lines().filter_map(|line| {
        let set = line
            .strip_prefix("SigBlk:")
            .or(line.strip_prefix("SigCgt:"))?;
        u64::from_str_radix(set.trim(), 16).ok()
    });
    sets.fold(0, |all, set| all | set) & ALL == ALL
}

/// Signals without a pause from the first moment until the host is ready.
fn signal_until_ready(host: &mut TestHost) {
    let deadline = Instant::now() + SOON;
    while host.log().count("ready") == 0 {
        assert!(
            host.process().is_running(),
            "a signal killed it\n{}",
            host.log()
        );
        assert!(Instant::now() < deadline, "never ready\n{}", host.log());
        for signal in [Signal::HUP, Signal::USR1, Signal::VTALARM] {
            host.signal(signal);
        }
    }
}

/// Waits until a signal finds the process prepared.
fn wait_until_prepared(host: &mut TestHost) {
    let pid = host.pid();
    while !outlives_signals(pid) {
        assert!(
            host.process().is_running(),
            "it did not start\n{}",
            host.log()
        );
    }
}

#[test]
fn no_signal_kills_a_host_that_starts_blocked() {
    for _ in 0..times("HOTMERGE_STARTS", 25) {
        let lab = lab();
        let serve = with_signals_blocked(&lab.serve("rescan_s = 0\n"));
        let mut host = TestHost::spawn(serve, lab.runtime_dir());
        // That is `env` still, right before it becomes the host.
        wait_until_prepared(&mut host);
        signal_until_ready(&mut host);
        assert_eq!(host.text("actor", "mark"), "1");
        host.stop();
    }
}

/// Nobody can keep a signal from a program whose starter has not, before the program runs.
#[test]
fn no_signal_at_start_kills_a_host() {
    for _ in 0..times("HOTMERGE_STARTS", 25) {
        let lab = lab();
        let mut host = TestHost::spawn(lab.serve("rescan_s = 0\n"), lab.runtime_dir());
        wait_until_prepared(&mut host);
        signal_until_ready(&mut host);
        assert_eq!(host.text("actor", "mark"), "1");
        host.stop();
    }
}

#[test]
fn a_storm_of_hups_loses_no_change() {
    let storm = times("HOTMERGE_HUPS", 100_000);
    let lab = lab();
    let config =
        |x: usize| format!("watch = false\nrescan_s = 0\n[plugin.actor.config]\nx = {x}\n");
    let host = lab.start_with(&config(0));
    let (waves, per_wave) = (10, storm / 10);
    for wave in 1..=waves {
        lab.put(&actor(&format!("mark={wave}")));
        drop(lab.serve(&config(wave)));
        for _ in 0..per_wave {
            host.signal(Signal::HUP);
        }
    }
    let last = actor(&format!("mark={waves}")).meta.hash;
    host.wait_for("the last state", |status| {
        let actor = &status.plugins[0];
        (actor.hash == Some(last) && !actor.outdated).then_some(())
    });
    assert_eq!(host.text("actor", "config"), format!("{{\"x\":{waves}}}"));
    assert_eq!(host.text("actor", "mark"), waves.to_string());
    let rescans = host.status().host.rescans;
    assert!(
        rescans <= storm as u64 + 2,
        "{rescans} scans for {storm} signals"
    );
    host.stop();
}

#[test]
fn usr2_reports_what_runs_and_goes_on() {
    let lab = lab();
    let host = lab.start();
    host.signal(Signal::USR2);
    host.log().wait_from(0, "a report", |record| {
        record["message"] == "report" && record["plugin"] == "actor" && record["state"] == "active"
    });
    host.log().wait_from(0, "its configuration", |record| {
        record["config_since"].is_string()
    });
    assert_eq!(host.text("actor", "mark"), "1");
    host.stop();
}

#[test]
fn a_second_term_waits_for_no_call() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    lab.put(&actor("mark=1"));
    let config = format!("drain_ms = 600000\ncall_ms = 0\n{}", gate.config("actor"));
    let mut host = lab.start_with(&config);
    let asking = host.in_background(|client| call(client, "actor", "wait", b"").map(drop));
    let visitor = gate.visitor();
    host.signal(Signal::TERM);
    host.log().wait("stopping");
    assert!(
        host.process().is_running(),
        "the first one waits for the call"
    );
    host.signal(Signal::TERM);
    assert!(host.ended().success(), "{}", host.log());
    host.log().wait("received a second order to stop");
    asking.join().unwrap().expect_err("nobody answers");
    drop(visitor);
}

/// The next notification to a service manager.
#[track_caller]
fn told(manager: &UnixDatagram) -> String {
    let mut message = [0; 200];
    let len = manager.recv(&mut message).expect("it tells its manager");
    String::from_utf8(message[..len].to_vec()).expect("it is text")
}

#[test]
fn the_manager_learns_when_a_reload_is_done() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    lab.put(&actor("mark=1"));
    let socket = lab.path("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let mut serve = lab.serve(&format!("watch = false\n{}", gate.config("actor")));
    serve.env("NOTIFY_SOCKET", &socket);
    let host = lab.start_by(serve);
    assert_eq!(told(&manager), "READY=1\n");
    lab.put(&actor("mark=2 start=wait"));
    let before = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap();
    host.signal(Signal::HUP);
    let begun = told(&manager);
    let usec = begun
        .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
        .expect("it says when");
    let usec: u128 = usec.trim_end().parse().expect("a number");
    assert!(usec >= before.as_micros(), "{usec} is before the signal");
    let visitor = gate.visitor();
    manager.set_nonblocking(true).unwrap();
    assert!(
        manager.recv(&mut [0; 200]).is_err(),
        "the new version is not there yet"
    );
    manager.set_nonblocking(false).unwrap();
    drop(visitor);
    assert_eq!(told(&manager), "READY=1\n");
    assert_eq!(host.text("actor", "mark"), "2");
    // A host that reloads still stops on request.
    lab.put(&actor("mark=3 start=wait"));
    host.signal(Signal::HUP);
    assert!(told(&manager).starts_with("RELOADING=1\n"));
    let visitor = gate.visitor();
    host.signal(Signal::TERM);
    assert_eq!(told(&manager), "STOPPING=1\n");
    drop(visitor);
    host.stop();
}

//! Plugins in cells of their own: whatever one does, the host and its neighbours live, and what
//! happened is named.

use hotmerge_daemon::{lifecycle::State, status::WorkerStatus};
use hotmerge_meta::control::ReloadParams;
use hotmerge_tests::{Callers, Lab, TestHost, actor, attacks, constructor, skipped, worker};

/// What a configuration begins with.
fn config(more: &str) -> String {
    format!("worker = {:?}\nisolation = \"process\"\n{more}", worker())
}

/// Restarts as often as a test needs.
const UNTIRING: &str = "restart = { most = 1000000, within_s = 1, pause_ms = 0 }\n";

fn worker_of(host: &TestHost, name: &str) -> WorkerStatus {
    let plugin = host.plugin(name);
    plugin.worker.expect("it lives in a process of its own")
}

/// A host with the hostile plugin and a neighbour, both in workers; `None` where that cannot be.
fn start(lab: &Lab, more: &str) -> Option<TestHost> {
    lab.package("hostile").put(&[&attacks()]);
    lab.package("good").put(&[&actor("mark=1")]);
    let host = lab.start_with(&config(more));
    let degraded = host.status().host.degraded;
    if !degraded.is_empty() {
        skipped(&format!(
            "this system gives no whole sandbox: {}",
            degraded.join("; ")
        ));
        return None;
    }
    Some(host)
}

#[test]
fn what_a_plugin_must_not_do_is_refused_and_it_lives_on() {
    let lab = Lab::new();
    let Some(host) = start(&lab, UNTIRING) else {
        return;
    };
    let pid = worker_of(&host, "attacks").pid;
    for (attack, answer) in [
        ("open", "Operation not permitted"),
        ("proc", "Operation not permitted"),
        ("list", "Operation not permitted"),
        ("write", "Operation not permitted"),
        ("socket", "Operation not permitted"),
        ("unix", "Operation not permitted"),
        ("connect", "Operation not permitted"),
        ("fork", "Operation not permitted"),
        ("forks", "Operation not permitted"),
        ("kill-parent", "Operation not permitted"),
        ("kill-all", "Operation not permitted"),
        ("kill-group", "Operation not permitted"),
        ("rwx", "Operation not permitted"),
        ("mprotect", "Operation not permitted"),
        ("truncate", "Operation not permitted"),
        ("close", "Operation not permitted"),
        ("new", "Function not implemented"),
    ] {
        let said = host.text("attacks", attack);
        assert!(said.contains(answer), "{attack}: {said}");
    }
    assert_eq!(
        worker_of(&host, "attacks").pid,
        pid,
        "it was never replaced"
    );
    host.stop();
}

#[test]
fn whatever_kills_a_plugin_is_named_and_it_is_replaced_while_others_answer() {
    let lab = Lab::new();
    let Some(host) = start(&lab, UNTIRING) else {
        return;
    };
    let callers = Callers::start(&host, 1, ["actor"], "mark");
    let host_pid = host.pid();
    let mut restarts = 0;
    for (attack, name) in [
        ("exec", "SIGSYS"),
        ("ptrace", "SIGSYS"),
        ("raw", "SIGSYS"),
        ("legacy", "SIGSYS"),
        ("x32", "SIGSYS"),
        ("io-uring", "SIGSYS"),
        ("mount", "SIGSYS"),
        ("unshare", "SIGSYS"),
        ("memfd", "SIGSYS"),
        ("shellcode", "SIGSEGV"),
        ("segv", "SIGSEGV at 0x8 in `segv`"),
        ("stack", "overflowed its stack in `stack`"),
        ("abort", "aborted in `abort`"),
        ("panic-twice", "aborted in `panic-twice`"),
        ("memory", "aborted in `memory`"),
        ("exit", "exited with status 0"),
    ] {
        let error = host
            .call("attacks", attack, b"")
            .expect_err(attack)
            .to_string();
        assert!(error.contains(name), "{attack}: {error}");
        restarts += 1;
        assert_eq!(host.text("attacks", "echo"), "", "after {attack}");
        let status = worker_of(&host, "attacks");
        assert_eq!(status.restarts, restarts, "{attack}");
        let failure = status.last_failure.expect("it is named");
        assert!(failure.contains(name), "{attack}: {failure}");
    }
    assert_eq!(host.pid(), host_pid);
    drop(callers);
    host.stop();
}

#[test]
fn a_panic_is_reported_and_the_instance_replaced() {
    let lab = Lab::new();
    let Some(host) = start(&lab, UNTIRING) else {
        return;
    };
    let error = host
        .call("attacks", "panic", b"")
        .expect_err("it panics")
        .to_string();
    assert!(
        error.contains("as asked") && error.contains("lib.rs"),
        "{error}"
    );
    let failure = host.wait_for("the instance is replaced", |status| {
        let plugin = status
            .plugins
            .iter()
            .find(|plugin| plugin.name == "attacks")?;
        let worker = plugin.worker.clone()?;
        (worker.restarts == 1).then_some(worker.last_failure)
    });
    assert!(
        failure
            .expect("it is named")
            .contains("panicked in `panic`")
    );
    host.stop();
}

#[test]
fn a_call_that_hangs_ends_at_its_deadline_and_the_worker_with_it() {
    let lab = Lab::new();
    let Some(host) = start(&lab, &format!("{UNTIRING}call_ms = 200\n")) else {
        return;
    };
    let error = host
        .call("attacks", "hang", b"")
        .expect_err("it hangs")
        .to_string();
    assert!(error.contains("deadline"), "{error}");
    host.wait_for("the worker is replaced", |status| {
        let plugin = status
            .plugins
            .iter()
            .find(|plugin| plugin.name == "attacks")?;
        (plugin.worker.as_ref()?.restarts == 1).then_some(())
    });
    assert_eq!(host.text("attacks", "echo"), "");
    host.stop();
}

#[test]
fn floods_and_bombs_cost_the_plugin_and_not_the_host() {
    let lab = Lab::new();
    let Some(host) = start(&lab, UNTIRING) else {
        return;
    };
    let threads: u64 = host.text("attacks", "threads").parse().expect("a number");
    assert!(threads < 64, "{threads} threads");
    host.text("attacks", "log-flood");
    assert!(worker_of(&host, "attacks").log_dropped > 0);
    assert_eq!(host.text("actor", "mark"), "1");
    host.stop();
}

#[test]
fn scribbling_in_the_shared_memory_harms_nobody_else() {
    let lab = Lab::new();
    let Some(host) = start(&lab, &format!("{UNTIRING}call_ms = 500\n")) else {
        return;
    };
    for _ in 0..5 {
        let _ = host.call("attacks", "scribble", b"");
        assert_eq!(host.text("actor", "mark"), "1");
    }
    host.wait_for("it answers again", |_| {
        host.call("attacks", "echo", b"").ok()
    });
    host.stop();
}

#[test]
fn an_attack_while_loading_or_starting_is_a_refusal_that_names_it() {
    let lab = Lab::new();
    lab.package("constructor").put(&[&constructor()]);
    lab.package("hostile").put(&[&attacks()]);
    let start = "[plugin.attacks.config]\nstart = \"hang\"\n";
    let host = lab.start_with(&config(&format!("start_ms = 500\n{start}")));
    if !host.status().host.degraded.is_empty() {
        return skipped("this system gives no whole sandbox");
    }
    for (plugin, name) in [
        ("constructor", "SIGSYS"),
        ("attacks", "has not started within 500 ms"),
    ] {
        let plugin = host.plugin(plugin);
        assert_eq!(plugin.state, State::Error);
        let reason = plugin.refused.expect("it was refused").reason;
        assert!(reason.contains(name), "{reason}");
    }
    host.stop();
}

#[test]
fn five_crashes_in_ten_seconds_end_the_trying_until_somebody_asks() {
    let lab = Lab::new();
    let Some(host) = start(&lab, "restart = { pause_ms = 0 }\n") else {
        return;
    };
    for _ in 0..6 {
        host.call("attacks", "abort", b"").expect_err("it aborts");
    }
    let error = host.wait_for("it is given up", |status| {
        let plugin = status
            .plugins
            .iter()
            .find(|plugin| plugin.name == "attacks")?;
        (plugin.state == State::Error).then(|| host.call("attacks", "echo", b""))
    });
    let error = error.expect_err("nobody answers").to_string();
    assert!(
        error.contains("crashed more than 5 times in 10 s"),
        "{error}"
    );
    assert_eq!(host.text("actor", "mark"), "1");
    host.reload_with(&ReloadParams {
        plugins: Some(vec!["attacks".parse().unwrap()]),
        retry: true,
        ..ReloadParams::default()
    });
    host.wait_for("it answers again", |_| {
        host.call("attacks", "echo", b"").ok()
    });
    host.stop();
}

#[test]
fn an_idempotent_call_is_asked_once_more() {
    let lab = Lab::new();
    let idempotent = "[plugin.attacks]\nidempotent = [\"exit\"]\n";
    let Some(host) = start(&lab, &format!("{UNTIRING}{idempotent}")) else {
        return;
    };
    host.call("attacks", "exit", b"")
        .expect_err("it exits, twice");
    host.wait_for("both workers are replaced", |status| {
        let plugin = status
            .plugins
            .iter()
            .find(|plugin| plugin.name == "attacks")?;
        (plugin.worker.as_ref()?.restarts == 2).then_some(())
    });
    host.stop();
}

#[test]
fn a_plugin_that_imports_what_it_must_not_is_refused_by_symbol_and_rule() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    let host = lab.start_with(&config("symbols = \"enforce\""));
    let reason = host
        .plugin("attacks")
        .refused
        .expect("it was refused")
        .reason;
    assert!(
        reason.contains("`execve`: imports of the group \"other programs\""),
        "{reason}"
    );
    host.stop();
}

#[test]
fn without_section_headers_nothing_is_hidden() {
    let lab = Lab::new();
    let bare = attacks().with_bytes(|bytes| {
        // e_shoff, e_shentsize, e_shnum, e_shstrndx
        bytes[0x28..0x30].fill(0);
        bytes[0x3a..0x40].fill(0);
    });
    let path = lab.path("bare.so");
    std::fs::write(&path, &bare.bytes).unwrap();
    let said = lab.hotmerge(["inspect", path.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(
        text.contains("execve") && text.contains("other programs"),
        "{text}"
    );
}

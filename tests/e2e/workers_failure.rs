//! Failures of a plugin are reported in full, another instance replaces it with the last saved
//! state, and a plugin that crashes too often is given up until a new version arrives or an operator
//! asks: in its own process as in the host's.

use std::fs;

use hotmerge_daemon::{
    lifecycle::PluginState,
    status::{FailureStatus, PluginStatus},
};
use hotmerge_meta::control::{
    Action, CallParams, CallReply, Client, TraceParent, Transition, method,
};
use hotmerge_tests::{Lab, SOON, TestHost, Variant, actor, attacks, call_params, named_actor};
use rustix::process::Signal;

/// Both ways to live.
const WAYS: [&str; 2] = ["process", "host"];

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn start(lab: &Lab, way: &str, more: &str) -> TestHost {
    lab.start_with(&format!("watch = false\n{}{more}", lab.living_in(way)))
}

fn start_actor(way: &str, variant: &Variant, more: &str) -> (Lab, TestHost) {
    let lab = Lab::new();
    lab.package("one").put(&[variant]);
    let host = start(&lab, way, more);
    (lab, host)
}

/// Calls a method with a trace of the test's.
fn call(client: &mut Client, name: &str) -> Result<Vec<u8>, String> {
    let params = CallParams {
        trace: Some(TRACE.parse::<TraceParent>().unwrap()),
        ..call_params("actor", name, b"")
    };
    let reply: Result<CallReply, _> = client.request(method::CALL, &params, SOON);
    reply
        .map(|reply| reply.output_base64.0)
        .map_err(|error| error.to_string())
}

/// Waits until something went wrong with the actor, and it was started again so often.
#[track_caller]
fn restarted(host: &TestHost, restarts: u64) -> PluginStatus {
    host.wait_for("it is started again", |status| {
        let plugin = status.plugins.iter().find(|it| it.name == "actor")?;
        let is_back = plugin.state == PluginState::Active && plugin.stage.is_none();
        (plugin.restarts == restarts && is_back).then(|| plugin.clone())
    })
}

#[track_caller]
fn failure(plugin: &PluginStatus) -> FailureStatus {
    plugin.last_failure.clone().expect("it is reported")
}

fn history(host: &TestHost) -> Vec<Transition> {
    let history = host.client().request(method::HISTORY, &(), SOON);
    history.expect("the host remembers")
}

fn crashes(host: &TestHost) -> Vec<Transition> {
    let mut crashes = history(host);
    crashes.retain(|it| it.to == "crashed");
    crashes
}

/// Has the actor crash until it is given up.
fn wear_out(host: &TestHost) -> PluginStatus {
    for crash in 1..=6 {
        let error = call(&mut host.client(), "panic").unwrap_err();
        assert!(error.contains("asked to panic"), "{error}");
        if crash < 6 {
            restarted(host, crash);
        }
    }
    host.wait_for("it is given up", |status| {
        let plugin = status.plugins.iter().find(|it| it.name == "actor")?;
        (plugin.state == PluginState::Error).then(|| plugin.clone())
    })
}

#[test]
fn a_panic_report_has_location_method_trace_stack() {
    for way in WAYS {
        let (_lab, host) = start_actor(way, &named_actor("mark=1"), "");
        let error = call(&mut host.client(), "panic").unwrap_err();
        assert!(
            error.contains("actor/src/lib.rs:") && error.contains("it was asked to panic"),
            "{error}"
        );
        assert!(
            !error.contains("stack"),
            "callers get no addresses: {error}"
        );
        let failure = failure(&restarted(&host, 1));
        assert!(
            failure.what.starts_with("panicked at ")
                && failure.what.contains("actor/src/lib.rs:")
                && failure.what.ends_with(": it was asked to panic"),
            "{failure:?}"
        );
        assert_eq!(failure.method.as_deref(), Some("panic"), "{way}");
        assert_eq!(failure.trace_id.as_deref(), Some(&TRACE[3..35]), "{way}");
        assert!(
            failure.stack[0].contains("actor::fall_apart"),
            "{way}: {failure:?}"
        );
        assert!(failure.stack.len() <= 16, "{failure:?}");
        let record = host.log().wait("it panicked at ");
        assert_eq!(record["plugin"], "actor");
        assert_eq!(record["method"], "panic");
        assert_eq!(record["trace_id"], &TRACE[3..35]);
        let stack = record["stack"].as_str().expect("it is logged");
        assert!(stack.contains("actor::fall_apart"), "{stack}");
        host.stop();
    }
}

#[test]
fn a_stack_without_names_shows_offsets() {
    for way in WAYS {
        let (_lab, host) = start_actor(way, &actor("mark=1"), "");
        call(&mut host.client(), "panic").unwrap_err();
        let failure = failure(&restarted(&host, 1));
        assert!(!failure.stack.is_empty(), "{way}: {failure:?}");
        let is_offset = |frame: &String| frame.starts_with("+0x");
        assert!(failure.stack.iter().all(is_offset), "{way}: {failure:?}");
        host.stop();
    }
}

#[test]
fn a_panicked_instance_is_replaced_during_calls() {
    for way in WAYS {
        let (_lab, host) = start_actor(way, &actor("mark=1"), "");
        let before = host.plugin("actor");
        for crash in 1..=3 {
            call(&mut host.client(), "panic").unwrap_err();
            assert_eq!(host.text("actor", "mark"), "1", "it answers meanwhile");
            restarted(&host, crash);
        }
        let after = host.plugin("actor");
        assert_eq!(after.hash, before.hash);
        assert_eq!(after.package.as_deref(), Some("one"), "{way}");
        if way == "host" {
            assert_eq!(after.generation, before.generation + 3);
            host.wait_for("the old ones end", |status| {
                status.plugins[0].ending.is_empty().then_some(())
            });
        }
        let crashes = crashes(&host);
        assert_eq!(crashes.len(), 3, "{way}: {crashes:#?}");
        assert!(
            crashes[0]
                .reason
                .contains("it was asked to panic in `panic`")
        );
        host.stop();
    }
}

#[test]
fn a_recovery_is_in_log_and_history() {
    for way in WAYS {
        let (_lab, host) = start_actor(way, &actor("mark=1"), "");
        call(&mut host.client(), "panic").unwrap_err();
        restarted(&host, 1);
        let record = host.log().wait("started again; it starts without state");
        assert_eq!(record["plugin"], "actor", "{way}");
        let history = history(&host);
        let last = history.iter().rfind(|it| it.old_version.is_none()).unwrap();
        let way = (way, last);
        assert_eq!((&*last.from, &*last.to), ("crashed", "active"), "{way:?}");
        assert!(last.reason.starts_with("started again; "), "{way:?}");
        host.stop();
    }
}

#[test]
fn a_burst_of_panics_counts_as_one_crash() {
    let (_lab, host) = start_actor("host", &actor("mark=1"), "restart = { most = 1000 }\n");
    let burst = |client: &mut Client| {
        for _ in 0..5 {
            call(client, "panic").unwrap_err();
        }
    };
    for thread in [(); 4].map(|()| host.in_background(burst)) {
        thread.join().unwrap();
    }
    let plugin = host.wait_for("as many restarts as crashes", |status| {
        let plugin = &status.plugins[0];
        let at_rest = plugin.stage.is_none() && plugin.ending.is_empty();
        let crashes = crashes(&host).len() as u64;
        (at_rest && crashes > 0 && plugin.restarts == crashes).then(|| plugin.clone())
    });
    assert_eq!(plugin.calls_panicked, 20);
    assert!(plugin.restarts < 20, "{plugin:?}");
    assert_eq!(host.text("actor", "mark"), "1");
    host.stop();
}

#[test]
fn a_given_up_plugin_fails_calls_immediately() {
    for way in WAYS {
        let more = "restart = { pause_ms = 0 }\n";
        let (lab, host) = start_actor(way, &actor("mark=1"), more);
        let plugin = wear_out(&host);
        assert!(
            plugin.reason.contains("crashed more than 5 times in 10 s")
                && plugin.reason.contains("`hotmerge reload actor`"),
            "{plugin:?}"
        );
        let error = call(&mut host.client(), "mark").unwrap_err();
        assert!(
            error.contains("crashed more than 5 times"),
            "{way}: {error}"
        );
        assert_eq!(crashes(&host).len(), 6);
        let told = history(&host);
        let last = told
            .iter()
            .rfind(|it| it.to == "error")
            .expect("it is reported");
        assert!(
            last.reason.contains("crashed more than 5 times"),
            "{last:?}"
        );
        // A scan of the directory changes nothing.
        host.reload();
        assert_eq!(host.plugin("actor").state, PluginState::Error, "{way}");
        let shown = lab.hotmerge(["status"]).ok().text();
        assert!(shown.contains("crashed more than 5 times"), "{shown}");
        host.stop();
    }
}

#[test]
fn a_reload_restarts_a_given_up_plugin() {
    for way in WAYS {
        let more = "restart = { pause_ms = 0 }\n";
        let (lab, host) = start_actor(way, &actor("mark=1"), more);
        wear_out(&host);
        lab.hotmerge(["reload", "actor"]).ok();
        host.answers_again("actor");
        restarted(&host, 6);
        host.stop();
    }
}

#[test]
fn a_new_version_replaces_a_given_up_plugin() {
    for way in WAYS {
        for script in ["mark=2", "mark=2 state=1"] {
            let more = "restart = { pause_ms = 0 }\n";
            let state = if script.contains("state") {
                "mark=1 state=1"
            } else {
                "mark=1"
            };
            let (lab, host) = start_actor(way, &actor(state), more);
            wear_out(&host);
            let report = host.reload_after(|| lab.package("one").put(&[&actor(script)]));
            let report = &report.plugins[0];
            assert_eq!(report.action, Action::Reloaded, "{way}: {report:?}");
            assert_eq!(host.text("actor", "mark"), "2", "{way}");
            assert_eq!(host.plugin("actor").state, PluginState::Active);
            host.stop();
        }
    }
}

#[test]
fn a_failing_replacement_leaves_the_running_instance() {
    let lab = Lab::new();
    lab.package("one")
        .put(&[&actor("mark=1 state=1 restore=refuse")]);
    let host = start(&lab, "host", "save_s = 1\n");
    assert_eq!(host.count("actor"), 1);
    host.wait_for("its state is saved", |status| {
        status.plugins[0].saved.clone()
    });
    call(&mut host.client(), "panic").unwrap_err();
    let refused = host.wait_for("its replacement is refused", |status| {
        status.plugins[0].refused.clone()
    });
    assert!(refused.reason.contains("refuses to restore"), "{refused:?}");
    assert_eq!(host.count("actor"), 2, "the old one goes on");
    // The next time it begins anew.
    call(&mut host.client(), "panic").unwrap_err();
    restarted(&host, 1);
    assert_eq!(host.count("actor"), 1);
    host.stop();
}

#[test]
fn a_crashed_plugin_restores_its_last_checkpoint() {
    for way in WAYS {
        let (_lab, host) = start_actor(way, &actor("mark=1 state=1"), "save_s = 1\n");
        assert_eq!((host.count("actor"), host.count("actor")), (1, 2));
        let saved = host.wait_for("its state is saved", |status| {
            status.plugins[0].saved.clone()
        });
        assert_eq!((&*saved.version, saved.bytes), ("1.0.0", 9));
        call(&mut host.client(), "panic").unwrap_err();
        let plugin = restarted(&host, 1);
        let age = failure(&plugin).state_age_ms;
        assert!(age.is_some(), "{way}: {plugin:?}");
        assert_eq!(host.count("actor"), 3, "{way}");
        if way == "process" {
            host.kill_worker("actor");
            let plugin = restarted(&host, 2);
            assert_eq!(failure(&plugin).what, "was killed by SIGKILL");
            // From what was saved or handed over last.
            assert!((3..=4).contains(&host.count("actor")));
        }
        host.stop();
    }
}

#[test]
fn checkpoints_follow_calls_not_time() {
    let (_lab, host) = start_actor("process", &actor("mark=1 state=1"), "save_s = 1\n");
    host.count("actor");
    let first = host.wait_for("its state is saved", |status| {
        status.plugins[0].saved.clone()
    });
    // A call that comes later brings the next one.
    host.count("actor");
    host.wait_for("its state is saved again", |status| {
        let saved = status.plugins[0].saved.clone()?;
        (saved.time != first.time).then_some(())
    });
    host.stop();
}

#[test]
fn a_plugin_without_checkpoints_starts_fresh() {
    for way in WAYS {
        for (script, more) in [
            ("mark=1", "save_s = 1\n"),
            ("mark=1 state=1", "save_s = 0\n"),
        ] {
            let (_lab, host) = start_actor(way, &actor(script), more);
            assert_eq!((host.count("actor"), host.count("actor")), (1, 2));
            call(&mut host.client(), "panic").unwrap_err();
            let plugin = restarted(&host, 1);
            assert_eq!(failure(&plugin).state_age_ms, None, "{way} {script}");
            assert_eq!(host.count("actor"), 1, "{way} {script}");
            host.stop();
        }
    }
}

/// Whether a host has a handler for SIGUSR1.
fn takes_sigusr1(host: &TestHost) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.expect("the kernel tells").trim(), 16).unwrap();
    caught & (1 << (Signal::USR1.as_raw() - 1)) != 0
}

#[test]
fn a_workers_panic_raises_sigusr1_in_the_host() {
    let (_lab, host) = start_actor("process", &actor("mark=1"), "");
    assert!(takes_sigusr1(&host));
    let before = host.status().host.crash_signals;
    assert_eq!(before, 0, "trying out the sandbox is not a crash");
    call(&mut host.client(), "panic").unwrap_err();
    host.wait_for("the signal comes", |status| {
        (status.host.crash_signals > before).then_some(())
    });
    restarted(&host, 1);
    host.stop();
}

#[test]
fn orderly_worker_exits_raise_no_crash_signal() {
    let (lab, host) = start_actor("process", &actor("mark=1"), "");
    for mark in ["mark=2", "mark=3"] {
        lab.package("one").put(&[&actor(mark)]);
        host.reload();
        assert_eq!(host.text("actor", "mark"), mark[5..]);
    }
    lab.package("one").remove();
    host.reload();
    assert_eq!(host.status().host.crash_signals, 0);
    host.stop();
}

#[test]
fn a_host_without_workers_survives_sigusr1() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    let config = "watch = false\nworker = \"/nonexistent/worker\"\nisolation = \"host\"\n";
    let host = lab.start_with(config);
    assert!(takes_sigusr1(&host));
    host.signal(Signal::USR1);
    host.wait_for("the signal is counted", |status| {
        (status.host.crash_signals == 1).then_some(())
    });
    assert_eq!(host.text("actor", "mark"), "1");
    host.stop();
}

#[test]
fn status_shows_failures_at_any_width() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    lab.package("one").put(&[&named_actor("mark=1")]);
    let host = start(&lab, "process", "");
    host.call("attacks", "segv", b"").unwrap_err();
    call(&mut host.client(), "panic").unwrap_err();
    restarted(&host, 1);
    let shown = lab.hotmerge(["status"]).ok().text();
    for expected in [
        "PID",
        "MEMORY",
        "CPU",
        "RESTARTS",
        "process",
        "MiB",
        "was killed by SIGSEGV at 0x8 in `segv`",
        "it was asked to panic in `panic` (trace 0af7651916cd43dd8448eb211c80319c)",
        "in actor::fall_apart",
    ] {
        assert!(shown.contains(expected), "no `{expected}` in:\n{shown}");
    }
    let table: Vec<_> = shown
        .lines()
        .skip_while(|it| !it.starts_with("PLUGIN"))
        .collect();
    assert!(table[0].len() <= 100 && table[1].len() <= 100, "{shown}");
    let pid = host.worker("actor").pid.expect("it runs").to_string();
    assert!(shown.contains(&pid), "{shown}");
    host.stop();
}

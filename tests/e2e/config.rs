//! A new configuration while the host runs: all of it is applied or nothing, and only plugins that it
//! concerns are restarted.

use std::{fs, os::unix::fs::PermissionsExt as _};

use hotmerge_daemon::status::Status;
use hotmerge_meta::control::{Action, ConfigReport, ReloadParams, ReloadReport, method};
use hotmerge_tests::{Callers, Lab, SOON, TestHost, actor};
use rustix::process::Signal;

/// Writes another configuration for the running host.
fn rewrite(lab: &Lab, config: &str) {
    drop(lab.serve(config));
}

fn reload_config(host: &TestHost) -> (ConfigReport, ReloadReport) {
    let params = ReloadParams {
        config: true,
        ..ReloadParams::default()
    };
    let mut report = host.reload_with(&params);
    (report.config.take().expect("it was asked for"), report)
}

fn generation(host: &TestHost, plugin: &str) -> u64 {
    host.plugin(plugin).generation
}

fn two_actors() -> Lab {
    let lab = Lab::new();
    for name in ["one", "two"] {
        lab.put(&actor("mark=1 state=1").named(name));
    }
    lab
}

#[test]
fn only_plugins_with_changed_settings_start_anew() {
    for isolation in ["isolation = \"host\"\n", "isolation = \"process\"\n"] {
        let lab = two_actors();
        let host = lab.start_with(&format!("{isolation}[plugin.one.config]\nx = 1\n"));
        for count in 1..=3 {
            assert_eq!(host.count("one"), count);
        }
        let callers = Callers::start(&host, 2, ["one", "two"], "count");
        rewrite(
            &lab,
            &format!("{isolation}drain_ms = 20000\n[plugin.one.config]\nx = 2\n"),
        );
        let (config, report) = reload_config(&host);
        assert_eq!(config.refused, None);
        assert_eq!(config.restarted, ["one"]);
        assert!(config.needs_restart.is_empty(), "{config:?}");
        let [one] = &*report.plugins else {
            panic!("{report:?}");
        };
        assert_eq!((one.plugin.as_str(), one.action), ("one", Action::Reloaded));
        assert_eq!(one.old_hash, one.hash);
        assert_eq!(one.reason.as_deref(), Some("its configuration has changed"));
        assert_eq!(host.text("one", "config"), "{\"x\":2}");
        assert!(host.count("one") > 3, "it has taken over the state");
        assert_eq!((generation(&host, "one"), generation(&host, "two")), (2, 1));
        let calls = callers.unharmed();
        assert_eq!(calls["two"].generations, [1].into());
        // The same once more is not a change.
        let (config, report) = reload_config(&host);
        assert!(config.restarted.is_empty() && report.plugins.is_empty());
        host.stop();
    }
}

#[test]
fn a_wrong_configuration_changes_nothing() {
    let lab = two_actors();
    let host = lab.start_with("[plugin.one.config]\nx = 1\n");
    rewrite(&lab, "drian_ms = 1\n[plugin.one.config]\nx = 2\n");
    host.signal(Signal::HUP);
    let refused = host.wait_for("a refusal", |status| status.host.config.refused.clone());
    for words in [
        "hotmerge.toml",
        "line 4, column 1",
        "unknown field `drian_ms`",
        "did you mean `drain_ms`?",
    ] {
        assert!(refused.reason.contains(words), "{}", refused.reason);
    }
    host.log()
        .wait("the configuration was refused; the previous one stays in force");
    assert_eq!(host.text("one", "config"), "{\"x\":1}");
    assert_eq!(generation(&host, "one"), 1);
    lab.hotmerge(["reload", "--config"])
        .ended_with(3)
        .said(&["did you mean `drain_ms`?", "stays in force"]);
    // A value that only the check of the whole finds, behind a plugin that would have changed.
    rewrite(&lab, "[plugin.one.config]\nx = 2\n[plugin.two]\nuser = 0\n");
    let (config, report) = reload_config(&host);
    let reason = config.refused.expect("it is wrong");
    assert!(
        reason.contains("line 7, column 8: `plugin.two.user`"),
        "{reason}"
    );
    assert!(report.plugins.is_empty());
    assert_eq!(generation(&host, "one"), 1);
    fs::remove_file(lab.path("hotmerge.toml")).unwrap();
    let reason = reload_config(&host).0.refused.expect("there is none");
    assert!(reason.contains("cannot be read"), "{reason}");
    rewrite(&lab, "[plugin.one.config]\nx = 3\n");
    lab.hotmerge(["reload", "--config"]).ok();
    assert_eq!(host.text("one", "config"), "{\"x\":3}");
    let config = host.status().host.config;
    assert_eq!(config.refused, None);
    assert_eq!(config.file, Some(lab.path("hotmerge.toml")));
    host.stop();
}

#[test]
fn keys_are_named_until_the_needed_restart() {
    let lab = two_actors();
    let host = lab.start_with("keep_versions = 2\n");
    rewrite(
        &lab,
        "keep_versions = 5\ncgroup = \"/x\"\nplugin_dir = \"/y\"\n[plugin.one.config]\nx = 2\n",
    );
    let (config, _) = reload_config(&host);
    let keys: Vec<_> = config.needs_restart.iter().map(|it| &*it.key).collect();
    assert_eq!(
        keys,
        ["keep_versions", "cgroup"],
        "the command line says where plugins are"
    );
    assert_eq!(
        host.text("one", "config"),
        "{\"x\":2}",
        "the rest is in force"
    );
    assert_eq!(
        host.status().host.config.needs_restart,
        config.needs_restart
    );
    let text = lab.hotmerge(["status"]).ok().text();
    let line = "`keep_versions` waits for a restart of the host: 2 is in force, 5 is configured";
    assert!(text.contains(line), "{text}");
    rewrite(&lab, "keep_versions = 2\n");
    assert!(reload_config(&host).0.needs_restart.is_empty());
    assert!(host.status().host.config.needs_restart.is_empty());
    host.stop();
}

#[test]
fn refused_settings_leave_the_old_ones_in_force() {
    for isolation in ["isolation = \"host\"\n", "isolation = \"process\"\n"] {
        let lab = two_actors();
        let good = format!("{isolation}[plugin.one.config]\nx = 1\n");
        let host = lab.start_with(&good);
        assert_eq!(host.count("one"), 1);
        rewrite(&lab, &format!("{isolation}[plugin.one.config]\nbad = 1\n"));
        lab.hotmerge(["reload", "--config"])
            .ended_with(5)
            .said(&["1 plugin refused; what ran before still runs"]);
        let one = host.plugin("one");
        assert!(one.outdated);
        let reason = one.refused.expect("it was refused").reason;
        assert!(reason.contains("with its new configuration: "), "{reason}");
        assert!(reason.contains("its configuration is bad"), "{reason}");
        assert_eq!(host.text("one", "config"), "{\"x\":1}");
        // What takes its place after a crash has the settings that it had.
        host.call("one", "panic", b"").unwrap_err();
        host.wait_for("another instance", |status| {
            let one = &status.plugins[0];
            (one.restarts == 1 && one.worker.as_ref().is_none_or(|it| it.pid.is_some()))
                .then_some(())
        });
        assert_eq!(host.text("one", "config"), "{\"x\":1}");
        assert!(host.plugin("one").outdated);
        // Somebody asks for it by name: it is tried again.
        lab.hotmerge(["reload", "one"]).ended_with(5);
        rewrite(&lab, &good);
        lab.hotmerge(["reload", "--config"]).ok();
        let one = host.plugin("one");
        assert!(!one.outdated && one.refused.is_none());
        rewrite(&lab, &format!("{isolation}[plugin.one.config]\nx = 2\n"));
        lab.hotmerge(["reload", "--config"]).ok();
        assert_eq!(host.text("one", "config"), "{\"x\":2}");
        host.stop();
    }
}

#[test]
fn a_refused_plugin_is_tried_with_new_settings() {
    let lab = two_actors();
    let host = lab.start_with("[plugin.one.config]\nbad = 1\n");
    assert_eq!(generation(&host, "one"), 0);
    rewrite(&lab, "[plugin.one.config]\nx = 1\n");
    let (_, report) = reload_config(&host);
    assert_eq!(report.plugins[0].action, Action::Loaded);
    assert_eq!(host.text("one", "config"), "{\"x\":1}");
    host.stop();
}

#[test]
fn a_plugin_keeps_its_state_between_isolations() {
    let lab = two_actors();
    let host = lab.start_with("isolation = \"host\"\n");
    assert_eq!(host.count("one"), 1);
    rewrite(
        &lab,
        "isolation = \"host\"\n[plugin.one]\nisolation = \"process\"\n",
    );
    let (config, _) = reload_config(&host);
    assert_eq!(config.restarted.len(), 1, "{config:?}");
    assert_eq!(host.plugin("one").isolation.as_deref(), Some("process"));
    assert_eq!(host.plugin("two").isolation.as_deref(), Some("host"));
    assert_eq!(host.count("one"), 2);
    host.stop();
}

#[test]
fn the_door_follows_the_configuration() {
    let lab = two_actors();
    let host = lab.start();
    let mode = || {
        let found = fs::metadata(lab.runtime_dir().control_socket()).unwrap();
        found.permissions().mode() & 0o777
    };
    assert_eq!(mode(), 0o600);
    rewrite(&lab, "[[door.allow]]\nuser = 60001\nrole = \"read\"\n");
    let (config, report) = reload_config(&host);
    assert!(config.refused.is_none() && report.plugins.is_empty());
    assert_eq!(mode(), 0o666);
    rewrite(&lab, "");
    reload_config(&host);
    assert_eq!(mode(), 0o600);
    let _: Status = host.client().request(method::STATUS, &(), SOON).unwrap();
    host.stop();
}

/// Every number at its smallest.
const LEAST: &str = "
settle_ms = 0
start_ms = 0
drain_ms = 0
teardown_ms = 0
handover_ms = 0
keep_versions = 1
rescan_s = 1
poll_ms = 10
save_s = 1
call_ms = 1
restart = { most = 0, within_s = 0, pause_ms = 0 }
log = { records = 0, bytes = 0 }
[http]
listen = ['LISTEN']
max_body_bytes = 0
max_reply_bytes = 0
max_header_bytes = 8192
header_ms = 1
body_ms = 1
deadline_ms = 1
max_connections = 1
max_calls = 1
max_calls_per_client = 1
stop_ms = 0
[plugin.actor]
canary = { share = 1e-308, for_s = 0, max_error_rate = 0 }
limits = { memory_mib = 0, threads = 0, files = 0, cpu_s = 1, cpus = 0.01 }
";

/// Every number at its largest: 100 years, and what memory can be addressed.
const MOST: &str = "
settle_ms = 3153600000000
start_ms = 3153600000000
drain_ms = 3153600000000
teardown_ms = 3153600000000
handover_ms = 3153600000000
keep_versions = 9223372036854775807
rescan_s = 3153600000
poll_ms = 3153600000000
save_s = 3153600000
call_ms = 3153600000000
restart = { most = 4294967295, within_s = 3153600000, pause_ms = 3153600000000 }
log = { records = 9223372036854775807, bytes = 9223372036854775807 }
[http]
listen = ['LISTEN']
max_body_bytes = 2147483648
max_reply_bytes = 2147483648
max_header_bytes = 1048576
header_ms = 3153600000000
body_ms = 3153600000000
deadline_ms = 3153600000000
max_connections = 1048576
max_calls = 4096
max_calls_per_client = 4096
stop_ms = 3153600000000
[plugin.actor]
canary = { share = 0.9999999999999999, for_s = 1e9, max_error_rate = 1 }
limits = { memory_mib = 1099511627776, threads = 4194304, files = 1073741824, cpu_s = 3153600000, cpus = 1024 }
";

/// A plugin may be refused by such limits, in a sentence; nothing else goes wrong.
#[test]
fn a_host_runs_with_every_number_extreme() {
    for numbers in [LEAST, MOST] {
        for isolation in ["host", "process"] {
            let lab = Lab::new();
            lab.put(&actor("mark=1"));
            let listen = format!("unix:{}", lab.path("http.sock").display());
            let config = numbers.replace("LISTEN", &listen);
            let host = lab.start_with(&format!("{}{config}", lab.living_in(isolation)));
            let runs = |mark: &str| match host.plugin("actor").refused {
                Some(refused) => assert!(!refused.reason.is_empty()),
                None => drop(host.call("actor", mark, b"")),
            };
            runs("mark");
            host.reload_after(|| lab.put(&actor("mark=2")));
            runs("mark");
            if host.plugin("actor").generation > 0 {
                let _ = host.call("actor", "panic", b"");
                runs("mark");
            }
            for command in ["status", "logs", "history", "reload"] {
                let ran = lab.hotmerge([command]);
                assert!(matches!(ran.code, Some(0 | 5)), "{command}: {ran:?}");
            }
            let log = host.stop().to_string();
            let of_host = log.lines().filter(|line| line.contains("panicked"));
            let strange: Vec<_> = of_host
                .filter(|line| !line.contains("it was asked to panic"))
                .collect();
            assert!(strange.is_empty(), "{strange:#?}");
        }
    }
}

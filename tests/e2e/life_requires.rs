//! Plugins that require others: when they start, stop, and whom they may call.

use hotmerge_daemon::lifecycle::PluginState;
use hotmerge_meta::{OnReplace, control::Action};
use hotmerge_tests::{Gate, Lab, TestHost, Variant, actor};

fn plugin(name: &str, script: &str) -> Variant {
    actor(script).named(name)
}

#[track_caller]
fn ask(host: &TestHost, plugin: &str, request: &str) -> String {
    let reply = host
        .call(plugin, "ask", request.as_bytes())
        .expect("it answers");
    String::from_utf8(reply.output_base64.0).unwrap()
}

fn base_and_user(on_replace: OnReplace) -> (Lab, TestHost) {
    let lab = Lab::new();
    lab.put(&plugin("user", "mark=u1").requiring("base", "^1", on_replace));
    lab.put(&plugin("base", "mark=b1"));
    let host = lab.start_with("watch = false");
    (lab, host)
}

#[test]
fn calls_to_requirements_reach_the_live_version() {
    let (lab, host) = base_and_user(OnReplace::Rebind);
    assert_eq!(ask(&host, "user", "base mark"), "b1");
    lab.put(&plugin("base", "mark=b2"));
    host.reload();
    assert_eq!(ask(&host, "user", "base mark"), "b2");
    assert_eq!(
        host.plugin("user").generation,
        1,
        "bound again, not reloaded"
    );
    let denied = host.call("base", "ask", b"user mark").unwrap_err();
    assert!(
        denied.to_string().contains("does not require it"),
        "{denied}"
    );
    let failed = host.call("user", "ask", b"base fail").unwrap_err();
    assert!(failed.to_string().contains("asked to fail"), "{failed}");
    let panicked = host.call("user", "ask", b"base panic").unwrap_err();
    assert!(
        panicked.to_string().contains("asked to panic"),
        "{panicked}"
    );
    host.stop();
}

#[test]
fn a_dependant_with_on_replace_reload_restarts() {
    let (lab, host) = base_and_user(OnReplace::Reload);
    let report = host.reload_after(|| lab.put(&plugin("base", "mark=b2")));
    let done: Vec<_> = report
        .plugins
        .iter()
        .map(|it| (it.plugin.as_str(), it.action))
        .collect();
    assert_eq!(
        done,
        [("base", Action::Reloaded), ("user", Action::Reloaded)]
    );
    assert_eq!(host.plugin("user").generation, 2);
    host.stop();
}

#[test]
fn requirements_start_first_and_stop_last() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    let user = plugin("user", "mark=u teardown=wait").requiring("base", "^1", OnReplace::Rebind);
    lab.put(&user);
    lab.put(&plugin("base", "mark=b start=wait teardown=wait"));
    let config = format!("{}{}", gate.config("user"), gate.config("base"));
    let mut host = TestHost::spawn(lab.serve(&config), lab.runtime_dir());
    let visitor = gate.visitor();
    assert_eq!(visitor.scene, "start b");
    host.wait_for_answers();
    host.wait_for("the dependant to wait", |status| {
        let user = status.plugins.iter().find(|it| it.name == "user")?;
        (user.stage?.to_string() == "waiting").then_some(())
    });
    visitor.let_go();
    host.log().wait("ready");

    host.signal(rustix::process::Signal::TERM);
    let first = gate.visitor();
    assert_eq!(first.scene, "teardown u");
    first.let_go();
    let second = gate.visitor();
    assert_eq!(second.scene, "teardown b");
    second.let_go();
    assert!(host.ended().success());
}

#[test]
fn a_missing_requirement_is_reported_and_recovers() {
    let lab = Lab::new();
    lab.put(&plugin("a", "mark=a").requiring("b", "*", OnReplace::Rebind));
    lab.put(&plugin("b", "mark=b").requiring("c", "^2", OnReplace::Rebind));
    let host = lab.start_with("watch = false");
    let refused = host.plugin("a").refused.expect("it cannot start");
    assert!(refused.reason.contains("a → b → c"), "{refused:?}");
    assert!(
        refused.reason.contains("not in the plugin directory"),
        "{refused:?}"
    );
    lab.put(&plugin("c", "mark=c").version("1.0.0"));
    host.reload();
    let refused = host.plugin("b").refused.expect("it cannot start");
    assert!(refused.reason.contains("found 1.0.0"), "{refused:?}");
    lab.put(&plugin("c", "mark=c2").version("2.1.0"));
    host.reload();
    for name in ["a", "b", "c"] {
        assert_eq!(host.plugin(name).state, PluginState::Active, "{name}");
    }
    host.stop();
}

#[test]
fn a_dependency_cycle_is_refused_with_its_path() {
    let lab = Lab::new();
    lab.put(&plugin("a", "mark=a").requiring("b", "*", OnReplace::Rebind));
    lab.put(&plugin("b", "mark=b").requiring("a", "*", OnReplace::Rebind));
    lab.put(&plugin("c", "mark=c"));
    let host = lab.start_with("watch = false");
    let paths = ["a", "b"].map(|name| host.plugin(name).refused.unwrap().reason);
    assert!(
        paths
            .iter()
            .any(|it| it.contains("a → b → a") || it.contains("b → a → b"))
    );
    assert_eq!(host.text("c", "mark"), "c");
    host.stop();
}

#[test]
fn a_version_incompatible_with_a_dependant_is_refused() {
    let (lab, host) = base_and_user(OnReplace::Rebind);
    let next = plugin("base", "mark=b2").version("2.0.0");
    let report = host.reload_after(|| lab.put(&next));
    let reason = report.plugins[0].reason.as_deref().unwrap();
    assert!(reason.contains("user → base"), "{reason}");
    assert_eq!(ask(&host, "user", "base mark"), "b1");
    // Both together are fine.
    lab.put(&plugin("user", "mark=u2").requiring("base", "^2", OnReplace::Rebind));
    host.reload();
    assert_eq!(host.text("user", "mark"), "u2");
    assert_eq!(ask(&host, "user", "base mark"), "b2");
    host.stop();
}

#[test]
fn a_plugin_leaves_and_returns_with_its_requirement() {
    let (lab, host) = base_and_user(OnReplace::Rebind);
    lab.package("base").remove();
    host.reload();
    host.wait_for("both to stop", |status| {
        let user = status.plugins.iter().find(|it| it.name == "user")?;
        let alone = status.plugins.len() == 1 && user.ending.is_empty();
        (alone && user.state == PluginState::Error).then_some(())
    });
    lab.put(&plugin("base", "mark=b3"));
    host.reload();
    assert_eq!(ask(&host, "user", "base mark"), "b3");
    host.stop();
}

#[test]
fn a_plugin_of_an_older_contract_still_runs() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=old").with_abi(1, 0)]);
    let host = lab.start_with("watch = false");
    assert_eq!(host.text("actor", "mark"), "old");
    host.stop();
}

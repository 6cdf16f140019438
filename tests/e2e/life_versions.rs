//! Going back: rollback, pins, canaries, and what a host remembers of its last run.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use hotmerge_daemon::{lifecycle::PluginState, status::PluginStatus};
use hotmerge_meta::{
    Image, OnReplace,
    control::{
        Action, Description, HistoryParams, PluginParams, PluginReport, RollbackParams, Transition,
        method,
    },
};
use hotmerge_tests::{Lab, Ran, SOON, TestHost, TinyDisk, Variant, actor, call, skipped};
use serde_json::Value;

fn put(lab: &Lab, host: &TestHost, variant: &Variant) -> Vec<PluginReport> {
    host.reload_after(|| lab.package("one").put(&[variant]))
        .plugins
}

fn version(number: u32) -> Variant {
    actor(&format!("mark={number}")).version(&format!("{number}.0.0"))
}

fn three_versions() -> (Lab, TestHost) {
    let lab = Lab::new();
    lab.package("one").put(&[&version(1)]);
    let host = lab.start_with("watch = false");
    for number in [2, 3] {
        put(&lab, &host, &version(number));
    }
    (lab, host)
}

fn roll_back(host: &TestHost, to: Option<String>) -> PluginReport {
    let params = RollbackParams {
        plugin: "actor".parse().unwrap(),
        to,
        without_state: false,
    };
    let report = host.client().request(method::ROLLBACK, &params, SOON);
    report.expect("there is something to go back to")
}

#[track_caller]
fn runs(host: &TestHost, mark: &str) -> PluginStatus {
    assert_eq!(host.text("actor", "mark"), mark);
    let plugin = host.plugin("actor");
    assert_eq!(plugin.state, PluginState::Active);
    plugin
}

fn ok(ran: &Ran) {
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn repeated_rollbacks_go_further_back() {
    let (lab, host) = three_versions();
    ok(&lab.hotmerge(["rollback", "actor"]));
    runs(&host, "2");
    let report = roll_back(&host, None);
    assert_eq!(report.action, Action::Reloaded);
    let plugin = runs(&host, "1");
    assert_eq!(plugin.rolled_back, Some(version(3).meta.hash));
    let none = lab.hotmerge(["rollback", "actor"]);
    assert_ne!(none.code, Some(0));
    assert!(
        none.stderr.contains("older than the running one"),
        "{none:?}"
    );
    host.stop();
}

#[test]
fn any_stored_version_is_reachable_by_hash() {
    let (_lab, host) = three_versions();
    let kept = host.plugin("actor").kept;
    let versions: Vec<_> = kept.iter().map(|kept| &*kept.version).collect();
    assert_eq!(versions, ["3.0.0", "2.0.0", "1.0.0"]);
    roll_back(&host, Some(kept[2].hash.short()));
    runs(&host, "1");
    // Forward again: to what the directory has.
    roll_back(&host, Some(kept[0].hash.to_string()));
    let plugin = runs(&host, "3");
    assert_eq!(plugin.rolled_back, None);
    host.stop();
}

#[test]
fn a_rolled_back_version_waits_for_a_change() {
    let (lab, host) = three_versions();
    roll_back(&host, None);
    let report = host.reload_after(|| lab.package("one").put(&[&version(3)]));
    assert_eq!(report.plugins[0].action, Action::Refused);
    let reason = report.plugins[0].reason.as_deref().unwrap();
    assert!(reason.contains("rolled back"), "{reason}");
    runs(&host, "2");
    host.stop();

    let host = lab.start_with("watch = false");
    let plugin = runs(&host, "2");
    assert_eq!(plugin.rolled_back, Some(version(3).meta.hash));
    put(&lab, &host, &version(4));
    runs(&host, "4");
    put(&lab, &host, &version(3));
    runs(&host, "3");
    host.stop();
}

#[test]
fn a_pin_outlasts_changes_restarts_and_a_rollback() {
    let (lab, host) = three_versions();
    ok(&lab.hotmerge(["pin", "actor"]));
    put(&lab, &host, &version(4));
    assert!(runs(&host, "3").pinned);
    let refused = lab.hotmerge(["rollback", "actor"]);
    assert!(refused.stderr.contains("unpin"), "{refused:?}");
    host.stop();

    let host = lab.start_with("watch = false");
    assert!(runs(&host, "3").pinned);
    ok(&lab.hotmerge(["unpin", "actor"]));
    assert!(!runs(&host, "4").pinned);
    host.stop();
}

#[test]
fn commands_print_what_the_operator_requested() {
    let (lab, host) = three_versions();
    let says = |arguments: &[&str], what: &str| {
        let done = lab.hotmerge(arguments.iter().copied());
        ok(&done);
        assert!(done.text().contains(what), "{arguments:?}: {done:?}");
    };
    says(&["pin", "actor"], " pinned ");
    host.log().wait("pinned");
    says(&["unpin", "actor"], "unpinned");
    host.log().wait("unpinned");
    says(&["rollback", "actor"], " rolled back ");
    host.log().wait("rollback requested by an operator");
    let reasons = lab.hotmerge(["history", "actor"]).text();
    for reason in [
        "an operator pinned it",
        "an operator unpinned it",
        "an operator chose",
    ] {
        assert!(reasons.contains(reason), "{reasons}");
    }
    host.stop();
}

#[test]
fn unpin_reports_that_a_rollback_stays_active() {
    let (lab, host) = three_versions();
    roll_back(&host, None);
    ok(&lab.hotmerge(["pin", "actor"]));
    let unpinned = lab.hotmerge(["unpin", "actor", "--json"]);
    ok(&unpinned);
    let report: PluginReport = serde_json::from_str(&unpinned.text()).unwrap();
    assert_eq!(report.action, Action::Unchanged);
    let plugin = runs(&host, "2");
    assert_eq!(report.hash, plugin.hash);
    assert!(!plugin.pinned && plugin.refused.is_none());
    assert_eq!(plugin.rolled_back, Some(version(3).meta.hash));
    // What it advises works.
    let hash = version(3).meta.hash.short();
    let advice = format!("`hotmerge rollback actor --to {hash}`");
    let reason = report.reason.unwrap();
    assert!(reason.contains("no longer pinned; 3.0.0"), "{reason}");
    assert!(reason.contains(&advice), "{reason}");
    ok(&lab.hotmerge(["rollback", "actor", "--to", &hash]));
    assert_eq!(runs(&host, "3").rolled_back, None);
    host.stop();
}

#[test]
fn a_restart_falls_back_to_a_good_version() {
    let (lab, host) = three_versions();
    host.stop();
    lab.package("one").put(&[&actor("mark=4 start=refuse")]);
    let host = lab.start_with("watch = false");
    let plugin = runs(&host, "3");
    let refused = plugin.refused.expect("the new one was refused");
    assert!(refused.reason.contains("refuses to start"), "{refused:?}");
    host.stop();
}

#[test]
fn a_damaged_stored_version_never_runs() {
    let (lab, host) = three_versions();
    damage(&kept(&lab, &version(2)));
    let report = roll_back(&host, None);
    assert_eq!(report.action, Action::Refused);
    let reason = report.reason.unwrap();
    assert!(reason.contains("damaged"), "{reason}");
    assert!(reason.contains("stage it again"), "{reason}");
    runs(&host, "3");
    // As it says: while it runs there is a good copy.
    put(&lab, &host, &version(2));
    put(&lab, &host, &version(3));
    assert_eq!(roll_back(&host, None).action, Action::Reloaded);
    runs(&host, "2");
    host.stop();
}

/// As a host finds it that was upgraded to another contract, or went back from one.
#[test]
fn a_stored_version_of_another_contract_is_whole() {
    let (lab, host) = three_versions();
    host.stop();
    let foreign = version(3).with_abi(2, 0);
    let record = lab.state_dir().join("plugins/actor.json");
    let mut kept_versions: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    kept_versions["live"] = serde_json::to_value(foreign.meta.hash).unwrap();
    kept_versions["versions"][0] = serde_json::to_value(&foreign.meta).unwrap();
    fs::write(&record, kept_versions.to_string()).unwrap();
    let image = Image::normalise(foreign.bytes.clone()).unwrap();
    fs::write(kept(&lab, &foreign), image.bytes()).unwrap();

    lab.package("one").put(&[&actor("mark=4 start=refuse")]);
    let host = lab.start_with("watch = false");
    assert_eq!(host.plugin("actor").state, PluginState::Error);
    let report = roll_back(&host, Some(foreign.meta.hash.to_string()));
    assert_eq!(report.action, Action::Refused);
    let reason = report.reason.unwrap();
    assert!(reason.contains("built for ABI 2.0"), "{reason}");
    let history = lab.hotmerge(["history", "actor"]).stdout;
    let history = String::from_utf8(history).unwrap();
    assert!(history.contains("built for ABI 2.0"), "{history}");
    assert!(!(reason + &history).contains("damaged"), "{history}");
    // What this host can run is still there to go back to.
    let oldest = version(1).meta.hash.to_string();
    assert_eq!(roll_back(&host, Some(oldest)).action, Action::Loaded);
    runs(&host, "1");
    host.stop();
}

#[test]
fn a_live_version_repairs_its_damaged_stored_copy() {
    let lab = Lab::new();
    let user = version(1).requiring("base", "^1", OnReplace::Reload);
    lab.put(&user);
    lab.put(&actor("mark=b1").named("base"));
    let host = lab.start_with("watch = false");
    ok(&lab.hotmerge(["pin", "actor"]));
    lab.put(&version(2).requiring("base", "^1", OnReplace::Reload));
    host.reload();
    let image = kept(&lab, &user);
    let whole = fs::read(&image).unwrap();
    damage(&image);
    lab.put(&actor("mark=b2").named("base"));
    host.reload();
    assert_eq!(runs(&host, "1").generation, 2);
    assert!(fs::read(&image).unwrap() == whole, "and is whole again");
    host.stop();
}

/// Where the store has a version's image.
fn kept(lab: &Lab, version: &Variant) -> PathBuf {
    let hash = version.meta.hash.to_string();
    let hex = hash.strip_prefix("sha256:").unwrap();
    lab.state_dir().join("images").join(format!("{hex}.so"))
}

fn damage(image: &Path) {
    let mut bytes = fs::read(image).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0x90);
    fs::write(image, bytes).unwrap();
}

/// Takes all the room that a file system has.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    path
}

#[test]
fn a_pin_that_cannot_be_written_fails() {
    let lab = Lab::new();
    fs::create_dir(lab.state_dir()).unwrap();
    let Some(disk) = TinyDisk::new(&lab.state_dir(), 64 << 20) else {
        return skipped("this user may not mount anything");
    };
    let config = format!("watch = false\nstate_dir = {:?}", disk.path());
    lab.package("one").put(&[&version(1)]);
    let host = lab.start_with(&config);
    put(&lab, &host, &version(2));
    let filler = fill(disk.path());
    let forgotten = |command: &str| {
        let ran = lab.hotmerge([command, "actor"]).ended_with(1);
        ran.said(&[
            "the change is in force",
            "would lose it",
            "No space left on device",
        ]);
    };
    forgotten("pin");
    // What was written down before stands again.
    ok(&lab.hotmerge(["unpin", "actor"]));
    forgotten("rollback");
    let failure = host.status().host.store_failure.expect("it cannot write");
    assert!(failure.reason.contains("No space left"), "{failure:?}");
    let ran = lab.hotmerge(["status"]);
    assert!(ran.text().contains("not persisted since"), "{ran:?}");
    let names = fs::read_dir(disk.path().join("plugins")).unwrap();
    let names: Vec<_> = names.map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["actor.json"], "nothing is left behind");

    fs::remove_file(filler).unwrap();
    host.wait_for("it is written down", |status| {
        status.host.store_failure.is_none().then_some(())
    });
    drop(host);
    let host = lab.start_with(&config);
    assert_eq!(runs(&host, "1").rolled_back, Some(version(2).meta.hash));
    ok(&lab.hotmerge(["pin", "actor"]));
    host.stop();
}

#[test]
fn removing_a_plugin_removes_its_stored_versions() {
    let (lab, host) = three_versions();
    lab.package("one").remove();
    host.reload();
    host.wait_for("its end", |status| status.plugins.is_empty().then_some(()));
    host.reload();
    host.stop();
    let left = |name: &str| fs::read_dir(lab.state_dir().join(name)).unwrap().count();
    assert_eq!((left("plugins"), left("images")), (0, 0));
}

#[test]
fn a_second_host_on_one_state_is_refused() {
    let (lab, host) = three_versions();
    let other = Lab::new();
    let mut command = other.command();
    command
        .arg("serve")
        .arg("--plugin-dir")
        .arg(other.plugin_dir());
    command.arg("--state-dir").arg(lab.state_dir());
    let ran = hotmerge_tests::run(&mut command, SOON);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("running host"), "{ran:?}");
    host.stop();
}

// --- Canaries

const CANARY: &str =
    "watch = false\n[plugin.actor]\ncanary = { share = 0.5, for_s = FOR, max_error_rate = 0.1 }\n";

fn canary(for_s: &str) -> (Lab, TestHost) {
    let lab = Lab::new();
    lab.package("one").put(&[&version(1)]);
    let host = lab.start_with(&CANARY.replace("FOR", for_s));
    (lab, host)
}

#[test]
fn a_good_canary_takes_over_all_calls() {
    let (lab, host) = canary("0.3");
    let reports = put(&lab, &host, &version(2));
    assert_eq!(reports[0].action, Action::Trying);
    // Both answer while it is tried, and no call fails.
    let mut client = host.client();
    let mut seen = [0u32; 3];
    while host.plugin("actor").generation == 1 {
        let reply = call(&mut client, "actor", "mark", b"").unwrap();
        seen[usize::try_from(reply.generation).unwrap()] += 1;
    }
    assert!(seen[1] > 0 && seen[2] > 0, "{seen:?}");
    runs(&host, "2");
    host.stop();
}

#[test]
fn a_failing_canary_is_rolled_back() {
    let (lab, host) = canary("3600");
    put(&lab, &host, &actor("mark=2 call=refuse"));
    assert!(host.plugin("actor").canary.is_some());
    let refused = loop {
        // Some of these calls fail: that is what a canary is for.
        let _ = host.call("actor", "mark", b"");
        if let Some(refused) = host.plugin("actor").refused {
            break refused;
        }
    };
    assert!(
        refused.reason.contains("calls in its trial failed"),
        "{refused:?}"
    );
    let plugin = runs(&host, "1");
    assert!(plugin.canary.is_none());
    assert_eq!(plugin.generation, 1);
    host.stop();
}

/// What clients ask wrongly, and what nobody calls.
#[test]
fn questions_do_not_count_against_a_canary() {
    let (lab, host) = canary("3600");
    put(&lab, &host, &actor("mark=2").with_abi(1, 1));
    let tried = || host.plugin("actor").canary.expect("it is tried");
    let params = PluginParams {
        plugin: "actor".parse().unwrap(),
    };
    for _ in 0..20 {
        // The live version's.
        let _: Description = host
            .client()
            .request(method::DESCRIBE, &params, SOON)
            .unwrap();
    }
    assert_eq!(tried().calls, 0);
    while tried().calls < 20 {
        let _ = host.call("actor", "no-media", b"");
        let _ = host.call("actor", "no-such-media", b"");
    }
    assert_eq!(tried().failed, 0);
    host.stop();
}

#[test]
fn a_plugin_with_state_gets_no_canary() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1 state=1")]);
    let host = lab.start_with(&CANARY.replace("FOR", "1"));
    let reports = put(&lab, &host, &actor("mark=2 state=1"));
    assert_eq!(reports[0].action, Action::Refused);
    runs(&host, "1");
    host.stop();
}

/// The second version, after a trial in which nobody called it.
fn tried() -> (Lab, TestHost) {
    let (lab, host) = canary("0.1");
    put(&lab, &host, &version(2));
    host.wait_for("the trial ends", |status| {
        (status.plugins[0].generation == 2).then_some(())
    });
    (lab, host)
}

#[test]
fn a_rollback_is_never_a_trial() {
    let (lab, host) = tried();
    ok(&lab.hotmerge(["rollback", "actor"]));
    for _ in 0..50 {
        assert!(runs(&host, "1").canary.is_none());
    }
    host.stop();
}

/// Both let the directory decide, whose versions are tried; only a chosen version is not.
#[test]
fn unpin_and_reload_try_the_directorys_version() {
    let (lab, host) = canary("3600");
    let said = |arguments: &[&str]| {
        let ran = lab.hotmerge(arguments.iter().copied());
        ok(&ran);
        ran.text()
    };
    said(&["pin", "actor"]);
    put(&lab, &host, &version(2));
    assert!(said(&["unpin", "actor"]).contains("unpinned, trying"));
    assert!(host.plugin("actor").canary.is_some());
    put(&lab, &host, &actor("mark=3 call=refuse"));
    host.wait_for("its trial fails", |status| {
        let _ = host.call("actor", "mark", b"");
        status.plugins[0].refused.is_some().then_some(())
    });
    assert!(said(&["reload", "actor"]).contains("trying"));
    assert!(host.plugin("actor").canary.is_some());
    assert_eq!(host.plugin("actor").generation, 1);
    host.stop();
}

#[test]
fn a_trial_without_calls_says_so() {
    let (_lab, host) = tried();
    let reason = host.plugin("actor").reason;
    assert!(reason.contains("no call came"), "{reason}");
    host.stop();
}

// --- History

#[test]
fn history_lists_every_transition_with_its_reason() {
    let (lab, host) = three_versions();
    let params = HistoryParams::default();
    let history: Vec<Transition> = host
        .client()
        .request(method::HISTORY, &params, SOON)
        .unwrap();
    let plugin: Vec<_> = history
        .iter()
        .filter(|it| it.old_version.is_none())
        .map(|it| &*it.to)
        .collect();
    assert_eq!(
        plugin[..3],
        ["detecting/verifying", "reloading/starting", "active"]
    );
    let old: Vec<_> = history
        .iter()
        .filter(|it| it.old_version == Some(version(1).meta.hash))
        .map(|it| &*it.to)
        .collect();
    assert_eq!(old, ["draining", "teardown", "ended"]);
    assert!(
        history
            .iter()
            .all(|it| !it.reason.is_empty() && it.time.ends_with('Z'))
    );
    // What one comes to, the next begins with.
    let mut last = "idle";
    for it in history.iter().filter(|it| it.old_version.is_none()) {
        assert_eq!(it.from, last);
        last = &it.to;
    }
    let table = lab.hotmerge(["history", "actor"]);
    assert!(
        table.text().contains("the plugin directory has changed"),
        "{table:?}"
    );
    let plugin = host.plugin("actor");
    assert_eq!(plugin.reason, "started, and takes all new calls");
    assert!(plugin.since.is_some());
    // Of what nobody knows, nothing has not happened either.
    for command in ["history", "reload"] {
        let unknown = lab.hotmerge([command, "nobody"]);
        unknown
            .ended_with(1)
            .said(&["there is no plugin `nobody` in"]);
    }
    host.stop();
}

#[test]
fn removed_and_pinned_plugins_keep_their_history() {
    let (lab, host) = three_versions();
    ok(&lab.hotmerge(["pin", "actor"]));
    lab.package("one").remove();
    host.reload();
    host.wait_for("its end", |status| status.plugins.is_empty().then_some(()));
    let gone = lab.hotmerge(["history", "actor"]);
    ok(&gone);
    assert!(gone.text().contains("gone from the plugin"), "{gone:?}");
    host.stop();
    let host = lab.start_with("watch = false");
    let pinned = lab.hotmerge(["history", "actor"]);
    ok(&pinned);
    assert!(pinned.text().contains("no transitions yet"), "{pinned:?}");
    host.stop();
}

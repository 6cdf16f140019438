//! The main job: what changed is reloaded, everything else continues undisturbed.

use std::{collections::BTreeMap, ffi::OsStr, fs, process::Command, thread};

use hotmerge_daemon::{
    lifecycle::{PluginState, Stage},
    status::{PluginStatus, Status},
};
use hotmerge_tests::{Callers, Gate, Lab, TestHost, Variant, Workspace, actions, actor, skipped};
use rustix::process::Signal;

/// What must not change where nothing was reloaded.
fn instances(host: &TestHost) -> BTreeMap<String, (u64, String)> {
    let plugins = host.status().plugins.into_iter();
    plugins
        .map(|plugin| {
            let worker = plugin.worker.and_then(|worker| worker.pid);
            let place = plugin.address.or(worker.map(|pid| pid.to_string()));
            (
                plugin.name,
                (plugin.generation, place.expect("it is active")),
            )
        })
        .collect()
}

/// Waits until the host has scanned once more.
fn looked(host: &TestHost, before: u64) {
    host.wait_for("another scan", |status| {
        (status.host.rescans > before).then_some(())
    });
}

#[test]
fn only_the_changed_plugin_of_twenty_reloads() {
    let names: Vec<_> = (1..=20).map(|number| format!("p{number:02}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let lab = Lab::new();
    let workspace = Workspace::new("twenty", names.iter().copied());
    let build = || workspace.driver(&lab);
    build().arguments(["--notify", "never"]).run().ok();
    let host = lab.start();
    let callers = Callers::start(&host, 2, names.iter().copied(), "answer");
    let before = instances(&host);
    assert_eq!(before.len(), 20);

    workspace.edit("p07", "\"p07 one\"", "\"p07 two\"");
    let lines = build()
        .arguments(["--notify", "require"])
        .run()
        .ok()
        .lines();
    let done = actions(&lines);
    callers.go_on();

    for (name, action) in done {
        let expected = if name == "p07" {
            "reloaded"
        } else {
            "unchanged"
        };
        assert_eq!(action, expected, "{name}");
    }
    let mut after = instances(&host);
    assert_eq!(after["p07"].0, 2);
    after.insert("p07".to_owned(), before["p07"].clone());
    assert_eq!(after, before, "an instance was touched");
    for (name, tally) in callers.unharmed() {
        let answers: Vec<_> = tally
            .answers
            .iter()
            .map(|answer| String::from_utf8_lossy(answer))
            .collect();
        if name == "p07" {
            assert_eq!(answers, ["p07 one", "p07 two"]);
        } else {
            assert_eq!(answers, [format!("{name} one")]);
            assert_eq!(tally.generations, [1].into());
        }
    }
    assert_eq!(host.stop().count("reloaded"), 1);
}

#[test]
fn changes_outside_the_code_reload_nothing() {
    let lab = Lab::new();
    let workspace = Workspace::new("no-code", ["still", "quiet"]);
    let driver = || workspace.driver(&lab);
    driver().arguments(["--notify", "never"]).run().ok();
    let host = lab.start();
    let callers = Callers::start(&host, 1, ["still", "quiet"], "answer");
    let before = instances(&host);
    let unchanged = |what: &str| {
        let lines = driver()
            .arguments(["--notify", "require"])
            .run()
            .ok()
            .lines();
        let done = actions(&lines);
        assert_eq!(
            done,
            [("quiet", "unchanged"), ("still", "unchanged")].into(),
            "{what}"
        );
    };

    // A comment that moves no line.
    workspace.edit("still", "// Before: nothing.", "// After: another comment.");
    unchanged("a comment");
    let file = lab.plugin_dir().join("still/libstill.so");
    let size = || fs::metadata(&file).expect("it is staged").len();
    let small = size();
    // Debug information: another file with the same code.
    workspace.write(
        "Cargo.toml",
        "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n\n\
         [profile.release]\ndebug = \"line-tables-only\"\n",
    );
    unchanged("debug information");
    assert_ne!(size(), small, "the file has no debug information");

    callers.go_on();
    assert_eq!(instances(&host), before, "an instance was touched");
    for tally in callers.unharmed().values() {
        assert_eq!(tally.generations, [1].into());
    }
    host.stop();
}

#[test]
fn a_stripped_plugin_is_the_same_plugin() {
    let lab = Lab::new();
    let workspace = Workspace::new("stripped", ["striped"]);
    workspace
        .driver(&lab)
        .arguments(["--notify", "never"])
        .run()
        .ok();
    let host = lab.start();
    let before = instances(&host);
    let file = lab.plugin_dir().join("striped/libstriped.so");
    let stripped = lab.path("stripped.so");
    let strip = Command::new("strip")
        .arg(&file)
        .arg("-o")
        .arg(&stripped)
        .status();
    if !strip.is_ok_and(|status| status.success()) {
        return skipped("there is no `strip`");
    }
    assert!(fs::metadata(&stripped).unwrap().len() < fs::metadata(&file).unwrap().len());
    fs::rename(&stripped, &file).unwrap();
    host.reload();
    assert_eq!(instances(&host), before);
    host.stop();
}

#[test]
fn a_signal_alone_reloads_nothing() {
    let lab = Lab::new();
    lab.package("one")
        .put(&[&actor("mark=1"), &actor("mark=2").named("other")]);
    let host = lab.start_with("watch = false");
    let callers = Callers::start(&host, 1, ["actor", "other"], "mark");
    let before = instances(&host);
    for _ in 0..5 {
        let rescans = host.status().host.rescans;
        host.signal(Signal::HUP);
        looked(&host, rescans);
    }
    assert_eq!(instances(&host), before);
    assert_eq!(callers.unharmed()["actor"].generations, [1].into());
    host.stop();
}

#[test]
fn a_signal_reloads_changed_plugins() {
    let lab = Lab::new();
    lab.package("one")
        .put(&[&actor("mark=1"), &actor("mark=1").named("other")]);
    let host = lab.start_with("watch = false");
    let before = instances(&host);
    lab.package("one")
        .put(&[&actor("mark=2"), &actor("mark=1").named("other")]);
    assert_eq!(instances(&host), before, "nobody has hinted yet");
    host.signal(Signal::HUP);
    host.log().wait("reloaded");
    assert_eq!(host.text("actor", "mark"), "2");
    assert_eq!(instances(&host)["other"], before["other"]);
    host.stop();
}

#[test]
fn a_package_away_for_a_moment_is_loaded() {
    let lab = Lab::new();
    let package = lab.package("one");
    package.put(&[&actor("mark=0")]);
    let host = lab.start_with("watch = false");
    let away = lab.path("away");
    for round in 1..=40_u64 {
        package.put(&[&actor(&format!("mark={round}"))]);
        // The host looks for the version and may find no package any more when it reads it.
        host.signal(Signal::HUP);
        if round % 2 == 0 {
            thread::yield_now();
        }
        fs::rename(package.dir(), &away).unwrap();
        host.reload();
        fs::rename(&away, package.dir()).unwrap();
        host.reload();
        assert_eq!(host.text("actor", "mark"), round.to_string());
    }
    host.stop();
}

#[test]
fn copying_a_package_triggers_its_reload() {
    let lab = Lab::new();
    let package = lab.package("one");
    package.put(&[&actor("mark=1")]);
    let host = lab.start();
    let callers = Callers::start(&host, 1, ["actor"], "mark");

    // Elsewhere, and then by hand, file by file, over what is there.
    let staged = hotmerge_tests::Package::at(lab.path("staged"));
    let two: Variant = actor("mark=2");
    staged.put(&[&two]);
    fs::copy(staged.file_path(&two), package.file_path(&two)).unwrap();
    fs::copy(staged.meta_path(), package.meta_path()).unwrap();

    host.log().wait("reloaded");
    assert_eq!(host.text("actor", "mark"), "2");
    let tally = &callers.unharmed()["actor"];
    assert_eq!(tally.generations, [1, 2].into());
    host.stop();
}

#[test]
fn reload_prints_its_result() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    let host = lab.start_with("watch = false");
    let quiet = lab.hotmerge(["reload", "--json"]).ok().json();
    assert_eq!(quiet["plugins"].as_array().map(Vec::len), Some(0));
    assert_eq!(quiet["installed"], 1);
    lab.package("one").put(&[&actor("mark=2")]);
    let report = lab.hotmerge(["reload", "--json"]).ok().json();
    assert_eq!(report["plugins"][0]["plugin"], "actor");
    assert_eq!(report["plugins"][0]["action"], "reloaded");
    assert_eq!(report["plugins"][0]["generation"], 2);
    assert_ne!(
        report["plugins"][0]["old_hash"],
        report["plugins"][0]["hash"]
    );
    host.stop();
}

/// How many plugins are in the middle of their start.
fn starting(status: &Status) -> usize {
    let is_it = |plugin: &&PluginStatus| plugin.stage == Some(Stage::Starting);
    status.plugins.iter().filter(is_it).count()
}

#[test]
fn candidates_that_wait_let_others_begin() {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let names: Vec<_> = (0..2 * cores + 2)
        .map(|number| format!("p{number}"))
        .collect();
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    let shown = names.iter().map(|name| gate.config(name));
    let host = lab.start_with(&format!("watch = false\n{}", shown.collect::<String>()));
    for name in &names {
        lab.put(&actor(&format!("mark={name} start=wait")).named(name));
    }
    host.signal(Signal::HUP);
    // None of these starts is over before all of them have begun.
    let begun: Vec<_> = names.iter().map(|_| gate.visitor()).collect();
    assert_eq!(starting(&host.status()), names.len());
    drop(begun);
    host.reload();
    let plugins = host.status().plugins;
    let active = plugins.iter().filter(|it| it.state == PluginState::Active);
    assert_eq!(active.count(), names.len());
    host.stop();
}

/// Never given up while the test lasts.
const PATIENT: &str = "watch = false\nstart_ms = 3600000\n";

#[test]
fn hanging_candidates_delay_no_neighbour() {
    const HANGING: usize = 12;
    for isolation in ["process", "host"] {
        let lab = Lab::new();
        lab.package("good").put(&[&actor("mark=1")]);
        let host = lab.start_with(&format!("{PATIENT}{}", lab.living_in(isolation)));
        for number in 0..HANGING {
            lab.put(&actor("start=hang").named(&format!("a{number}")));
        }
        host.signal(Signal::HUP);
        host.wait_for("all that hang", |status| {
            (starting(status) == HANGING).then_some(())
        });
        lab.package("good").put(&[&actor("mark=2")]);
        lab.hotmerge(["reload", "actor"]).ok();
        assert_eq!(host.text("actor", "mark"), "2");
        assert_eq!(starting(&host.status()), HANGING, "{isolation}");
        host.stop();
    }
}

#[test]
fn a_candidate_without_a_place_says_so() {
    // As many as go on beside those that have a place; see `supervise/jobs.rs`.
    let most = 64 + thread::available_parallelism().map_or(1, usize::from);
    let lab = Lab::new();
    let host = lab.start_with(&format!("{PATIENT}{}", lab.living_in("host")));
    let variants: Vec<_> = (0..=most)
        .map(|number| actor("start=hang").named(&format!("a{number}")))
        .collect();
    lab.package("hostile")
        .put(&variants.iter().collect::<Vec<_>>());
    host.signal(Signal::HUP);
    host.wait_for("the one for which there is no place", |status| {
        let mut waiting = status.plugins.iter().flat_map(|plugin| &plugin.waiting);
        let words =
            format!("the host starts {most} versions at this moment; waiting before this one: 0");
        (starting(status) == most && waiting.any(|it| it.starts_with(&words))).then_some(())
    });
    host.stop();
}

// --- The log

/// What a stranger reads of one reload in a worker, in this order.
const STEPS: &[&str] = &[
    "scanned the plugin directory",
    "verifying",
    "verified: ",
    "starting",
    "launching a worker",
    "the process runs",
    "the sandbox is in place",
    "started, and has checked itself",
    "switched: ",
    "draining: ",
    "drained: ",
    "torn down",
];

#[test]
fn the_trace_log_shows_each_reload_step() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    let info = lab.serve(&format!("watch = false\n{}", lab.living_in("process")));
    let mut trace = lab.command();
    trace.args(info.get_args().map(|it| match it == "info" {
        true => OsStr::new("trace"),
        false => it,
    }));
    let host = TestHost::start(trace, lab.runtime_dir());
    let from = host.log().len();
    lab.package("one").put(&[&actor("mark=2")]);
    host.reload();
    assert_eq!(host.text("actor", "mark"), "2");
    let mut at = from;
    for step in STEPS {
        let is_step = |record: &serde_json::Value| {
            let message = record["message"].as_str().unwrap_or_default();
            message.starts_with(step)
        };
        host.log().wait_from(at, step, is_step);
        let messages = host.log().messages();
        let found = messages[at..].iter().position(|it| it.starts_with(step));
        at += found.expect("it was just there") + 1;
    }
    let verified = host.log().wait("verified: ");
    assert_eq!(verified["target"], "hotmerge::plugin");
    let spans = verified["spans"].as_array().expect("it is in spans");
    assert_eq!(spans[0]["plugin"], "actor");
    assert!(spans[1]["ticket"].is_u64(), "{verified}");
    let answered = host.log().wait("answered");
    assert_eq!(answered["span"]["name"], "call", "{answered}");
    assert_eq!(answered["span"]["method"], "mark", "{answered}");
    host.stop();
}

/// Every version is overtaken while it starts: the next one comes before it may go on.
#[test]
fn constant_changes_still_let_versions_go_live() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    lab.put(&actor("mark=0"));
    let host = lab.start_with(&format!("watch = false\n{}", gate.config("actor")));
    let change = |number: usize| {
        let before = host.status().host.rescans;
        lab.put(&actor(&format!("mark={number} start=wait")));
        host.signal(Signal::HUP);
        looked(&host, before);
    };
    change(1);
    let mut starts = gate.visitor();
    let mut newest = 1;
    let mut told = Vec::new();
    while host.plugin("actor").generation == 1 {
        newest += 1;
        assert!(newest < 30, "{:#?}", host.plugin("actor"));
        change(newest);
        told.extend(host.plugin("actor").waiting);
        starts.let_go();
        starts = gate.visitor();
    }
    let words = "faster than its versions start since 2";
    assert!(told.iter().any(|it| it.contains(words)), "{told:?}");
    assert_ne!(host.text("actor", "mark"), newest.to_string());
    // The newest is what runs in the end.
    starts.let_go();
    let plugin = host.wait_for("the changes are over", |status| {
        let plugin = status.plugins.first()?;
        plugin.stage.is_none().then(|| plugin.clone())
    });
    assert_eq!(plugin.state, PluginState::Active);
    assert_eq!(plugin.waiting, [""; 0], "it is over");
    assert_eq!(host.text("actor", "mark"), newest.to_string());
    host.stop();
}

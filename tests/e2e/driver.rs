//! The driver beside a running host: what it reports, and what a failure leaves unchanged.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use hotmerge_tests::{
    BUILT, Callers, Lab, NOBODY, TestHost, TinyDisk, Workspace, actions, driver, listen_as,
    repository, run, skipped,
};
use rustix::process::geteuid;

/// All files below a directory with their contents.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn only_notify_require_fails_without_a_host() {
    let lab = Lab::new();
    let workspace = Workspace::new("notify", ["told"]);
    let build = |notify| workspace.driver(&lab).arguments(["--notify", notify]).run();
    let auto = build("auto").ok();
    assert!(
        auto.stderr.contains("no host is running"),
        "{}",
        auto.stderr
    );
    let lines = auto.lines();
    assert_eq!(actions(&lines), [("told", "staged")].into());
    build("require")
        .ended_with(4)
        .said(&["no host is running", "hotmerge serve"]);
    let lines = build("never").ok().lines();
    assert_eq!(actions(&lines), [("told", "unchanged")].into());

    let host = lab.start_with("watch = false");
    let lines = build("require").ok().lines();
    assert_eq!(actions(&lines), [("told", "unchanged")].into());
    workspace.edit("told", "\"told one\"", "\"told two\"");
    let lines = build("auto").ok().lines();
    assert_eq!(actions(&lines), [("told", "reloaded")].into());
    assert_eq!(host.text("told", "answer"), "told two");

    workspace.edit("told", "\"told two\"", "\"told three\"");
    build("never").ok();
    assert_eq!(
        host.text("told", "answer"),
        "told two",
        "nobody notified the host"
    );
    host.stop();
}

#[test]
fn a_plugin_that_does_not_build_changes_nothing() {
    let lab = Lab::new();
    let workspace = Workspace::new("broken", ["fine", "broken"]);
    let build = || workspace.driver(&lab);
    build().arguments(["--notify", "never"]).run().ok();
    let host = lab.start();
    let callers = Callers::start(&host, 1, ["fine", "broken"], "answer");
    let before = contents(&lab.plugin_dir());

    // One that would build, and one that does not.
    workspace.edit("fine", "\"fine one\"", "\"fine two\"");
    workspace.edit("broken", "\"broken one\"", "4");
    let ran = build()
        .arguments(["--notify", "require"])
        .run()
        .ended_with(3);
    for words in [
        "mismatched types",
        "ANSWER: &str = 4",
        "`broken`",
        "nothing was staged",
    ] {
        assert!(
            ran.stderr.contains(words),
            "no `{words}` in: {}",
            ran.stderr
        );
    }
    assert!(ran.stdout.is_empty(), "{}", ran.text());
    assert_eq!(contents(&lab.plugin_dir()), before);
    assert!(host.reload().plugins.is_empty());
    for tally in callers.unharmed().values() {
        assert_eq!(tally.generations, [1].into());
    }

    workspace.edit("broken", "= 4", "= \"broken two\"");
    let lines = build()
        .arguments(["--notify", "require"])
        .run()
        .ok()
        .lines();
    assert_eq!(
        actions(&lines),
        [("broken", "reloaded"), ("fine", "reloaded")].into()
    );
    host.stop();
}

#[test]
fn a_refused_plugin_fails_the_driver() {
    let lab = Lab::new();
    let workspace = Workspace::new("refused", ["timid", "brave"]);
    let build = || workspace.driver(&lab);
    build().arguments(["--notify", "never"]).run().ok();
    let host = lab.start();
    let callers = Callers::start(&host, 1, ["timid", "brave"], "answer");
    workspace.edit("timid", "Ok(Self)", "Err(\"not today\".into())");
    let ran = build()
        .arguments(["--notify", "require"])
        .run()
        .ended_with(5);
    let lines = ran.lines();
    assert_eq!(
        actions(&lines),
        [("brave", "unchanged"), ("timid", "refused")].into()
    );
    let timid = lines.iter().find(|line| line["plugin"] == "timid").unwrap();
    assert_eq!(timid["reason"], "not today");
    assert_eq!(host.text("timid", "answer"), "timid one");
    callers.unharmed();
    host.stop();
}

#[test]
fn one_plugin_can_be_built_and_reloaded_alone() {
    let lab = Lab::new();
    let workspace = Workspace::new("single", ["this", "that"]);
    let build = || workspace.driver(&lab);
    build().arguments(["--notify", "never"]).run().ok();
    let host = lab.start();
    workspace.edit("this", "\"this one\"", "\"this two\"");
    workspace.edit("that", "\"that one\"", "\"that two\"");
    let lines = build().arguments(["--plugin", "this"]).run().ok().lines();
    assert_eq!(actions(&lines), [("this", "reloaded")].into());
    assert_eq!(host.text("this", "answer"), "this two");
    assert_eq!(host.text("that", "answer"), "that one");
    let unknown = build().arguments(["--plugin", "other"]).run();
    unknown
        .ended_with(1)
        .said(&["no plugin `other`", "`that`, `this`"]);
    host.stop();
}

/// A relative path that a host was started with has no meaning elsewhere.
#[test]
fn a_host_reports_its_directory_as_absolute() {
    let lab = Lab::new();
    let workspace = Workspace::new("relative", ["near"]);
    let mut serve = lab.serve_from(Path::new("plugins link"), "");
    std::os::unix::fs::symlink(lab.plugin_dir(), lab.path("plugins link")).unwrap();
    serve.current_dir(lab.path(""));
    let host = TestHost::start(serve, lab.runtime_dir());
    let served = lab.plugin_dir().canonicalize().unwrap();
    assert_eq!(host.status().host.plugin_dir, served);
    assert_eq!(host.reload().plugin_dir, served);
    let built = workspace.driver(&lab).arguments(["--notify", "require"]);
    let lines = built.run().ok().lines();
    assert_eq!(actions(&lines), [("near", "loaded")].into());
    let elsewhere = lab.path("elsewhere");
    workspace
        .driver_into(&lab, &elsewhere)
        .arguments(["--notify", "require"])
        .run()
        .ended_with(4)
        .said(&["the host serves", "elsewhere"]);
    host.stop();
}

#[test]
fn a_rolled_back_build_names_its_reason() {
    let lab = Lab::new();
    let workspace = Workspace::new("back", ["backed"]);
    let build = || workspace.driver(&lab).run().ok().lines();
    let host = lab.start();
    build();
    workspace.edit("backed", "\"backed one\"", "\"backed two\"");
    build();
    lab.hotmerge(["rollback", "backed"]).ok();
    let lines = build();
    assert_eq!(actions(&lines), [("backed", "unchanged")].into());
    let reason = lines[0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("was rolled back; stage another"),
        "{reason}"
    );
    host.stop();
}

#[test]
fn a_full_disk_leaves_staging_unchanged() {
    let lab = Lab::new();
    let workspace = Workspace::new("full-disk", ["large"]);
    workspace
        .driver(&lab)
        .arguments(["--notify", "never"])
        .run()
        .ok();
    let file = lab.plugin_dir().join("large/liblarge.so");
    let bytes = fs::metadata(&file).unwrap().len();
    fs::remove_dir_all(lab.plugin_dir()).unwrap();
    fs::create_dir(lab.plugin_dir()).unwrap();
    // Room for the file once, and for what lies beside it.
    let Some(disk) = TinyDisk::new(&lab.plugin_dir(), bytes + bytes / 2) else {
        return skipped("this user may not mount a small disk");
    };
    let build = || workspace.driver_into(&lab, disk.path());
    build().arguments(["--notify", "never"]).run().ok();
    let host = TestHost::start(lab.serve_from(disk.path(), ""), lab.runtime_dir());
    let callers = Callers::start(&host, 1, ["large"], "answer");
    let before = contents(disk.path());

    workspace.edit("large", "\"large one\"", "\"large two\"");
    build()
        .arguments(["--notify", "require"])
        .run()
        .ended_with(1)
        .said(&["failed to stage", "large", "No space left on device"]);
    assert_eq!(contents(disk.path()), before);
    assert!(host.reload().plugins.is_empty());
    assert_eq!(callers.unharmed()["large"].generations, [1].into());
    host.stop();
}

#[test]
fn a_generated_plugin_builds_loads_and_answers() {
    let lab = Lab::new();
    let workspace = Workspace::new("author", ["first"]);
    let _ = fs::remove_dir_all(workspace.path("crates/greeting"));
    let mut new = Command::new(driver());
    new.current_dir(workspace.path(""))
        .args([
            "new-plugin",
            "greeting",
            "--path",
            "crates/greeting",
            "--sdk",
        ])
        .arg(repository().join("plugins/sdk"));
    run(&mut new, BUILT).ok();
    let host = lab.start();
    let lines = workspace
        .driver(&lab)
        .arguments(["--notify", "require"])
        .run()
        .ok()
        .lines();
    assert_eq!(
        actions(&lines),
        [("first", "loaded"), ("greeting", "loaded")].into()
    );
    let hello = host.text("greeting", "hello");
    assert!(hello.contains("ello"), "{hello}");
    host.stop();
}

#[test]
fn the_driver_tells_another_users_socket_nothing() {
    if !geteuid().is_root() {
        return skipped("only root can listen as another user");
    }
    let lab = Lab::new();
    let dir = lab.runtime_dir();
    fs::create_dir(dir.path()).unwrap();
    // Somebody has been careless.
    for path in [lab.path(""), dir.path().to_owned()] {
        fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    }
    let forged = listen_as(NOBODY, &dir);
    let workspace = Workspace::new("forged", ["told"]);
    let build = |notify| workspace.driver(&lab).arguments(["--notify", notify]).run();
    let sentence = [
        &*format!("belongs to user {NOBODY}"),
        "nothing was sent",
        "check the runtime directory",
    ];
    build("require").ended_with(4).said(&sentence);
    let auto = build("auto").ok();
    for words in sentence {
        assert!(auto.stderr.contains(words), "{}", auto.stderr);
    }
    assert_eq!(actions(&auto.lines()), [("told", "unchanged")].into());
    // Both came as far as the door, and said nothing.
    for _ in 0..2 {
        let (mut stream, _) = forged.accept().unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
    }
}

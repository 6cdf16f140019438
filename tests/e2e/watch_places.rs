//! Every available file system, with every kind of watcher, and limits of the system. What
//! does not work is reported.
//!
//! Each host has its own mounts, which nobody else sees.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use hotmerge_tests::{
    Lab, Package, SOON, TestHost, Variant, actor, children, copy_environment, how_often, run,
    skipped,
};

/// Mounts a file system over `$1`, with room for files of its own in `$2`.
struct Place {
    name: &'static str,
    /// The program that makes it, if it is one of its own.
    tool: &'static str,
    mount: &'static str,
    /// What fanotify marks there: whole file systems, or directories.
    is_whole: bool,
}

const PLACES: [Place; 7] = [
    Place {
        name: "tmpfs",
        tool: "mount",
        mount: "mount -t tmpfs -o mode=755 none \"$1\"",
        is_whole: true,
    },
    Place {
        name: "ext4",
        tool: "mkfs.ext4",
        mount: "truncate -s 32M \"$2/image\" && mkfs.ext4 -q \"$2/image\" &&
                mount -o loop \"$2/image\" \"$1\"",
        is_whole: true,
    },
    Place {
        name: "xfs",
        tool: "mkfs.xfs",
        mount: "truncate -s 320M \"$2/image\" && mkfs.xfs -q \"$2/image\" &&
                mount -o loop \"$2/image\" \"$1\"",
        is_whole: true,
    },
    Place {
        name: "btrfs",
        tool: "mkfs.btrfs",
        mount: "truncate -s 160M \"$2/image\" && mkfs.btrfs -q \"$2/image\" &&
                mount -o loop \"$2/image\" \"$1\"",
        is_whole: true,
    },
    Place {
        name: "a subvolume of btrfs",
        tool: "mkfs.btrfs",
        mount: "truncate -s 160M \"$2/image\" && mkfs.btrfs -q \"$2/image\" && mkdir \"$2/all\" &&
                mount -o loop \"$2/image\" \"$2/all\" && btrfs -q subvolume create \"$2/all/sub\" &&
                mount --bind \"$2/all/sub\" \"$1\"",
        is_whole: false,
    },
    Place {
        name: "overlayfs",
        tool: "mount",
        mount: "mkdir \"$2/lower\" \"$2/upper\" \"$2/work\" && mount -t overlay overlay -o \
                \"lowerdir=$2/lower,upperdir=$2/upper,workdir=$2/work\" \"$1\"",
        is_whole: false,
    },
    Place {
        name: "a bind mount",
        tool: "mount",
        mount: "mkdir \"$2/source\" && mount --bind \"$2/source\" \"$1\"",
        is_whole: true,
    },
];

/// A host in a mount namespace of its own, and its plugin directory as it sees it.
struct Apart {
    host: TestHost,
    dir: PathBuf,
    _lab: Lab,
}

/// Runs a script in a new mount namespace, and the host after it.
fn start(lab: Lab, script: &str, config: &str) -> Apart {
    // The images and their mounts are on a file system that can be the lower one of others.
    let serve = lab.serve(&format!("rescan_s = 0\n{config}"));
    let mut command = Command::new("unshare");
    let script = format!(
        "mount -t tmpfs -o mode=755 none \"$2\" && {{ {script}; }} && shift 2 && exec \"$@\""
    );
    fs::create_dir(lab.path("room")).unwrap();
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            &script,
            "sh",
        ])
        .args([lab.plugin_dir(), lab.path("room")])
        .arg(serve.get_program())
        .args(serve.get_args());
    copy_environment(&serve, &mut command);
    let host = TestHost::start(command, lab.runtime_dir());
    let root = PathBuf::from(format!("/proc/{}/root", host.pid()));
    let inside = lab.plugin_dir();
    let dir = root.join(inside.strip_prefix("/").unwrap());
    Apart {
        host,
        dir,
        _lab: lab,
    }
}

impl Apart {
    fn package(&self, name: &str) -> Package {
        Package::at(self.dir.join(name))
    }

    /// Every change of a package is noticed without a request.
    #[track_caller]
    fn notices_changes(&self, place: &str) {
        let runs = |variant: Option<&Variant>| {
            self.host.wait_for(place, |status| {
                let plugin = status.plugins.iter().find(|it| it.name == "actor");
                let live = plugin.filter(|it| it.generation > 0).and_then(|it| it.hash);
                (live == variant.map(|it| it.meta.hash)).then_some(())
            });
        };
        let (one, two, three) = (actor("mark=1"), actor("mark=2"), actor("mark=3"));
        self.package("one").put(&[&one]);
        runs(Some(&one));
        self.package("one").put(&[&two]);
        runs(Some(&two));
        // Another directory of the same name.
        self.package(".new").put(&[&three]);
        fs::rename(self.dir.join("one"), self.dir.join(".old")).unwrap();
        fs::rename(self.dir.join(".new"), self.dir.join("one")).unwrap();
        runs(Some(&three));
        self.package("one").put(&[&one]);
        runs(Some(&one));
        self.package("one").remove();
        runs(None);
    }
}

fn may_mount() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    run(command.args(["mount", "-t", "tmpfs", "none", "/mnt"]), SOON).code == Some(0)
}

fn is_there(tool: &str) -> bool {
    let question = format!("command -v {tool}");
    run(Command::new("sh").args(["-c", &question]), SOON).code == Some(0)
}

#[test]
fn changes_are_noticed_on_every_file_system() {
    if !may_mount() {
        return skipped("this user may not mount anything");
    }
    for place in &PLACES {
        if !is_there(place.tool) {
            skipped(&format!("there is no {}", place.tool));
            continue;
        }
        for watch in ["inotify", "fanotify"] {
            let config = format!("watch = {watch:?}\nisolation = \"host\"");
            let apart = start(Lab::new(), place.mount, &config);
            let status = apart.host.status().host;
            assert_eq!(status.watch, watch, "on {}: {status:?}", place.name);
            let [watcher] = &status.watchers[..] else {
                panic!("{status:?}");
            };
            if watch == "fanotify" {
                let is_whole = watcher.scope == "a mark for the whole file system";
                assert_eq!(is_whole, place.is_whole, "on {}: {watcher:?}", place.name);
            }
            apart.notices_changes(&format!("{watch} on {}", place.name));
            apart.host.stop();
        }
    }
}

/// Packages on other file systems than the plugin directory, which come and go.
#[test]
fn packages_are_mounted_and_unmounted() {
    if !may_mount() {
        return skipped("this user may not mount anything");
    }
    for watch in ["inotify", "fanotify", "both"] {
        let config = format!("watch = {watch:?}\nisolation = \"host\"");
        let apart = start(
            Lab::new(),
            "mount -t tmpfs -o mode=755 none \"$1\"",
            &config,
        );
        apart.package("one").put(&[&actor("mark=1")]);
        let enter = |script: &str| {
            let mut enter = Command::new("nsenter");
            enter.args(["--mount", "--target", &apart.host.pid().to_string()]);
            let dir = apart._lab.plugin_dir();
            run(enter.args(["sh", "-ec", script, "sh"]).arg(dir), SOON).ok();
        };
        let runs = |mark: &str| {
            apart.host.wait_for(mark, |status| {
                let plugin = status.plugins.iter().find(|it| it.name == "actor");
                let is_live = plugin.is_some_and(|it| it.generation > 0);
                (is_live && apart.host.text("actor", "mark") == mark).then_some(())
            });
        };
        runs("1");
        for mark in ["2", "4"] {
            enter("mount -t tmpfs -o mode=755 none \"$1/one\"");
            apart.package("one").put(&[&actor(&format!("mark={mark}"))]);
            runs(mark);
            // What is mounted is watched as well.
            apart.package("one").put(&[&actor("mark=3")]);
            runs("3");
            enter("umount \"$1/one\"");
            runs("1");
        }
        apart.host.stop();
    }
}

/// The first directories of fresh file systems have equal handles.
#[test]
fn packages_with_separate_file_systems_are_watched() {
    if !may_mount() {
        return skipped("this user may not mount anything");
    }
    if !is_there("mkfs.ext4") {
        return skipped("there is no mkfs.ext4");
    }
    let mount = "for at in \"$1\" \"$1/one\" \"$1/two\"; do
                     image=$(mktemp -p \"$2\") && truncate -s 32M \"$image\" &&
                     mkfs.ext4 -q \"$image\" && mkdir -p \"$at\" && mount -o loop \"$image\" \"$at\"
                 done";
    let config = "watch = \"fanotify\"\nisolation = \"host\"";
    let apart = start(Lab::new(), mount, config);
    for mark in 1..=3 {
        for name in ["one", "two"] {
            let variant = actor(&format!("mark={mark}")).named(name);
            apart.package(name).put(&[&variant]);
            apart.host.wait_for(name, |status| {
                let plugin = status.plugins.iter().find(|it| it.name == name)?;
                (plugin.hash == Some(variant.meta.hash)).then_some(())
            });
        }
    }
    apart.host.stop();
}

/// A host in a user namespace with limits of its own. The kernel counts for each such namespace.
fn start_limited(lab: &Lab, limits: &[(&str, u64)], config: &str) -> TestHost {
    let serve = lab.serve(&format!("poll_ms = 50\nisolation = \"host\"\n{config}"));
    let limits = limits.iter();
    let limits = limits.map(|(name, value)| format!("echo {value} > /proc/sys/{name}; "));
    let script = format!("{}exec \"$@\"", limits.collect::<String>());
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "sh", "-ec", &script, "sh"])
        .arg(serve.get_program())
        .args(serve.get_args());
    copy_environment(&serve, &mut command);
    TestHost::start(command, lab.runtime_dir())
}

/// Whether a namespace can have limits of its own.
fn may_limit() -> bool {
    let set = "echo 1 > /proc/sys/user/max_inotify_instances";
    let mut command = Command::new("unshare");
    run(
        command.args(["--user", "--map-root-user", "sh", "-c", set]),
        SOON,
    )
    .code
        == Some(0)
}

#[test]
fn a_reached_limit_is_reported_and_polled() {
    if !may_limit() {
        return skipped("this user may not have a namespace with limits of its own");
    }
    for (limits, setting) in [
        // One for the way to the directory, and one for the directory.
        (
            [("user/max_inotify_instances", 1)],
            "fs.inotify.max_user_instances",
        ),
        (
            [("user/max_inotify_watches", 12)],
            "fs.inotify.max_user_watches",
        ),
    ] {
        let lab = Lab::new();
        for index in 0..20 {
            let name = format!("actor-{index}");
            let named = actor("mark=1").named(&name);
            lab.package(&name).put(&[&named]);
        }
        let host = start_limited(&lab, &limits, "watch = \"inotify\"\nrescan_s = 0");
        let status = host.status().host;
        assert!(status.watch.contains("polling every 50 ms"), "{status:?}");
        let failure = status.watchers[0].failure.clone().unwrap_or_default();
        let remedy = format!("sysctl -w {setting}=");
        assert!(
            status.watch.contains(&remedy) && failure.contains(&remedy),
            "{status:?}"
        );
        host.log().wait(&remedy);
        let name = "actor-19";
        let named = actor("mark=2").named(name);
        lab.package(name).put(&[&named]);
        host.wait_for("a change of a package that is not watched", |status| {
            let plugin = status.plugins.iter().find(|it| it.name == name)?;
            (plugin.generation == 2).then_some(())
        });
        host.stop();
    }
}

#[test]
fn a_process_without_fanotify_says_so() {
    if !may_limit() {
        return skipped("this user may not have a namespace with limits of its own");
    }
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    let limits = [("user/max_fanotify_groups", 0)];
    let host = start_limited(&lab, &limits, "watch = \"both\"\nrescan_s = 0");
    let status = host.status().host;
    // The other kind notices every change.
    assert_eq!(status.watch, "inotify");
    let failure = status.watchers[1].failure.clone().unwrap_or_default();
    assert!(
        failure.contains("sysctl -w fs.fanotify.max_user_groups="),
        "{status:?}"
    );
    lab.package("one").put(&[&actor("mark=2")]);
    host.wait_for("the changed package", |status| {
        (status.plugins.first()?.generation == 2).then_some(())
    });
    host.stop();
}

/// How often the threads of a host and its workers have gone to sleep.
fn sleeps(host: &TestHost) -> u64 {
    let workers = children(host).into_iter().map(|pid| pid.to_string());
    let processes = workers.chain([host.pid().to_string()]);
    let tasks = processes.filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok());
    tasks
        .flat_map(Iterator::flatten)
        .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
        .filter_map(|status| {
            let line = |line: &str| Some(line.strip_prefix("voluntary_ctxt_switches:")?.to_owned());
            status.lines().find_map(line)?.trim().parse::<u64>().ok()
        })
        .sum()
}

/// How long is looked for wake-ups.
const WINDOW: Duration = Duration::from_secs(4);

/// `HOTMERGE_WORKERS` says how many workers there are. Nobody else uses the file system, whose events
/// all are read.
#[test]
fn an_idle_host_hardly_wakes() {
    if !may_mount() {
        return skipped("this user may not mount anything");
    }
    let lab = Lab::new();
    let worker = hotmerge_tests::worker().display().to_string();
    let config = format!("watch = \"both\"\nisolation = \"process\"\nworker = {worker:?}\n");
    let apart = start(lab, "mount -t tmpfs -o mode=755 none \"$1\"", &config);
    let workers = how_often("HOTMERGE_WORKERS", 10);
    for index in 0..workers {
        let name = format!("actor-{index}");
        apart.package(&name).put(&[&actor("mark=1").named(&name)]);
    }
    apart.host.wait_for("all workers", |status| {
        let live = status.plugins.iter().filter(|it| it.generation == 1);
        (live.count() as u64 == workers).then_some(())
    });
    assert_eq!(apart.host.status().host.watch, "inotify and fanotify");
    let deadline = Instant::now() + SOON;
    loop {
        let before = sleeps(&apart.host);
        // Time is what is measured here: nothing is waited for.
        thread::park_timeout(WINDOW);
        // A thread that has ended takes its number with it: that is not idleness either.
        let woken = sleeps(&apart.host).checked_sub(before).unwrap_or(u64::MAX);
        eprintln!("{woken} wake-ups of a host and {workers} workers in {WINDOW:?}");
        if woken < WINDOW.as_secs() {
            break;
        }
        assert!(Instant::now() < deadline, "{woken} wake-ups in {WINDOW:?}");
    }
    apart.host.stop();
}

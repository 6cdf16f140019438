//! No settled change is missed, whatever changes packages and however fast, by each kind of
//! watcher; and nothing happens without a hint.
//!
//! `HOTMERGE_STORM` says how many writes there are for each kind; a million take some minutes.

use hotmerge_tests::{Footprint, Lab, SOON, Storm, TestHost, actor, how_often, skipped};
use rustix::process::Signal;

/// What holds for every kind: no clock helps, and what is wrong is so at once.
/// The log in memory is bounded too, and would fill up to its bound only during a storm.
const CONFIG: &str = "rescan_s = 0\nsettle_ms = 1\nisolation = \"host\"\npoll_ms = 50\n\
                      log = { bytes = 65536 }\n";

/// In so many parts a storm is written; what each leaves must be known before the next one.
const PARTS: u64 = 4;

/// More memory than this, in KiB, is not a matter of how many packages change at once.
const SLACK_KIB: u64 = 4 << 10;

fn writes() -> u64 {
    how_often("HOTMERGE_STORM", 20_000)
}

fn start(watch: &str) -> (Storm, TestHost) {
    let mut storm = Storm::new(Lab::new(), &actor("mark=1"));
    storm.rage(2_000);
    let host = storm
        .lab()
        .start_with(&format!("watch = {watch:?}\n{CONFIG}"));
    storm.is_known_to(&host);
    (storm, host)
}

fn overflows(host: &TestHost) -> Vec<(String, u64)> {
    let watchers = host.status().host.watchers;
    let watchers = watchers.into_iter();
    watchers.map(|it| (it.name, it.overflows)).collect()
}

#[track_caller]
fn follows(watch: &str) {
    let (mut storm, host) = start(watch);
    assert!(host.status().host.watch.contains(match watch {
        "both" => "inotify and fanotify",
        other => other,
    }));
    let before = Footprint::of(host.pid());
    for _ in 0..PARTS {
        storm.rage(writes() / PARTS);
        storm.is_known_to(&host);
    }
    host.holds_no_more_than(&before, SLACK_KIB);
    host.stop();
}

/// The kernel's queues are full while the host is stopped, and what is in them is not the truth.
#[track_caller]
fn catches_up(watch: &str) {
    let (mut storm, host) = start(watch);
    host.signal(Signal::STOP);
    storm.rage(writes().max(60_000));
    host.signal(Signal::CONT);
    storm.is_known_to(&host);
    let overflows = overflows(&host);
    assert!(
        overflows.iter().all(|(_, overflows)| *overflows > 0),
        "{overflows:?}"
    );
    // It follows as before.
    storm.rage(2_000);
    storm.is_known_to(&host);
    host.stop();
}

#[test]
fn inotify_misses_nothing() {
    follows("inotify");
}

#[test]
fn fanotify_misses_nothing() {
    follows("fanotify");
}

#[test]
fn both_watchers_miss_nothing() {
    follows("both");
}

#[test]
fn polling_misses_nothing() {
    follows("poll");
}

#[test]
fn a_stalled_host_catches_up_by_inotify() {
    catches_up("inotify");
}

#[test]
fn a_stalled_host_catches_up_by_fanotify() {
    catches_up("fanotify");
}

#[test]
fn a_stalled_host_catches_up_by_both() {
    catches_up("both");
}

/// A killed benchmark or test leaves nobody behind who writes.
#[test]
fn a_storm_ends_with_its_reader() {
    let storm = Storm::new(Lab::new(), &actor("mark=1"));
    let (mut process, output) = storm.endless();
    assert!(process.is_running());
    drop(output);
    let status = process.wait(SOON).expect("it writes on");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn nothing_is_scanned_without_a_hint() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    let host = lab.start_with("rescan_s = 0");
    host.reload();
    let looks = || {
        let host = host.status().host;
        (host.rescans, host.full_looks)
    };
    // Writes from before the start may still be reported.
    host.wait_for("rest", |_| {
        let before = looks();
        host.idles();
        (looks() == before).then_some(())
    });
    // A scan reads the directory, and nobody is woken by that.
    let before = looks();
    host.reload();
    host.idles();
    assert_eq!(looks(), (before.0 + 1, before.1 + 1));
    host.stop();
}

#[test]
fn only_the_changed_package_is_scanned() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    let host = lab.start_with("rescan_s = 0");
    let full = host.status().host.full_looks;
    lab.package("one").put(&[&actor("mark=2")]);
    host.wait_for("the changed package", |status| {
        (status.plugins.first()?.generation == 2).then_some(())
    });
    let status = host.status().host;
    assert_eq!(status.full_looks, full);
    assert!(status.last_look.is_some());
    assert!(
        status.watchers.iter().all(|it| it.directories == 2),
        "{:?}",
        status.watchers
    );
    host.stop();
}

#[test]
fn an_ordinary_user_has_inotify_alone() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    let host = TestHost::start(lab.as_ordinary_user(lab.serve("")), lab.runtime_dir());
    assert_eq!(host.status().host.watch, "inotify");
    host.stop();
    // With `watch = "fanotify"` it watches single directories.
    let serve = lab.serve("watch = \"fanotify\"\nrescan_s = 0");
    let host = TestHost::start(lab.as_ordinary_user(serve), lab.runtime_dir());
    let [watcher] = &host.status().host.watchers[..] else {
        return skipped("this kernel has no fanotify for ordinary users");
    };
    if watcher.failure.is_some() {
        return skipped("this kernel has no fanotify for ordinary users");
    }
    assert!(
        watcher.scope.starts_with("a mark for each directory"),
        "{watcher:?}"
    );
    lab.package("one").put(&[&actor("mark=2")]);
    host.wait_for("the changed package", |status| {
        (status.plugins.first()?.generation == 2).then_some(())
    });
    host.stop();
}

//! A host that was killed at any moment restarts with the directory's plugins and a consistent
//! store. `HOTMERGE_KILLS` says how often.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use hotmerge_daemon::lifecycle::PluginState;
use hotmerge_meta::{
    Image, PluginMeta,
    control::{PluginReport, RollbackParams, method},
};
use hotmerge_tests::{Lab, Package, SOON, TestHost, Variant, actor, how_often, skipped};
use rustix::process::{Signal, geteuid};
use serde_json::Value;

const PLUGINS: [&str; 3] = ["one", "two", "three"];

fn version(name: &str, mark: u64) -> Variant {
    actor(&format!("mark={mark} state=1")).named(name)
}

/// Every record can be read, and every version that it names is there, whole.
fn check_store(dir: &Path) {
    let mut named = BTreeSet::new();
    for entry in fs::read_dir(dir.join("plugins")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "json")
            || path.file_name().unwrap().to_string_lossy().starts_with('.')
        {
            continue;
        }
        let record: Value = serde_json::from_slice(&fs::read(&path).unwrap())
            .unwrap_or_else(|error| panic!("`{}`: {error}", path.display()));
        for version in record["versions"].as_array().expect("a list") {
            let meta: PluginMeta = serde_json::from_value(version.clone()).expect("a meta");
            let hash = meta.hash.to_string();
            let hex = hash.strip_prefix("sha256:").unwrap();
            let image = fs::read(dir.join("images").join(format!("{hex}.so")));
            let image = image.unwrap_or_else(|error| panic!("{} of {}: {error}", hash, meta.name));
            assert_eq!(Image::normalise(image).unwrap().digest(), meta.hash);
            named.insert(hash);
        }
    }
    assert!(!named.is_empty());
}

/// What is expected of one plugin.
#[derive(Clone, Debug)]
struct Expected {
    /// What the directory has.
    staged: u64,
    /// The version that runs instead, as reported to an operator.
    chosen: Option<u64>,
}

fn roll_back(host: &TestHost, name: &str) -> Option<PluginReport> {
    let params = RollbackParams {
        plugin: name.parse().unwrap(),
        to: None,
        without_state: false,
    };
    let report = host
        .client()
        .request::<PluginReport>(method::ROLLBACK, &params, SOON);
    report.ok()
}

#[test]
fn a_killed_host_restarts_with_a_consistent_store() {
    let lab = Lab::new();
    let mut random = numbers(u64::from(std::process::id()));
    let mut mark = 1;
    let mut expected: Vec<_> = PLUGINS
        .iter()
        .map(|name| {
            lab.package(name).put(&[&version(name, mark)]);
            Expected {
                staged: mark,
                chosen: None,
            }
        })
        .collect();
    let (_never, silence) = mpsc::channel::<()>();
    for kill in 0..how_often("HOTMERGE_KILLS", 200) {
        let mut host = lab.start();
        for (name, expected) in PLUGINS.iter().zip(&expected) {
            let runs: u64 = host.text(name, "mark").parse().unwrap();
            let right = expected.chosen.unwrap_or(expected.staged);
            assert_eq!(runs, right, "`{name}` after {kill} kills");
        }
        check_store(&lab.state_dir());
        // Something happens, and the host is killed in the middle of it.
        let index = usize::try_from(random() % 3).unwrap();
        let (name, plugin) = (PLUGINS[index], &mut expected[index]);
        match random() % 4 {
            0 => {
                let before = host.text(name, "mark").parse().ok();
                if let Some(report) = roll_back(&host, name) {
                    let runs: u64 = host.text(name, "mark").parse().unwrap();
                    plugin.chosen = (runs != plugin.staged).then_some(runs);
                    assert_ne!(Some(runs), before, "{report:#?}\n{}", host.log());
                }
            }
            _ => {
                for (name, plugin) in PLUGINS.iter().zip(&mut expected) {
                    mark += 1;
                    lab.package(name).put(&[&version(name, mark)]);
                    *plugin = Expected {
                        staged: mark,
                        chosen: None,
                    };
                }
                host.signal(Signal::HUP);
            }
        }
        // Nothing is awaited here: any moment will do.
        let _ = silence.recv_timeout(Duration::from_micros(random() % 60_000));
        host.signal(Signal::KILL);
        host.ended();
    }
    let host = lab.start();
    check_store(&lab.state_dir());
    host.stop();
}

/// One moment of a merge: what it has done to the package by then.
type Moment = (&'static str, fn(&Package, old: &Variant, new: &Variant));

const MOMENTS: [Moment; 13] = [
    ("new file, old meta", |at, _, new| at.put_files(&[new])),
    ("old file, new meta", |at, _, new| at.put_meta(&[new])),
    ("no file, old meta", |at, old, _| remove(at.file_path(old))),
    ("no file, new meta", |at, old, new| {
        at.put_meta(&[new]);
        remove(at.file_path(old));
    }),
    ("half a file, old meta", |at, _, new| cut(at, new, 2)),
    ("empty file, old meta", |at, _, new| {
        cut(at, new, usize::MAX)
    }),
    ("half a file, new meta", |at, _, new| {
        cut(at, new, 2);
        at.put_meta(&[new]);
    }),
    ("old file, no meta", |at, _, _| remove(at.meta_path())),
    ("new file, no meta", |at, _, new| {
        at.put_files(&[new]);
        remove(at.meta_path());
    }),
    ("old file, empty meta", |at, _, _| at.write_meta("")),
    ("new file, half a meta", |at, _, new| {
        at.put_files(&[new]);
        let meta = fs::read_to_string(at.meta_path()).unwrap();
        at.write_meta(&meta[..meta.len() / 2]);
    }),
    ("old ones, and new ones beside them", |at, old, new| {
        fs::write(at.dir().join(format!("{}#new", old.meta.file)), &new.bytes).unwrap();
        fs::write(at.dir().join("plugin.meta#new"), "").unwrap();
    }),
    ("new ones", |at, _, new| at.put(&[new])),
];

fn remove(path: PathBuf) {
    fs::remove_file(path).unwrap();
}

fn cut(package: &Package, variant: &Variant, by: usize) {
    let len = variant.bytes.len() / by;
    package.replace(variant.meta.file.as_str(), &variant.bytes[..len]);
}

#[test]
fn an_interrupted_merge_leaves_a_version_serving() {
    every_moment(Lab::start);
}

#[test]
fn ordinary_hosts_survive_merges_cut_off_anywhere() {
    if !geteuid().is_root() {
        return skipped("the user who runs the tests is not root");
    }
    every_moment(|lab| TestHost::start(lab.as_ordinary_user(lab.serve("")), lab.runtime_dir()));
}

fn every_moment(start: impl Fn(&Lab) -> TestHost) {
    let (old, new) = (version("one", 1), version("one", 2));
    for (moment, merge) in MOMENTS {
        for host_sees_it in [true, false] {
            let lab = Lab::new();
            let package = lab.package("some");
            package.put(&[&old]);
            let mut host = start(&lab);
            if host_sees_it {
                merge(&package, &old, &new);
                host.reload();
            }
            host.signal(Signal::KILL);
            host.ended();
            if !host_sees_it {
                merge(&package, &old, &new);
            }
            let host = start(&lab);
            let plugin = host.plugin("one");
            assert_eq!(plugin.state, PluginState::Active, "{moment}: {plugin:#?}");
            let mark = host.text("one", "mark");
            let marks = if moment == "new ones" { "2" } else { "1" };
            assert_eq!(mark, marks, "{moment}");
            // The merge is done again, and ends.
            package.put(&[&new]);
            host.reload();
            assert_eq!(host.text("one", "mark"), "2", "{moment}");
            assert!(host.plugin("one").refused.is_none(), "{moment}");
            host.stop();
        }
    }
}

#[test]
fn plugins_removed_between_hosts_stay_removed() {
    let lab = Lab::new();
    lab.put(&version("one", 1));
    lab.put(&version("two", 1));
    lab.start().stop();
    lab.package("one").remove();
    for file in fs::read_dir(lab.package("two").dir()).unwrap() {
        remove(file.unwrap().path());
    }
    let host = lab.start();
    assert!(host.status().plugins.is_empty());
    let left = fs::read_dir(lab.state_dir().join("images")).unwrap();
    assert_eq!(left.count(), 0);
    host.stop();
}

/// Numbers that differ from run to run; quality does not matter.
fn numbers(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    }
}

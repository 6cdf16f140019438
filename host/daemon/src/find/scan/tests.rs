//! Passes over real directories, with the time as an argument.

use std::{fs, os::unix::fs::symlink};

use hotmerge_meta::{Abi, Digest, META_FILE, Meta};

use super::*;

const SETTLE: Duration = Duration::from_secs(2);

/// A plugin directory and its scanner.
struct Bench {
    dir: tempfile::TempDir,
    scanner: Scanner,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            scanner: Scanner::new(dir.path().to_owned(), SETTLE),
            dir,
            now: Instant::now(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // By rename: the inode changes with the contents.
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn write_meta(&self, package: &str, plugins: &[&str]) {
        let plugins = plugins.iter().map(|name| PluginMeta {
            name: name.parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            file: format!("lib{name}.so").parse().unwrap(),
            hash: Digest::of(name.as_bytes()),
            size: 1,
            abi: Abi::CURRENT,
            target: crate::TARGET.to_owned(),
            handover: Default::default(),
            requires: Vec::new(),
            wants: hotmerge_meta::Wants::default(),
        });
        let meta = Meta::new(plugins.collect()).unwrap();
        self.write(&format!("{package}/{META_FILE}"), &meta.to_toml());
    }

    fn package(&self, package: &str, plugins: &[&str]) {
        for name in plugins {
            self.write(&format!("{package}/lib{name}.so"), name);
        }
        self.write_meta(package, plugins);
    }

    fn scan(&mut self) -> Findings {
        self.scanner.scan(self.now)
    }

    /// A pass after the settling time.
    fn scan_settled(&mut self) -> Findings {
        let first = self.scan();
        assert!(first.problems.is_empty(), "{:?}", first.problems);
        assert!(first.next_look.is_some(), "nobody would scan again");
        self.now += SETTLE;
        self.scan()
    }

    /// The only problem that is left after the settling time.
    fn problem(&mut self) -> Problem {
        let findings = self.scan_settled();
        let [problem] = &findings.problems[..] else {
            panic!("not one problem: {findings:?}");
        };
        problem.clone()
    }
}

#[test]
fn changes_in_quick_succession_are_all_found() {
    let mut bench = Bench::new();
    bench.package("p", &["a"]);
    bench.scan();
    let path = format!("p/{META_FILE}");
    let text = fs::read_to_string(bench.path(&path)).unwrap();
    let hash = Digest::of(b"a").to_string();
    // Same size, within one tick of the file system's clock, and with reused inodes.
    for number in 0..200_u32 {
        for part in [0, 1] {
            let next = Digest::of(&[number.to_le_bytes(), [part; 4]].concat());
            bench.write(&path, &text.replace(&hash, &next.to_string()));
        }
        assert_eq!(changed(&bench.scan()), ["a"], "change {number}");
    }
}

fn changed(findings: &Findings) -> Vec<&str> {
    let names = findings
        .changed
        .iter()
        .map(|found| found.meta.name.as_str());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

fn gone(findings: &Findings) -> Vec<&str> {
    findings.gone.iter().map(PluginName::as_str).collect()
}

fn is_quiet(findings: &Findings) -> bool {
    findings.changed.is_empty()
        && findings.gone.is_empty()
        && findings.problems.is_empty()
        && findings.next_look.is_none()
}

#[test]
fn a_second_pass_finds_nothing_new() {
    let mut bench = Bench::new();
    bench.package("one", &["a", "b"]);
    bench.package("two", &["c"]);
    assert_eq!(changed(&bench.scan()), ["a", "b", "c"]);
    assert!(is_quiet(&bench.scan()));
}

#[test]
fn a_file_that_is_replaced_is_found_alone() {
    let mut bench = Bench::new();
    bench.package("one", &["a", "b"]);
    bench.scan();
    bench.write("one/liba.so", "other");
    assert_eq!(changed(&bench.scan()), ["a"]);
    assert!(is_quiet(&bench.scan()));
}

#[test]
fn a_changed_meta_entry_changes_only_its_plugin() {
    let mut bench = Bench::new();
    bench.package("one", &["a"]);
    bench.scan();
    bench.package("one", &["a", "b"]);
    bench.write("one/liba.so", "a");
    bench.scan();
    bench.write_meta("one", &["b"]);
    let findings = bench.scan();
    assert_eq!((changed(&findings), gone(&findings)), (vec![], vec!["a"]));
}

#[test]
fn rewriting_an_unchanged_meta_changes_nothing() {
    let mut bench = Bench::new();
    bench.package("one", &["a", "b"]);
    bench.scan();
    bench.write_meta("one", &["a", "b"]);
    assert!(is_quiet(&bench.scan()));
}

#[test]
fn leftovers_of_package_managers_are_ignored() {
    let mut bench = Bench::new();
    bench.package("one", &["a"]);
    bench.scan();
    for name in ["._cfg0000_one", "#new", ".hidden"] {
        bench.write(&format!("{name}/{META_FILE}"), "nonsense");
    }
    bench.write("one/#new", "nonsense");
    assert!(is_quiet(&bench.scan()));
}

#[test]
fn a_briefly_absent_package_is_not_removed() {
    let mut bench = Bench::new();
    bench.package("one", &["a"]);
    bench.scan();
    fs::rename(bench.path("one"), bench.path(".away")).unwrap();
    let absent = bench.scan();
    assert!(gone(&absent).is_empty() && absent.next_look.is_some());
    fs::rename(bench.path(".away"), bench.path("one")).unwrap();
    bench.now += SETTLE;
    assert!(is_quiet(&bench.scan()));
}

#[test]
fn a_package_that_stays_away_is_gone_once() {
    let mut bench = Bench::new();
    bench.package("one", &["a", "b"]);
    bench.scan();
    fs::remove_dir_all(bench.path("one")).unwrap();
    assert_eq!(gone(&bench.scan_settled()), ["a", "b"]);
    assert!(is_quiet(&bench.scan()));
}

#[test]
fn a_package_without_any_file_is_removed() {
    let mut bench = Bench::new();
    bench.package("one", &["a"]);
    bench.scan();
    fs::remove_file(bench.path(&format!("one/{META_FILE}"))).unwrap();
    fs::remove_file(bench.path("one/liba.so")).unwrap();
    let findings = bench.scan_settled();
    assert_eq!(gone(&findings), ["a"]);
}

#[test]
fn a_package_that_only_lacks_its_meta_stays() {
    let mut bench = Bench::new();
    bench.package("one", &["a"]);
    bench.scan();
    fs::remove_file(bench.path(&format!("one/{META_FILE}"))).unwrap();
    let problem = bench.problem();
    assert_eq!(problem.package, "one");
    assert!(problem.reason.contains("no plugin.meta"), "{problem:?}");
    assert!(gone(&bench.scan()).is_empty());
}

#[test]
fn an_unreadable_meta_becomes_a_problem_after_settling() {
    let mut bench = Bench::new();
    bench.package("one", &["a"]);
    bench.scan();
    bench.write(&format!("one/{META_FILE}"), "format = 1\n[[plugin]]\n");
    let problem = bench.problem();
    assert_eq!(problem.package, "one");
    assert!(problem.reason.contains("plugin.meta"), "{problem:?}");
    let still = bench.scan();
    assert_eq!(still.problems, [problem], "it stays visible");
    assert!(gone(&still).is_empty(), "and what runs stays");
    bench.write_meta("one", &["a"]);
    assert!(is_quiet(&bench.scan()), "repaired, and nothing changed");
}

#[test]
fn the_first_of_two_packages_provides_the_plugin() {
    let mut bench = Bench::new();
    bench.package("one", &["a"]);
    bench.scan();
    bench.package("two", &["a", "b"]);
    let findings = bench.scan();
    assert_eq!(changed(&findings), ["b"]);
    assert_eq!(findings.problems[0].package, "two");
    assert!(findings.problems[0].reason.contains("package `one`"));
    assert_eq!(bench.scanner.find("a").unwrap().package, "one");

    fs::remove_dir_all(bench.path("one")).unwrap();
    bench.scan();
    bench.now += SETTLE;
    let left = bench.scan();
    assert_eq!(gone(&left), ["a"]);
    assert!(left.next_look.is_some(), "nobody would scan the other one");
    let findings = bench.scan();
    assert_eq!(changed(&findings), ["a"]);
    assert!(findings.problems.is_empty());
    assert_eq!(bench.scanner.find("a").unwrap().package, "two");
}

#[test]
fn a_plugin_may_move_to_another_package() {
    // In whichever order the directory lists the two.
    for (from, to) in [("one", "two"), ("two", "one")] {
        let mut bench = Bench::new();
        bench.package(from, &["a", "b"]);
        bench.package(to, &["c"]);
        bench.scan();
        bench.package(to, &["b", "c"]);
        bench.write_meta(from, &["a"]);
        let mut findings = bench.scan();
        if !changed(&findings).contains(&"b") {
            assert!(findings.next_look.is_some(), "nobody would scan again");
            findings = bench.scan();
        }
        assert!(changed(&findings).contains(&"b"));
        assert_eq!(bench.scanner.find("b").unwrap().package, to);
        assert!(is_quiet(&bench.scan()));
    }
}

#[test]
fn a_non_package_is_named() {
    let mut bench = Bench::new();
    bench.package("one", &["a"]);
    bench.scan();
    bench.write("file", "");
    fs::create_dir(bench.path("a b")).unwrap();
    fs::create_dir(bench.path("a\nb")).unwrap();
    symlink("one", bench.path("link")).unwrap();
    let findings = bench.scan();
    let reasons: Vec<_> = findings
        .problems
        .iter()
        .map(|problem| (&*problem.package, &*problem.reason))
        .collect();
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    for (package, word) in [
        ("file", "not a directory"),
        ("a b", "only contain A-Z"),
        ("a\nb", "only contain A-Z"),
        ("link", "symbolic link"),
    ] {
        let found = reasons
            .iter()
            .any(|(name, reason)| *name == package && reason.contains(word));
        assert!(found, "{package:?} in {reasons:?}");
    }
    assert!(changed(&findings).is_empty() && gone(&findings).is_empty());
}

#[test]
fn a_package_replaced_by_a_symlink_keeps_running() {
    let mut bench = Bench::new();
    bench.package("one", &["a"]);
    bench.scan();
    fs::rename(bench.path("one"), bench.path(".moved")).unwrap();
    symlink(".moved", bench.path("one")).unwrap();
    bench.scan();
    bench.now += SETTLE;
    let findings = bench.scan();
    assert!(gone(&findings).is_empty());
    assert_eq!(findings.problems.len(), 1);
}

#[test]
fn a_vanished_plugin_directory_removes_no_plugin() {
    let mut bench = Bench::new();
    bench.package("one", &["a"]);
    bench.scan();
    let away = tempfile::tempdir().unwrap();
    let elsewhere = away.path().join("plugins");
    fs::rename(bench.dir.path(), &elsewhere).unwrap();
    let problem = bench.problem();
    assert_eq!(problem.package, "");
    assert!(problem.reason.contains("cannot be opened"), "{problem:?}");
    assert!(gone(&bench.scan()).is_empty());
    fs::rename(&elsewhere, bench.dir.path()).unwrap();
    assert!(is_quiet(&bench.scan()));
}

#[test]
fn a_package_without_anything_is_a_problem() {
    let mut bench = Bench::new();
    fs::create_dir(bench.path("empty")).unwrap();
    assert!(bench.problem().reason.contains("no plugin.meta"));
}

#[test]
fn a_file_a_reader_missed_is_found_again() {
    let mut bench = Bench::new();
    bench.package("one", &["a", "b"]);
    bench.scan();
    let (package, plugin) = ("one".parse().unwrap(), "a".parse().unwrap());
    bench.scanner.lost(&package, &plugin);
    assert_eq!(changed(&bench.scan()), ["a"]);
    assert!(is_quiet(&bench.scan()));
    // While it is missing there is nothing to report.
    fs::remove_file(bench.path("one/liba.so")).unwrap();
    bench.scan();
    bench.scanner.lost(&package, &plugin);
    assert_eq!(changed(&bench.scan()), [""; 0]);
}

/// Records which packages were covered.
#[derive(Default)]
struct Covered(Vec<String>);

impl Cover for Covered {
    fn cover(&mut self, package: &PackageName, is_replaced: bool) {
        let again = if is_replaced { " anew" } else { "" };
        self.0.push(format!("{package}{again}"));
    }

    fn uncover(&mut self, package: &PackageName) {
        self.0.push(format!("no {package}"));
    }
}

impl Bench {
    fn look(&mut self, dirty: &[(&str, Change)]) -> (Findings, Vec<String>) {
        let names = dirty.iter();
        let names = names.map(|(name, change)| (name.parse().unwrap(), *change));
        let dirty = Dirty::Named(names.collect());
        let mut covered = Covered::default();
        let findings = self.scanner.look(self.now, &dirty, &mut covered);
        (findings, covered.0)
    }
}

/// Makes every file old enough that its stamp reveals changes.
fn age(bench: &Bench) {
    let newest = |name: &str| {
        let stamp = stamp(open_dir(bench.dir.path(), &Trust::anybody()).unwrap(), name).unwrap();
        stamp.is_some_and(|stamp| stamp.is_fresh(std::time::SystemTime::now()))
    };
    let names = || {
        let packages = fs::read_dir(bench.dir.path()).unwrap().flatten();
        packages.map(|it| format!("{}/{META_FILE}", it.file_name().display()))
    };
    while names().any(|name| newest(&name)) {
        std::thread::yield_now();
    }
}

fn rested() -> Bench {
    let mut bench = Bench::new();
    for (package, plugin) in [("one", "a"), ("two", "b"), ("three", "c")] {
        bench.package(package, &[plugin]);
    }
    age(&bench);
    bench.scan();
    assert!(bench.scanner.is_at_rest());
    bench
}

#[test]
fn only_dirty_packages_are_scanned() {
    let mut bench = rested();
    bench.write("one/liba.so", "new");
    bench.write("two/libb.so", "new");
    let (findings, covered) = bench.look(&[("two", Change::Contents)]);
    assert_eq!(changed(&findings), ["b"]);
    assert_eq!(covered, ["two"]);
    let (findings, covered) = bench.look(&[]);
    assert!(is_quiet(&findings));
    assert!(covered.is_empty());
    let (findings, covered) = bench.look(&[("one", Change::Directory)]);
    assert_eq!(changed(&findings), ["a"]);
    assert_eq!(covered, ["one anew"]);
    assert!(is_quiet(&bench.scan()));
}

#[test]
fn dirty_packages_come_and_go() {
    let mut bench = rested();
    bench.package("four", &["d"]);
    fs::remove_dir_all(bench.path("one")).unwrap();
    let both = [("four", Change::Directory), ("one", Change::Directory)];
    let (findings, covered) = bench.look(&both);
    assert_eq!(changed(&findings), ["d"]);
    assert!(findings.gone.is_empty());
    assert_eq!(covered, ["four anew", "no one"]);
    // A missing package has the settling time to return, and needs no hint then.
    assert!(findings.next_look.is_some());
    assert!(!bench.scanner.is_at_rest());
    bench.now += SETTLE;
    let (findings, _) = bench.look(&[]);
    assert_eq!(gone(&findings), ["a"]);
}

#[test]
fn problems_are_complete_at_every_scan() {
    let mut bench = rested();
    bench.write("stray", "");
    bench.write(&format!("two/{META_FILE}"), "broken");
    let dirty = [("two", Change::Contents), ("stray", Change::Directory)];
    let (findings, _) = bench.look(&dirty);
    assert_eq!(findings.problems.len(), 1, "{:?}", findings.problems);
    bench.now += SETTLE;
    let about = |findings: &Findings| -> Vec<_> {
        let problems = findings.problems.iter();
        problems.map(|problem| problem.package.clone()).collect()
    };
    let (findings, _) = bench.look(&[("one", Change::Contents)]);
    assert_eq!(about(&findings), ["stray", "two"]);
    assert_eq!(about(&bench.scan()), ["stray", "two"]);
    fs::remove_file(bench.path("stray")).unwrap();
    bench.write_meta("two", &["b"]);
    let (findings, _) = bench.look(&dirty);
    assert!(findings.problems.is_empty(), "{:?}", findings.problems);
}

#[test]
fn a_directory_that_returns_is_scanned_whole() {
    let mut bench = rested();
    let away = bench.dir.path().with_extension("away");
    fs::rename(bench.dir.path(), &away).unwrap();
    let (findings, _) = bench.look(&[]);
    assert!(findings.next_look.is_some());
    assert!(!bench.scanner.is_at_rest());
    fs::rename(&away, bench.dir.path()).unwrap();
    bench.write("three/libc.so", "new");
    let (findings, covered) = bench.look(&[]);
    assert_eq!(changed(&findings), ["c"]);
    assert_eq!(covered.len(), 3);
}

#[test]
fn a_plugin_moves_between_dirty_packages() {
    let mut bench = rested();
    bench.package("two", &["a", "b"]);
    let (findings, _) = bench.look(&[("two", Change::Contents)]);
    assert_eq!(findings.problems.len(), 1, "{:?}", findings.problems);
    fs::remove_dir_all(bench.path("one")).unwrap();
    let (findings, _) = bench.look(&[("one", Change::Directory)]);
    assert!(findings.gone.is_empty());
    bench.now += SETTLE;
    // One of these two scans finds that it is gone, the other that it is back.
    let first = bench.look(&[]).0;
    let second = bench.look(&[]).0;
    assert_eq!(gone(&first), ["a"]);
    let found = [changed(&first), changed(&second)].concat();
    assert!(found.contains(&"a"), "{found:?}");
}

#[test]
fn a_hinted_package_is_read_whatever_its_stamp() {
    let mut bench = rested();
    let path = bench.path(&format!("one/{META_FILE}"));
    let text = fs::read_to_string(&path).unwrap();
    let known = &mut bench.scanner.packages.get_mut("one").unwrap();
    let now = text.replace("1.0.0", "1.0.1");
    fs::write(&path, now).unwrap();
    // As if the new bytes had left no trace.
    let root = open_dir(bench.dir.path(), &Trust::anybody()).unwrap();
    known.meta_stamp = stamp(&root, &known.meta_path).unwrap();
    assert!(is_quiet(&bench.scan()));
    let (findings, _) = bench.look(&[("one", Change::Contents)]);
    assert_eq!(changed(&findings), ["a"]);
}

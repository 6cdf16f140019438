//! Every way in which a plugin directory or a package in it is replaced, with every kind of watcher that
//! this user may use.

use std::{
    cell::Cell,
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use super::*;
use crate::find::dirty::Change;

/// How long a hint may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Kinds of watchers, and what they call themselves.
const KINDS: [(Watch, &str); 3] = [
    (Watch::Inotify, "inotify"),
    (Watch::Fanotify, "fanotify"),
    (Watch::Both, "inotify and fanotify"),
];

/// Those whose events come in one order.
const SINGLE: [(Watch, &str); 2] = [KINDS[0], KINDS[1]];

struct Bench {
    base: tempfile::TempDir,
    name: &'static str,
    watchers: Watchers,
    hinted: Receiver<()>,
    told: Receiver<WatchEvent>,
    marks: Cell<u32>,
}

impl Bench {
    /// Two directories, `one/plugins` and `two/plugins`, and `link` to the first one.
    fn new(dir: &str, (choice, name): (Watch, &'static str)) -> Self {
        let base = tempfile::tempdir().unwrap();
        for name in ["one/plugins", "two/plugins"] {
            fs::create_dir_all(base.path().join(name)).unwrap();
        }
        symlink("one", base.path().join("link")).unwrap();
        let (hint, hinted) = channel();
        let hint = Arc::new(move || hint.send(()).unwrap_or_default());
        let (tell, told) = channel();
        let tell = Arc::new(move |event| tell.send(event).unwrap_or_default());
        let watchers = Watchers::new(base.path().join(dir), choice, hint, tell);
        assert_eq!(watchers.take(true), Dirty::ALL);
        Self {
            base,
            name,
            watchers,
            hinted,
            told,
            marks: Cell::new(0),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    #[track_caller]
    fn is_told(&self) {
        self.hinted.recv_timeout(SOON).expect("a hint");
    }

    /// Takes everything that was reported until now, and covers what a host would.
    fn calm(&self) {
        while self.hinted.try_recv().is_ok() {}
        if let Dirty::Named(names) = self.watchers.take(false) {
            for (name, change) in names {
                (&self.watchers).cover(&name, change == Change::Directory);
            }
        }
    }

    /// Checks that changes in the current directory are reported.
    #[track_caller]
    fn is_watched(&self) {
        loop {
            self.calm();
            fs::write(self.watchers.dir.join("new"), "").unwrap();
            self.is_told();
            // The report that the directory was replaced may come late.
            if self.watchers.is_up_to_date() {
                break;
            }
        }
        assert_eq!(self.watchers.describe(0), self.name);
    }

    fn package(&self, name: &str) -> PathBuf {
        self.watchers.dir.join(name)
    }

    /// Waits until a package is dirty.
    #[track_caller]
    fn is_dirty(&self, package: &str) -> Change {
        loop {
            match self.watchers.take(false) {
                Dirty::All { .. } => return Change::Directory,
                Dirty::Named(names) => {
                    if let Some(change) = names.get(package) {
                        return *change;
                    }
                }
            }
            self.is_told();
        }
    }

    /// Covers a package, as a scan does first.
    fn cover(&self, package: &str, change: Change) {
        let name = package.parse().unwrap();
        (&self.watchers).cover(&name, change == Change::Directory);
    }

    /// Every change in a package's directory makes it dirty.
    #[track_caller]
    fn is_covered(&self, package: &str) {
        let dir = self.package(package);
        let one = dir.join("one");
        let mut open = fs::File::create(dir.join("open")).unwrap();
        let changes: [&mut dyn FnMut(); 7] = [
            // A file may have settled before it is closed.
            &mut || open.write_all(b"1").unwrap(),
            &mut || fs::write(&one, "1").unwrap(),
            &mut || fs::rename(&one, dir.join("two")).unwrap(),
            &mut || fs::hard_link(dir.join("two"), &one).unwrap(),
            &mut || fs::remove_file(dir.join("two")).unwrap(),
            &mut || {
                let file = fs::File::options().write(true).open(&one).unwrap();
                file.set_len(0).unwrap();
            },
            &mut || fs::remove_file(&one).unwrap(),
        ];
        for change in changes {
            // Earlier reports do not concern this one.
            self.quiet();
            change();
            self.is_dirty(package);
        }
        fs::remove_file(dir.join("open")).unwrap();
        self.quiet();
    }

    /// Waits until one kind of watcher has reported everything: its events come in order, and this one is
    /// the last.
    fn quiet(&self) {
        self.calm();
        let mark = format!("mark{}", self.marks.get());
        self.marks.set(self.marks.get() + 1);
        fs::create_dir(self.package(&mark)).unwrap();
        self.is_dirty(&mark);
        self.calm();
    }
}

/// A way to make the path name another directory, for each kind of path.
type Turn = (&'static str, fn(&Bench));

const TURNS: [Turn; 5] = [
    ("one/plugins", |bench| {
        fs::remove_dir_all(bench.path("one/plugins")).unwrap();
        fs::create_dir(bench.path("one/plugins")).unwrap();
    }),
    ("one/plugins", |bench| {
        fs::rename(bench.path("one/plugins"), bench.path("away")).unwrap();
        fs::rename(bench.path("two/plugins"), bench.path("one/plugins")).unwrap();
    }),
    ("one/plugins", |bench| {
        fs::rename(bench.path("one"), bench.path("away")).unwrap();
        fs::rename(bench.path("two"), bench.path("one")).unwrap();
    }),
    ("link/plugins", |bench| {
        symlink("two", bench.path("new")).unwrap();
        fs::rename(bench.path("new"), bench.path("link")).unwrap();
    }),
    ("link/plugins", |bench| {
        fs::remove_file(bench.path("link")).unwrap();
        symlink("two", bench.path("link")).unwrap();
    }),
];

#[test]
fn a_path_to_another_directory_is_watched_anew() {
    for kind in KINDS {
        for (dir, turn) in TURNS {
            let bench = Bench::new(dir, kind);
            bench.is_watched();
            bench.calm();
            turn(&bench);
            bench.is_told();
            bench.is_watched();
        }
    }
}

#[test]
fn a_missing_directory_is_reported_as_missing() {
    for kind in KINDS {
        let bench = Bench::new("one/plugins", kind);
        assert_eq!(bench.watchers.describe(0), bench.name);
        fs::remove_dir(bench.path("one/plugins")).unwrap();
        bench.is_told();
        bench.watchers.take(true);
        let described = bench.watchers.describe(0);
        assert!(described.starts_with("off: "), "{described}");
        fs::create_dir(bench.path("one/plugins")).unwrap();
        bench.is_watched();
    }
}

#[test]
fn changes_beside_the_path_wake_nobody() {
    for kind in KINDS {
        let bench = Bench::new("link/plugins", kind);
        fs::write(bench.path("beside"), "").unwrap();
        fs::remove_file(bench.path("beside")).unwrap();
        fs::rename(bench.path("two"), bench.path("three")).unwrap();
        // The events of one queue come in their order.
        fs::create_dir(bench.package("new")).unwrap();
        assert_eq!(bench.is_dirty("new"), Change::Directory);
        assert!(bench.watchers.is_up_to_date());
    }
}

#[test]
fn staging_wakes_nobody() {
    for kind in SINGLE {
        let bench = Bench::new("one/plugins", kind);
        fs::write(bench.package(".new-1"), "").unwrap();
        fs::create_dir(bench.package("new")).unwrap();
        assert_eq!(bench.is_dirty("new"), Change::Directory);
        // Only that one was reported.
        assert!(bench.hinted.try_iter().count() <= 1);
    }
}

/// The ways in which a package's directory is replaced.
const REPLACEMENTS: [fn(&Bench); 4] = [
    |bench| {
        fs::remove_dir(bench.package("p")).unwrap();
        fs::create_dir(bench.package("p")).unwrap();
    },
    |bench| {
        fs::create_dir(bench.package(".p")).unwrap();
        fs::rename(bench.package(".p"), bench.package("p")).unwrap();
    },
    |bench| {
        fs::rename(bench.package("p"), bench.path("old")).unwrap();
        fs::create_dir(bench.package("p")).unwrap();
    },
    |bench| {
        fs::remove_dir(bench.package("p")).unwrap();
        symlink(bench.path("two"), bench.package("p")).unwrap();
        bench.is_dirty("p");
        fs::remove_file(bench.package("p")).unwrap();
        fs::create_dir(bench.package("p")).unwrap();
    },
];

#[test]
fn a_replaced_package_is_covered_anew() {
    for kind in KINDS {
        for replace in REPLACEMENTS {
            let bench = Bench::new("one/plugins", kind);
            fs::create_dir(bench.package("p")).unwrap();
            let change = bench.is_dirty("p");
            bench.cover("p", change);
            bench.is_covered("p");
            replace(&bench);
            // The other kind may still report what was written before.
            while bench.is_dirty("p") != Change::Directory {}
            bench.cover("p", Change::Directory);
            bench.is_covered("p");
        }
    }
}

#[test]
fn reading_makes_nothing_dirty() {
    for kind in SINGLE {
        let bench = Bench::new("one/plugins", kind);
        fs::create_dir(bench.package("p")).unwrap();
        fs::write(bench.package("p").join("file"), "1").unwrap();
        bench.cover("p", Change::Directory);
        bench.quiet();
        fs::read(bench.package("p").join("file")).unwrap();
        for dir in [bench.package("p"), bench.watchers.dir.clone()] {
            fs::read_dir(dir).unwrap().for_each(drop);
        }
        fs::create_dir(bench.package("after")).unwrap();
        assert_eq!(bench.is_dirty("after"), Change::Directory);
        assert!(bench.watchers.take(false).is_empty());
    }
}

/// Other machines change a remote file system, and no watcher on this one notices.
#[test]
fn remote_file_systems_are_polled_by_any_choice() {
    for kind in KINDS {
        let mut bench = Bench::new("one/plugins", kind);
        bench.watchers.remote = |path| path.ends_with("far").then_some("nfs");
        assert_eq!(bench.watchers.must_poll(), None);
        for package in ["near", "far"] {
            fs::create_dir(bench.package(package)).unwrap();
            bench.cover(package, Change::Directory);
        }
        let why = bench.watchers.must_poll().expect("it is polled");
        assert!(why.starts_with("nfs does not report"), "{why}");
        let described = bench.watchers.describe(50);
        let polling = format!("{} and polling every 50 ms (nfs", bench.name);
        assert!(described.starts_with(&polling), "{described}");
        (&bench.watchers).uncover(&"far".parse().unwrap());
        assert_eq!(bench.watchers.must_poll(), None);
    }
    let mut bench = Bench::new("one/plugins", KINDS[0]);
    bench.watchers.remote = |_| Some("fuse");
    fs::rename(bench.path("one"), bench.path("away")).unwrap();
    fs::rename(bench.path("two"), bench.path("one")).unwrap();
    bench.is_told();
    bench.watchers.take(true);
    let why = bench.watchers.must_poll().expect("it is polled");
    assert!(why.starts_with("fuse does not report"), "{why}");
}

/// Each report causes the next one, so that the queue is never empty.
#[test]
fn fanotify_stops_in_the_midst_of_a_stream() {
    let dir = tempfile::tempdir().unwrap();
    let again = dir.path().join("again");
    let (fed, feeding) = channel();
    let hint = Arc::new(move || {
        // The test, and with it the directory, may have ended.
        let _ = fs::write(&again, "");
        let _ = fed.send(());
    });
    let dir = dir.path().to_owned();
    let watchers = Watchers::new(dir.clone(), Watch::Fanotify, hint, Arc::new(drop));
    let watchers = Arc::new(watchers);
    watchers.take(true);
    fs::write(dir.join("first"), "").unwrap();
    for _ in 0..100 {
        feeding.recv_timeout(SOON).expect("a report");
    }
    let (told, stopped) = channel();
    std::thread::spawn({
        let watchers = Arc::clone(&watchers);
        move || {
            watchers.stop();
            told.send(())
        }
    });
    stopped.recv_timeout(SOON).expect("it stops");
}

/// The capacity of a queue, in events.
fn queue(kind: &str) -> usize {
    let path = format!("/proc/sys/fs/{kind}/max_queued_events");
    let text = fs::read_to_string(path).unwrap();
    text.trim().parse().unwrap()
}

/// A reader that stalls until both queues are full must scan everything and be restarted: among the
/// events that it missed is the replacement of a package.
#[test]
fn a_full_queue_makes_everything_dirty() {
    for kind in KINDS {
        let bench = Bench::new("one/plugins", kind);
        fs::create_dir(bench.package("p")).unwrap();
        let change = bench.is_dirty("p");
        bench.cover("p", change);
        {
            let _stalled = bench.watchers.dirty.lock();
            // The reader may have taken some of them when it stalled.
            let most = queue("inotify").max(queue("fanotify")) + 2_000;
            let name = |index: usize| bench.package("p").join(index.to_string());
            fs::write(name(0), "1").unwrap();
            for index in 0..most {
                // The kernel does not merge events with different names.
                fs::rename(name(index), name(index + 1)).unwrap();
            }
            fs::remove_file(name(most)).unwrap();
            fs::remove_dir(bench.package("p")).unwrap();
            fs::create_dir(bench.package("p")).unwrap();
        }
        let lost = |bench: &Bench| {
            let status = bench.watchers.status();
            status.iter().all(|kind| kind.overflows > 0)
        };
        while !lost(&bench) {
            bench.is_told();
        }
        let told = bench.told.recv_timeout(SOON);
        assert!(
            matches!(told, Ok(WatchEvent::EventsLost { .. })),
            "{told:?}"
        );
        assert!(matches!(bench.watchers.take(false), Dirty::All { .. }));
        bench.cover("p", Change::Contents);
        bench.is_covered("p");
    }
}

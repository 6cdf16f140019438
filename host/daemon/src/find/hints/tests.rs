//! Every way in which a plugin directory comes to be another one.

use std::{
    os::unix::fs::symlink,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use super::*;

/// How long a hint may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);

struct Bench {
    base: tempfile::TempDir,
    hints: Hints,
    hinted: Receiver<()>,
}

impl Bench {
    /// Two directories, `one/plugins` and `two/plugins`, and `link` to the first one.
    fn new(dir: &str) -> Self {
        let base = tempfile::tempdir().unwrap();
        for name in ["one/plugins", "two/plugins"] {
            fs::create_dir_all(base.path().join(name)).unwrap();
        }
        symlink("one", base.path().join("link")).unwrap();
        let (hint, hinted) = channel();
        let hint = Arc::new(move || hint.send(()).unwrap_or_default());
        let hints = Hints::new(base.path().join(dir), true, hint);
        hints.keep();
        Self {
            base,
            hints,
            hinted,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    #[track_caller]
    fn is_told(&self) {
        self.hinted.recv_timeout(SOON).expect("a hint");
    }

    /// What happens in the directory of now is told.
    #[track_caller]
    fn is_watched(&self) {
        loop {
            self.hints.keep();
            // What was told before.
            while self.hinted.try_recv().is_ok() {}
            fs::write(self.hints.dir.join("new"), "").unwrap();
            self.is_told();
            // It may have been told late that the directory is another one.
            if self.hints.is_up_to_date() {
                break;
            }
        }
        assert_eq!(self.hints.describe(), "inotify");
    }
}

/// A change of what the path means, by what the path is.
type Change = (&'static str, fn(&Bench));

const CHANGES: [Change; 5] = [
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
    for (dir, change) in CHANGES {
        let bench = Bench::new(dir);
        bench.is_watched();
        while bench.hinted.try_recv().is_ok() {}
        change(&bench);
        bench.is_told();
        bench.is_watched();
    }
}

#[test]
fn a_directory_that_is_gone_is_said_to_be() {
    let bench = Bench::new("one/plugins");
    assert_eq!(bench.hints.describe(), "inotify");
    fs::remove_dir(bench.path("one/plugins")).unwrap();
    bench.is_told();
    bench.hints.keep();
    let described = bench.hints.describe();
    assert!(described.starts_with("off: "), "{described}");
    fs::create_dir(bench.path("one/plugins")).unwrap();
    bench.is_watched();
}

#[test]
fn what_happens_beside_the_way_wakes_nobody() {
    let bench = Bench::new("link/plugins");
    fs::write(bench.path("beside"), "").unwrap();
    fs::remove_file(bench.path("beside")).unwrap();
    fs::rename(bench.path("two"), bench.path("three")).unwrap();
    // The events of one directory come in their order.
    fs::write(bench.path("one/plugins/new"), "").unwrap();
    bench.is_told();
    assert!(bench.hints.is_up_to_date());
}

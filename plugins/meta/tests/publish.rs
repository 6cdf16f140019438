//! Publishing: what is written, in which order, and what a failure leaves behind.

mod support;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use hotmerge_meta::{
    Abi, FileName, META_FILE, Meta, PackageName, PublishError, Published, publish,
};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use support::{Elf, meta};

/// A staging directory and the sources of some plugins.
struct Bench {
    root: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

/// Each file by name: inode, time of the last write, contents.
type Snapshot = BTreeMap<String, (u64, i64, i64, Vec<u8>)>;

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            root: dir.path().to_owned(),
            _dir: Some(dir),
        }
    }

    fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            _dir: None,
        }
    }

    fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    fn package(&self) -> PathBuf {
        self.staging().join("package")
    }

    fn publish(&self, plugins: &[(&str, &[u8])]) -> Result<Published, PublishError> {
        let described: Vec<_> = plugins
            .iter()
            .map(|(name, bytes)| (*name, format!("lib{name}.so"), *bytes))
            .collect();
        let described: Vec<_> = described
            .iter()
            .map(|(name, file, bytes)| (*name, file.as_str(), *bytes))
            .collect();
        self.publish_as(&meta(&described), plugins)
    }

    fn publish_as(
        &self,
        meta: &Meta,
        plugins: &[(&str, &[u8])],
    ) -> Result<Published, PublishError> {
        let sources = tempfile::tempdir().unwrap();
        let paths: Vec<_> = plugins
            .iter()
            .map(|(name, bytes)| {
                let path = sources.path().join(name);
                fs::write(&path, bytes).unwrap();
                (file_name(name), path)
            })
            .collect();
        let files: Vec<_> = paths
            .iter()
            .map(|(name, path)| (name.clone(), path.as_path()))
            .collect();
        publish(
            &self.staging(),
            &PackageName::new("package").unwrap(),
            meta,
            &files,
        )
    }

    fn snapshot(&self) -> Snapshot {
        let entry = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().unwrap();
            let data = entry.metadata().unwrap();
            let contents = fs::read(entry.path()).unwrap();
            (
                name,
                (data.ino(), data.mtime(), data.mtime_nsec(), contents),
            )
        };
        fs::read_dir(self.package())
            .unwrap()
            .map(|found| entry(found.unwrap()))
            .collect()
    }

    fn names(&self) -> Vec<String> {
        self.snapshot().into_keys().collect()
    }
}

fn file_name(name: &str) -> FileName {
    FileName::new(format!("lib{name}.so")).unwrap()
}

fn plugin(code: &[u8]) -> Vec<u8> {
    let elf = Elf {
        code: code.to_vec(),
        ..Elf::default()
    };
    elf.build().file
}

#[test]
fn a_written_package_can_be_read_back() {
    let bench = Bench::new();
    let (one, two) = (plugin(b"one"), plugin(b"two"));
    let published = bench.publish(&[("two", &two), ("one", &one)]).unwrap();
    assert_eq!(published.dir, bench.package());
    assert_eq!(published.written, [file_name("one"), file_name("two")]);
    assert!(published.unchanged.is_empty() && published.removed.is_empty());
    assert!(published.meta_written && published.changed());

    assert_eq!(bench.names(), ["libone.so", "libtwo.so", META_FILE]);
    assert_eq!(fs::read(bench.package().join("libone.so")).unwrap(), one);
    let read = Meta::read_path(&bench.package()).unwrap();
    assert_eq!(read.get("two").unwrap().file, file_name("two"));
    let mode = fs::metadata(bench.package().join("libone.so"))
        .unwrap()
        .mode();
    assert_eq!(mode & 0o7022, 0, "others may not write it");
}

#[test]
fn unchanged_files_are_not_touched() {
    let bench = Bench::new();
    let (one, two) = (plugin(b"one"), plugin(b"two"));
    bench.publish(&[("one", &one), ("two", &two)]).unwrap();
    let before = bench.snapshot();

    let published = bench.publish(&[("one", &one), ("two", &two)]).unwrap();
    assert!(!published.changed());
    assert_eq!(published.unchanged, [file_name("one"), file_name("two")]);
    assert_eq!(bench.snapshot(), before);

    let newer = plugin(b"newer");
    let published = bench.publish(&[("one", &newer), ("two", &two)]).unwrap();
    assert_eq!(published.written, [file_name("one")]);
    assert_eq!(published.unchanged, [file_name("two")]);
    assert!(published.meta_written);
    let after = bench.snapshot();
    assert_eq!(after["libtwo.so"], before["libtwo.so"]);
    assert_ne!(
        after["libone.so"].0, before["libone.so"].0,
        "replaced, not overwritten"
    );
}

#[test]
fn new_debug_information_replaces_only_the_file() {
    let bench = Bench::new();
    let tail = |tail: &[u8]| {
        let elf = Elf {
            tail: tail.to_vec(),
            ..Elf::default()
        };
        elf.build().file
    };
    bench.publish(&[("one", &tail(b"line 1"))]).unwrap();
    let published = bench.publish(&[("one", &tail(b"line 2"))]).unwrap();
    assert_eq!(published.written, [file_name("one")]);
    assert!(!published.meta_written);
}

#[test]
fn files_missing_from_the_meta_are_removed() {
    let bench = Bench::new();
    let (one, two) = (plugin(b"one"), plugin(b"two"));
    bench.publish(&[("one", &one), ("two", &two)]).unwrap();
    fs::write(bench.package().join("README"), "not ours").unwrap();
    fs::write(bench.package().join(".hidden.so"), "not ours").unwrap();
    fs::write(
        bench.package().join(".hotmerge-new-7"),
        "of one that crashed",
    )
    .unwrap();
    let published = bench.publish(&[("two", &two)]).unwrap();
    assert_eq!(published.removed, [file_name("one")]);
    assert_eq!(
        bench.names(),
        [".hidden.so", "README", "libtwo.so", META_FILE]
    );
}

#[test]
fn the_meta_is_written_last_and_atomically() {
    let bench = Bench::new();
    let (one, two, three) = (plugin(b"one"), plugin(b"two"), plugin(b"three"));
    bench
        .publish(&[("one", &one), ("two", &two), ("three", &three)])
        .unwrap();

    let watch = inotify::init(CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, bench.package(), WatchFlags::ALL_EVENTS).unwrap();
    let (one, two) = (plugin(b"new one"), plugin(b"new two"));
    bench.publish(&[("one", &one), ("two", &two)]).unwrap();

    let mut buffer = [std::mem::MaybeUninit::uninit(); 16 * 1024];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    let mut seen = Vec::new();
    while let Ok(event) = events.next() {
        let name = event
            .file_name()
            .map_or("", |name| name.to_str().unwrap())
            .to_owned();
        seen.push((event.events(), name));
    }
    let visible = |what: ReadFlags| -> Vec<_> {
        let of_kind = seen.iter().enumerate().filter(|(_, (events, name))| {
            events.intersects(what) && !name.is_empty() && !name.starts_with('.')
        });
        of_kind.map(|(at, (_, name))| (at, name.as_str())).collect()
    };
    let written = ReadFlags::CREATE | ReadFlags::MODIFY | ReadFlags::CLOSE_WRITE;
    assert_eq!(visible(written), [], "everything visible comes by rename");
    let moved = visible(ReadFlags::MOVED_TO);
    let names: Vec<_> = moved.iter().map(|(_, name)| *name).collect();
    assert_eq!(names, ["libone.so", "libtwo.so", META_FILE]);
    let removed = visible(ReadFlags::DELETE);
    assert_eq!(removed[0].1, "libthree.so");
    assert!(
        removed[0].0 > moved[2].0,
        "removed only when the meta is in place"
    );
    let last_write = seen
        .iter()
        .rposition(|(events, _)| events.intersects(written));
    assert!(
        last_write.unwrap() < moved[0].0,
        "all is written before anything is moved"
    );
}

#[test]
fn a_file_contradicting_its_meta_is_refused() {
    let bench = Bench::new();
    let (old, new) = (plugin(b"old"), plugin(b"new"));
    bench.publish(&[("one", &old)]).unwrap();
    let before = bench.snapshot();

    let described = meta(&[("one", "libone.so", &new)]);
    let error = bench
        .publish_as(&described, &[("one", b"no elf")])
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("cannot be published: not an ELF file"),
        "{error}"
    );
    let other = plugin(b"changed after the build");
    let error = bench
        .publish_as(&described, &[("one", &other)])
        .unwrap_err();
    assert!(error.to_string().contains("its hash is sha256:"), "{error}");
    let error = bench
        .publish_as(&described, &[("one", &new), ("two", &new)])
        .unwrap_err();
    assert!(matches!(error, PublishError::Unpaired(name) if name == "libtwo.so"));
    let error = bench.publish_as(&described, &[]).unwrap_err();
    assert!(matches!(error, PublishError::Unpaired(name) if name == "libone.so"));
    assert_eq!(bench.snapshot(), before);
}

#[test]
fn a_meta_that_contradicts_its_plugin_is_refused() {
    let bench = Bench::new();
    let one = plugin(b"one");
    let mut described = meta(&[("one", "libone.so", &one)]);
    described.plugin[0].size += 1;
    let error = bench.publish_as(&described, &[("one", &one)]).unwrap_err();
    assert!(
        error.to_string().contains("bytes, but `plugin.meta` says"),
        "{error}"
    );
    described.plugin[0].size -= 1;
    described.plugin[0].abi.minor += 1;
    let error = bench.publish_as(&described, &[("one", &one)]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("ABI {}, but `plugin.meta` says 1.", Abi::CURRENT)),
        "{error}"
    );
}

#[test]
fn a_meta_hosts_would_refuse_is_not_published() {
    let bench = Bench::new();
    let one = plugin(b"one");
    let mut described = meta(&[("one", "libone.so", &one)]);
    described.plugin[0].target = "none of your business".to_owned();
    let error = bench.publish_as(&described, &[("one", &one)]).unwrap_err();
    assert!(
        error.to_string().ends_with("which must be a target triple"),
        "{error}"
    );
    assert!(!bench.staging().exists());
}

#[test]
fn a_directory_in_place_of_a_file_fails() {
    let bench = Bench::new();
    let (one, two) = (plugin(b"one"), plugin(b"two"));
    bench.publish(&[("one", &one)]).unwrap();
    fs::create_dir(bench.package().join("libtwo.so")).unwrap();
    let new = plugin(b"new");
    let error = bench.publish(&[("one", &new), ("two", &two)]).unwrap_err();
    assert!(error.to_string().contains("libtwo.so"), "{error}");
    assert_eq!(fs::read(bench.package().join("libone.so")).unwrap(), one);
    fs::remove_dir(bench.package().join("libtwo.so")).unwrap();
    assert_eq!(bench.names(), ["libone.so", META_FILE]);
}

#[test]
fn a_foreign_directory_named_like_a_plugin_stays() {
    let bench = Bench::new();
    bench.publish(&[("one", &plugin(b"one"))]).unwrap();
    let foreign = bench.package().join("x.so");
    fs::create_dir(&foreign).unwrap();
    let published = bench.publish(&[("one", &plugin(b"two"))]).unwrap();
    assert_eq!(published.written, [file_name("one")]);
    assert!(published.removed.is_empty());
    assert!(foreign.is_dir());
}

#[test]
fn a_symlink_is_replaced_and_never_followed() {
    let bench = Bench::new();
    let one = plugin(b"one");
    let elsewhere = bench.root.join("elsewhere");
    fs::write(&elsewhere, "not ours").unwrap();
    fs::create_dir_all(bench.package()).unwrap();
    std::os::unix::fs::symlink(&elsewhere, bench.package().join("libone.so")).unwrap();
    bench.publish(&[("one", &one)]).unwrap();
    assert_eq!(fs::read(&elsewhere).unwrap(), b"not ours");
    let kind = fs::symlink_metadata(bench.package().join("libone.so")).unwrap();
    assert!(kind.is_file());
}

#[test]
fn two_publishers_take_turns() {
    let bench = Bench::new();
    let versions: Vec<_> = (0..4_u8).map(|version| plugin(&[version; 64])).collect();
    std::thread::scope(|scope| {
        for version in &versions {
            let bench = &bench;
            scope.spawn(move || {
                for _ in 0..10 {
                    bench
                        .publish(&[("one", version), ("two", version)])
                        .unwrap();
                }
            });
        }
    });
    let meta = Meta::read_path(&bench.package()).unwrap();
    let package = File::open(bench.package()).unwrap();
    for plugin in &meta.plugin {
        let (image, _) = hotmerge_meta::Image::read(&package, &plugin.file, 1 << 20).unwrap();
        plugin.check(&image).unwrap();
    }
    assert_eq!(bench.names(), ["libone.so", "libtwo.so", META_FILE]);
}

#[test]
fn an_unwritable_path_is_named_in_the_error() {
    let bench = Bench::new();
    fs::write(bench.staging(), "a file").unwrap();
    let error = bench.publish(&[("one", &plugin(b"one"))]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("failed to create `") && text.contains("staging/package"),
        "{text}"
    );
}

/// Set when one of the tests below runs again under a limit that is real.
const UNDER_LIMIT: &str = "HOTMERGE_TEST_UNDER_LIMIT";

/// This test program, to run one of its tests again.
fn again(program: &str, arguments: &[&str], test: &str, dir: &Path) -> std::process::Output {
    Command::new(program)
        .args(arguments)
        .arg("sh")
        .arg(dir)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(UNDER_LIMIT, dir)
        .output()
        .unwrap_or_else(|error| panic!("`{program}` is needed: {error}"))
}

/// Reports a test that cannot run on this machine.
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
    if let Some(path) = std::env::var_os("HOTMERGE_TEST_SKIPPED") {
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        writeln!(file, "{}", why.trim_end().replace('\n', " ")).unwrap();
    }
}

#[test]
fn on_a_full_disk_nothing_changes() {
    if let Some(dir) = std::env::var_os(UNDER_LIMIT) {
        return fill_the_disk(Path::new(&dir));
    }
    const NO_MOUNT: i32 = 77;
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=512k none \"$1\" || exit 77; shift; exec \"$@\"";
    let namespace = ["--user", "--map-root-user", "--mount", "sh", "-c", script];
    let output = again(
        "unshare",
        &namespace,
        "on_a_full_disk_nothing_changes",
        dir.path(),
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(NO_MOUNT) || error.contains("unshare failed") {
        return skipped(&format!("no full disk without user namespaces: {error}"));
    }
    assert!(output.status.success(), "{text}{error}");
    assert!(text.contains("disk filled"), "it did not run: {text}");
}

#[test]
fn exceeding_the_file_size_limit_changes_nothing() {
    let test = "exceeding_the_file_size_limit_changes_nothing";
    let (small, large) = (plugin(b"small"), plugin(&[7; 100_000]));
    let described = meta(&[("one", "libone.so", &small), ("two", "libtwo.so", &large)]);
    if let Some(dir) = std::env::var_os(UNDER_LIMIT) {
        let bench = Bench::at(Path::new(&dir));
        let before = bench.snapshot();
        let (one, two) = (bench.root.join("one"), bench.root.join("two"));
        let files = [(file_name("one"), one.as_path()), (file_name("two"), &two)];
        let package = PackageName::new("package").unwrap();
        let error = publish(&bench.staging(), &package, &described, &files).unwrap_err();
        assert!(error.to_string().contains("File too large"), "{error}");
        assert_eq!(bench.snapshot(), before);
        return println!("limit reached");
    }
    let bench = Bench::new();
    bench.publish(&[("one", &plugin(b"old"))]).unwrap();
    fs::write(bench.root.join("one"), &small).unwrap();
    fs::write(bench.root.join("two"), &large).unwrap();
    // Without the trap the signal would end the process before the error is seen.
    let script = "trap '' XFSZ; ulimit -f 64; shift; exec \"$@\"";
    let output = again("sh", &["-c", script], test, &bench.root);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("limit reached"), "it did not run: {text}");
}

/// Leaves less and less room, so that the disk is full at each of the files in turn.
fn fill_the_disk(root: &Path) {
    let (mut full, mut fitted) = (0, 0);
    for pages in 0..40_usize {
        let bench = Bench::at(&root.join(pages.to_string()));
        let code = |version: u8| plugin(&[version; 30_000]);
        let (one, two, three) = (code(1), code(2), code(3));
        bench
            .publish(&[("one", &one), ("two", &two), ("three", &three)])
            .unwrap();
        let before = bench.snapshot();

        let filler = root.join("filler");
        let _ = fs::write(&filler, vec![0; 1 << 20]);
        let len = fs::metadata(&filler).unwrap().len();
        let keep = len.saturating_sub(pages as u64 * 4096);
        File::options()
            .write(true)
            .open(&filler)
            .unwrap()
            .set_len(keep)
            .unwrap();

        let (one, two) = (code(4), code(5));
        match bench.publish(&[("one", &one), ("two", &two)]) {
            Ok(_) => fitted += 1,
            Err(error) => {
                full += 1;
                assert!(error.to_string().contains("No space left"), "{error}");
                assert_eq!(bench.snapshot(), before, "with {pages} pages left");
            }
        }
        fs::remove_file(&filler).unwrap();
        bench.publish(&[("one", &one), ("two", &two)]).unwrap();
        assert_eq!(bench.names(), ["libone.so", "libtwo.so", META_FILE]);
        fs::remove_dir_all(&bench.root).unwrap();
    }
    assert!(
        full > 5 && fitted > 5,
        "{full} times full, {fitted} times not"
    );
    println!("disk filled {full} times");
}

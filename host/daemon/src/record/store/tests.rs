//! The store's promises, also after a host was killed.

use std::{fs, path::PathBuf};

use hotmerge_meta::testing::plugin;

use super::*;

fn version(name: &str, version: &str) -> PluginMeta {
    PluginMeta {
        hash: Digest::of(version.as_bytes()),
        ..plugin(name, version, Vec::new())
    }
}

fn runs(meta: &PluginMeta, choice: Option<&Choice>) -> Now {
    Now::Runs(Running {
        live: Arc::new(meta.clone()),
        package: None,
        choice: choice.cloned(),
        signed: None,
        newest: None,
    })
}

fn keep(store: &Store, meta: &PluginMeta, choice: Option<&Choice>) {
    let now = || runs(meta, choice);
    store.persist(&meta.name, now, image).unwrap();
}

fn image(meta: &PluginMeta) -> io::Result<Vec<u8>> {
    Ok(meta.version.to_string().into_bytes())
}

fn forget(store: &Store, meta: &PluginMeta) {
    store.persist(&meta.name, || Now::Gone, image).unwrap();
}

fn kept(store: &Store, name: &str) -> Vec<String> {
    let versions = store.versions(name);
    versions.iter().map(|it| it.version.to_string()).collect()
}

fn image_path(store: &Store, hash: &Digest) -> PathBuf {
    store.dir().join("images").join(image_name(hash))
}

fn images(dir: &Path) -> usize {
    fs::read_dir(dir.join("images")).unwrap().count()
}

#[test]
fn only_the_last_good_versions_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 2).unwrap();
    for number in ["1.0.0", "2.0.0", "3.0.0"] {
        keep(&store, &version("a", number), None);
    }
    assert_eq!(kept(&store, "a"), ["3.0.0", "2.0.0"]);
    assert_eq!(images(dir.path()), 2);
    let image = store.image(&version("a", "2.0.0").hash).unwrap();
    assert_eq!(image, b"2.0.0");
}

#[test]
fn records_are_written_in_the_order_of_events() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 2).unwrap();
    let (old, new) = (version("a", "1.0.0"), version("a", "2.0.0"));
    let running = Mutex::new(old.clone());
    let look = || runs(&running.lock().unwrap(), None);
    let (later, has_looked) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let slow = || {
            let seen = look();
            *running.lock().unwrap() = new.clone();
            scope.spawn(|| {
                let look = || {
                    later.send(()).unwrap();
                    look()
                };
                store.persist(&new.name, look, image).unwrap();
            });
            // Without the lock the other thread may read and write before this one.
            let order = store.records.try_lock().map(drop);
            order.expect_err("nobody else writes between a scan and what it leads to");
            assert!(has_looked.try_recv().is_err());
            seen
        };
        store.persist(&old.name, slow, image).unwrap();
    });
    has_looked.recv().unwrap();
    let remembered = store.remembered();
    assert_eq!(remembered[0].live.as_deref(), Some(&new));
}

#[test]
fn running_and_chosen_versions_are_never_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 1).unwrap();
    let old = version("a", "1.0.0");
    keep(&store, &old, None);
    let choice = Choice {
        meta: Arc::new(old.clone()),
        pinned: true,
        instead_of: None,
    };
    keep(&store, &version("a", "2.0.0"), Some(&choice));
    assert_eq!(kept(&store, "a"), ["2.0.0", "1.0.0"]);
    drop(store);

    let store = Store::open(dir.path(), 1).unwrap();
    let remembered = store.remembered();
    let [remembered] = &remembered[..] else {
        panic!("{remembered:?}");
    };
    assert_eq!(remembered.plugin.as_str(), "a");
    let live = remembered.live.as_ref().unwrap();
    assert_eq!(live.version.to_string(), "2.0.0");
    assert_eq!(remembered.choice.as_ref(), Some(&choice));
}

#[test]
fn a_host_that_was_killed_leaves_nothing_half() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 3).unwrap();
    keep(&store, &version("a", "1.0.0"), None);
    drop(store);
    // As if killed while it wrote, and between an image and its record.
    fs::write(dir.path().join("plugins/.new-a.json"), "{").unwrap();
    fs::write(dir.path().join("images/.new-x.so"), "half").unwrap();
    fs::write(dir.path().join("images/orphan.so"), "whole").unwrap();
    let store = Store::open(dir.path(), 3).unwrap();
    assert_eq!(kept(&store, "a"), ["1.0.0"]);
    assert_eq!(images(dir.path()), 1);
    assert!(!dir.path().join("plugins/.new-a.json").exists());
}

#[test]
fn a_damaged_image_is_rewritten_when_live_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 3).unwrap();
    let meta = version("a", "1.0.0");
    keep(&store, &meta, None);
    let path = image_path(&store, &meta.hash);
    for damaged in ["2.0.0", ""] {
        fs::write(&path, damaged).unwrap();
        keep(&store, &meta, None);
        assert_eq!(store.image(&meta.hash).unwrap(), b"1.0.0");
        let news = store.take_news();
        assert!(
            matches!(&*news, [Happened::Host(HostEvent::ImageDamaged { name })] if path.ends_with(name)),
            "{news:?}"
        );
    }
    fs::remove_file(&path).unwrap();
    keep(&store, &meta, None);
    assert_eq!(store.image(&meta.hash).unwrap(), b"1.0.0");
}

#[test]
fn a_damaged_record_affects_no_other_plugin() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 3).unwrap();
    keep(&store, &version("a", "1.0.0"), None);
    keep(&store, &version("b", "2.0.0"), None);
    drop(store);
    fs::write(dir.path().join("plugins/a.json"), "{\"format\": 1}").unwrap();
    let store = Store::open(dir.path(), 3).unwrap();
    assert_eq!(kept(&store, "a"), [""; 0]);
    assert_eq!(kept(&store, "b"), ["2.0.0"]);
    let news = store.take_news();
    assert!(
        matches!(&*news, [Happened::Plugin(name, PluginEvent::RecordUnreadable { .. })] if *name == *"a"),
        "{news:?}"
    );
    keep(&store, &version("a", "3.0.0"), None);
    assert_eq!(kept(&store, "a"), ["3.0.0"]);
}

/// A record as a newer host might write it: other fields in another order, and images by their hashes.
fn newer_record(store: &Store, meta: &PluginMeta) -> (PathBuf, String) {
    let path = store.dir().join("plugins").join(record_name(&meta.name));
    let text = format!(
        r#"{{"kept": [{{"of": {{"hash": "{}"}}}}], "since": 7, "format": 3}}"#,
        meta.hash
    );
    fs::write(&path, &text).unwrap();
    (path, text)
}

#[test]
fn a_newer_hosts_record_outlasts_an_older_host() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (version("a", "1.0.0"), version("a", "2.0.0"));
    let store = Store::open(dir.path(), 3).unwrap();
    keep(&store, &old, None);
    let (path, text) = newer_record(&store, &old);
    drop(store);

    let store = Store::open(dir.path(), 3).unwrap();
    assert_eq!(kept(&store, "a"), [""; 0]);
    let news = store.take_news();
    assert!(
        matches!(
            &*news,
            [Happened::Plugin(_, PluginEvent::RecordUnused { .. })]
        ),
        "{news:?}"
    );
    let error = store.persist(&new.name, || runs(&new, None), image);
    let error = error.unwrap_err().to_string();
    let says = ["a.json", "newer hotmerge", "format 3", "knows 2", "remove"];
    assert!(says.iter().all(|part| error.contains(part)), "{error}");
    assert_eq!(store.unwritten("a"), Some(error));
    assert_eq!(store.retry_at(), None, "nothing changes by itself");
    // Another plugin with the same bytes comes and goes.
    let twin = version("b", "1.0.0");
    keep(&store, &twin, None);
    forget(&store, &twin);
    forget(&store, &new);
    drop(store);
    let store = Store::open(dir.path(), 3).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(store.image(&old.hash).unwrap(), b"1.0.0");

    // As the message advises.
    fs::remove_file(&path).unwrap();
    keep(&store, &new, None);
    assert_eq!(
        (kept(&store, "a"), store.failure()),
        (vec!["2.0.0".to_owned()], None)
    );
}

#[test]
fn a_removed_plugin_is_forgotten_with_its_images() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 3).unwrap();
    let (one, two) = (version("a", "1.0.0"), version("b", "1.0.0"));
    keep(&store, &one, None);
    keep(&store, &two, None);
    forget(&store, &one);
    assert_eq!(images(dir.path()), 1, "the other plugin has the same bytes");
    forget(&store, &two);
    assert_eq!(images(dir.path()), 0);
    assert!(store.remembered().is_empty());
}

#[test]
fn one_host_at_a_time_has_it_open() {
    let dir = tempfile::tempdir().unwrap();
    let _store = Store::open(dir.path(), 3).unwrap();
    assert!(matches!(
        Store::open(dir.path(), 3),
        Err(StoreError::Held(_))
    ));
}

/// Checks that opening is refused with a message that contains all of these.
#[track_caller]
fn refused(dir: &Path, says: &[&str]) {
    let error = Store::open(dir, 3).unwrap_err().to_string();
    for part in says {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

/// The path without a trailing slash, which would follow a link.
fn entry(dir: &Path, name: &str) -> PathBuf {
    match name {
        "" => dir.to_owned(),
        _ => dir.join(name),
    }
}

#[test]
fn files_others_may_write_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("it's the state");
    keep(&Store::open(&dir, 3).unwrap(), &version("a", "1.0.0"), None);
    for (path, is_dir) in [
        ("", true),
        ("plugins", true),
        ("images", true),
        ("lock", false),
        ("plugins/a.json", false),
    ] {
        let path = entry(&dir, path);
        let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let mode = if is_dir { 0o777 } else { 0o666 };
        set(mode);
        let shown = path.display().to_string();
        let command = format!("chmod go-w '{}'", shown.replace('\'', r"'\''"));
        let (mode, owner) = (format!("mode {mode:04o}"), "owner ");
        refused(&dir, &["others may write to it", owner, &mode, &command]);
        set(0o700);
    }
    assert_eq!(kept(&Store::open(&dir, 3).unwrap(), "a"), ["1.0.0"]);
}

#[test]
fn symlinks_and_fifos_are_not_opened() {
    use std::os::unix::fs::symlink;

    let base = tempfile::tempdir().unwrap();
    let (dir, target) = (base.path().join("state"), base.path().join("target"));
    let (aside, elsewhere) = (base.path().join("aside"), base.path().join("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("precious"), "x").unwrap();
    fs::write(&target, "precious").unwrap();
    keep(&Store::open(&dir, 3).unwrap(), &version("a", "1.0.0"), None);
    for (path, to) in [
        ("", &elsewhere),
        ("plugins", &elsewhere),
        ("images", &elsewhere),
        ("lock", &target),
        ("plugins/a.json", &target),
    ] {
        let path = entry(&dir, path);
        fs::rename(&path, &aside).unwrap();
        symlink(to, &path).unwrap();
        refused(&dir, &["it is a symbolic link", "run `rm "]);
        fs::remove_file(&path).unwrap();
        if path.extension().is_some() || path.ends_with("lock") {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
            refused(&dir, &["it is not a regular file", "run `rm "]);
            fs::remove_file(&path).unwrap();
        }
        fs::rename(&aside, &path).unwrap();
    }
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert!(elsewhere.join("precious").exists());
    assert_eq!(kept(&Store::open(&dir, 3).unwrap(), "a"), ["1.0.0"]);
}

#[test]
fn only_regular_files_are_read_as_images() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (version("a", "1.0.0"), version("a", "2.0.0"));
    let store = Store::open(dir.path(), 3).unwrap();
    keep(&store, &old, None);
    keep(&store, &new, None);
    let path = image_path(&store, &old.hash);
    let plant = || {
        fs::remove_file(&path).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
    };
    plant();
    store.image(&old.hash).unwrap_err();
    keep(&store, &old, None);
    assert_eq!(store.image(&old.hash).unwrap(), b"1.0.0");
    plant();
    drop(store);
    assert_eq!(kept(&Store::open(dir.path(), 3).unwrap(), "a"), ["2.0.0"]);
}

/// Blocks a file by a directory of that name.
fn block(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name).join(".new-a.json");
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn a_failed_write_is_reported_and_retried() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 3).unwrap();
    let one = version("a", "1.0.0");
    let obstacle = block(dir.path(), "plugins");
    let now = || runs(&one, None);
    store.persist(&one.name, now, image).unwrap_err();
    assert_eq!(images(dir.path()), 0, "an image that nobody names stays");
    let failure = store.failure().unwrap();
    assert_eq!(failure.plugins, std::slice::from_ref(&one.name));
    assert_eq!(store.unwritten("a"), Some(failure.reason));
    assert!(store.retry_at().is_some());
    assert_eq!(store.take_unwritten(), std::slice::from_ref(&one.name));

    fs::remove_dir(obstacle).unwrap();
    store.persist(&one.name, now, image).unwrap();
    assert_eq!((store.failure(), store.unwritten("a")), (None, None));
    assert_eq!(store.retry_at(), None);
    drop(store);
    assert_eq!(kept(&Store::open(dir.path(), 3).unwrap(), "a"), ["1.0.0"]);
}

//! What stands in the place of a file, and is not read.

use std::{
    fs::{self, File},
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
    time::{Duration, SystemTime},
};

use hotmerge_meta::{ReadError, read_regular, stamp};
use rustix::fs::{CWD, Mode};

struct Place {
    dir: tempfile::TempDir,
    fd: File,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fd = File::open(dir.path()).unwrap();
        Self { dir, fd }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn refusal(&self, name: &str) -> String {
        read_regular(&self.fd, name, 10).unwrap_err().to_string()
    }
}

#[test]
fn a_regular_file_is_read_with_its_stamp() {
    let place = Place::new();
    for contents in ["", "0", "0123456789"] {
        fs::write(place.path().join("file"), contents).unwrap();
        let (bytes, read) = read_regular(&place.fd, "file", 10).unwrap();
        assert_eq!(bytes, contents.as_bytes());
        assert_eq!(stamp(&place.fd, "file").unwrap(), Some(read));
        assert_eq!(read.size, contents.len() as u64);
    }
}

#[test]
fn a_file_beyond_the_limit_is_refused() {
    let place = Place::new();
    fs::write(place.path().join("file"), "01234567890").unwrap();
    assert_eq!(
        place.refusal("file"),
        "`file` has 11 bytes; at most 10 are accepted"
    );
}

#[test]
fn a_missing_file_is_refused() {
    let place = Place::new();
    assert_eq!(place.refusal("file"), "`file` does not exist");
    assert_eq!(stamp(&place.fd, "file").unwrap(), None);
}

#[test]
fn every_symlink_is_refused() {
    let place = Place::new();
    fs::write(place.path().join("file"), "").unwrap();
    for (name, target) in [
        ("good", "file"),
        ("dangling", "nowhere"),
        ("out", "/etc/passwd"),
    ] {
        symlink(target, place.path().join(name)).unwrap();
        assert_eq!(
            place.refusal(name),
            format!("`{name}` is a symlink, not a regular file")
        );
    }
}

#[test]
fn a_fifo_is_refused_without_blocking() {
    let place = Place::new();
    rustix::fs::mkfifoat(CWD, place.path().join("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
    assert_eq!(
        place.refusal("fifo"),
        "`fifo` is a FIFO, not a regular file"
    );
}

#[test]
fn a_directory_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path().join("dir")).unwrap();
    assert_eq!(
        place.refusal("dir"),
        "`dir` is a directory, not a regular file"
    );
}

#[test]
fn a_socket_is_refused() {
    let place = Place::new();
    let _listener = UnixListener::bind(place.path().join("socket")).unwrap();
    assert_eq!(
        place.refusal("socket"),
        "`socket` is a socket, not a regular file"
    );
}

#[test]
fn a_device_is_refused() {
    let dev = File::open("/dev").unwrap();
    let error = read_regular(&dev, "null", 10).unwrap_err();
    assert_eq!(error.to_string(), "`null` is a device, not a regular file");
}

#[test]
fn a_name_that_leaves_the_directory_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path().join("dir")).unwrap();
    fs::write(place.path().join("dir/file"), "").unwrap();
    for name in ["dir/file", "/etc/passwd", "..", ".", "", "file/", "./file"] {
        let error = read_regular(&place.fd, name, 10).unwrap_err();
        assert!(matches!(error, ReadError::NotPlain(_)), "{name}: {error}");
    }
}

#[test]
fn a_stamp_differs_after_every_replacement() {
    let place = Place::new();
    let file = place.path().join("file");
    fs::write(&file, "old").unwrap();
    let before = stamp(&place.fd, "file").unwrap().unwrap();
    fs::write(place.path().join("new"), "new").unwrap();
    fs::rename(place.path().join("new"), &file).unwrap();
    let after = stamp(&place.fd, "file").unwrap().unwrap();
    assert_ne!(before, after);
}

#[test]
fn a_stamp_is_fresh_until_the_clock_ticks() {
    let place = Place::new();
    fs::write(place.path().join("file"), "").unwrap();
    let stamp = stamp(&place.fd, "file").unwrap().unwrap();
    let changed = SystemTime::UNIX_EPOCH + Duration::from_nanos(stamp.ctime_ns as u64);
    assert!(stamp.is_fresh(changed));
    assert!(
        stamp.is_fresh(changed - Duration::from_secs(1)),
        "in the future"
    );
    assert!(stamp.is_fresh(changed + Duration::from_millis(99)));
    assert!(!stamp.is_fresh(changed + Duration::from_millis(100)));
}

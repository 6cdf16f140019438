//! Against this machine's kernel, as the user who runs the tests.

use std::{
    fs::{self, File},
    io::Write as _,
};

use super::*;
use crate::records::records;

/// The places in a directory that a group reports.
fn names(group: &Group, dir: &Handle) -> Vec<String> {
    let mut buffer = [0; 4096];
    let mut names = Vec::new();
    while let Ok(length) = group.read(&mut buffer) {
        for record in records(&buffer[..length]) {
            for place in record.unwrap().places() {
                let place = place.unwrap();
                let bytes: &[u8] = dir.borrow();
                if place.directory == bytes {
                    names.push(String::from_utf8_lossy(place.name.unwrap()).into_owned());
                }
            }
        }
    }
    names
}

#[test]
fn a_marked_directory_tells_of_its_entries() {
    let dir = tempfile::tempdir().unwrap();
    let open = File::open(dir.path()).unwrap();
    let group = Group::new().unwrap();
    group.mark_directory(&open).unwrap();
    let handle = Handle::of(&open).unwrap();
    assert_eq!(Handle::of(&open).unwrap(), handle);
    fs::write(dir.path().join("one"), "1").unwrap();
    fs::rename(dir.path().join("one"), dir.path().join("two")).unwrap();
    let told = names(&group, &handle);
    assert_eq!(told, ["one", "two"]);
    // Reading is not a change.
    fs::read(dir.path().join("two")).unwrap();
    fs::read_dir(dir.path()).unwrap().for_each(drop);
    assert_eq!(names(&group, &handle), Vec::<String>::new());
}

#[test]
fn a_marked_file_system_reports_all_its_directories() {
    let dir = tempfile::tempdir().unwrap();
    let sub = dir.path().join("sub");
    fs::create_dir(&sub).unwrap();
    let group = Group::new().unwrap();
    if let Err(error) = group.mark_file_system(File::open(dir.path()).unwrap()) {
        // Not for ordinary users, and not for every file system.
        let known = [libc::EPERM, libc::EXDEV, libc::EOPNOTSUPP, libc::ENODEV];
        return assert!(known.contains(&error.raw_os_error().unwrap()), "{error}");
    }
    let open = File::open(&sub).unwrap();
    let handle = Handle::of(&open).unwrap();
    let mut one = File::create(sub.join("one")).unwrap();
    assert_eq!(names(&group, &handle), ["one"]);
    // Writes are reported where they were requested.
    one.write_all(b"1").unwrap();
    assert_eq!(names(&group, &handle), Vec::<String>::new());
    group.mark_writes(&open).unwrap();
    one.write_all(b"1").unwrap();
    assert_eq!(names(&group, &handle), ["one"]);
    drop(one);
    assert_eq!(names(&group, &handle), ["one"]);
}

/// Why there is no such mark between that of a file system and that of a directory: it would report only writes.
#[test]
fn marks_of_mounts_report_no_entries() {
    let dir = tempfile::tempdir().unwrap();
    let group = Group::new().unwrap();
    let open = File::open(dir.path()).unwrap();
    let refused = group.mark(libc::FAN_MARK_MOUNT, CHANGES, open.as_fd());
    let error = refused.unwrap_err().raw_os_error().unwrap();
    // Ordinary users may not mark mounts in any case.
    assert!([libc::EINVAL, libc::EPERM].contains(&error), "{error}");
}

#[test]
fn directories_of_equal_name_have_different_handles() {
    let dir = tempfile::tempdir().unwrap();
    let sub = dir.path().join("sub");
    let handle = || {
        fs::create_dir(&sub).unwrap();
        let handle = Handle::of(File::open(&sub).unwrap()).unwrap();
        fs::remove_dir(&sub).unwrap();
        handle
    };
    assert_ne!(handle(), handle());
}

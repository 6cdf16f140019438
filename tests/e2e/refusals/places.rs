//! What lies in the place of a file or a package.

use hotmerge_meta::META_FILE;
use hotmerge_tests::{Package, skipped};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
};

use crate::bench::{Bench, a_problem, two};

#[test]
fn a_fifo_instead_of_the_file() {
    let bench = Bench::new("");
    let path = bench.package().file_path(&two());
    fs::remove_file(&path).unwrap();
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
    bench.is_refused(&["libactor.so", "a FIFO", "not a regular file"]);
    bench.end();
}

#[test]
fn a_fifo_instead_of_the_meta() {
    let spoil = |package: &Package| {
        fs::remove_file(package.meta_path()).unwrap();
        mknodat(CWD, package.meta_path(), FileType::Fifo, Mode::RUSR, 0).unwrap();
    };
    a_problem(spoil, &[META_FILE, "a FIFO", "not a regular file"]);
}

#[test]
fn a_socket_instead_of_the_file() {
    let bench = Bench::new("");
    let path = bench.package().file_path(&two());
    fs::remove_file(&path).unwrap();
    let _listener = UnixListener::bind(&path).unwrap();
    bench.is_refused(&["libactor.so", "a socket"]);
    bench.end();
}

#[test]
fn a_device_instead_of_file_and_meta() {
    let bench = Bench::new("");
    // Endless zeros for a program that reads them.
    let zero = |path: &Path| {
        mknodat(
            CWD,
            path,
            FileType::CharacterDevice,
            Mode::RUSR,
            makedev(1, 5),
        )
    };
    if zero(&bench.lab.path("zero")).is_err() {
        return skipped("this user may not make devices");
    }
    let path = bench.package().file_path(&two());
    fs::remove_file(&path).unwrap();
    zero(&path).unwrap();
    bench.is_refused(&["libactor.so", "a device"]);
    fs::remove_file(bench.package().meta_path()).unwrap();
    zero(&bench.package().meta_path()).unwrap();
    bench.has_a_problem("victim", &[META_FILE, "a device"]);
    bench.end();
}

#[test]
fn a_symlink_instead_of_the_file() {
    let bench = Bench::new("");
    let elsewhere = Package::at(bench.lab.path("elsewhere"));
    elsewhere.put(&[&two()]);
    let path = bench.package().file_path(&two());
    fs::remove_file(&path).unwrap();
    symlink(elsewhere.file_path(&two()), &path).unwrap();
    bench.package().put_meta(&[&two()]);
    bench.is_refused(&["libactor.so", "a symlink", "not a regular file"]);
    bench.end();
}

#[test]
fn a_symlink_instead_of_the_meta() {
    let spoil = |package: &Package| {
        let moved = package.dir().join("meta");
        fs::rename(package.meta_path(), &moved).unwrap();
        symlink(moved, package.meta_path()).unwrap();
    };
    a_problem(spoil, &[META_FILE, "a symlink", "not a regular file"]);
}

#[test]
fn a_symlink_instead_of_the_package() {
    let bench = Bench::new("");
    let elsewhere = bench.lab.path("elsewhere");
    fs::rename(bench.package().dir(), &elsewhere).unwrap();
    symlink(&elsewhere, bench.package().dir()).unwrap();
    bench.has_a_problem("victim", &["symbolic link"]);
    bench.end();
}

#[test]
fn a_directory_instead_of_the_file() {
    let bench = Bench::new("");
    let path = bench.package().file_path(&two());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    bench.is_refused(&["libactor.so", "a directory"]);
    bench.end();
}

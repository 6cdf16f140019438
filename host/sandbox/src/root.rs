//! The worker's private root: a memory file system that holds the plugin and what was granted,
//! read-only.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
        mount_change, mount_remount, move_mount, open_tree, unmount,
    },
    process::{chdir, pivot_root, umask},
};

use crate::{Grant, Judged, PLUGIN_PATH, grants, image};

/// Directories that systems have, one of which becomes the place of the new root.
const PLACES: [&str; 4] = ["/tmp", "/run", "/mnt", "/var"];

/// Builds the root and makes it the process's. `image` is copied into it, disarmed.
pub(crate) fn change(
    image: BorrowedFd<'_>,
    disarmed: &[(u64, u64)],
    (granted, judged): (&[Grant], &[Judged]),
) -> io::Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .map_err(|error| failed("make mounts private", error.into()))?;
    // Before the new root covers whatever is where it comes to lie.
    let granted = grants::files(granted)
        .map(|(grant, path, write)| {
            let source = grants::open(grant, path, judged)?;
            Ok((path, take(&source, write)?))
        })
        .collect::<io::Result<Vec<_>>>()?;
    let place = place()?;
    let plugin = place.join(PLUGIN_PATH.trim_start_matches('/'));
    create(&plugin)
        .and_then(|file| image::copy(image, disarmed, &file))
        .map_err(|error| failed("copy the plugin", error))?;
    // The plugin's user goes through directories that are made here; files that it makes itself
    // get what the host's umask leaves.
    let before = umask(Mode::WGRP | Mode::WOTH);
    for (path, (tree, is_dir)) in granted {
        bind(&place, path, &tree, is_dir)
            .map_err(|error| failed(&format!("bring in `{}`", path.display()), error))?;
    }
    umask(before);
    chdir(&place)?;
    pivot_root(".", ".").map_err(|error| failed("change the root", error.into()))?;
    // The old root lies on top of the new one at the same place.
    unmount(".", UnmountFlags::DETACH)
        .map_err(|error| failed("leave the old root", error.into()))?;
    chdir("/")?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount("/", flags, c"").map_err(|error| failed("make the root read-only", error.into()))
}

fn failed(step: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("failed to {step}: {error}"))
}

fn place() -> io::Result<PathBuf> {
    let mut last = io::Error::other("there is no directory for a root");
    for place in PLACES {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        match mount("hotmerge", place, "tmpfs", flags, c"mode=0755,nr_inodes=1k") {
            Ok(()) => return Ok(place.into()),
            Err(error) => last = failed(&format!("mount a file system at `{place}`"), error.into()),
        }
    }
    Err(last)
}

fn create(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o444).open(path)
}

/// A copy of the mounts of a granted tree, and whether it is a directory.
fn take(source: &OwnedFd, write: bool) -> io::Result<(OwnedFd, bool)> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(source, "", flags)?;
    restrict(&tree, write)?;
    Ok((tree, grants::is_dir(source)?))
}

/// Brings a granted tree in, at the path that it has outside.
fn bind(place: &Path, path: &Path, tree: &OwnedFd, is_dir: bool) -> io::Result<()> {
    let target = place.join(path.strip_prefix("/").unwrap_or(path));
    let target = match open_target(&target) {
        // Within a tree that was granted before it is there; else only the new root is written.
        Err(Errno::NOENT) => {
            if is_dir {
                fs::create_dir_all(&target)?;
            } else {
                fs::create_dir_all(target.parent().unwrap_or(place))?;
                fs::File::create_new(&target)?;
            }
            open_target(&target)?
        }
        target => target?,
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", &target, "", flags)?;
    Ok(())
}

fn open_target(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

/// Sets flags on a whole tree of mounts; `mount` itself would reach only its top.
fn restrict(tree: &OwnedFd, write: bool) -> io::Result<()> {
    let mut set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    if !write {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: path and attributes live for the call, and the size is theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_RECURSIVE | libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

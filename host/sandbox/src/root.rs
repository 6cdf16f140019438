//! The worker's private root: a memory file system that holds the plugin and what was granted,
//! read-only.

use std::{
    ffi::CString,
    fs,
    io::{self, Write as _},
    os::{
        fd::BorrowedFd,
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
        mount_remount, unmount,
    },
    process::{chdir, pivot_root},
};

use crate::{Grant, PLUGIN_PATH};

/// Directories that systems have, one of which becomes the place of the new root.
const PLACES: [&str; 4] = ["/tmp", "/run", "/mnt", "/var"];

/// Builds the root and makes it the process's. `image` is copied into it.
pub(crate) fn change(image: BorrowedFd<'_>, grants: &[Grant]) -> io::Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .map_err(|error| told("make mounts private", error.into()))?;
    let place = place()?;
    copy(image, &place.join(PLUGIN_PATH.trim_start_matches('/')))
        .map_err(|error| told("copy the plugin", error))?;
    for grant in grants {
        if let Grant::Files { path, write } = grant {
            bind(&place, path, *write)
                .map_err(|error| told(&format!("bring in `{}`", path.display()), error))?;
        }
    }
    chdir(&place)?;
    pivot_root(".", ".").map_err(|error| told("change the root", error.into()))?;
    // The old root lies on top of the new one at the same place.
    unmount(".", UnmountFlags::DETACH).map_err(|error| told("leave the old root", error.into()))?;
    chdir("/")?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount("/", flags, c"").map_err(|error| told("make the root read-only", error.into()))
}

fn told(step: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("failed to {step}: {error}"))
}

fn place() -> io::Result<PathBuf> {
    let mut last = io::Error::other("there is no directory for a root");
    for place in PLACES {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        match mount("hotmerge", place, "tmpfs", flags, c"mode=0755,nr_inodes=1k") {
            Ok(()) => return Ok(place.into()),
            Err(error) => last = told(&format!("mount a file system at `{place}`"), error.into()),
        }
    }
    Err(last)
}

fn copy(image: BorrowedFd<'_>, to: &Path) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(to)?;
    let mut offset = 0;
    loop {
        let sent = rustix::fs::sendfile(&file, image, Some(&mut offset), 1 << 30)?;
        if sent == 0 {
            return file.flush();
        }
    }
}

fn bind(place: &Path, path: &Path, write: bool) -> io::Result<()> {
    let target = place.join(path.strip_prefix("/").unwrap_or(path));
    if fs::metadata(path)?.is_dir() {
        fs::create_dir_all(&target)?;
    } else {
        fs::create_dir_all(target.parent().unwrap_or(place))?;
        fs::File::create(&target)?;
    }
    mount_bind_recursive(path, &target)?;
    restrict(&target, write)
}

/// Sets flags on a whole tree of mounts; `mount` itself would reach only its top.
fn restrict(target: &Path, write: bool) -> io::Result<()> {
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
    let path = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: path and attributes live for the call, and the size is theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            rustix::fd::AsRawFd::as_raw_fd(&CWD),
            path.as_ptr(),
            libc::AT_RECURSIVE,
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

//! What keeps two hosts from one runtime directory though somebody clears it away.
//!
//! A lock on a file is gone with the file's name. A host therefore also locks the directory itself,
//! and listens on an abstract socket that is named after the place, which nobody can remove. Others
//! can take that name first; they are distinguished from a host by the process that listens, and then the two
//! locks have to do.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::Path,
};

use rustix::{
    fs::{CWD, FlockOperation, Mode, OFlags, flock, openat},
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept, bind, connect, listen,
        socket_with,
    },
    process::{Pid, geteuid},
};

use crate::{Digest, Peer};

/// The name of a place, taken; nothing if a stranger has it, or if there are no such names here.
#[derive(Debug)]
pub(super) struct PlaceName {
    listener: Option<OwnedFd>,
}

/// A place whose name a host has.
#[derive(Clone, Copy)]
pub(super) struct Taken(pub(super) Option<Pid>);

impl PlaceName {
    /// `known` is the host that was found to have the name before. It is not asked again: a host
    /// whose queue is full looks like a stranger.
    pub(super) fn take(dir: &Path, known: Option<Taken>) -> io::Result<Result<Self, Taken>> {
        let address = address(dir)?;
        match listen_on(&address) {
            Ok(listener) => Ok(Ok(Self {
                listener: Some(listener),
            })),
            Err(Errno::ADDRINUSE) => Ok(match known.or_else(|| holder(&address)) {
                Some(holder) => Err(holder),
                None => Ok(Self { listener: None }),
            }),
            // No lock at all would be worse than one that can be removed.
            Err(_) => Ok(Ok(Self { listener: None })),
        }
    }

    /// Empties the queue of those who asked who has the name: in a full one nobody could ask.
    pub(super) fn answer(&self) {
        if let Some(listener) = &self.listener {
            while accept(listener).is_ok() {}
        }
    }
}

/// The directory that the place is in distinguishes it from places of other mounts, and stays when the
/// place is cleared away.
fn address(dir: &Path) -> io::Result<SocketAddrUnix> {
    let dir = dir.canonicalize()?;
    let parent = dir.parent().unwrap_or(&dir).metadata()?;
    let name = Digest::of(dir.file_name().unwrap_or_default().as_bytes());
    let name = format!(
        "hotmerge-host {:x} {:x} {}",
        parent.dev(),
        parent.ino(),
        name.short()
    );
    Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?)
}

fn unix_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

fn listen_on(address: &SocketAddrUnix) -> Result<OwnedFd, Errno> {
    let socket = unix_socket()?;
    bind(&socket, address)?;
    listen(&socket, 128)?;
    Ok(socket)
}

/// The host that has a name, if it is one that could keep this one from its runtime directory.
fn holder(address: &SocketAddrUnix) -> Option<Taken> {
    let socket = unix_socket().ok()?;
    connect(&socket, address).ok()?;
    let peer = Peer::of(&socket).ok()?;
    [0, geteuid().as_raw()]
        .contains(&peer.uid)
        .then_some(Taken(peer.pid))
}

/// Locks a directory; nothing if somebody has done so.
pub(super) fn lock_dir(dir: &Path) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(CWD, dir, flags, Mode::empty())?;
    match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(fd)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error),
    }
}

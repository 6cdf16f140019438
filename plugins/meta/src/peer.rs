//! Who is at the other end of a Unix socket, as the kernel says.
//!
//! Invariant: a process of another namespace, such as a container's, has a user but perhaps no number here,
//! and is a peer like any other.
//!
//! Absent on purpose: what a peer may do.

use std::{io, os::fd::AsFd};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::process::Pid;

/// Who connected, or who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process, if that has a number in this process namespace.
    pub pid: Option<Pid>,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl Peer {
    /// The other end of a connected socket.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let found = getsockopt(socket, PeerCredentials)?;
        Ok(Self {
            pid: Pid::from_raw(found.pid()),
            uid: found.uid(),
            gid: found.gid(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_peer_in_this_process_is_itself() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        assert_eq!(peer.pid, Some(rustix::process::getpid()));
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
    }
}

//! What the kernel knows about a socket's other end.
//!
//! Absent on purpose: what follows from it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

/// As many supplementary groups as Linux lets a process have (`NGROUPS_MAX`).
const MOST_GROUPS: usize = 1 << 16;

/// The supplementary groups that the process had when it connected to this Unix socket.
/// `SO_PEERCRED` has only its main group.
///
/// # Errors
/// What the system says.
pub fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let fd = socket.as_fd().as_raw_fd();
    let mut groups = vec![0_u32; 64];
    loop {
        let size = groups.len() * size_of::<u32>();
        let mut len = libc::socklen_t::try_from(size).map_err(io::Error::other)?;
        // SAFETY: the pointer and the length are those of the vector, whose elements may hold any
        // bytes; the kernel writes no more than the length says.
        let result = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        // In case of `ERANGE` this is what it takes.
        let count = len as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        let is_short = error.raw_os_error() == Some(libc::ERANGE);
        if !is_short || count <= groups.len() || count > MOST_GROUPS {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_groups_are_those_of_the_peer() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut groups = peer_groups(&ours).unwrap();
        let own = rustix::process::getgroups().unwrap();
        let mut own: Vec<_> = own.into_iter().map(|it| it.as_raw()).collect();
        groups.sort_unstable();
        own.sort_unstable();
        assert_eq!(groups, own);
    }

    #[test]
    fn a_non_socket_is_an_error() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(peer_groups(&file).is_err());
    }
}

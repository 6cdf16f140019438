//! The sockets that the HTTP front listens on.
//!
//! Invariant: a socket file on which another program listens is never replaced.
//!
//! Absent on purpose: connections.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use hotmerge_daemon::config::Listen;
use listenfd::ListenFd;

/// Sockets that the service manager passed. Take them before the program opens any descriptor: the
/// manager chose their numbers.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Listener>);

impl Inherited {
    /// Takes the sockets that the environment names, and keeps them from child processes. It ignores
    /// sockets that were passed to another process.
    ///
    /// # Errors
    /// If a descriptor is not a listening socket.
    pub fn take() -> Result<Self, ListenError> {
        if !is_for(std::process::id(), env::var_os("LISTEN_PID").as_deref()) {
            return Ok(Self::default());
        }
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for at in 0..passed.len() {
            if let Some(socket) = take_one(&mut passed, at).map_err(ListenError::Inherited)? {
                sockets.push(socket);
            }
        }
        Ok(Self(sockets))
    }
}

/// The library also takes sockets without a named process, as some development tools pass them, but a
/// variable that a shell inherited must not name descriptors of this host.
fn is_for(process: u32, named: Option<&OsStr>) -> bool {
    named.is_some_and(|named| named.to_str().and_then(|it| it.parse().ok()) == Some(process))
}

/// Tries each kind of listener; a descriptor of another kind is left in place.
fn take_one(passed: &mut ListenFd, at: usize) -> io::Result<Option<Listener>> {
    if let Ok(Some(tcp)) = passed.take_tcp_listener(at) {
        return Ok(Some(Listener::Tcp(tcp)));
    }
    Ok(passed.take_unix_listener(at)?.map(Listener::Unix))
}

/// One open socket.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A socket file of this host, removed when dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Its device and inode, because another program may replace the file.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = identity(&self.path).is_ok_and(|found| found == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(target: "hotmerge::door", "failed to remove `{}`: {error}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Why a socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address.
    #[error("failed to listen on `tcp:{address}`: {source}")]
    Tcp {
        /// The address or path.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// A socket file.
    #[error("failed to listen on `unix:{}`: {source}", .path.display())]
    Unix {
        /// The address or path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another program listens there.
    #[error("another program listens on `unix:{}`", .0.display())]
    Taken(PathBuf),
    /// A passed descriptor that is not a socket.
    #[error("failed to use a socket of the service manager: {0}")]
    Inherited(io::Error),
    /// `listen` names the service manager, which passed no socket.
    #[error(
        "`http.listen` has `systemd`, but the service manager passed no socket (`LISTEN_FDS`); \
         enable the socket unit"
    )]
    NothingInherited,
}

/// Opens every configured socket, and returns the files that it created.
pub(super) fn open(
    places: &[Listen],
    inherited: Inherited,
) -> Result<(Vec<Listener>, Vec<SocketFile>), ListenError> {
    let mut inherited = inherited.0;
    let (mut listeners, mut files) = (Vec::new(), Vec::new());
    for place in places {
        match place {
            Listen::Tcp(address) => listeners.push(tcp(*address)?),
            Listen::Unix(path) => {
                let (listener, file) = unix(path)?;
                listeners.push(Listener::Unix(listener));
                files.push(file);
            }
            Listen::Systemd if inherited.is_empty() => return Err(ListenError::NothingInherited),
            Listen::Systemd => listeners.append(&mut inherited),
        }
    }
    Ok((listeners, files))
}

fn tcp(address: SocketAddr) -> Result<Listener, ListenError> {
    TcpListener::bind(address)
        .map(Listener::Tcp)
        .map_err(|source| ListenError::Tcp { address, source })
}

/// Replaces a socket that an earlier host left, but nothing that is not a socket.
fn unix(path: &Path) -> Result<(UnixListener, SocketFile), ListenError> {
    let failed = |source| ListenError::Unix {
        path: path.to_owned(),
        source,
    };
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket {
        match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed)?;
            }
            _ => return Err(ListenError::Taken(path.to_owned())),
        }
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile::of(path).map_err(failed)?;
    // Each client is identified; the directory's mode decides who can connect.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok((listener, file))
}

impl Listener {
    /// Its address as in the configuration, with the actual port.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("tcp:{address}"),
                Err(error) => format!("tcp: {error}"),
            },
            Self::Unix(listener) => match listener.local_addr() {
                Ok(address) => match address.as_pathname() {
                    Some(path) => format!("unix:{}", path.display()),
                    None => "unix: without a path".to_owned(),
                },
                Err(error) => format!("unix: {error}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_process_takes_passed_sockets() {
        for (named, ours) in [
            (Some("7"), true),
            (Some("8"), false),
            (Some(""), false),
            (Some("x"), false),
            (None, false),
        ] {
            assert_eq!(is_for(7, named.map(OsStr::new)), ours, "{named:?}");
        }
    }

    #[test]
    fn a_leftover_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("http.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(unix(&path).unwrap());
        assert!(!path.exists(), "it is left behind");
    }

    #[test]
    fn a_socket_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("http.sock");
        let _first = unix(&path).unwrap();
        let refused = unix(&path).unwrap_err().to_string();
        assert!(
            refused.starts_with("another program listens on"),
            "{refused}"
        );
    }

    #[test]
    fn a_file_other_than_a_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("http.sock");
        fs::write(&path, "precious").unwrap();
        assert!(unix(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}

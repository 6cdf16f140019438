//! A small blocking client: one request, one answer.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jsonrpsee_types::{ErrorObjectOwned, Id, Request, Response, ResponsePayload};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::to_raw_value;

use crate::{
    Peer, RuntimeDir,
    frame::{FrameTooLong, Frames, MAX_FRAME_BYTES, frame},
    plain,
};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No host listens there.
    #[error("no host is running in `{}`; start one with `hotmerge serve`", .dir.display())]
    NotRunning {
        /// The runtime directory.
        dir: PathBuf,
    },
    /// This user may not access the host.
    #[error(
        "not permitted to talk to the host in `{}`; {}",
        .dir.display(),
        whom(*.owner)
    )]
    Denied {
        /// The runtime directory.
        dir: PathBuf,
        /// The user that the host runs as, as far as can be seen.
        owner: Option<u32>,
    },
    /// The process that answers is not the host that was meant.
    #[error(
        "the socket in `{}` belongs to user {found}, and only {} may answer there; nothing was \
         sent; check the runtime directory, or run as user {found} to talk to a host of that user",
        .dir.display(),
        wanted(.owners)
    )]
    Stranger {
        /// The runtime directory.
        dir: PathBuf,
        /// Whose process listens.
        found: u32,
        /// Whose process may.
        owners: Vec<u32>,
    },
    /// Unix sockets have short names.
    #[error(
        "`{}` is too long for a Unix socket (107 bytes); choose a shorter runtime directory",
        .socket.display()
    )]
    PathTooLong {
        /// The socket.
        socket: PathBuf,
    },
    /// Anything else.
    #[error("failed to connect to `{}`: {source}", .socket.display())]
    Io {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The host refused the request; the code is one of [`code`](super::code).
    #[error("{}", lines(.0.message()))]
    Refused(ErrorObjectOwned),
    /// No answer in time.
    #[error("the host did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The host closed the connection, or ended.
    #[error("the host closed the connection before it answered; see its log")]
    Closed,
    /// The request or the answer is too long.
    #[error(transparent)]
    TooLong(#[from] FrameTooLong),
    /// The answer violates the protocol.
    #[error(
        "the host's answer to `{method}` is malformed: {reason}; check that client and host have the same version"
    )]
    Nonsense {
        /// The method that was asked.
        method: String,
        /// What was wrong.
        reason: String,
    },
    /// The parameters cannot be written as JSON.
    #[error("failed to write the parameters of `{method}`: {source}")]
    Params {
        /// The method that was asked.
        method: String,
        /// What was wrong.
        source: serde_json::Error,
    },
    /// Anything else.
    #[error("failed to talk to the host: {0}")]
    Io(#[from] io::Error),
}

/// A connection to a running host.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    frames: Frames,
    last_id: u64,
}

impl Client {
    /// Connects to the host of `dir`. It must be root's or this user's own, or of the user whose
    /// directory it is: for root always, for others if only root can have put it there.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(dir: &RuntimeDir) -> Result<Self, ConnectError> {
        let socket = dir.control_socket();
        let stream =
            UnixStream::connect(&socket).map_err(|error| refused(dir.path(), socket, error))?;
        check_peer(dir, &stream)?;
        Ok(Self::from_stream(stream))
    }

    /// Uses a connected stream.
    pub fn from_stream(stream: UnixStream) -> Self {
        Self {
            stream,
            frames: Frames::new(),
            last_id: 0,
        }
    }

    /// Sends one request and waits for its answer. `&()` stands for no parameters.
    ///
    /// # Errors
    /// See [`ClientError`]. After [`ClientError::TimedOut`] the connection is still good: a
    /// late answer is skipped.
    pub fn request<R: DeserializeOwned>(
        &mut self,
        method: &str,
        params: &impl Serialize,
        timeout: Duration,
    ) -> Result<R, ClientError> {
        if timeout.is_zero() {
            return Err(ClientError::TimedOut(timeout));
        }
        // None if the clock does not reach so far.
        let deadline = Instant::now().checked_add(timeout);
        self.last_id += 1;
        match self.send(method, params, timeout) {
            // A host that rejects a client sends the reason, possibly before the request.
            Ok(()) | Err(ClientError::Closed) => {}
            Err(error) => return Err(error),
        }
        let nonsense = |reason: serde_json::Error| ClientError::Nonsense {
            method: method.to_owned(),
            reason: reason.to_string(),
        };
        loop {
            let frame = self.receive(deadline, timeout)?;
            let response: Response<'_, Box<serde_json::value::RawValue>> =
                serde_json::from_slice(&frame).map_err(nonsense)?;
            match (response.id, response.payload) {
                // A host that cannot read a request cannot know its id.
                (Id::Null, ResponsePayload::Error(error)) => {
                    return Err(ClientError::Refused(error.into_owned()));
                }
                (Id::Number(id), _) if id < self.last_id => {}
                (Id::Number(id), payload) if id == self.last_id => {
                    return match payload {
                        ResponsePayload::Success(result) => {
                            serde_json::from_str(result.get()).map_err(nonsense)
                        }
                        ResponsePayload::Error(error) => {
                            Err(ClientError::Refused(error.into_owned()))
                        }
                    };
                }
                (id, _) => {
                    return Err(ClientError::Nonsense {
                        method: method.to_owned(),
                        reason: format!("it has the id {id}"),
                    });
                }
            }
        }
    }

    fn send(
        &mut self,
        method: &str,
        params: &impl Serialize,
        timeout: Duration,
    ) -> Result<(), ClientError> {
        let failed = |source| ClientError::Params {
            method: method.to_owned(),
            source,
        };
        let params = to_raw_value(params).map_err(failed)?;
        // JSON-RPC knows objects, arrays and nothing, but not `null`.
        let some = (params.get() != "null").then_some(&*params);
        let request = Request::borrowed(method, some, Id::Number(self.last_id));
        let json = serde_json::to_vec(&request).map_err(failed)?;
        if json.len() > MAX_FRAME_BYTES {
            return Err(FrameTooLong.into());
        }
        self.stream.set_write_timeout(Some(timeout))?;
        self.stream
            .write_all(&frame(json))
            .map_err(|error| lost(error, timeout))
    }

    fn receive(
        &mut self,
        deadline: Option<Instant>,
        timeout: Duration,
    ) -> Result<Vec<u8>, ClientError> {
        let mut bytes = [0; 64 * 1024];
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                return Ok(frame);
            }
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(ClientError::TimedOut(timeout));
            }
            self.stream.set_read_timeout(left)?;
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(len) => self.frames.push(&bytes[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(error, timeout)),
            }
        }
    }
}

/// That a user could create the socket proves nothing: the directory may belong to anybody.
fn check_peer(dir: &RuntimeDir, stream: &UnixStream) -> Result<(), ConnectError> {
    let failed = |source: io::Error| ConnectError::Io {
        socket: dir.control_socket(),
        source,
    };
    let found = Peer::of(stream).map_err(failed)?.uid;
    let me = rustix::process::geteuid();
    let mut owners = vec![0, me.as_raw()];
    owners.extend(trusted_owner(dir.path(), me.is_root()).map_err(failed)?);
    owners.dedup();
    if owners.contains(&found) {
        return Ok(());
    }
    Err(ConnectError::Stranger {
        dir: dir.path().to_owned(),
        found,
        owners,
    })
}

/// The user whose host may answer in a directory, besides root and this user: its owner, if only root
/// can have created it for that user.
fn trusted_owner(dir: &Path, am_root: bool) -> io::Result<Option<u32>> {
    let found = fs::symlink_metadata(dir)?;
    if am_root {
        return Ok(Some(found.uid()));
    }
    let is_shared = |mode: u32| mode & 0o022 != 0;
    if !found.is_dir() || is_shared(found.mode()) {
        return Ok(None);
    }
    let mut child = found.uid();
    for (depth, above) in dir.canonicalize()?.ancestors().skip(1).enumerate() {
        let above = fs::symlink_metadata(above)?;
        // In a sticky directory that everybody may write to, users cannot replace each other's files; but only
        // a file of root's is certain to have been put there by no other user.
        let is_kept = above.mode() & 0o1000 != 0 && depth > 0 && child == 0;
        if above.uid() != 0 || (is_shared(above.mode()) && !is_kept) {
            return Ok(None);
        }
        child = above.uid();
    }
    Ok(Some(found.uid()))
}

fn wanted(owners: &[u32]) -> String {
    let users: Vec<_> = owners
        .iter()
        .map(|uid| match uid {
            0 => "root".to_owned(),
            uid => format!("user {uid}"),
        })
        .collect();
    users.join(" or ")
}

/// A sentence of the host, which may be a plugin's, as a terminal shows it.
fn lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(plain).collect();
    lines.join("\n")
}

/// The remedy for a user whom the modes of files keep out.
fn whom(owner: Option<u32>) -> String {
    let uid = rustix::process::geteuid().as_raw();
    let grant = format!(
        "or have these lines added to its configuration: `[[door.allow]]`, `user = {uid}`, and \
         `role = \"read\"`, `\"call\"` or `\"admin\"`"
    );
    match owner {
        Some(0) => format!("run this as root, for example with `sudo`, {grant}"),
        Some(uid) => {
            format!("run this as the user that the host runs as (uid {uid}) or as root, {grant}")
        }
        None => format!("run this as the user that the host runs as or as root, {grant}"),
    }
}

fn refused(dir: &Path, socket: PathBuf, error: io::Error) -> ConnectError {
    use io::ErrorKind as Kind;
    let dir = dir.to_owned();
    match error.kind() {
        Kind::NotFound | Kind::NotADirectory | Kind::ConnectionRefused => {
            ConnectError::NotRunning { dir }
        }
        Kind::PermissionDenied => {
            let found = fs::metadata(&socket).or_else(|_| fs::metadata(&dir));
            let owner = found.ok().map(|found| found.uid());
            ConnectError::Denied { dir, owner }
        }
        // Rust's own check of the length.
        Kind::InvalidInput => ConnectError::PathTooLong { socket },
        _ => ConnectError::Io {
            socket,
            source: error,
        },
    }
}

fn lost(error: io::Error, timeout: Duration) -> ClientError {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::WouldBlock | Kind::TimedOut => ClientError::TimedOut(timeout),
        Kind::BrokenPipe | Kind::ConnectionReset => ClientError::Closed,
        _ => ClientError::Io(error),
    }
}

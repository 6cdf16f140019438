//! The control socket: accepts clients and answers their requests.
//!
//! One thread per connection answers each request before it reads the next; `connections` bounds their
//! number. A client without any role is refused before it gets a thread. A client that disconnects
//! cancels its call.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::{
        fs::MetadataExt as _,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use hotmerge_daemon::config::Role;
use hotmerge_meta::{Peer, RuntimeDir};
use hotmerge_sandbox::peer_groups;
use rustix::net::{Shutdown, shutdown};

use super::{
    IDLE,
    connection::{self, Desk, Why},
    connections::{Connections, Guest},
    hangups::Hangups,
    reach::Reach,
    shares::Shares,
};
use crate::{
    answer::Door,
    roles::{Access, Identity, Stranger},
};

/// How long a closed door waits until the last replies are written; their calls have ended already.
const FAREWELL: Duration = Duration::from_secs(1);

/// The open control socket of a host. Closed when dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// `None` once it is closed.
    entrance: Mutex<Option<Entrance>>,
    watching: Option<JoinHandle<()>>,
    path: PathBuf,
    reach: Mutex<Reach>,
}

/// The listening socket and the thread that accepts clients.
#[derive(Debug)]
struct Entrance {
    listener: Arc<UnixListener>,
    closing: Arc<AtomicBool>,
    /// The socket's device and inode, because another program may replace the file.
    identity: (u64, u64),
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    last_id: AtomicU64,
    door: Arc<Door>,
    connections: Connections,
    shares: Shares,
    hangups: Hangups,
}

/// Why the door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The socket of an earlier host cannot be removed.
    #[error("failed to remove the old `{}`: {source}", .path.display())]
    Leftover {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The socket cannot be created.
    #[error("failed to open the control socket `{}`: {source}", .path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The socket cannot be protected from others.
    #[error("failed to protect `{}`: {source}", .path.display())]
    Protect {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The system provides no epoll instance to notice disconnecting clients.
    #[error("failed to create an epoll instance: {0}")]
    Epoll(io::Error),
    /// The system provides no thread.
    #[error("failed to start the control threads: {0}")]
    Thread(io::Error),
}

impl Server {
    /// Opens the control socket. The caller holds the lock of the runtime directory, so that an existing
    /// socket is left over from a host that ended.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub fn open(dir: &RuntimeDir, door: Arc<Door>) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared {
            last_id: AtomicU64::new(0),
            door,
            connections: Connections::default(),
            shares: Shares::default(),
            hangups: Hangups::new().map_err(OpenError::Epoll)?,
        });
        let watching = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("hangups".into())
                .spawn(move || shared.hangups.run())
                .map_err(OpenError::Thread)?
        };
        // From here on an error drops the server, which ends that thread.
        let server = Self {
            shared,
            entrance: Mutex::default(),
            watching: Some(watching),
            path: dir.control_socket(),
            reach: Mutex::default(),
        };
        *server.entrance() = Some(Entrance::open(&server.shared, &server.path)?);
        server.adjust_reach()?;
        Ok(server)
    }

    /// Lets the users connect that the configuration names.
    fn adjust_reach(&self) -> Result<(), OpenError> {
        let config = self.shared.door.host.config();
        let mut reach = self.reach.lock().unwrap_or_else(PoisonError::into_inner);
        let applied = reach.apply(&self.path, &config.door.allow);
        applied.map_err(|source| OpenError::Protect {
            path: self.path.clone(),
            source,
        })
    }

    fn entrance(&self) -> MutexGuard<'_, Option<Entrance>> {
        self.entrance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens another socket if somebody has removed the current one, and lets the users connect whom the
    /// configuration names now. Existing connections continue. Returns whether it opened one. The caller
    /// holds the lock of the runtime directory.
    ///
    /// # Errors
    /// As [`Server::open`].
    pub fn keep(&self) -> Result<bool, OpenError> {
        let mut entrance = self.entrance();
        match &*entrance {
            Some(open) if identity(&self.path).is_none_or(|it| it != open.identity) => {}
            Some(_) => return self.adjust_reach().map(|()| false),
            None => return Ok(false),
        }
        let new = Entrance::open(&self.shared, &self.path)?;
        if let Some(old) = entrance.replace(new) {
            old.close();
        }
        self.adjust_reach()?;
        Ok(true)
    }

    /// Stops accepting requests. Those in progress are still answered.
    pub fn close(&self) {
        let Some(entrance) = self.entrance().take() else {
            return;
        };
        let is_ours = identity(&self.path) == Some(entrance.identity);
        entrance.close();
        // Each connection reads the end of its requests, and can still write.
        self.shared.connections.shut(std::net::Shutdown::Read);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(target: "hotmerge::door", "failed to remove `{}`: {error}", self.path.display());
        }
    }

    /// Closes the door and waits a moment until the last replies are written. Call it when all calls have
    /// ended.
    pub fn finish(&self) {
        self.close();
        self.shared.connections.wait_for_end(FAREWELL);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
        self.shared.connections.shut(std::net::Shutdown::Both);
        // No further answer is possible.
        self.shared.hangups.stop();
        if let Some(watching) = self.watching.take()
            && watching.join().is_err()
        {
            tracing::error!(target: "hotmerge::door", "the thread that watches for disconnects panicked");
        }
    }
}

/// Device and inode of what is at a path, without following a link.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

impl Entrance {
    fn open(shared: &Arc<Shared>, path: &Path) -> Result<Self, OpenError> {
        let owned = || path.to_owned();
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                let path = owned();
                return Err(OpenError::Leftover { path, source });
            }
            _ => {}
        }
        let bind = |source| OpenError::Bind {
            path: owned(),
            source,
        };
        let listener = Arc::new(UnixListener::bind(path).map_err(bind)?);
        let gone = || bind(io::Error::other("somebody removed it immediately"));
        let identity = identity(path).ok_or_else(gone)?;
        let closing = Arc::new(AtomicBool::new(false));
        let accepting = {
            let (shared, listener) = (Arc::clone(shared), Arc::clone(&listener));
            let closing = Arc::clone(&closing);
            thread::Builder::new()
                .name("control".into())
                .spawn(move || shared.accept(&listener, &closing))
                .map_err(OpenError::Thread)?
        };
        Ok(Self {
            listener,
            closing,
            identity,
            accepting,
        })
    }

    fn close(self) {
        self.closing.store(true, Ordering::Release);
        // Wakes the thread that waits in `accept`.
        if let Err(error) = shutdown(&*self.listener, Shutdown::Both) {
            tracing::warn!(target: "hotmerge::door", "failed to close the control socket: {error}");
        }
        if self.accepting.join().is_err() {
            tracing::error!(target: "hotmerge::door", "the control thread panicked");
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &UnixListener, closing: &AtomicBool) {
        let mut strangers = Strangers::default();
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(_) if closing.load(Ordering::Acquire) => return,
                Err(error) => {
                    tracing::warn!(target: "hotmerge::door", "failed to accept a connection: {error}");
                    // Most likely no descriptor is free; trying again at once would waste a processor.
                    thread::park_timeout(Duration::from_millis(100));
                    continue;
                }
            };
            let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
            self.door.tally.connected();
            if let Err(error) = self.serve(id, stream, &mut strangers) {
                tracing::warn!(target: "hotmerge::door", "failed to serve a connection: {error}");
            }
        }
    }

    fn serve(
        self: &Arc<Self>,
        id: u64,
        stream: UnixStream,
        strangers: &mut Strangers,
    ) -> io::Result<()> {
        let Peer { uid, gid, .. } = Peer::of(&stream)?;
        let mut groups = peer_groups(&stream)?;
        groups.push(gid);
        let who = Identity::of_user(uid, groups);
        let config = self.door.host.config();
        if !who.may_enter(&config.door.allow) {
            self.door.tally.denied();
            strangers.note(uid);
            return connection::refuse(stream, &Why::Denied(Stranger { uid }));
        }
        let guest = Guest {
            user: uid,
            may_have_reserve: who.may(&config.door.allow, Access::Role(Role::Admin)),
        };
        drop(config);
        let ours = stream.try_clone()?;
        if !self.connections.admit(id, guest, ours, &self.door.tally) {
            self.door.tally.busy();
            return connection::refuse(stream, &Why::Busy);
        }
        let this = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name("connection".into())
            .spawn(move || {
                this.door.tally.opened();
                let desk = Desk {
                    share: this.shares.of(uid),
                    id,
                    who: &who,
                    door: &this.door,
                    hangups: &this.hangups,
                    connections: &this.connections,
                    idle: IDLE,
                };
                if let Err(error) = connection::run(&desk, stream) {
                    tracing::debug!(target: "hotmerge::door", "a connection ended: {error}");
                }
                this.door.tally.ended();
                this.connections.remove(id);
            });
        if spawned.is_err() {
            self.connections.remove(id);
        }
        spawned.map(drop)
    }
}

/// How many refused users are remembered.
const STRANGERS: usize = 1024;

/// Users that were refused, and how often.
#[derive(Debug, Default)]
struct Strangers(HashMap<u32, u64>);

impl Strangers {
    /// Notes a refused user, and logs it rarely enough not to fill the log.
    fn note(&mut self, uid: u32) {
        if self.0.len() >= STRANGERS {
            self.0.clear();
        }
        let times = self.0.entry(uid).or_default();
        *times += 1;
        if times.is_power_of_two() {
            tracing::warn!(
                target: "hotmerge::audit", uid, times, outcome = "denied",
                "refused a connection: this user has no role"
            );
        }
    }
}

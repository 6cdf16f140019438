//! The control socket: lets clients in and answers their requests.
//!
//! One thread per connection, each request answered before the next is read; `connections` bounds
//! them. Only root and the host's own user are let in. A client that hangs up
//! cancels its call.

use std::{
    fs, io,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use hotmerge_daemon::Host;
use hotmerge_meta::RuntimeDir;
use rustix::net::{Shutdown, shutdown, sockopt::socket_peercred};

use super::{
    connection::{self, Desk, Why},
    connections::Connections,
    hangups::Hangups,
};
use crate::answer::{AskToStop, Door};

/// A connection on which nothing is asked for this long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// How long a closed door waits for replies to be written: the calls behind them have ended.
const FAREWELL: Duration = Duration::from_secs(1);

/// The open door of a host. Closed when dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    watching: Option<JoinHandle<()>>,
    path: PathBuf,
}

#[derive(Debug)]
struct Shared {
    listener: UnixListener,
    door: Door,
    connections: Connections,
    hangups: Hangups,
    closing: AtomicBool,
}

/// Why the door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What is left of an earlier host cannot be removed.
    #[error("failed to remove the old `{}`: {source}", .path.display())]
    Leftover {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error("failed to open the control socket `{}`: {source}", .path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket cannot be kept from others.
    #[error("failed to protect `{}`: {source}", .path.display())]
    Protect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing to notice hang-ups with.
    #[error("failed to make an epoll instance: {0}")]
    Epoll(io::Error),
    /// There is no thread for it.
    #[error("failed to start the control threads: {0}")]
    Thread(io::Error),
}

impl Server {
    /// Opens the control socket. The caller holds the lock of the runtime directory, so what
    /// is there already is left over from a host that ended.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub fn open(
        dir: &RuntimeDir,
        host: Arc<Host>,
        ask_to_stop: Box<dyn AskToStop>,
    ) -> Result<Self, OpenError> {
        let path = dir.control_socket();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Leftover {
                    path,
                    source: error,
                });
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(|source| OpenError::Bind {
            path: path.clone(),
            source,
        })?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(|source| {
            OpenError::Protect {
                path: path.clone(),
                source,
            }
        })?;
        let shared = Arc::new(Shared {
            listener,
            door: Door {
                host,
                ask_to_stop,
                encoding: Mutex::default(),
            },
            connections: Connections::default(),
            hangups: Hangups::new().map_err(OpenError::Epoll)?,
            closing: AtomicBool::new(false),
        });
        let start = |name: &str, run: fn(&Arc<Shared>)| {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name(name.into())
                .spawn(move || run(&shared))
                .map_err(OpenError::Thread)
        };
        let watching = start("hangups", |shared| shared.hangups.run())?;
        // From here on a failure ends the other one.
        let mut server = Self {
            shared: Arc::clone(&shared),
            accepting: None,
            watching: Some(watching),
            path,
        };
        server.accepting = Some(start("control", Shared::accept)?);
        Ok(server)
    }

    /// Stops taking requests. Those under way are still answered.
    pub fn close(&mut self) {
        let Some(accepting) = self.accepting.take() else {
            return;
        };
        self.shared.closing.store(true, Ordering::Release);
        // Wakes the thread that waits in `accept`.
        if let Err(error) = shutdown(&self.shared.listener, Shutdown::Both) {
            tracing::warn!("failed to close the control socket: {error}");
        }
        if accepting.join().is_err() {
            tracing::error!("the control thread panicked");
        }
        // A connection finds the end of its requests, and can still write.
        self.shared.connections.shut(std::net::Shutdown::Read);
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("failed to remove `{}`: {error}", self.path.display());
        }
    }

    /// Closes the door and waits a moment for the last replies to be written. To be called
    /// when the calls behind them have ended.
    pub fn finish(mut self) {
        self.close();
        self.shared.connections.wait_for_end(FAREWELL);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
        self.shared.connections.shut(std::net::Shutdown::Both);
        // Nobody can be answered any more.
        self.shared.hangups.stop();
        if let Some(watching) = self.watching.take()
            && watching.join().is_err()
        {
            tracing::error!("the thread that notices hang-ups panicked");
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>) {
        let mut next_id = 0;
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(_) if self.closing.load(Ordering::Acquire) => return,
                Err(error) => {
                    tracing::warn!("failed to accept a connection: {error}");
                    // Out of descriptors, most likely; trying again at once would burn.
                    thread::park_timeout(Duration::from_millis(100));
                    continue;
                }
            };
            next_id += 1;
            if let Err(error) = self.serve(next_id, stream) {
                tracing::warn!("failed to serve a connection: {error}");
            }
        }
    }

    fn serve(self: &Arc<Self>, id: u64, stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(IDLE))?;
        stream.set_write_timeout(Some(IDLE))?;
        let peer = socket_peercred(&stream)?;
        if !(peer.uid.is_root() || peer.uid == rustix::process::geteuid()) {
            tracing::warn!(
                uid = peer.uid.as_raw(),
                "a connection was refused: not this user"
            );
            return connection::refuse(stream, Why::Denied);
        }
        let ours = stream.try_clone()?;
        if !self.connections.admit(id, peer.uid.as_raw(), ours) {
            return connection::refuse(stream, Why::Busy);
        }
        let this = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name("connection".into())
            .spawn(move || {
                let desk = Desk {
                    id,
                    door: &this.door,
                    hangups: &this.hangups,
                    connections: &this.connections,
                };
                if let Err(error) = connection::run(&desk, stream) {
                    tracing::debug!("a connection ended: {error}");
                }
                this.connections.remove(id);
            });
        if spawned.is_err() {
            self.connections.remove(id);
        }
        spawned.map(drop)
    }
}

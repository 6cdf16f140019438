//! Lets HTTP connections in, serves them, and closes them when the host stops.
//!
//! Invariant: a new connection always gets in: when all places are taken, the one that has been
//! idle for longest is closed.
//!
//! Absent on purpose: what is answered.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, http::Request};
use hotmerge_daemon::config::HttpConfig;
use hotmerge_sandbox::peer_groups;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::socket_peercred;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    runtime::{Builder, Runtime},
    sync::{Notify, watch},
};

use super::{
    listen::{self, Inherited, ListenError, Listener, SocketFile},
    routes,
    share::Room,
    tokens::{Tokens, TokensError},
};
use crate::answer::Door;

/// Threads that read and write HTTP; calls have threads of their own.
const THREADS: usize = 2;

/// How long to wait when the system has no descriptor for a connection.
const SHORTAGE: Duration = Duration::from_millis(100);

/// The open HTTP front of a host. Closed when dropped.
#[derive(Debug)]
pub struct Front {
    runtime: Mutex<Option<Runtime>>,
    shared: Arc<Shared>,
    stopping: watch::Sender<bool>,
    places: Vec<String>,
    files: Mutex<Vec<SocketFile>>,
}

/// What every request needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) door: Arc<Door>,
    pub(super) config: HttpConfig,
    pub(super) tokens: Tokens,
    pub(super) room: Arc<Room>,
    connections: Mutex<Connections>,
    /// Told when a connection has ended.
    ended: Notify,
    /// Whether the host has been through all plugins once.
    ready: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Connections {
    last: u64,
    open: BTreeMap<u64, Arc<Connection>>,
}

/// One connection.
#[derive(Debug, Default)]
struct Connection {
    /// Requests under way on it.
    busy: AtomicUsize,
    /// Told to make room.
    leave: Notify,
}

/// Where a connection came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Address(IpAddr),
    User { uid: u32, groups: Vec<u32> },
}

/// Why the HTTP front cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// There are no threads for it.
    #[error("failed to start the threads of the HTTP front: {0}")]
    Runtime(io::Error),
}

impl Front {
    /// Opens every socket of the configuration and serves it.
    ///
    /// # Errors
    /// See [`FrontError`]. Nothing is served then.
    pub fn open(
        config: &HttpConfig,
        inherited: Inherited,
        door: Arc<Door>,
    ) -> Result<Self, FrontError> {
        let tokens = config.tokens.as_deref().map(Tokens::read).transpose()?;
        let (listeners, files) = listen::open(&config.listen, inherited)?;
        let places = listeners.iter().map(Listener::name).collect();
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(config.max_calls + THREADS)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(FrontError::Runtime)?;
        let shared = Arc::new(Shared {
            door,
            config: config.clone(),
            tokens: tokens.unwrap_or_default(),
            room: Arc::new(Room::new(config.max_calls, config.max_calls_per_client)),
            connections: Mutex::default(),
            ended: Notify::new(),
            ready: watch::Sender::new(false),
        });
        let (stopping, _) = watch::channel(false);
        let router = routes::router(Arc::clone(&shared));
        for listener in listeners {
            let entrance = Entrance {
                shared: Arc::clone(&shared),
                router: router.clone(),
                stopping: stopping.subscribe(),
            };
            let _inside = runtime.enter();
            let listener = Acceptor::from(listener).map_err(FrontError::Runtime)?;
            runtime.spawn(entrance.run(listener));
        }
        Ok(Self {
            runtime: Mutex::new(Some(runtime)),
            shared,
            stopping,
            places,
            files: Mutex::new(files),
        })
    }

    /// The host has been through all plugins once: calls that waited for that go on.
    pub fn ready(&self) {
        self.shared.ready.send_replace(true);
    }

    /// Where it listens, as people write it.
    pub fn places(&self) -> &[String] {
        &self.places
    }

    /// Lets nobody in any more, answers what is under way, as long as the configuration permits,
    /// and says how many connections were cut off.
    pub fn close(&self) -> usize {
        let runtime = self
            .runtime
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(runtime) = runtime else {
            return 0;
        };
        self.files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        // Nobody listens if no connection was ever made.
        self.stopping.send_replace(true);
        let patience = self.shared.config.stop();
        let left = runtime.block_on(async {
            let all_ended = async {
                loop {
                    let ended = self.shared.ended.notified();
                    if self.shared.connections().open.is_empty() {
                        break;
                    }
                    ended.await;
                }
            };
            // What is left then is counted below.
            let _ = tokio::time::timeout(patience, all_ended).await;
            self.shared.connections().open.len()
        });
        runtime.shutdown_background();
        left
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Waits until the host has been through all plugins once, or for so long.
    pub(super) async fn wait_ready(&self, limit: Duration) {
        if *self.ready.borrow() {
            return;
        }
        let mut ready = self.ready.subscribe();
        // Whoever waited for too long finds no plugin.
        let _ = tokio::time::timeout(limit, ready.wait_for(|ready| *ready)).await;
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a connection a place, if need be that of the one that has been idle for longest.
    fn enter(self: &Arc<Self>) -> Guest {
        let mut connections = self.connections();
        if connections.open.len() >= self.config.max_connections {
            let idle = connections
                .open
                .iter()
                .find(|(_, it)| it.busy.load(Ordering::Relaxed) == 0)
                .or_else(|| connections.open.first_key_value())
                .map(|(id, _)| *id);
            if let Some(connection) = idle.and_then(|id| connections.open.remove(&id)) {
                connection.leave.notify_one();
                self.door.tally.closed();
            }
        }
        connections.last += 1;
        let id = connections.last;
        let connection = Arc::new(Connection::default());
        connections.open.insert(id, Arc::clone(&connection));
        Guest {
            shared: Arc::clone(self),
            id,
            connection,
        }
    }
}

/// A connection that has a place, until dropped.
struct Guest {
    shared: Arc<Shared>,
    id: u64,
    connection: Arc<Connection>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.shared.connections().open.remove(&self.id);
        self.shared.ended.notify_waiters();
    }
}

/// A request under way on a connection, until dropped.
struct UnderWay(Arc<Connection>);

impl UnderWay {
    fn begin(connection: &Arc<Connection>) -> Self {
        connection.busy.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connection))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    fn from(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Self::Tcp(TcpListener::from_std(listener)?)
            }
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Self::Unix(UnixListener::from_std(listener)?)
            }
        })
    }
}

/// Lets connections in at one socket.
struct Entrance {
    shared: Arc<Shared>,
    router: Router,
    stopping: watch::Receiver<bool>,
}

impl Entrance {
    async fn run(mut self, listener: Acceptor) {
        let mut stopping = self.stopping.clone();
        loop {
            let accepted = tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => break,
                accepted = self.accept(&listener) => accepted,
            };
            if let Err(error) = accepted {
                // A client that went before it was let in is none of anybody's concern.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    tracing::warn!(target: "hotmerge::door", "failed to accept an HTTP connection: {error}");
                    tokio::time::sleep(SHORTAGE).await;
                }
            }
        }
    }

    async fn accept(&mut self, listener: &Acceptor) -> io::Result<()> {
        match listener {
            Acceptor::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Without it replies wait for acknowledgements.
                stream.set_nodelay(true)?;
                self.serve(stream, Peer::Address(address.ip().to_canonical()));
            }
            Acceptor::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let cred = socket_peercred(&stream)?;
                let mut groups = peer_groups(&stream)?;
                groups.push(cred.gid.as_raw());
                let uid = cred.uid.as_raw();
                self.serve(stream, Peer::User { uid, groups });
            }
        }
        Ok(())
    }

    fn serve<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.shared.door.tally.connected();
        let guest = self.shared.enter();
        tokio::spawn(self.connection(stream, peer, guest));
    }

    /// Serves one connection until it ends.
    fn connection<S>(
        &self,
        stream: S,
        peer: Peer,
        guest: Guest,
    ) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (shared, router) = (Arc::clone(&self.shared), self.router.clone());
        let mut stopping = self.stopping.clone();
        async move {
            let peer = Arc::new(peer);
            let connection = Arc::clone(&guest.connection);
            let service = service_fn(|request: Request<Incoming>| {
                let under_way = UnderWay::begin(&connection);
                let (shared, router, peer) =
                    (Arc::clone(&shared), router.clone(), Arc::clone(&peer));
                async move {
                    let request = request.map(Body::new);
                    let response = routes::answer(shared, router, &peer, request).await;
                    drop(under_way);
                    Ok::<_, Infallible>(response)
                }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(shared.config.header())
                .max_buf_size(shared.config.max_header_bytes)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(served);
            let mut told = false;
            loop {
                tokio::select! {
                    ended = served.as_mut() => {
                        if let Err(error) = ended {
                            tracing::debug!(target: "hotmerge::door", "an HTTP connection ended: {error}");
                        }
                        break;
                    }
                    () = guest.connection.leave.notified() => break,
                    _ = stopping.wait_for(|stopping| *stopping), if !told => {
                        told = true;
                        served.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }
}

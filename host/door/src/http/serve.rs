//! Accepts HTTP connections, serves them, and closes them when the host stops.
//!
//! Absent on purpose: the answers, and which connection makes room for another.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, http::Request};
use hotmerge_daemon::config::HttpConfig;
use hotmerge_sandbox::peer_groups;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    runtime::{Builder, Runtime},
    sync::watch,
    time::Instant,
};

use super::{
    connections::{Connections, Guest, UnderWay},
    listen::{self, Inherited, ListenError, Listener, SocketFile},
    quick::Quick,
    routes,
    shared::{Peer, Shared, WAITING},
    tokens::{Tokens, TokensError},
};
use crate::answer::Door;

/// Threads that read and write HTTP, and run quick calls, all but one of them at a time.
const THREADS: usize = 3;

/// Threads for status, history, metrics and documents, which no call and no administrative request takes.
const QUICK: usize = 4;

/// How long a client that connects while the host stops may take for its first request: if
/// its connection were closed sooner, there would be no use in accepting it.
const FIRST: Duration = Duration::from_millis(500);

/// How long to wait when the system has no free descriptor for a connection.
const SHORTAGE: Duration = Duration::from_millis(100);

/// The open HTTP front of a host. Closed when dropped.
#[derive(Debug)]
pub struct Front {
    runtime: Mutex<Option<Runtime>>,
    shared: Arc<Shared>,
    connections: Arc<Connections>,
    stopping: watch::Sender<bool>,
    places: Vec<String>,
    files: Mutex<Vec<SocketFile>>,
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
            .max_blocking_threads(config.max_calls + WAITING + QUICK)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(FrontError::Runtime)?;
        let quick = Quick::new(THREADS, runtime.handle().clone()).map_err(FrontError::Runtime)?;
        let shared = Shared::new(door, config.clone(), tokens.unwrap_or_default(), quick);
        let shared = Arc::new(shared.map_err(FrontError::Runtime)?);
        let connections = Arc::new(Connections::new(config.max_connections));
        let (stopping, _) = watch::channel(false);
        let router = routes::router(Arc::clone(&shared));
        for listener in listeners {
            let entrance = Entrance {
                shared: Arc::clone(&shared),
                connections: Arc::clone(&connections),
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
            connections,
            stopping,
            places,
            files: Mutex::new(files),
        })
    }

    /// Notes that the host has tried all plugins once: calls that waited for that continue.
    pub fn ready(&self) {
        self.shared.set_ready();
    }

    /// Its addresses, as in the configuration.
    pub fn places(&self) -> &[String] {
        &self.places
    }

    /// Accepts no more connections, answers requests in progress for as long as the configuration
    /// permits, and returns how many connections were cut off.
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
        // No receiver exists if there never was a connection.
        self.stopping.send_replace(true);
        self.shared.end();
        let patience = self.shared.config.stop();
        let left = runtime.block_on(async {
            // Connections that remain are counted below.
            let _ = tokio::time::timeout(patience, self.connections.all_ended()).await;
            self.connections.len()
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

/// Accepts connections at one socket.
struct Entrance {
    shared: Arc<Shared>,
    connections: Arc<Connections>,
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
                // A client that disconnected before it was accepted is not an error.
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
                // Otherwise replies wait for acknowledgements.
                stream.set_nodelay(true)?;
                self.serve(stream, Peer::Address(address.ip().to_canonical()));
            }
            Acceptor::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let hotmerge_meta::Peer { uid, gid, .. } = hotmerge_meta::Peer::of(&stream)?;
                let mut groups = peer_groups(&stream)?;
                groups.push(gid);
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
        let guest = self.connections.enter();
        if guest.displaced {
            self.shared.door.tally.closed();
        }
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
                let mut request = request.map(Body::new);
                // For `receive`, which is slow if the client is.
                let carrier = Arc::clone(&connection);
                request.extensions_mut().insert(carrier);
                let (shared, router, peer) =
                    (Arc::clone(&shared), router.clone(), Arc::clone(&peer));
                async move {
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
            let accepted = Instant::now();
            // Over once the connection has had its chance.
            let stops = async {
                let _ = stopping.wait_for(|stopping| *stopping).await;
                let first = connection.first.notified();
                let _ = tokio::time::timeout_at(accepted + FIRST, first).await;
            };
            tokio::pin!(stops);
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
                    () = stops.as_mut(), if !told => {
                        told = true;
                        served.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }
}

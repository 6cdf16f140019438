//! A peer: a plugin process that is called by gRPC over a Unix socket, as HashiCorp's `go-plugin`
//! has it. The messages are bytes, so that nothing but the transport is measured.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    path::Path,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
};

use bytes::{Buf as _, BufMut as _, Bytes};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::{
    net::{UnixListener, UnixStream},
    runtime::{Builder, Runtime},
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Request, Response, Status,
    body::Body,
    client,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, UnaryService},
    transport::{Channel, Endpoint, Server},
};
use tower_service::Service;

use super::{peer::Peer, ping_pong::place};

const METHOD: &str = "/bench.Plugin/Call";

/// Messages as they are.
#[derive(Clone, Copy, Debug, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// The plugin: answers with what it was asked.
#[derive(Clone, Copy, Debug)]
struct Echo;

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async { Ok(Grpc::new(Plain).unary(Echo, request).await) })
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?)
}

pub(crate) fn answer(path: &Path) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let listener = UnixListener::bind(path)?;
        println!("ready");
        let stream = UnixListenerStream::new(listener);
        let server = Server::builder();
        server.serve_with_incoming(Echo, stream).await?;
        Ok(())
    })
}

pub(crate) struct Client {
    runtime: Runtime,
    grpc: Mutex<client::Grpc<Channel>>,
    _peer: Peer,
    _dir: TempDir,
}

impl Client {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let (dir, path) = place()?;
        let peer = Peer::start("grpc", &path)?;
        let runtime = runtime()?;
        let channel = runtime.block_on(async {
            let connect = Connect(path.clone());
            // The name is not used: the connector knows the way.
            Endpoint::from_static("http://plugin")
                .connect_with_connector(connect)
                .await
        })?;
        Ok(Self {
            runtime,
            grpc: Mutex::new(client::Grpc::new(channel)),
            _peer: peer,
            _dir: dir,
        })
    }

    pub(crate) fn ask(&self) -> anyhow::Result<()> {
        let mut grpc = self.grpc.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
        self.runtime.block_on(async {
            grpc.ready().await?;
            let path = http::uri::PathAndQuery::from_static(METHOD);
            let request = Request::new(Bytes::from_static(&[0; 16]));
            let reply = grpc.unary(request, path, Plain).await?;
            anyhow::ensure!(reply.into_inner().len() == 16, "another reply");
            Ok(())
        })
    }
}

/// Connects to a socket, whatever the name.
#[derive(Clone, Debug)]
struct Connect(std::path::PathBuf);

impl Service<http::Uri> for Connect {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<TokioIo<UnixStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(path).await?)) })
    }
}

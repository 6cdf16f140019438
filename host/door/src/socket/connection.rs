//! One connection: frames in, frames out.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::Arc,
};

use hotmerge_daemon::Cancel;

use hotmerge_meta::{
    control::{ErrorObjectOwned, Id, Request, Response, ResponsePayload, code},
    frame::{Frames, frame},
};

use super::hangups::Hangups;
use crate::answer::{Client, Door, answer};

/// Why a connection is not served at all.
pub(super) enum Why {
    Denied,
    Busy,
}

/// Whoever is at the other end.
struct Peer<'a> {
    stream: &'a UnixStream,
    hangups: &'a Hangups,
}

impl Client for Peer<'_> {
    fn while_connected(&self, cancel: &Arc<Cancel>, run: &mut dyn FnMut()) -> io::Result<()> {
        let _watched = self.hangups.watch(self.stream, cancel)?;
        run();
        Ok(())
    }
}

/// Answers requests until the peer has no more, or asks nothing for too long.
pub(super) fn run(door: &Door, hangups: &Hangups, mut stream: UnixStream) -> io::Result<()> {
    let mut frames = Frames::new();
    let mut bytes = vec![0; 64 * 1024];
    loop {
        match frames.next_frame() {
            Ok(Some(request)) => {
                let peer = Peer {
                    stream: &stream,
                    hangups,
                };
                let response = respond(door, &peer, &request);
                stream.write_all(&response)?;
            }
            Ok(None) => match stream.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(read) => frames.push(&bytes[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            },
            Err(error) => {
                let error = error.to_string();
                return stream.write_all(&failure(Id::Null, code::INVALID_REQUEST, &error));
            }
        }
    }
}

/// Tells the peer why it is not served.
pub(super) fn refuse(mut stream: UnixStream, why: Why) -> io::Result<()> {
    let (code, text) = match why {
        Why::Denied => (
            code::DENIED,
            "only root and the host's own user may ask this host",
        ),
        Why::Busy => (code::BUSY, "the host has too many connections; try again"),
    };
    stream.write_all(&failure(Id::Null, code, text))
}

fn respond(door: &Door, client: &Peer<'_>, bytes: &[u8]) -> Vec<u8> {
    let request: Request<'_> = match serde_json::from_slice(bytes) {
        Ok(request) => request,
        Err(error) => {
            let code = match error.classify() {
                serde_json::error::Category::Data => code::INVALID_REQUEST,
                _ => code::PARSE,
            };
            return failure(
                Id::Null,
                code,
                &format!("not a JSON-RPC 2.0 request: {error}"),
            );
        }
    };
    let id = request.id.clone();
    let params = request.params.as_deref();
    match answer(door, client, &request.method, params) {
        Ok(result) => {
            let response = Response::new(ResponsePayload::success(result), id.clone());
            match serde_json::to_vec(&response) {
                Ok(json) => frame(json),
                Err(error) => failure(id, code::INTERNAL, &error.to_string()),
            }
        }
        Err(error) => failure_with(id, error),
    }
}

fn failure(id: Id<'_>, code: i32, message: &str) -> Vec<u8> {
    failure_with(id, ErrorObjectOwned::owned(code, message, None::<()>))
}

fn failure_with(id: Id<'_>, error: ErrorObjectOwned) -> Vec<u8> {
    let response = Response::<'_, ()>::new(ResponsePayload::error(error), id);
    // A code and two texts always have a JSON form.
    frame(serde_json::to_vec(&response).unwrap_or_default())
}

//! One connection: frames in, frames out.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use hotmerge_daemon::Cancel;

use hotmerge_meta::{
    control::{ErrorObjectOwned, Id, Request, Response, ResponsePayload, code},
    frame::{Frames, MAX_FRAME_BYTES, frame},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use serde_json::value::RawValue;

use super::{
    connections::{Connections, Turn},
    hangups::Hangups,
    shares::{Share, Turn as ComputeTurn},
};
use crate::{
    answer::{Client, Door, Method, Weight, unknown},
    roles::{Identity, Stranger},
};

/// The longest id of a request, in bytes; answers repeat it.
const ID_LIMIT: usize = 1024;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// Bytes written at once: the system's own limit of time begins again with each piece that the peer reads.
const PIECE: usize = 64 * 1024;

/// Why a connection is not served.
pub(super) enum Why {
    /// The user has no role.
    Denied(Stranger),
    Busy,
}

/// What a connection needs from its server.
pub(super) struct Desk<'a> {
    pub(super) share: Arc<Share>,
    pub(super) id: u64,
    pub(super) who: &'a Identity,
    pub(super) door: &'a Door,
    pub(super) hangups: &'a Hangups,
    pub(super) connections: &'a Connections,
    /// How long the peer may be silent, take to send a request, and take to read a reply.
    pub(super) idle: Duration,
}

impl Desk<'_> {
    fn wait_for_peer(&self, held: usize) {
        let tally = &self.door.tally;
        self.connections.wait_for_peer(self.id, held, tally);
    }
}

/// The client at the other end.
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

/// Answers requests until the peer closes the connection or is idle for too long.
pub(super) fn run(desk: &Desk<'_>, mut stream: UnixStream) -> io::Result<()> {
    stream.set_write_timeout(Some(desk.idle))?;
    let mut frames = Frames::new();
    let mut bytes = vec![0; READ_BYTES];
    // When the first byte of an incomplete frame arrived.
    let mut began: Option<Instant> = None;
    let mut needs_more = true;
    loop {
        let mut turn = None;
        if needs_more {
            // A peer that only connects, or that leaves, queues for no turn.
            if !has_hung_up(&stream, desk.idle)? {
                turn = Some(desk.share.turn());
            }
            let read = match stream.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            frames.push(&bytes[..read]);
            if began.get_or_insert_with(Instant::now).elapsed() > desk.idle {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let held = frames.pending();
            if held > read {
                desk.connections.hold(desk.id, held, &desk.door.tally);
            }
        }
        let turn = turn.unwrap_or_else(|| desk.share.turn());
        match frames.next_frame() {
            Ok(Some(request)) => {
                let Some(response) = respond(desk, turn, &stream, &request) else {
                    return Ok(());
                };
                // The peer may read the reply late, or never.
                drop(request);
                desk.wait_for_peer(response.len());
                let written = write_within(desk.idle, &stream, &response);
                drop(response);
                desk.wait_for_peer(0);
                written?;
                began = None;
                needs_more = frames.pending() == 0;
            }
            Ok(None) => needs_more = true,
            Err(error) => {
                drop(turn);
                let error = error.to_string();
                return stream.write_all(&failure(Id::Null, code::INVALID_REQUEST, &error));
            }
        }
    }
}

/// Waits until the peer has sent something, or has left; returns whether it has left.
fn has_hung_up(stream: &UnixStream, limit: Duration) -> io::Result<bool> {
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    loop {
        let mut source = [PollFd::new(stream, PollFlags::IN)];
        match poll(&mut source, Some(&limit)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(source[0].revents().contains(PollFlags::HUP)),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Tells the peer why it is not served.
pub(super) fn refuse(mut stream: UnixStream, why: &Why) -> io::Result<()> {
    let (code, text) = match why {
        Why::Denied(stranger) => (code::DENIED, stranger.to_string()),
        Why::Busy => {
            let text = "the host has too many connections; try again";
            (code::BUSY, text.to_owned())
        }
    };
    stream.write_all(&failure(Id::Null, code, &text))
}

/// Writes everything within this time, however steadily the peer reads.
fn write_within(limit: Duration, mut stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    let began = Instant::now();
    while let (piece, rest) = bytes.split_at(bytes.len().min(PIECE))
        && !piece.is_empty()
    {
        if began.elapsed() > limit {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.write_all(piece)?;
        bytes = rest;
    }
    Ok(())
}

/// The answer to a request; none if the connection was closed to make room.
fn respond(
    desk: &Desk<'_>,
    turn: ComputeTurn<'_>,
    stream: &UnixStream,
    bytes: &[u8],
) -> Option<Vec<u8>> {
    let request: Request<'_> = match serde_json::from_slice(bytes) {
        Ok(request) => request,
        Err(error) => {
            let code = match error.classify() {
                serde_json::error::Category::Data => code::INVALID_REQUEST,
                _ => code::PARSE,
            };
            let text = format!("not a JSON-RPC 2.0 request: {error}");
            return Some(failure(Id::Null, code, &text));
        }
    };
    let id = request.id.clone();
    if matches!(&id, Id::Str(id) if id.len() > ID_LIMIT) {
        let text = format!("the request's id is longer than {ID_LIMIT} bytes");
        return Some(failure(Id::Null, code::INVALID_REQUEST, &text));
    }
    desk.door.tally.requested();
    let Some(method) = Method::find(&request.method) else {
        return Some(failure_with(id, unknown(&request.method)));
    };
    let permitted = match method.permit(desk.door, desk.who, request.params.as_deref()) {
        Ok(permitted) => permitted,
        Err(denied) => return Some(failure_with(id, denied)),
    };
    match desk.connections.begin(desk.id, permitted.weight()) {
        Turn::Yours => {}
        Turn::Closed => return None,
        Turn::Busy => return Some(failure_with(id, permitted.refuse_as_busy())),
    }
    // Slow requests must not keep the turn.
    let _turn = (permitted.weight() == Weight::Quick).then_some(turn);
    let peer = Peer {
        stream,
        hangups: desk.hangups,
    };
    Some(match permitted.answer(&peer) {
        Ok(result) => success(id, result),
        Err(error) => failure_with(id, error),
    })
}

fn success(id: Id<'_>, result: Box<RawValue>) -> Vec<u8> {
    let response = Response::new(ResponsePayload::success(result), id.clone());
    match serde_json::to_vec(&response) {
        Ok(json) if json.len() <= MAX_FRAME_BYTES => frame(json),
        Ok(json) => {
            let text = format!(
                "the answer has {} bytes; at most {MAX_FRAME_BYTES} are sent",
                json.len()
            );
            failure(id, code::REPLY_TOO_LARGE, &text)
        }
        Err(error) => failure(id, code::INTERNAL, &error.to_string()),
    }
}

fn failure(id: Id<'_>, code: i32, message: &str) -> Vec<u8> {
    failure_with(id, ErrorObjectOwned::owned(code, message, None::<()>))
}

fn failure_with(id: Id<'_>, error: ErrorObjectOwned) -> Vec<u8> {
    let response = Response::<'_, ()>::new(ResponsePayload::error(error), id);
    // A code and two strings always serialize.
    frame(serde_json::to_vec(&response).unwrap_or_default())
}

#[cfg(test)]
mod tests;

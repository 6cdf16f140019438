//! Peers that keep a connection waiting, beside an empty host.

use std::{net::Shutdown, thread};

use hotmerge_daemon::{Config, Host, config::Isolation};
use hotmerge_observe::records::{Limits, Records};

use super::*;
use crate::{answer::AskToStop, socket::shares::Shares};

/// Short, because these peers use it up.
const SHORT: Duration = Duration::from_millis(50);
/// Long enough for everything else.
const LONG: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Never;

impl AskToStop for Never {
    fn stop(&self) {
        unreachable!("nobody asks for it");
    }
}

/// Serves one connection with this patience while the peer does something, and returns how it ended.
fn serve(idle: Duration, peer: impl FnOnce(&mut UnixStream) + Send) -> io::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.plugin_dir = Some(dir.path().to_owned());
    config.isolation = Some(Isolation::Host);
    let host = Arc::new(Host::start(config).unwrap());
    let door = Door::new(
        host,
        Box::new(Never),
        Records::new(Limits {
            records: 0,
            bytes: 0,
        }),
    );
    let (connections, shares) = (Connections::default(), Shares::default());
    let hangups = Hangups::new().unwrap();
    let who = Identity::of_user(0, []);
    let desk = Desk {
        share: shares.of(0),
        id: 1,
        who: &who,
        door: &door,
        hangups: &hangups,
        connections: &connections,
        idle,
    };
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let guest = crate::socket::connections::Guest {
        user: 0,
        may_have_reserve: true,
    };
    assert!(connections.admit(1, guest, ours.try_clone().unwrap(), &door.tally));
    thread::scope(|scope| {
        scope.spawn(move || peer(&mut theirs));
        let ended = run(&desk, ours.try_clone().unwrap());
        // Ends a peer that goes on.
        ours.shutdown(Shutdown::Both).unwrap();
        ended
    })
}

fn is_timeout(ended: &io::Result<()>) -> bool {
    // The system says that it would block when the time of a socket is up.
    let kinds = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
    ended
        .as_ref()
        .is_err_and(|error| kinds.contains(&error.kind()))
}

fn status(id: u32) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"status\"}}\n")
}

#[test]
fn a_peer_may_ask_and_disconnect() {
    serve(LONG, |peer| {
        peer.write_all(status(1).as_bytes()).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        peer.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\"id\":1"), "{answer}");
    })
    .unwrap();
}

#[test]
fn a_silent_peer_is_closed() {
    let ended = serve(SHORT, |peer| {
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    });
    assert!(is_timeout(&ended), "{ended:?}");
}

/// Each byte comes in time, but the request does not.
#[test]
fn a_request_without_end_is_closed() {
    let ended = serve(SHORT, |peer| while peer.write_all(b"x").is_ok() {});
    assert!(is_timeout(&ended), "{ended:?}");
}

/// The peer takes what the system still sends, byte by byte, and never all of it in time.
#[test]
fn a_reply_read_too_slowly_is_dropped() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_write_timeout(Some(LONG)).unwrap();
    let reply = vec![b'x'; MAX_FRAME_BYTES];
    thread::scope(|scope| {
        scope.spawn(move || while theirs.read(&mut [0]).is_ok_and(|read| read > 0) {});
        let ended = write_within(SHORT, &ours, &reply);
        ours.shutdown(Shutdown::Both).unwrap();
        assert!(is_timeout(&ended), "{ended:?}");
    });
}

#[test]
fn a_reply_that_is_read_arrives_whole() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let reply: Vec<u8> = (0..3 * PIECE + 7).map(|at| at as u8).collect();
    thread::scope(|scope| {
        let read = scope.spawn(move || {
            let mut read = Vec::new();
            theirs.read_to_end(&mut read).unwrap();
            read
        });
        write_within(LONG, &ours, &reply).unwrap();
        ours.shutdown(Shutdown::Both).unwrap();
        assert_eq!(read.join().unwrap(), reply);
    });
}

//! This program as the other side of a floor or a peer.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::{grpc, ping_pong};

/// The first argument of a run as the other side.
const PEER: &str = "--peer";

/// A run as the other side; killed when dropped.
#[derive(Debug)]
pub(crate) struct Peer(Child);

impl Peer {
    /// Starts one, and waits until it says that it is ready.
    pub(crate) fn start(kind: &str, path: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([PEER, kind])
            .arg(path)
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("it is a pipe")?;
        let peer = Self(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        anyhow::ensure!(line == "ready\n", "the other side of {kind} is not ready");
        Ok(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs as the other side if the arguments say so.
pub(crate) fn run() -> Option<anyhow::Result<()>> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let [_, first, kind, path] = &arguments[..] else {
        return None;
    };
    if first != PEER {
        return None;
    }
    // A bench that is killed drops nothing.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return Some(Err(error.into()));
    }
    let path = Path::new(path);
    Some(match kind.to_str() {
        Some("futex") => ping_pong::answer_futex(path, false),
        Some("futex-carrying") => ping_pong::answer_futex(path, true),
        Some("socket") => ping_pong::answer_socket(path),
        Some("grpc") => grpc::answer(path),
        Some("http") => crate::http::answer(path),
        _ => Err(anyhow::anyhow!("there is no such peer")),
    })
}

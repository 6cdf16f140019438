//! The state that all requests share, and the peer of a connection.
//!
//! Absent on purpose: connections, which `connections` counts.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hotmerge_daemon::config::HttpConfig;
use tokio::sync::watch;

use super::{share::Room, tokens::Tokens};
use crate::answer::Door;

/// The state that all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) door: Arc<Door>,
    pub(super) config: HttpConfig,
    pub(super) tokens: Tokens,
    pub(super) room: Arc<Room>,
    /// Whether the host has tried all plugins once.
    ready: watch::Sender<bool>,
}

/// The peer of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Address(IpAddr),
    User { uid: u32, groups: Vec<u32> },
}

impl Shared {
    pub(super) fn new(door: Arc<Door>, config: HttpConfig, tokens: Tokens) -> Self {
        Self {
            door,
            room: Arc::new(Room::new(config.max_calls, config.max_calls_per_client)),
            config,
            tokens,
            ready: watch::Sender::new(false),
        }
    }

    /// Notes that the host has tried all plugins once.
    pub(super) fn set_ready(&self) {
        self.ready.send_replace(true);
    }

    /// Waits until the host has tried all plugins once, at most for `limit`.
    pub(super) async fn wait_ready(&self, limit: Duration) {
        if *self.ready.borrow() {
            return;
        }
        let mut ready = self.ready.subscribe();
        // A request that waited too long finds no plugin.
        let _ = tokio::time::timeout(limit, ready.wait_for(|ready| *ready)).await;
    }
}

//! What every request needs, and where a connection came from.
//!
//! Absent on purpose: connections, which `connections` counts.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hotmerge_daemon::config::HttpConfig;
use tokio::sync::watch;

use super::{share::Room, tokens::Tokens};
use crate::answer::Door;

/// What every request needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) door: Arc<Door>,
    pub(super) config: HttpConfig,
    pub(super) tokens: Tokens,
    pub(super) room: Arc<Room>,
    /// Whether the host has been through all plugins once.
    ready: watch::Sender<bool>,
}

/// Where a connection came from.
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

    /// The host has been through all plugins once.
    pub(super) fn set_ready(&self) {
        self.ready.send_replace(true);
    }

    /// Waits until the host has been through all plugins once, or for so long.
    pub(super) async fn wait_ready(&self, limit: Duration) {
        if *self.ready.borrow() {
            return;
        }
        let mut ready = self.ready.subscribe();
        // Whoever waited for too long finds no plugin.
        let _ = tokio::time::timeout(limit, ready.wait_for(|ready| *ready)).await;
    }
}

//! What all requests share, and the peer of a connection.
//!
//! Absent on purpose: connections, which `connections` counts.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use hotmerge_daemon::config::HttpConfig;
use tokio::sync::watch;

#[cfg(feature = "page")]
use super::live::Live;
use super::{
    descriptions::Descriptions, openapi::Written, quick::Quick, share::Room, tokens::Tokens,
};
use crate::answer::Door;

/// Most requests that wait until everything has settled.
pub(super) const WAITING: usize = 8;

/// The state that all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) door: Arc<Door>,
    pub(super) config: HttpConfig,
    pub(super) tokens: Tokens,
    /// Room for calls under way.
    pub(super) calls: Arc<Room>,
    /// Where calls run.
    pub(super) quick: Arc<Quick>,
    /// Room for requests that wait until everything has settled.
    pub(super) waiting: Arc<Room>,
    /// Room for the bytes of bodies, while they arrive and during calls.
    pub(super) bodies: Arc<Room>,
    pub(super) descriptions: Arc<Descriptions>,
    pub(super) document: Written,
    /// Tells the readers of the page of changes.
    #[cfg(feature = "page")]
    pub(super) live: Arc<Live>,
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
    /// # Errors
    /// If the system has no thread for it.
    pub(super) fn new(
        door: Arc<Door>,
        config: HttpConfig,
        tokens: Tokens,
        quick: Quick,
    ) -> io::Result<Self> {
        let (most, own) = (config.max_calls, config.max_calls_per_client);
        let bytes = |calls: usize| calls.saturating_mul(config.max_body_bytes);
        Ok(Self {
            #[cfg(feature = "page")]
            live: Live::of(&door.host)?,
            door,
            calls: Arc::new(Room::new("calls", most, own)),
            quick: Arc::new(quick),
            waiting: Arc::new(Room::new("administrative requests", WAITING, WAITING)),
            bodies: Arc::new(Room::new("bytes of bodies", bytes(most), bytes(own))),
            config,
            tokens,
            descriptions: Arc::default(),
            document: Written::default(),
            ready: watch::Sender::new(false),
        })
    }

    /// Ends work that would otherwise continue as long as the host runs.
    pub(super) fn end(&self) {
        #[cfg(feature = "page")]
        self.live.end();
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

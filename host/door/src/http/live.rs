//! Notifies followers that the status has changed, and limits their number.
//!
//! Invariant: a follower wakes only for a change or for the host's end, and there are never more followers
//! than places.
//!
//! Absent on purpose: what has changed, and HTTP.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use hotmerge_daemon::Host;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// How many may wait for changes at once.
const PLACES: usize = 16;

/// Notifies followers of changes.
#[derive(Debug)]
pub(super) struct Live {
    now: watch::Sender<Moment>,
    places: Arc<Semaphore>,
    /// In milliseconds since 1970.
    since: u128,
}

/// How much has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Moment {
    changes: u64,
    is_over: bool,
}

/// Waits for changes, in one of the places.
#[derive(Debug)]
pub(super) struct Follower {
    live: Arc<Live>,
    now: watch::Receiver<Moment>,
    told: Option<u64>,
    _place: OwnedSemaphorePermit,
}

impl Live {
    /// Notifies followers of this host's changes.
    pub(super) fn of(host: &Host) -> Arc<Self> {
        let live = Arc::new(Self::new());
        let told = Arc::downgrade(&live);
        host.on_change(move || {
            if let Some(live) = told.upgrade() {
                live.changed();
            }
        });
        live
    }

    fn new() -> Self {
        Self {
            now: watch::Sender::default(),
            places: Arc::new(Semaphore::new(PLACES)),
            // Before 1970 only their changes distinguish two hosts.
            since: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis()),
        }
    }

    fn changed(&self) {
        self.now.send_modify(|now| now.changes += 1);
    }

    /// Names the present moment: another host's first change is not this one's.
    pub(super) fn mark(&self) -> String {
        self.mark_of(self.now.borrow().changes)
    }

    fn mark_of(&self, changes: u64) -> String {
        format!("{}-{changes}", self.since)
    }

    /// Ends everybody's waiting, for good.
    pub(super) fn end(&self) {
        self.now.send_modify(|now| now.is_over = true);
    }

    /// A place to wait in, if one is free.
    pub(super) fn follow(self: &Arc<Self>) -> Option<Follower> {
        Some(Follower {
            live: Arc::clone(self),
            now: self.now.subscribe(),
            told: None,
            _place: Arc::clone(&self.places).try_acquire_owned().ok()?,
        })
    }
}

impl Follower {
    /// The mark of the moment, as soon as that is news; at first it always is. `None` when no more will
    /// come.
    pub(super) async fn next(&mut self) -> Option<String> {
        let told = self.told;
        let is_news = |now: &Moment| now.is_over || Some(now.changes) != told;
        let now = *self.now.wait_for(is_news).await.ok()?;
        self.told = Some(now.changes);
        (!now.is_over).then(|| self.live.mark_of(now.changes))
    }

    /// Waits until no more will come.
    pub(super) async fn ended(&mut self) {
        // Without a sender none will come either.
        let _ = self.now.wait_for(|now| now.is_over).await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::{runtime::Builder, select};

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn followers_wake_for_changes_only() {
        run(async {
            let live = Arc::new(Live::new());
            let mut follower = live.follow().unwrap();
            assert_eq!(follower.next().await, Some(live.mark()), "where it begins");
            {
                let mut next = pin!(follower.next());
                select! {
                    biased;
                    news = &mut next => panic!("nothing has changed: {news:?}"),
                    () = std::future::ready(()) => {}
                }
                live.changed();
                live.changed();
                assert_eq!(
                    next.await,
                    Some(live.mark()),
                    "several changes are one piece of news"
                );
            }
            live.end();
            follower.ended().await;
            assert_eq!(follower.next().await, None);
        });
    }

    #[test]
    fn a_leaving_follower_frees_its_place() {
        let live = Arc::new(Live::new());
        let mut all: Vec<_> = (0..PLACES).map(|_| live.follow().unwrap()).collect();
        assert!(live.follow().is_none(), "no place is left");
        all.pop();
        assert!(live.follow().is_some());
    }
}

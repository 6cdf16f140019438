//! News for programs that embed the host.
//!
//! Invariant: the host never waits for a subscriber; an event that finds no room is counted and lost. Whatever
//! changes the status, there is news to receive afterwards.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
    mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
};

use hotmerge_meta::{Digest, PluginName};
use semver::Version;

use crate::record::events::{Happened, Outcome, PluginEvent};

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Something happened to a plugin.
    Plugin(Event),
    /// The status has changed in another way, by more than counts and measurements. Comes once for all such
    /// changes until it is received, and not if other news leaves no room: every news says that the status
    /// has changed.
    Status,
}

/// What happened to a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The plugin.
    pub plugin: PluginName,
    /// What happened.
    pub kind: EventKind,
    /// The version that it is about, if it is about one.
    pub version: Option<Version>,
    /// The hash of that version.
    pub hash: Option<Digest>,
    /// The generation that runs now, if an attempt ended.
    pub generation: Option<u64>,
    /// Why, in a sentence, if there is more to say.
    pub reason: Option<String>,
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The first version of a plugin went live.
    Loaded,
    /// A new version replaced the one that ran.
    Reloaded,
    /// A new version takes a share of the calls.
    Trying,
    /// A version was refused; what ran before still runs.
    Refused,
    /// The file changed, but not the code that runs.
    Unchanged,
    /// The plugin is gone from the directory and takes no more calls.
    Removed,
    /// The host stops, and the plugin takes no more calls.
    Stopped,
    /// The plugin crashed, or its panic was caught.
    Crashed,
    /// Another instance takes the calls after a crash.
    Recovered,
    /// It crashed too often, and the host gave it up.
    GivenUp,
}

/// News from the moment of the subscription on. Ends with the host; unsubscribes when dropped.
#[derive(Debug)]
pub struct Subscription {
    news: Receiver<News>,
    shared: Arc<Shared>,
}

impl Subscription {
    /// The next news, for which it waits; `None` once the host has stopped and all were received.
    pub fn next(&self) -> Option<News> {
        let news = self.news.recv().ok()?;
        if news == News::Status {
            // Before the caller looks at the status: a later change is news again.
            self.shared.is_status_told.store(false, Ordering::Release);
        }
        Some(news)
    }

    /// How many events found no room so far.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

/// What a subscription and its host both know.
#[derive(Debug, Default)]
struct Shared {
    /// Whether [`News::Status`] waits for the subscriber.
    is_status_told: AtomicBool,
    /// How many events found no room.
    lost: AtomicU64,
}

/// The subscribers of a host.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    all: Vec<(SyncSender<News>, Arc<Shared>)>,
    /// Whether there will be no more events.
    is_closed: bool,
}

impl Subscribers {
    /// Adds one that may lag behind by so many events.
    pub(crate) fn add(&mut self, waiting: usize) -> Subscription {
        // Without any room there would be news for those alone that wait for it.
        let (sender, news) = sync_channel(waiting.max(1));
        let shared = Arc::default();
        if !self.is_closed {
            self.all.push((sender, Arc::clone(&shared)));
        }
        Subscription { news, shared }
    }

    /// Ends all subscriptions.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        self.all.clear();
    }

    /// Notifies every subscriber of what happened, or at least that the status has changed.
    pub(crate) fn tell(&mut self, happened: &Happened) {
        if self.all.is_empty() {
            return;
        }
        let event = match happened {
            Happened::Plugin(plugin, event) => public(plugin, event),
            Happened::Host(_) => None,
        };
        match event {
            Some(event) => self.send(|sender, shared| {
                let sent = sender.try_send(News::Plugin(event.clone()));
                if matches!(sent, Err(TrySendError::Full(_))) {
                    shared.lost.fetch_add(1, Ordering::Relaxed);
                }
                is_there(&sent)
            }),
            None => self.tell_of_status(),
        }
    }

    /// Tells everybody that the status has changed. Who has unread news will look at it anyway.
    pub(crate) fn tell_of_status(&mut self) {
        self.send(|sender, shared| {
            if shared.is_status_told.swap(true, Ordering::AcqRel) {
                return true;
            }
            let sent = sender.try_send(News::Status);
            if sent.is_err() {
                shared.is_status_told.store(false, Ordering::Release);
            }
            is_there(&sent)
        });
    }

    /// Sends by a function that returns whether the subscriber is still there, and forgets those that are not.
    fn send(&mut self, send: impl Fn(&SyncSender<News>, &Shared) -> bool) {
        self.all.retain(|(sender, shared)| send(sender, shared));
    }
}

fn is_there(sent: &Result<(), TrySendError<News>>) -> bool {
    !matches!(sent, Err(TrySendError::Disconnected(_)))
}

fn public(plugin: &PluginName, event: &PluginEvent) -> Option<Event> {
    let (kind, reason) = match event {
        PluginEvent::Outcome(outcome, _, report) => {
            return Some(Event {
                plugin: plugin.clone(),
                kind: of_outcome(*outcome),
                version: report.version.clone(),
                hash: report.hash,
                generation: report.generation,
                reason: report.reason.clone(),
            });
        }
        PluginEvent::Crashed { failure, .. } => (EventKind::Crashed, Some(failure.to_string())),
        PluginEvent::Recovered { .. } => (EventKind::Recovered, None),
        PluginEvent::GivenUp { reason } => (EventKind::GivenUp, Some(reason.clone())),
        // Steps on the way, choices of operators and the end of versions that take no calls.
        PluginEvent::Transition(_)
        | PluginEvent::PanickedAgain(_)
        | PluginEvent::NotRestartedYet { .. }
        | PluginEvent::DiedWhileReplaced(_)
        | PluginEvent::NotGranted { .. }
        | PluginEvent::Revived
        | PluginEvent::Pinned { .. }
        | PluginEvent::Unpinned
        | PluginEvent::RollbackAsked { .. }
        | PluginEvent::Ending(_)
        | PluginEvent::StateNotSaved { .. }
        | PluginEvent::NotPersisted { .. }
        | PluginEvent::PersistedAgain
        | PluginEvent::RecordUnused { .. }
        | PluginEvent::RecordUnreadable { .. }
        | PluginEvent::Postponed { .. }
        | PluginEvent::CpusNotEnforced
        | PluginEvent::MemoryUnwatched { .. }
        | PluginEvent::ReplyDropped { .. }
        | PluginEvent::EndedEarly { .. }
        | PluginEvent::WatcherPanicked => return None,
    };
    Some(Event {
        plugin: plugin.clone(),
        kind,
        version: None,
        hash: None,
        generation: None,
        reason,
    })
}

fn of_outcome(outcome: Outcome) -> EventKind {
    match outcome {
        Outcome::Loaded => EventKind::Loaded,
        Outcome::Reloaded => EventKind::Reloaded,
        Outcome::TrialBegun => EventKind::Trying,
        Outcome::Refused => EventKind::Refused,
        Outcome::Unchanged => EventKind::Unchanged,
        Outcome::Removed => EventKind::Removed,
        Outcome::Stopped => EventKind::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::events::HostEvent;

    fn given_up() -> Happened {
        let reason = "too often".to_owned();
        let plugin = "one".parse().unwrap();
        Happened::Plugin(plugin, PluginEvent::GivenUp { reason })
    }

    fn kind(news: Option<News>) -> EventKind {
        match news {
            Some(News::Plugin(event)) => event.kind,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn events_beyond_the_room_are_counted() {
        let mut subscribers = Subscribers::default();
        let slow = subscribers.add(1);
        for _ in 0..3 {
            subscribers.tell(&given_up());
        }
        assert_eq!(kind(slow.next()), EventKind::GivenUp);
        assert_eq!(slow.lost(), 2);
        subscribers.close();
        assert_eq!(slow.next(), None);
        // There will be no event, so it does not wait for one.
        assert_eq!(subscribers.add(1).next(), None);
    }

    #[test]
    fn a_changed_status_is_told_once() {
        let mut subscribers = Subscribers::default();
        let slow = subscribers.add(3);
        let clock = || Happened::Host(HostEvent::ClockPanicked);
        subscribers.tell(&clock());
        subscribers.tell_of_status();
        subscribers.tell(&given_up());
        assert_eq!(slow.next(), Some(News::Status));
        // It may have looked at the status by now.
        subscribers.tell(&clock());
        subscribers.close();
        assert_eq!(kind(slow.next()), EventKind::GivenUp);
        assert_eq!(slow.next(), Some(News::Status));
        assert_eq!((slow.next(), slow.lost()), (None, 0));
    }

    #[test]
    fn a_changed_status_needs_no_room() {
        let mut subscribers = Subscribers::default();
        let full = subscribers.add(1);
        subscribers.tell(&given_up());
        subscribers.tell_of_status();
        assert_eq!(kind(full.next()), EventKind::GivenUp);
        subscribers.tell_of_status();
        subscribers.close();
        assert_eq!((full.next(), full.lost()), (Some(News::Status), 0));
    }

    #[test]
    fn dropped_subscriptions_are_forgotten() {
        let mut subscribers = Subscribers::default();
        drop(subscribers.add(1));
        subscribers.tell(&given_up());
        assert!(subscribers.all.is_empty());
    }
}

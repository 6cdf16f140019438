//! Events for programs that embed the host.
//!
//! Invariant: the host never waits for a subscriber; what finds no room is counted and lost.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
    mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
};

use hotmerge_meta::{Digest, PluginName};
use semver::Version;

use crate::record::events::{Outcome, PluginEvent};

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

/// Events from the moment of the subscription on. Ends with the host; unsubscribes when dropped.
#[derive(Debug)]
pub struct Subscription {
    events: Receiver<Event>,
    lost: Arc<AtomicU64>,
}

impl Subscription {
    /// The next event, for which it waits; `None` once the host has stopped and all were received.
    pub fn next(&self) -> Option<Event> {
        self.events.recv().ok()
    }

    /// How many events found no room so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// The subscribers of a host.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    all: Vec<(SyncSender<Event>, Arc<AtomicU64>)>,
    /// Whether there will be no more events.
    is_closed: bool,
}

impl Subscribers {
    /// Adds one that may lag behind by so many events.
    pub(crate) fn add(&mut self, waiting: usize) -> Subscription {
        let (sender, events) = sync_channel(waiting);
        let lost = Arc::default();
        if !self.is_closed {
            self.all.push((sender, Arc::clone(&lost)));
        }
        Subscription { events, lost }
    }

    /// Ends all subscriptions.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        self.all.clear();
    }

    /// Notifies every subscriber whom the event concerns.
    pub(crate) fn tell(&mut self, plugin: &PluginName, event: &PluginEvent) {
        if self.all.is_empty() {
            return;
        }
        if let Some(event) = public(plugin, event) {
            self.all
                .retain(|(sender, lost)| match sender.try_send(event.clone()) {
                    Ok(()) => true,
                    Err(TrySendError::Full(_)) => {
                        lost.fetch_add(1, Ordering::Relaxed);
                        true
                    }
                    Err(TrySendError::Disconnected(_)) => false,
                });
        }
    }
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

    fn given_up() -> PluginEvent {
        let reason = "too often".to_owned();
        PluginEvent::GivenUp { reason }
    }

    #[test]
    fn events_beyond_the_room_are_counted() {
        let mut subscribers = Subscribers::default();
        let slow = subscribers.add(1);
        let name: PluginName = "one".parse().unwrap();
        for _ in 0..3 {
            subscribers.tell(&name, &given_up());
        }
        assert_eq!(slow.next().unwrap().kind, EventKind::GivenUp);
        assert_eq!(slow.lost(), 2);
        subscribers.close();
        assert_eq!(slow.next(), None);
        // There will be no event, so it does not wait for one.
        assert_eq!(subscribers.add(1).next(), None);
    }

    #[test]
    fn dropped_subscriptions_are_forgotten() {
        let mut subscribers = Subscribers::default();
        drop(subscribers.add(1));
        subscribers.tell(&"one".parse().unwrap(), &given_up());
        assert!(subscribers.all.is_empty());
    }
}

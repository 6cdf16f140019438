//! Replies of other plugins that the host holds until their workers make room for them.
//!
//! Invariant: replies that wait take at most [`MOST_BYTES`] together, whatever workers do. Beyond that
//! the plugin that holds most loses the reply that has waited longest, so that a plugin that takes its
//! replies keeps them.
//!
//! Absent on purpose: the time limit, which every reply has on its own.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use hotmerge_meta::PluginName;

use super::process::{LARGEST_OUTGOING, MOST_OUTGOING};
use crate::upward::{Report, Upward};

/// The most memory of waiting replies, in bytes: what one worker can request at once.
const MOST_BYTES: usize = MOST_OUTGOING as usize * LARGEST_OUTGOING as usize;

/// Replies up to this size, in bytes, lie in the slot of their call.
const SMALL_BYTES: usize = 64 << 10;

/// The replies that wait for room in the memory of their workers.
#[derive(Debug, Default)]
pub(super) struct HeldReplies {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// By number, oldest first.
    waiting: BTreeMap<u64, Waiting>,
    numbers: u64,
    /// Replies that were given up so far.
    given_up: u64,
}

#[derive(Debug)]
struct Waiting {
    plugin: PluginName,
    /// Who is told if it is given up.
    upward: Arc<dyn Upward>,
    bytes: usize,
    is_given_up: Arc<AtomicBool>,
}

/// One waiting reply, until dropped.
#[derive(Debug)]
pub(super) struct Held<'a> {
    replies: &'a HeldReplies,
    number: u64,
    is_given_up: Arc<AtomicBool>,
}

impl HeldReplies {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many replies were given up so far.
    pub(super) fn given_up(&self) -> u64 {
        self.lock().given_up
    }

    /// Notes a reply to a plugin, which may cost that plugin or another one its oldest reply. A small
    /// reply never waits, and is not noted.
    pub(super) fn hold(
        &self,
        plugin: &PluginName,
        upward: &Arc<dyn Upward>,
        bytes: usize,
    ) -> Option<Held<'_>> {
        (bytes > SMALL_BYTES).then(|| self.note(plugin, upward, bytes))
    }

    fn note(&self, plugin: &PluginName, upward: &Arc<dyn Upward>, bytes: usize) -> Held<'_> {
        let is_given_up = Arc::new(AtomicBool::new(false));
        let mut table = self.lock();
        table.numbers += 1;
        let number = table.numbers;
        let waiting = Waiting {
            plugin: plugin.clone(),
            upward: Arc::clone(upward),
            bytes,
            is_given_up: Arc::clone(&is_given_up),
        };
        table.waiting.insert(number, waiting);
        let mut dropped = Vec::new();
        while table.bytes() > MOST_BYTES {
            dropped.extend(table.give_one_up());
        }
        // The callback may take longer than others can wait for the table.
        drop(table);
        for (reply, times) in dropped {
            if times.is_power_of_two() {
                let most_bytes = MOST_BYTES;
                reply
                    .upward
                    .report(Report::ReplyDropped { times, most_bytes });
            }
        }
        Held {
            replies: self,
            number,
            is_given_up,
        }
    }
}

impl Table {
    fn bytes(&self) -> usize {
        self.waiting.values().map(|it| it.bytes).sum()
    }

    /// Gives up the oldest reply of the plugin that holds most. Returns it, and how many were given up.
    fn give_one_up(&mut self) -> Option<(Waiting, u64)> {
        let mut sums: HashMap<&PluginName, usize> = HashMap::new();
        for reply in self.waiting.values() {
            *sums.entry(&reply.plugin).or_default() += reply.bytes;
        }
        let most = sums.into_iter().max_by_key(|(_, sum)| *sum);
        let oldest = most.and_then(|(plugin, _)| {
            let mut replies = self.waiting.iter();
            replies.find(|(_, reply)| reply.plugin == *plugin)
        });
        let number = oldest.map(|(number, _)| *number)?;
        let reply = self.waiting.remove(&number)?;
        reply.is_given_up.store(true, Ordering::Relaxed);
        self.given_up += 1;
        Some((reply, self.given_up))
    }
}

impl Held<'_> {
    /// Set when the reply must not wait any longer.
    pub(super) fn is_given_up(&self) -> &AtomicBool {
        &self.is_given_up
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.replies.lock().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests;

//! The records that wait for one sink.
//!
//! Invariants: a thread that logs never waits for the sink; waiting records are bounded in bytes, and a quarter of the
//! room is kept for records of the level `warn` and above, so that a flood of lesser ones displaces none of
//! them. Once the queue is closed, nothing is added.
//!
//! Absent on purpose: counting, and delivering.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hotmerge_meta::control::LogLevel;

use crate::record::{Record, Source};

/// The approximate size of a line without its text.
const OVERHEAD: usize = size_of::<Item>() + 32;

/// A record on its way to a sink.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) level: LogLevel,
    pub(super) source: Source,
    pub(super) body: Body,
}

/// In which form a record is delivered.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Record(Arc<Record>),
    /// Already written down.
    Line(Vec<u8>),
}

impl Item {
    pub(super) fn bytes(&self) -> usize {
        match &self.body {
            Body::Record(record) => record.bytes(),
            Body::Line(line) => OVERHEAD + line.len(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    room: usize,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    reopen: bool,
    /// The deadline for delivering the rest, once the queue is closed.
    closed: Option<Instant>,
    /// Whether delivery has ended.
    has_ended: bool,
}

/// What the delivering thread does next.
#[derive(Debug)]
pub(super) enum Next {
    Deliver(VecDeque<Item>),
    Reopen,
    End,
}

/// Why a pause ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    TimeIsOver,
    Reopen,
    /// The queue is closed, and the time for the rest is over.
    End,
}

impl Queue {
    /// A queue with room for so many bytes.
    pub(super) fn new(room: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            room,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item; returns whether there was room.
    pub(super) fn push(&self, item: Item) -> bool {
        let bytes = item.bytes();
        let room = match item.level >= LogLevel::Warn {
            true => self.room,
            false => self.room / 4 * 3,
        };
        let mut state = self.lock();
        if state.closed.is_some() || state.bytes + bytes > room {
            return false;
        }
        state.bytes += bytes;
        state.items.push_back(item);
        let is_first = state.items.len() == 1;
        drop(state);
        if is_first {
            self.changed.notify_all();
        }
        true
    }

    /// Waits for something to do, and takes everything that waits.
    pub(super) fn next(&self) -> Next {
        let mut state = self.lock();
        loop {
            if std::mem::take(&mut state.reopen) {
                return Next::Reopen;
            }
            if !state.items.is_empty() {
                state.bytes = 0;
                return Next::Deliver(std::mem::take(&mut state.items));
            }
            if state.closed.is_some() {
                return Next::End;
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits before another attempt.
    pub(super) fn pause(&self, time: Duration) -> Woken {
        let mut until = Instant::now() + time;
        let mut state = self.lock();
        loop {
            if std::mem::take(&mut state.reopen) {
                return Woken::Reopen;
            }
            let now = Instant::now();
            if let Some(end) = state.closed {
                if now >= end {
                    return Woken::End;
                }
                until = until.min(end);
            }
            let left = until.saturating_duration_since(now);
            if left.is_zero() {
                return Woken::TimeIsOver;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Makes the sink reopen, after the current delivery.
    pub(super) fn reopen(&self) {
        self.lock().reopen = true;
        self.changed.notify_all();
    }

    /// Takes nothing more. What waits may be delivered until then.
    pub(super) fn close(&self, until: Instant) {
        let mut state = self.lock();
        state.closed = Some(state.closed.map_or(until, |before| before.min(until)));
        drop(state);
        self.changed.notify_all();
    }

    /// How many items nobody has taken yet, which are given up.
    pub(super) fn give_up(&self) -> usize {
        std::mem::take(&mut self.lock().items).len()
    }

    /// Nobody delivers any more.
    pub(super) fn end(&self) {
        self.lock().has_ended = true;
        self.changed.notify_all();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().has_ended
    }

    /// Waits until nobody delivers any more, at most until then.
    pub(super) fn wait_end(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let still = |state: &mut State| !state.has_ended;
        let waited = self.changed.wait_timeout_while(self.lock(), left, still);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(level: LogLevel) -> Item {
        Item {
            level,
            source: Source::Host,
            body: Body::Line(vec![b'x'; 100]),
        }
    }

    fn taken(queue: &Queue) -> Vec<Item> {
        match queue.next() {
            Next::Deliver(items) => items.into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_queue_has_room_for_warnings() {
        let queue = Queue::new(40 * item(LogLevel::Info).bytes());
        let pushed = |level| (0..100).filter(|_| queue.push(item(level))).count();
        assert_eq!(pushed(LogLevel::Info), 30);
        assert_eq!(pushed(LogLevel::Warn), 10);
        assert_eq!(pushed(LogLevel::Error), 0);
        assert_eq!(taken(&queue).len(), 40);
        assert!(queue.push(item(LogLevel::Info)));
    }

    #[test]
    fn a_closed_queue_keeps_only_what_it_has() {
        let queue = Queue::new(1 << 20);
        assert!(queue.push(item(LogLevel::Info)));
        queue.close(Instant::now() + Duration::from_secs(60));
        assert!(!queue.push(item(LogLevel::Error)));
        assert_eq!(taken(&queue).len(), 1);
        assert!(matches!(queue.next(), Next::End));
    }

    #[test]
    fn a_pause_ends_early_for_orders_only() {
        let queue = Queue::new(1 << 20);
        let long = Duration::from_secs(600);
        queue.reopen();
        assert_eq!(queue.pause(long), Woken::Reopen);
        assert!(queue.push(item(LogLevel::Info)));
        assert_eq!(queue.pause(Duration::ZERO), Woken::TimeIsOver);
        queue.close(Instant::now());
        assert_eq!(queue.pause(long), Woken::End);
    }

    #[test]
    fn an_order_to_reopen_comes_before_records() {
        let queue = Queue::new(1 << 20);
        assert!(queue.push(item(LogLevel::Info)));
        queue.reopen();
        assert!(matches!(queue.next(), Next::Reopen));
        assert_eq!(taken(&queue).len(), 1);
    }
}

//! The calls of a plugin, counted and measured in the call's own path.
//!
//! Each thread counts in a lane of its own by plain loads and stores, so that no call waits for
//! another one or for memory that others write. Reading the clock twice would cost more than a
//! call in the host's process: after a call that was faster than [`FAST`], a random number of calls is
//! not measured, so that no rhythm of the callers hides among them, and the next measured one, a
//! sample, has a weight of itself and those.
//!
//! Invariant: every call that has begun is counted once when it ends; the weights of a
//! lane's samples add up to the number of its calls up to the last sample.
//!
//! Absent on purpose: methods, whose names are whatever callers send.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hotmerge_loader::CallError;
use hotmerge_meta::figures::Distribution;

use super::lane::{self, LANES, SHARED};
use crate::record::spread::{self, COUNTS};

/// Up to here a measurement may cost more than a twentieth of a call: reading the clock twice on a busy
/// virtual machine were measured to take 0.2 µs.
const FAST: Duration = Duration::from_micros(5);
/// The most calls in a row that are not measured.
const MOST_SKIPPED: u64 = 255;

/// How calls end without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    Refused,
    NoMethod,
    BadRequest,
    Deadline,
    Cancelled,
    Panicked,
    Unsupported,
    ReplyTooLarge,
    Crashed,
    Unavailable,
    NoPlugin,
    NotAcceptable,
    UnsupportedMedia,
    Other,
    NotLoaded,
    TooDeep,
}

impl Failed {
    const ALL: [(Self, &'static str); 16] = [
        (Self::Refused, "refused"),
        (Self::NoMethod, "no_method"),
        (Self::BadRequest, "bad_request"),
        (Self::Deadline, "deadline"),
        (Self::Cancelled, "cancelled"),
        (Self::Panicked, "panicked"),
        (Self::Unsupported, "unsupported"),
        (Self::ReplyTooLarge, "reply_too_large"),
        (Self::Crashed, "crashed"),
        (Self::Unavailable, "unavailable"),
        (Self::NoPlugin, "no_plugin"),
        (Self::NotAcceptable, "not_acceptable"),
        (Self::UnsupportedMedia, "unsupported_media"),
        (Self::Other, "other"),
        (Self::NotLoaded, "not_loaded"),
        (Self::TooDeep, "too_deep"),
    ];

    /// What an error of a plugin counts as.
    pub(super) fn of(error: &CallError) -> Self {
        match error {
            CallError::Failed(_) => Self::Refused,
            CallError::NoMethod(_) => Self::NoMethod,
            CallError::BadRequest(_) => Self::BadRequest,
            CallError::Deadline => Self::Deadline,
            CallError::Cancelled => Self::Cancelled,
            CallError::Panicked(_) => Self::Panicked,
            CallError::Unsupported => Self::Unsupported,
            CallError::ReplyTooLarge => Self::ReplyTooLarge,
            CallError::Crashed(_) => Self::Crashed,
            CallError::Unavailable(_) => Self::Unavailable,
            CallError::NoPlugin(_) => Self::NoPlugin,
            CallError::NotAcceptable(_) => Self::NotAcceptable,
            CallError::UnsupportedMedia(_) => Self::UnsupportedMedia,
            // The contract has no name for it, or this host is older than its loader.
            _ => Self::Other,
        }
    }
}

/// All calls of one plugin.
pub(crate) struct Calls {
    lanes: [OnceLock<Box<Lane>>; LANES + 1],
    failed: [AtomicU64; Failed::ALL.len()],
}

/// The calls of one thread. Aligned so that no other thread's stores share its cache lines.
#[repr(C, align(128))]
struct Lane {
    begun: AtomicU64,
    answered: AtomicU64,
    /// The number of the next call to measure, counted from 0.
    next_sample: AtomicU64,
    /// How many calls had begun with the last sample.
    last_sample: AtomicU64,
    sum_ns: AtomicU64,
    counts: [AtomicU64; COUNTS],
}

/// A call under way.
pub(super) struct UnderWay<'a> {
    lane: &'a Lane,
    is_shared: bool,
    /// `None` if it is not measured.
    sample: Option<Sample>,
}

/// A call that is measured.
struct Sample {
    since: Instant,
    /// How many calls it represents: itself and those before it that were not measured.
    weight: u64,
}

/// Adds to a counter, and returns what it was.
#[inline(always)]
fn add(counter: &AtomicU64, by: u64, is_shared: bool) -> u64 {
    if is_shared {
        return counter.fetch_add(by, Ordering::Relaxed);
    }
    let before = counter.load(Ordering::Relaxed);
    counter.store(before.wrapping_add(by), Ordering::Relaxed);
    before
}

impl Calls {
    pub(super) fn new() -> Self {
        Self {
            lanes: [const { OnceLock::new() }; LANES + 1],
            failed: [const { AtomicU64::new(0) }; Failed::ALL.len()],
        }
    }

    /// A call begins.
    #[inline(always)]
    pub(super) fn begin(&self) -> UnderWay<'_> {
        let number = lane::current();
        let lane = match self.lanes[number].get() {
            Some(lane) => lane,
            None => self.first(number),
        };
        let is_shared = number == SHARED;
        let begun = add(&lane.begun, 1, is_shared);
        let is_measured = begun >= lane.next_sample.load(Ordering::Relaxed);
        UnderWay {
            lane,
            is_shared,
            sample: is_measured.then(|| lane.begin_sample(begun)),
        }
    }

    #[cold]
    #[inline(never)]
    fn first(&self, number: usize) -> &Lane {
        self.lanes[number].get_or_init(|| Box::new(Lane::new()))
    }

    /// A call failed; it still has to end.
    #[cold]
    pub(super) fn fail(&self, how: Failed) {
        self.failed[how as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many calls failed in one way.
    pub(crate) fn failed_as(&self, how: Failed) -> u64 {
        self.failed[how as usize].load(Ordering::Relaxed)
    }

    /// How many calls failed; a caller's change of mind is not a failure.
    pub(crate) fn failed(&self) -> u64 {
        let all = Failed::ALL.iter();
        let counted = all.filter(|(how, _)| *how != Failed::Cancelled);
        counted.map(|(how, _)| self.failed_as(*how)).sum()
    }

    fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().filter_map(|lane| Some(&**lane.get()?))
    }

    fn sum(&self, counter: fn(&Lane) -> &AtomicU64) -> u64 {
        let counts = self
            .lanes()
            .map(|lane| counter(lane).load(Ordering::Relaxed));
        counts.fold(0, u64::wrapping_add)
    }

    /// Calls that have ended, by outcome.
    pub(crate) fn ended(&self) -> Vec<(&'static str, u64)> {
        let failed = Failed::ALL
            .iter()
            .map(|(how, name)| (*name, self.failed_as(*how)));
        let answered = ("answered", self.sum(|lane| &lane.answered));
        // Outcomes that never happened would fill pages.
        let failed = failed.filter(|(_, count)| *count > 0);
        std::iter::once(answered).chain(failed).collect()
    }

    /// Calls in progress.
    pub(crate) fn in_flight(&self) -> u64 {
        // In this order: none that began meanwhile may be missing from those that began.
        let ended = self.all_ended();
        let begun = self.sum(|lane| &lane.begun);
        begun.saturating_sub(ended)
    }

    /// How many calls have ended.
    pub(crate) fn all_ended(&self) -> u64 {
        let answered = self.sum(|lane| &lane.answered);
        let all = Failed::ALL.iter();
        let failed: u64 = all.map(|(how, _)| self.failed_as(*how)).sum();
        answered.wrapping_add(failed)
    }

    /// How long calls took.
    pub(crate) fn latency(&self) -> Distribution {
        let mut counts = [0_u64; COUNTS];
        for lane in self.lanes() {
            for (sum, count) in counts.iter_mut().zip(&lane.counts) {
                *sum = sum.wrapping_add(count.load(Ordering::Relaxed));
            }
        }
        spread::distribution(&counts, self.sum(|lane| &lane.sum_ns))
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.ended()).finish()
    }
}

impl Lane {
    fn new() -> Self {
        Self {
            begun: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            next_sample: AtomicU64::new(0),
            last_sample: AtomicU64::new(0),
            sum_ns: AtomicU64::new(0),
            counts: [const { AtomicU64::new(0) }; COUNTS],
        }
    }

    #[cold]
    #[inline(never)]
    fn begin_sample(&self, begun: u64) -> Sample {
        let begun = begun.wrapping_add(1);
        // Of two threads in the shared lane the later call may come here first.
        let last = self.last_sample.fetch_max(begun, Ordering::Relaxed);
        Sample {
            weight: begun.saturating_sub(last),
            since: Instant::now(),
        }
    }

    #[cold]
    #[inline(never)]
    fn end_sample(&self, Sample { since, weight }: Sample, is_shared: bool) {
        let took = since.elapsed();
        let ns = spread::ns(took);
        add(&self.counts[spread::index(ns)], weight, is_shared);
        add(&self.sum_ns, ns.saturating_mul(weight), is_shared);
        if took < FAST {
            let begun = self.begun.load(Ordering::Relaxed);
            let next = begun.wrapping_add(fastrand::u64(..=MOST_SKIPPED));
            self.next_sample.store(next, Ordering::Relaxed);
        }
    }
}

impl UnderWay<'_> {
    /// The call has returned, with a reply or without.
    #[inline(always)]
    pub(super) fn end(self, is_answered: bool) {
        if is_answered {
            add(&self.lane.answered, 1, self.is_shared);
        }
        if let Some(sample) = self.sample {
            self.lane.end_sample(sample, self.is_shared);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn every_way_to_fail_has_its_own_place() {
        for (place, (how, _)) in Failed::ALL.iter().enumerate() {
            assert_eq!(*how as usize, place);
        }
    }

    #[test]
    fn calls_of_all_threads_are_counted_exactly() {
        const EACH: u64 = 1_000;
        let calls = Calls::new();
        // More than there are lanes.
        thread::scope(|scope| {
            for _ in 0..LANES + 16 {
                scope.spawn(|| {
                    for number in 0..EACH {
                        let call = calls.begin();
                        let is_answered = number % 10 != 0;
                        if !is_answered {
                            calls.fail(Failed::Refused);
                        }
                        call.end(is_answered);
                    }
                });
            }
        });
        let all = (LANES as u64 + 16) * EACH;
        assert_eq!(
            calls.ended(),
            [("answered", all / 10 * 9), ("refused", all / 10)]
        );
        assert_eq!((calls.in_flight(), calls.failed()), (0, all / 10));
        let lanes = calls.lanes();
        let sampled = lanes.map(|lane| lane.last_sample.load(Ordering::Relaxed));
        assert_eq!(calls.latency().count(), sampled.sum::<u64>());
    }

    #[test]
    fn the_call_after_a_slow_one_is_measured() {
        let calls = Calls::new();
        for _ in 0..3 {
            let mut call = calls.begin();
            assert_eq!(calls.in_flight(), 1);
            let sample = call.sample.as_mut().expect("it is measured");
            // As if the call had begun earlier.
            sample.since -= FAST * 2;
            call.end(true);
        }
        let latency = calls.latency();
        assert_eq!(latency.count(), 3, "{latency:?}");
        assert!(latency.sum >= (FAST * 6).as_secs_f64(), "{latency:?}");
    }
}

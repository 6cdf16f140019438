//! The thread that delivers the records of one sink.
//!
//! Invariants: a record is delivered in the order in which it was logged, or counted as failed; a sink that
//! fails is tried again after pauses that grow, with jitter, and a record that fails for some time
//! makes room for the next ones. Only the first failure and the recovery are logged, so that a sink that gets
//! its own failures does not feed itself.
//!
//! Absent on purpose: how one kind of sink delivers.

use std::{collections::VecDeque, io, time::Duration};

use super::{
    queue::{Item, Next, Queue, Woken},
    tally::Tally,
};

/// The pause after the first failure; each one that follows is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause, without jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often a record may fail before it is given up.
const ATTEMPTS: u32 = 8;
/// The longest batch, so that the counts of a sink keep moving.
const BATCH: usize = 512;

/// The result of an attempt to deliver records.
#[derive(Debug)]
pub(super) struct Attempt {
    /// How many were delivered, from the first one on.
    pub(super) delivered: usize,
    /// Why the next one was not.
    pub(super) failure: Option<Failure>,
}

/// Why a record was not delivered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It never will be.
    #[error("a record was refused: {0}")]
    Record(io::Error),
    /// It may be later.
    #[error("{0}")]
    Sink(SinkError),
}

/// Why a sink does not work.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub(super) struct SinkError {
    /// What was tried, and with what.
    pub(super) what: String,
    /// What the system says.
    pub(super) source: io::Error,
}

impl Attempt {
    /// So many were delivered, and there was no failure.
    pub(super) fn done(delivered: usize) -> Self {
        Self {
            delivered,
            failure: None,
        }
    }

    pub(super) fn failed(delivered: usize, error: SinkError) -> Self {
        Self {
            delivered,
            failure: Some(Failure::Sink(error)),
        }
    }

    #[cfg_attr(
        not(any(feature = "log-journald", feature = "log-syslog")),
        expect(dead_code, reason = "other sinks take every record")
    )]
    pub(super) fn refused(delivered: usize, error: io::Error) -> Self {
        Self {
            delivered,
            failure: Some(Failure::Record(error)),
        }
    }
}

/// Delivers records.
pub(super) trait Deliver: Send {
    /// Tries to deliver these, in order. It may take long, because nobody waits for it.
    fn deliver(&mut self, items: &[Item]) -> Attempt;

    /// Reopens its destination.
    fn reopen(&mut self) {}
}

/// Delivers what the queue has until it is closed and empty, or its time is over.
pub(super) fn run(name: &str, queue: &Queue, tally: &Tally, mut sink: Box<dyn Deliver>) {
    let mut failures = 0;
    loop {
        let items = match queue.next() {
            Next::Deliver(items) => items,
            Next::Reopen => {
                sink.reopen();
                continue;
            }
            Next::End => break,
        };
        let mut delivery = Delivery {
            name,
            queue,
            tally,
            items,
        };
        if !delivery.carry_out(&mut *sink, &mut failures) {
            let left = delivery.items.len() + queue.give_up();
            tally.fail(left);
            break;
        }
    }
    queue.end();
}

struct Delivery<'a> {
    name: &'a str,
    queue: &'a Queue,
    tally: &'a Tally,
    items: VecDeque<Item>,
}

impl Delivery<'_> {
    /// Returns whether there is time to continue. `failures` counts those in a row.
    fn carry_out(&mut self, sink: &mut dyn Deliver, failures: &mut u32) -> bool {
        while !self.items.is_empty() {
            let batch = self.items.make_contiguous();
            let batch = batch.get(..BATCH).unwrap_or(batch);
            let attempt = sink.deliver(batch);
            self.items.drain(..attempt.delivered);
            self.tally.deliver(attempt.delivered);
            match attempt.failure {
                None => self.works(failures),
                Some(Failure::Record(error)) => {
                    self.works(failures);
                    self.items.pop_front();
                    self.tally.fail(1);
                    self.tally.note(&Failure::Record(error).to_string());
                }
                Some(Failure::Sink(error)) => {
                    if attempt.delivered > 0 {
                        *failures = 0;
                    }
                    if !self.fails(&error, sink, failures) {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn works(&self, failures: &mut u32) {
        if self.tally.works() {
            let failures = *failures;
            tracing::info!(target: "hotmerge::host", sink = self.name, failures, "the log sink works again");
        }
        *failures = 0;
    }

    /// Returns whether there is time to continue.
    fn fails(&mut self, error: &SinkError, sink: &mut dyn Deliver, failures: &mut u32) -> bool {
        *failures += 1;
        let reason = error.to_string();
        self.tally.note(&reason);
        if self.tally.fails() {
            tracing::warn!(
                target: "hotmerge::host", sink = self.name,
                "the log sink fails and is tried again; its records wait while there is room: {reason}"
            );
        }
        if failures.is_multiple_of(ATTEMPTS) {
            let given_up = self.items.len().min(BATCH);
            self.items.drain(..given_up);
            self.tally.fail(given_up);
        }
        match self.queue.pause(pause(*failures)) {
            Woken::TimeIsOver => true,
            Woken::Reopen => {
                sink.reopen();
                true
            }
            Woken::End => false,
        }
    }
}

/// How long to wait after so many failures in a row: a half to all of a time that doubles.
fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    doubled
        .min(LONGEST_PAUSE)
        .mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        thread,
        time::Instant,
    };

    use hotmerge_meta::control::LogLevel;

    use super::*;
    use crate::{record::Source, sinks::queue::Body};

    /// A sink with prepared answers that records what it received.
    #[derive(Default)]
    struct Told {
        answers: VecDeque<Answer>,
        took: Arc<Mutex<Vec<Vec<u8>>>>,
    }

    enum Answer {
        Refuse,
        FailAfter(usize),
    }

    fn broken() -> SinkError {
        SinkError {
            what: "failed to write".to_owned(),
            source: io::ErrorKind::StorageFull.into(),
        }
    }

    impl Deliver for Told {
        fn deliver(&mut self, items: &[Item]) -> Attempt {
            let answer = self.answers.pop_front();
            let take = match answer {
                None => items.len(),
                Some(Answer::Refuse) => 0,
                Some(Answer::FailAfter(delivered)) => delivered,
            };
            for item in &items[..take] {
                let Body::Line(line) = &item.body else {
                    panic!("{item:?}");
                };
                self.took.lock().unwrap().push(line.clone());
            }
            match answer {
                None => Attempt::done(take),
                Some(Answer::Refuse) => Attempt {
                    delivered: 0,
                    failure: Some(Failure::Record(io::ErrorKind::InvalidInput.into())),
                },
                Some(Answer::FailAfter(delivered)) => Attempt::failed(delivered, broken()),
            }
        }
    }

    fn queue_of(count: u8) -> (Queue, Tally) {
        let (queue, tally) = (Queue::new(1 << 20), Tally::default());
        for number in 0..count {
            tally.accept();
            assert!(queue.push(Item {
                level: LogLevel::Info,
                source: Source::Host,
                body: Body::Line(vec![number]),
            }));
        }
        (queue, tally)
    }

    /// What a sink with these answers took of so many records, and what was counted.
    fn delivered(count: u8, answers: Vec<Answer>, within: Duration) -> (Vec<u8>, Tally) {
        let (queue, tally) = queue_of(count);
        queue.close(Instant::now() + within);
        let sink = Told {
            answers: answers.into(),
            ..Told::default()
        };
        let took = Arc::clone(&sink.took);
        run("told", &queue, &tally, Box::new(sink));
        let took = took.lock().unwrap().concat();
        (took, tally)
    }

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn records_arrive_in_order_despite_failures() {
        let answers = vec![Answer::FailAfter(2), Answer::FailAfter(0)];
        let (took, tally) = delivered(5, answers, LONG);
        assert_eq!(took, [0, 1, 2, 3, 4]);
        let counts = tally.counts();
        assert_eq!((counts.delivered, counts.failed, counts.waiting), (5, 0, 0));
        assert!(!counts.is_failing);
        let reason = counts.last_error.unwrap().reason;
        assert!(reason.starts_with("failed to write: "), "{reason}");
    }

    #[test]
    fn a_refused_record_blocks_no_other() {
        let (took, tally) = delivered(3, vec![Answer::FailAfter(1), Answer::Refuse], LONG);
        assert_eq!(took, [0, 2]);
        let counts = tally.counts();
        assert_eq!((counts.delivered, counts.failed, counts.waiting), (2, 1, 0));
    }

    #[test]
    fn a_closed_failing_sink_ends_in_time() {
        let answers = (0..1000).map(|_| Answer::FailAfter(0)).collect();
        let (took, tally) = delivered(3, answers, Duration::from_millis(1));
        assert!(took.is_empty());
        let counts = tally.counts();
        assert_eq!((counts.delivered, counts.failed, counts.waiting), (0, 3, 0));
    }

    #[test]
    fn records_tried_in_vain_make_room() {
        let (queue, tally) = queue_of(3);
        let answers = (0..ATTEMPTS - 1).map(|_| Answer::FailAfter(0)).collect();
        let mut sink = Told {
            answers,
            ..Told::default()
        };
        let Next::Deliver(items) = queue.next() else {
            panic!("there are records");
        };
        let mut delivery = Delivery {
            name: "told",
            queue: &queue,
            tally: &tally,
            items,
        };
        // Each order to reopen ends a pause.
        let mut failures = ATTEMPTS - 1;
        queue.reopen();
        assert!(delivery.fails(&broken(), &mut sink, &mut failures));
        assert!(delivery.items.is_empty());
        assert_eq!(tally.counts().failed, 3);
    }

    #[test]
    fn pauses_grow_and_differ() {
        for (failures, most) in [
            (1, 100),
            (2, 200),
            (3, 400),
            (30, 10_000),
            (u32::MAX, 10_000),
        ] {
            let most = Duration::from_millis(most);
            for _ in 0..100 {
                let pause = pause(failures);
                assert!(pause >= most / 2 && pause <= most, "{failures}: {pause:?}");
            }
        }
        let differ: std::collections::BTreeSet<_> = (0..100).map(|_| pause(30)).collect();
        assert!(differ.len() > 50);
    }

    #[test]
    fn an_order_to_reopen_reaches_the_sink() {
        struct Reopened(Arc<Mutex<u32>>);
        impl Deliver for Reopened {
            fn deliver(&mut self, items: &[Item]) -> Attempt {
                Attempt::done(items.len())
            }
            fn reopen(&mut self) {
                *self.0.lock().unwrap() += 1;
            }
        }
        let (queue, tally) = queue_of(1);
        let count = Arc::default();
        queue.reopen();
        thread::scope(|scope| {
            let sink = Box::new(Reopened(Arc::clone(&count)));
            scope.spawn(|| run("reopened", &queue, &tally, sink));
            queue.close(Instant::now() + LONG);
            queue.wait_end(Instant::now() + LONG);
        });
        assert_eq!(*count.lock().unwrap(), 1);
    }
}

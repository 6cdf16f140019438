//! The sinks of the log, and the way of each record to them.
//!
//! Invariants: a record costs the thread that logs it one check of the routes and a place in a queue per sink, and never
//! waits; each sink has a queue and a thread of its own, so that none delays another. Other settings take
//! effect at once for all sinks and routes together; a sink whose settings stay the same continues, and one with
//! the same name keeps its counts.
//!
//! Absent on purpose: reading the settings, and reporting on standard error what was left at the end.

mod delivery;
#[cfg(feature = "log-file")]
mod file;
#[cfg(feature = "log-journald")]
mod journald;
mod queue;
mod settings;
mod stderr;
#[cfg(feature = "log-syslog")]
mod syslog;
mod tally;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use hotmerge_meta::control::{LogLevel, LogSinkStatus};

use self::{
    delivery::{Attempt, Deliver, SinkError},
    queue::{Body, Item, Queue},
    tally::Tally,
};
use crate::{
    record::{Record, Source},
    routes::Route,
};
pub use settings::{FileSettings, Kind, Plan, SinkSettings, SyslogAddress};

/// How long a replaced or removed sink may take to deliver its waiting records.
const LINGER: Duration = Duration::from_secs(10);

/// One sink that runs.
#[derive(Debug)]
struct Sink {
    settings: SinkSettings,
    queue: Arc<Queue>,
    tally: Arc<Tally>,
}

/// The routes and sinks in force.
#[derive(Debug, Default)]
struct Table {
    sinks: Vec<Arc<Sink>>,
    /// Each route, and the places of its sinks.
    routes: Vec<(Route, Vec<usize>)>,
    /// The place of the sink that takes lines.
    stderr: Option<usize>,
}

/// Takes records to their sinks.
#[derive(Debug, Default)]
pub struct Router {
    table: RwLock<Arc<Table>>,
    /// The sinks that were replaced or removed and have something left. Held while another table is made.
    gone: Mutex<Vec<Arc<Sink>>>,
}

/// A sink that has not delivered everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its name.
    pub sink: String,
    /// How many records waited for it in the end.
    pub records: u64,
}

impl Sink {
    /// Starts a sink; one that replaces another begins after it has ended, so that they do not write concurrently.
    fn start(settings: SinkSettings, before: Option<&Arc<Self>>) -> Self {
        let tally = before.map(|it| Arc::clone(&it.tally)).unwrap_or_default();
        let before = before.map(|it| Arc::clone(&it.queue));
        let queue = Arc::new(Queue::new(settings.queue_bytes));
        let name = settings.name.clone();
        let sink = deliverer(&settings.kind);
        let run = {
            let (queue, tally) = (Arc::clone(&queue), Arc::clone(&tally));
            move || {
                if let Some(before) = before {
                    before.wait_end(Instant::now() + LINGER);
                }
                delivery::run(&name, &queue, &tally, sink);
            }
        };
        let thread = thread::Builder::new().name(format!("log {}", settings.name));
        if let Err(error) = thread.spawn(run) {
            // New records count as dropped.
            queue.close(Instant::now());
            queue.end();
            tally.fails();
            tally.note(&format!("failed to start a thread: {error}"));
        }
        Self {
            settings,
            queue,
            tally,
        }
    }

    fn push(&self, item: Item) {
        let source = item.source;
        // First, or it might be delivered before it was accepted.
        self.tally.accept();
        if !self.queue.push(item) {
            self.tally.drop_accepted(source);
        }
    }

    fn status(&self) -> LogSinkStatus {
        let counts = self.tally.counts();
        LogSinkStatus {
            name: self.settings.name.clone(),
            kind: self.settings.kind.name().to_owned(),
            delivered: counts.delivered,
            waiting: counts.waiting,
            failed: counts.failed,
            dropped: counts.dropped,
            failing: counts.is_failing,
            last_error: counts.last_error,
        }
    }
}

/// Replaces a kind of sink that this program was built without.
struct NotBuilt(&'static str);

impl Deliver for NotBuilt {
    fn deliver(&mut self, _: &[Item]) -> Attempt {
        let what = format!("this program was built without the feature `{}`", self.0);
        let source = io::ErrorKind::Unsupported.into();
        Attempt::failed(0, SinkError { what, source })
    }
}

fn deliverer(kind: &Kind) -> Box<dyn Deliver> {
    match kind {
        Kind::Stderr => Box::new(stderr::Stderr),
        #[cfg(feature = "log-file")]
        Kind::File(settings) => Box::new(file::File::new(settings.clone())),
        #[cfg(feature = "log-journald")]
        Kind::Journald { socket } => Box::new(journald::Journald::new(socket.clone())),
        #[cfg(feature = "log-syslog")]
        Kind::Syslog { address, facility } => {
            Box::new(syslog::Syslog::new(address.clone(), *facility))
        }
        #[allow(unreachable_patterns, reason = "with all features there is no other")]
        other => Box::new(NotBuilt(other.missing_feature().unwrap_or_default())),
    }
}

impl Router {
    /// Starts the sinks of a plan.
    pub fn start(plan: Plan) -> Arc<Self> {
        let router = Arc::<Self>::default();
        router.apply(plan);
        router
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other routes and sinks in force. A sink with the same settings continues and is reopened; the
    /// others get some seconds to deliver their waiting records.
    pub fn apply(&self, plan: Plan) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.retain(|it| !it.queue.has_ended());
        let before = self.table();
        let sinks: Vec<_> = plan
            .sinks
            .into_iter()
            .map(|settings| continued(&before, settings))
            .collect();
        let place = |name: &String| sinks.iter().position(|it| it.settings.name == *name);
        let routes = plan.routes.into_iter();
        let routes = routes.map(|route| {
            let places = route.to.iter().filter_map(place).collect();
            (route, places)
        });
        let after = Table {
            routes: routes.collect(),
            stderr: sinks.iter().position(|it| it.settings.kind == Kind::Stderr),
            sinks,
        };
        let kept = |sink: &Arc<Sink>| after.sinks.iter().any(|it| Arc::ptr_eq(it, sink));
        let replaced: Vec<_> = before
            .sinks
            .iter()
            .filter(|it| !kept(it))
            .cloned()
            .collect();
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(after);
        for sink in replaced {
            sink.queue.close(Instant::now() + LINGER);
            gone.push(sink);
        }
    }

    /// Makes every sink reopen its destination.
    pub fn reopen(&self) {
        for sink in &self.table().sinks {
            sink.queue.reopen();
        }
    }

    /// Takes a record to its sinks; returns whether its line is to be given to [`Router::line`].
    pub(crate) fn take(&self, record: &Arc<Record>) -> bool {
        // Held, so that no sink is closed in between.
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut taken = vec![false; table.sinks.len()];
        for (route, places) in &table.routes {
            if route.matches(record) {
                places.iter().for_each(|place| taken[*place] = true);
            }
        }
        for (place, sink) in table.sinks.iter().enumerate() {
            if taken[place] && Some(place) != table.stderr {
                sink.push(Item {
                    level: record.level,
                    source: record.source(),
                    body: Body::Record(Arc::clone(record)),
                });
            }
        }
        table.stderr.is_some_and(|place| taken[place])
    }

    /// Sends a line to standard error.
    pub(crate) fn line(&self, level: LogLevel, source: Source, line: &[u8]) {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(sink) = table.stderr.and_then(|place| table.sinks.get(place)) {
            sink.push(Item {
                level,
                source,
                body: Body::Line(line.to_vec()),
            });
        }
    }

    /// The state of each sink.
    pub fn status(&self) -> Vec<LogSinkStatus> {
        self.table().sinks.iter().map(|it| it.status()).collect()
    }

    /// Accepts no more records, and gives the sinks this time to deliver waiting ones; returns those that did not
    /// deliver it. One that hangs ends with the process.
    pub fn close(&self, time: Duration) -> Vec<Left> {
        let until = Instant::now() + time;
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table();
        let is_new =
            |tally: &Arc<Tally>| !table.sinks.iter().any(|it| Arc::ptr_eq(&it.tally, tally));
        // Replacements count what their predecessors left.
        let gone = gone.iter().filter(|it| is_new(&it.tally));
        let sinks: Vec<_> = table.sinks.iter().chain(gone).collect();
        for sink in &sinks {
            sink.queue.close(until);
        }
        let failed: Vec<_> = sinks.iter().map(|it| it.tally.counts().failed).collect();
        let left = sinks.into_iter().zip(failed).map(|(sink, failed)| {
            sink.queue.wait_end(until);
            let counts = sink.tally.counts();
            Left {
                sink: sink.settings.name.clone(),
                records: counts.waiting + (counts.failed - failed),
            }
        });
        left.filter(|it| it.records > 0).collect()
    }
}

/// The sink that continues with these settings, or a new one.
fn continued(before: &Table, settings: SinkSettings) -> Arc<Sink> {
    let same = before
        .sinks
        .iter()
        .find(|it| it.settings.name == settings.name);
    match same {
        Some(sink) if sink.settings == settings => {
            sink.queue.reopen();
            Arc::clone(sink)
        }
        other => Arc::new(Sink::start(settings, other)),
    }
}

#[cfg(test)]
mod tests;

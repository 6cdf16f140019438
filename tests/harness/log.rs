//! A host's log: read as it is written, waited on, shown when a test fails.

use std::{
    fmt,
    io::{BufRead, BufReader, Read},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use serde_json::Value;

use crate::SOON;

/// How many records are shown when a test fails.
const SHOWN: usize = 50;

/// The records of one host, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<Value>,
    ended: bool,
}

impl Log {
    /// Reads JSON lines until the writer closes the pipe.
    pub(crate) fn read(pipe: impl Read + Send + 'static) -> Self {
        let log = Self::default();
        let writer = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                // Lines that are not records come from outside the log, such as a final message.
                let record = serde_json::from_str(&line)
                    .unwrap_or_else(|_| serde_json::json!({ "message": line }));
                writer.lock().records.push(record);
                writer.0.grown.notify_all();
            }
            writer.lock().ended = true;
            writer.0.grown.notify_all();
        });
        log
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.lock().records.len()
    }

    /// Whether nothing was logged yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for a record that `is` it, from the `from`th on.
    ///
    /// # Panics
    /// If it does not come in time, or cannot come any more.
    #[track_caller]
    pub fn wait_from(&self, from: usize, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        let mut state = self.lock();
        let mut seen = from;
        loop {
            if let Some(found) = state.records.iter().skip(seen).find(|record| is(record)) {
                return found.clone();
            }
            seen = state.records.len().max(from);
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                drop(state);
                panic!("the host did not log: {what}\n{self}");
            }
            let waited = self.0.grown.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for a message with this text in it, from the beginning.
    ///
    /// # Panics
    /// As [`Log::wait_from`].
    #[track_caller]
    pub fn wait(&self, text: &str) -> Value {
        self.wait_from(0, text, |record| message(record).contains(text))
    }

    /// Waits until the writer has closed the pipe and everything was read.
    ///
    /// # Panics
    /// If it keeps it open.
    #[track_caller]
    pub fn wait_end(&self) {
        let waited = self
            .0
            .grown
            .wait_timeout_while(self.lock(), SOON, |state| !state.ended);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(state.ended, "somebody keeps the host's log open");
    }

    /// All records so far.
    pub fn records(&self) -> Vec<Value> {
        self.lock().records.clone()
    }

    /// All messages so far.
    pub fn messages(&self) -> Vec<String> {
        let state = self.lock();
        let records = state.records.iter();
        records.map(|record| message(record).to_owned()).collect()
    }

    /// How many messages have this text in them.
    pub fn count(&self, text: &str) -> usize {
        let state = self.lock();
        let records = state.records.iter();
        records
            .filter(|record| message(record).contains(text))
            .count()
    }
}

fn message(record: &Value) -> &str {
    record["message"].as_str().unwrap_or_default()
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let skipped = state.records.len().saturating_sub(SHOWN);
        writeln!(f, "--- log of the host, after {skipped} records")?;
        for record in &state.records[skipped..] {
            writeln!(f, "{record}")?;
        }
        Ok(())
    }
}

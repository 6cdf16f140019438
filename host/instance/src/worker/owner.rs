//! The owner of a worker: waits for its first process, and ends it.

use std::{
    sync::{Arc, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use hotmerge_loader::{CallError, LoadError, Reply, Verified};
use hotmerge_meta::PluginMeta;
use hotmerge_wire::op;

use crate::{
    cancel::Cancelled,
    settings::StartWith,
    upward::{Report, Upward},
    worker::{
        calls::Worker,
        error::End,
        exchange::REASON_LIMIT,
        machine::{Availability, EXIT},
        shared::Workers,
    },
};

/// The one owner of a worker. Ends it when dropped.
#[derive(Debug)]
pub struct WorkerOwner {
    worker: Arc<Worker>,
    thread: Option<JoinHandle<()>>,
}

impl std::ops::Deref for WorkerOwner {
    type Target = Arc<Worker>;

    fn deref(&self) -> &Arc<Worker> {
        &self.worker
    }
}

impl WorkerOwner {
    /// Starts a worker with verified bytes and the libraries of the C runtime that they need, and
    /// waits until it takes calls.
    ///
    /// # Errors
    /// If the sandbox, the loader or the plugin refuses.
    pub fn start(
        workers: &Arc<Workers>,
        upward: Arc<dyn Upward>,
        meta: &Arc<PluginMeta>,
        image: Verified,
        libraries: Vec<String>,
        with: &StartWith<'_>,
    ) -> Result<Self, LoadError> {
        let plugin = &meta.name;
        let refused = |reason: String| LoadError::Refused(reason);
        let worker = Worker::new(workers, upward, meta, image, libraries, with)
            .map_err(|error| refused(error.to_string()))?;
        let thread = {
            let worker = Arc::clone(&worker);
            // Part of the attempt that starts it.
            let span = tracing::debug_span!(target: "hotmerge::worker", "worker", %plugin);
            thread::Builder::new()
                .name(format!("worker {plugin}"))
                .spawn(move || span.in_scope(|| worker.run()))
                .map_err(|error| refused(format!("failed to start a thread: {error}")))?
        };
        let owner = Self {
            worker,
            thread: Some(thread),
        };
        let started = with
            .break_off
            .wait_in(owner.broken_off(), || owner.await_start());
        match started {
            Ok(Availability::Ended(End::NotLaunched(reason))) => Err(LoadError::NoProcess(reason)),
            Ok(Availability::Ended(end)) => Err(refused(end.to_string())),
            Ok(_) => Ok(owner),
            Err(Cancelled) => Err(refused(End::Asked.to_string())),
        }
    }

    /// Waits until the first process has started or ended.
    fn await_start(&self) -> Availability {
        let mut state = self.state();
        while state.availability == Availability::Starting {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.availability.clone()
    }

    /// Lets the plugin end its work, then ends its process.
    pub fn end(mut self, limit: Duration) -> Result<(), Box<CallError>> {
        self.state().ending = true;
        let live = self
            .live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(link) = &live {
            link.expect_end();
        }
        let limit_ns = u64::try_from(limit.as_nanos())
            .unwrap_or(u64::MAX)
            .to_le_bytes();
        let mut reply = Reply::with_limit(REASON_LIMIT);
        let farewell = match self.ask(op::TEARDOWN, "", &limit_ns, limit, &mut reply) {
            // There is nothing left to tear down.
            Err(error) if matches!(*error, CallError::Unavailable(_)) => Ok(()),
            other => other,
        };
        match (&farewell, &live) {
            (Ok(()), _) => _ = self.ask(op::EXIT, "", &[], EXIT, &mut reply),
            // Nobody has asked it to exit, so there is nothing to wait for.
            (Err(_), Some(link)) => self.order_kill(link, "was ended".to_owned()),
            (Err(_), None) => {}
        }
        self.close();
        farewell
    }

    fn close(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.upward.report(Report::WatcherPanicked);
        }
    }
}

impl Drop for WorkerOwner {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests;

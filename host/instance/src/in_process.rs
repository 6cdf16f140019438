//! A plugin in the host's own process.
//!
//! A panic is caught in the plugin itself. What it left half done is unknown: the instance runs
//! only until another one replaces it, and is never asked for its state again.

use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hotmerge_loader::{CallError, Instance, LoadError, Remains, Reply, Verified};
use hotmerge_meta::PluginMeta;

use crate::{
    call::Call,
    checkpoint::{Checkpoint, STATE_LIMIT},
    failure::Failure,
    upward::{Report, Upward},
};

/// A plugin in the host's own process.
#[derive(Debug)]
pub struct InProcess {
    instance: Instance,
    upward: Arc<dyn Upward>,
    version: String,
    /// The state that it was saved with last.
    pub checkpoint: Checkpoint,
    /// Whether a panic of it was caught.
    panicked: AtomicBool,
    /// Whether the host was informed and replaces it.
    is_reported: AtomicBool,
    /// Why it takes no calls any more.
    given_up: Mutex<Option<String>>,
}

impl InProcess {
    /// Loads and starts verified bytes, and asks the instance to check itself.
    ///
    /// # Errors
    /// If the loader or the plugin refuses.
    pub fn start(
        upward: Arc<dyn Upward>,
        meta: &PluginMeta,
        verified: Verified,
        config: &str,
    ) -> Result<Self, LoadError> {
        let version = meta.version.to_string();
        let instance = Instance::start(verified, config, Arc::clone(&upward) as _)?;
        match instance.self_check() {
            Ok(()) => Ok(Self {
                instance,
                upward,
                version,
                checkpoint: Checkpoint::default(),
                panicked: AtomicBool::new(false),
                is_reported: AtomicBool::new(false),
                given_up: Mutex::default(),
            }),
            Err(error) => {
                instance.destroy().unload();
                Err(LoadError::Refused(format!("self-check failed: {error}")))
            }
        }
    }

    /// Calls a method. `reply` belongs to the caller.
    ///
    /// # Errors
    /// What the plugin answered instead of a reply.
    #[inline]
    pub fn call(&self, call: &Call<'_>, reply: &mut Reply) -> Result<(), Box<CallError>> {
        if self.checkpoint.is_unnoted() {
            self.note_call()?;
        }
        if call.describes {
            return self.instance.describe(reply);
        }
        let (method, request) = (call.method, call.request);
        self.instance
            .call(call.context, method, request, call.media, reply)
    }

    #[cold]
    fn note_call(&self) -> Result<(), Box<CallError>> {
        // In this order, because it may be given up concurrently.
        let is_first = self.checkpoint.note_call();
        if let Some(reason) = self.given_up() {
            self.checkpoint.forget_calls();
            return Err(Box::new(CallError::Unavailable(reason)));
        }
        if is_first {
            self.upward.report(Report::FirstCallSinceSave);
        }
        Ok(())
    }

    /// A panic was caught in a call.
    #[cold]
    pub fn caught(&self, failure: Failure) {
        self.panicked.store(true, Ordering::Relaxed);
        if self.is_reported.swap(true, Ordering::Relaxed) {
            self.upward.report(Report::PanickedAgain { failure });
        } else {
            let state_age = self.checkpoint.age();
            self.upward.report(Report::Panicked { failure, state_age });
        }
    }

    /// The host could not replace it; the next panic is reported again.
    pub fn report_again(&self) {
        self.is_reported.store(false, Ordering::Relaxed);
    }

    /// Whether a panic of it was caught.
    pub fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Relaxed)
    }

    /// Lets it take no calls any more.
    pub fn give_up(&self, reason: String) {
        *self.given_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        self.checkpoint.forget_calls();
    }

    /// Why it takes no calls any more, if so.
    pub fn given_up(&self) -> Option<String> {
        let given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        given_up.clone()
    }

    /// Saves its state, or hands out the last good one; returns the version that saved it.
    pub fn save(&self, state: &mut Reply) -> Result<String, Box<CallError>> {
        if self.has_panicked() {
            return self.checkpoint.hand_out(state);
        }
        self.instance.save(state)?;
        self.checkpoint.remember(&self.version, state.bytes());
        Ok(self.version.clone())
    }

    /// Saves its state for the case of a crash.
    pub fn refresh(&self) -> Result<(), Box<CallError>> {
        if self.has_panicked() {
            return Ok(());
        }
        let mut state = Reply::with_limit(STATE_LIMIT);
        self.checkpoint.refresh(|| self.save(&mut state).map(drop))
    }

    /// Hands over the state that version `from` saved.
    pub fn restore(&self, from: &str, state: &[u8]) -> Result<(), Box<CallError>> {
        self.instance.restore(from, state)?;
        self.checkpoint.remember(from, state);
        Ok(())
    }

    /// The verified bytes that it runs, as a file to read from offset 0.
    pub fn image(&self) -> io::Result<File> {
        self.instance.image()
    }

    /// Where its table lies in the host's memory.
    pub fn address(&self) -> usize {
        self.instance.address()
    }

    /// Lets the plugin end its work, then takes it apart.
    pub fn end(self, limit: Duration) -> (Result<(), Box<CallError>>, Remains) {
        let farewell = self.instance.teardown(limit);
        (farewell, self.instance.destroy())
    }
}

//! A plugin in the host's own process.
//!
//! A panic is caught in the plugin itself. What it left half done nobody knows: the instance goes
//! on only until another one takes its place, and is not asked for its state any more.

use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hotmerge_abi::CallContext;
use hotmerge_loader::{CallError, Instance, LoadError, Remains, Reply, Verified};

use crate::{
    failure::{self, Failure},
    health::Reporter,
    instance::Services,
    last_state::LastState,
};

/// A plugin in the host's own process.
#[derive(Debug)]
pub(crate) struct Hosted {
    instance: Instance,
    reporter: Reporter,
    version: String,
    pub(crate) state: LastState,
    /// Whether a panic of it was caught.
    panicked: AtomicBool,
    /// Whether the host was told of that and sees to it.
    told: AtomicBool,
    /// Why it takes no calls any more.
    given_up: Mutex<Option<String>>,
}

impl Hosted {
    pub(crate) fn start(
        services: Services,
        verified: Verified,
        config: &str,
    ) -> Result<Self, LoadError> {
        let reporter = services.reporter().clone();
        let version = services.meta().version.to_string();
        let instance = Instance::start(verified, config, Arc::new(services))?;
        match instance.self_check() {
            Ok(()) => Ok(Self {
                instance,
                reporter,
                version,
                state: LastState::default(),
                panicked: AtomicBool::new(false),
                told: AtomicBool::new(false),
                given_up: Mutex::default(),
            }),
            Err(error) => {
                instance.destroy().unload();
                Err(LoadError::Refused(format!("self-check failed: {error}")))
            }
        }
    }

    #[inline]
    pub(crate) fn call(
        &self,
        context: &CallContext,
        method: &str,
        request: &[u8],
        reply: &mut Reply,
    ) -> Result<(), Box<CallError>> {
        if self.state.is_unnoted() {
            self.note_call()?;
        }
        self.instance.call(context, method, request, reply)
    }

    #[cold]
    fn note_call(&self) -> Result<(), Box<CallError>> {
        // In this order: it may be given up at this moment.
        let is_first = self.state.note_call();
        if let Some(reason) = self.given_up() {
            self.state.forget_calls();
            return Err(Box::new(CallError::Unavailable(reason)));
        }
        if is_first {
            self.reporter.called();
        }
        Ok(())
    }

    /// A panic was caught in a call.
    #[cold]
    pub(crate) fn caught(&self, failure: Failure) {
        self.panicked.store(true, Ordering::Relaxed);
        if self.told.swap(true, Ordering::Relaxed) {
            // It is being replaced already.
            failure::log(self.reporter.plugin(), &failure, &[]);
        } else {
            self.reporter.caught(failure, self.state.last());
        }
    }

    /// The host could not replace it; the next panic is to be told again.
    pub(crate) fn tell_again(&self) {
        self.told.store(false, Ordering::Relaxed);
    }

    /// Whether a panic of it was caught.
    pub(crate) fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Relaxed)
    }

    /// Lets it take no calls any more.
    pub(crate) fn give_up(&self, reason: String) {
        *self.given_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        self.state.forget_calls();
    }

    /// Why it takes no calls any more, if so.
    pub(crate) fn given_up(&self) -> Option<String> {
        let given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        given_up.clone()
    }

    /// Saves its state, or hands out the last good one; returns the version that saved it.
    pub(crate) fn save(&self, state: &mut Reply) -> Result<String, Box<CallError>> {
        if self.has_panicked() {
            return self.state.hand_out(state);
        }
        self.instance.save(state)?;
        self.state.remember(&self.version, state.bytes());
        Ok(self.version.clone())
    }

    /// Saves its state for the case of a crash.
    pub(crate) fn refresh(&self) -> Result<(), Box<CallError>> {
        if self.has_panicked() {
            return Ok(());
        }
        let mut state = Reply::default();
        self.state.refresh(|| self.save(&mut state).map(drop))
    }

    /// Hands over the state that version `from` saved.
    pub(crate) fn restore(&self, from: &str, state: &[u8]) -> Result<(), Box<CallError>> {
        self.instance.restore(from, state)?;
        self.state.remember(from, state);
        Ok(())
    }

    pub(crate) fn image(&self) -> io::Result<File> {
        self.instance.image()
    }

    pub(crate) fn address(&self) -> usize {
        self.instance.address()
    }

    pub(crate) fn end(self, limit: Duration) -> (Result<(), Box<CallError>>, Remains) {
        let farewell = self.instance.teardown(limit);
        (farewell, self.instance.destroy())
    }
}

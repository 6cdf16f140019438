//! The last state that an instance saved, for the one that takes its place after a crash.
//!
//! Invariant: saving is driven by calls. The first call after a save asks for the next one, some
//! time later; an instance that is not called, or has no state, is never asked.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hotmerge_loader::{CallError, Reply};
use hotmerge_meta::control::SavedStatus;
use jiff::Timestamp;

/// Largest state, in bytes: so much of a state can also be handed over, together with the version
/// that saved it, through the memory that is shared with a worker.
pub const STATE_LIMIT: usize = (64 << 20) - hotmerge_wire::METHOD_LIMIT;

/// A state that was saved.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The version that saved it.
    pub from: String,
    pub bytes: Vec<u8>,
    at: Instant,
    time: Timestamp,
}

/// The last state of one instance.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// Whether there is nothing to do at a call.
    noted: AtomicBool,
    saving: AtomicBool,
    saved: Mutex<Option<Saved>>,
}

impl Checkpoint {
    /// Whether this is the first call since the last save. Costs one load at all other calls.
    #[inline(always)]
    pub fn is_unnoted(&self) -> bool {
        !self.noted.load(Ordering::Relaxed)
    }

    /// Notes a call. Returns whether no other was noted since the last save.
    #[cold]
    pub fn note_call(&self) -> bool {
        !self.noted.swap(true, Ordering::Relaxed)
    }

    /// Lets no further call be noted.
    pub fn forget_calls(&self) {
        self.noted.store(false, Ordering::Relaxed);
    }

    /// Remembers a state.
    pub fn remember(&self, from: &str, bytes: &[u8]) {
        let saved = Saved {
            from: from.to_owned(),
            bytes: bytes.to_vec(),
            at: Instant::now(),
            time: Timestamp::now(),
        };
        *self.lock() = Some(saved);
    }

    /// Forgets it: it was not taken over, and would not be the next time.
    pub fn forget(&self) {
        *self.lock() = None;
    }

    /// The last state, if one was saved.
    pub fn last(&self) -> Option<Saved> {
        self.lock().clone()
    }

    /// How old the last state is, if one was saved.
    pub fn age(&self) -> Option<Duration> {
        self.lock().as_ref().map(|saved| saved.at.elapsed())
    }

    /// Hands the last state out instead of one that the instance would save now.
    pub fn hand_out(&self, state: &mut Reply) -> Result<String, Box<CallError>> {
        let saved = self.last().ok_or(CallError::Unsupported)?;
        state.fill(saved.bytes, &[]);
        Ok(saved.from)
    }

    /// Saves the state by `save`, unless another thread is doing so.
    pub fn refresh(
        &self,
        save: impl FnOnce() -> Result<(), Box<CallError>>,
    ) -> Result<(), Box<CallError>> {
        if self.saving.swap(true, Ordering::Acquire) {
            return Ok(());
        }
        // Calls from here on may or may not be in it.
        self.forget_calls();
        let saved = save();
        self.saving.store(false, Ordering::Release);
        match saved {
            Err(error) if *error == CallError::Unsupported => {
                self.noted.store(true, Ordering::Relaxed);
                Ok(())
            }
            other => other,
        }
    }

    /// For operators.
    pub fn status(&self) -> Option<SavedStatus> {
        self.lock().as_ref().map(|saved| SavedStatus {
            time: format!("{:.3}", saved.time),
            version: saved.from.clone(),
            bytes: saved.bytes.len() as u64,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Saved>> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_call_after_a_save_requests_another() {
        let state = Checkpoint::default();
        assert!(state.is_unnoted() && state.note_call());
        assert!(!state.is_unnoted() && !state.note_call());
        state.refresh(|| Ok(())).unwrap();
        assert!(state.is_unnoted());
    }

    #[test]
    fn a_stateless_plugin_is_not_asked_again() {
        let state = Checkpoint::default();
        state.note_call();
        let unsupported = || Err(Box::new(CallError::Unsupported));
        state.refresh(unsupported).unwrap();
        assert!(!state.is_unnoted());
        let mut reply = Reply::default();
        let refused = state.hand_out(&mut reply).unwrap_err();
        assert_eq!(*refused, CallError::Unsupported);
    }

    #[test]
    fn the_last_checkpoint_is_returned_with_its_version() {
        let state = Checkpoint::default();
        state.remember("1.0.0", b"one");
        state.remember("1.0.0", b"two");
        let mut reply = Reply::default();
        assert_eq!(state.hand_out(&mut reply).unwrap(), "1.0.0");
        assert_eq!(reply.bytes(), b"two");
        state.forget();
        assert!(state.last().is_none());
    }
}

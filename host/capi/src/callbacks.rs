//! Functions of the main process that are called when something happens.
//!
//! Invariants: the same function with the same user pointer is registered once; no lock is held while
//! one runs, so that it may use everything, itself included; once it is unregistered it does not run.
//!
//! Absent on purpose: when they are called, and on which thread.

use std::{
    ffi::c_void,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
};

/// The identity of a registration: the addresses of the function and of the user's data.
type Key = (usize, usize);

/// The registered functions of one kind.
#[derive(Debug)]
pub(crate) struct Callbacks<F> {
    entries: Mutex<Vec<Arc<Entry<F>>>>,
}

#[derive(Debug)]
struct Entry<F> {
    key: Key,
    callback: F,
    user: User,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Debug)]
struct State {
    is_registered: bool,
    /// The thread on which it runs at the moment.
    runs_on: Option<ThreadId>,
}

/// A pointer of the main process, which the library only hands back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User(pub(crate) *mut c_void);

// SAFETY: it is never followed here, and the caller that registers it promises that its functions may use it
// from a thread of the library.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

/// It is registered already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Duplicate;

/// It is not registered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unknown;

impl<F> Default for Callbacks<F> {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
        }
    }
}

impl<F: Copy> Callbacks<F> {
    /// Registers a function, whose address is `address`.
    pub(crate) fn register(
        &self,
        callback: F,
        address: usize,
        user: User,
    ) -> Result<(), Duplicate> {
        let key = (address, user.0.addr());
        let mut entries = self.entries();
        if entries.iter().any(|it| it.key == key) {
            return Err(Duplicate);
        }
        entries.push(Arc::new(Entry {
            key,
            callback,
            user,
            state: Mutex::new(State {
                is_registered: true,
                runs_on: None,
            }),
            returned: Condvar::new(),
        }));
        Ok(())
    }

    /// Unregisters a function and waits until it has returned, unless it does this itself.
    pub(crate) fn unregister(&self, address: usize, user: User) -> Result<(), Unknown> {
        let key = (address, user.0.addr());
        let entry = {
            let mut entries = self.entries();
            let at = entries.iter().position(|it| it.key == key).ok_or(Unknown)?;
            entries.remove(at)
        };
        let me = thread::current().id();
        let mut state = entry.state();
        state.is_registered = false;
        while state.runs_on.is_some_and(|thread| thread != me) {
            state = entry
                .returned
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// All that are registered.
    pub(crate) fn all(&self) -> Vec<F> {
        self.entries().iter().map(|it| it.callback).collect()
    }

    /// Calls each function that is registered at the moment, one after the other.
    pub(crate) fn each(&self, mut call: impl FnMut(F, User)) {
        let entries = self.entries().clone();
        for entry in entries {
            if !entry.begin() {
                continue;
            }
            call(entry.callback, entry.user);
            entry.end();
        }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Arc<Entry<F>>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Entry<F> {
    fn begin(&self) -> bool {
        let mut state = self.state();
        if state.is_registered {
            state.runs_on = Some(thread::current().id());
        }
        state.is_registered
    }

    fn end(&self) {
        self.state().runs_on = None;
        self.returned.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        ptr,
        sync::{
            atomic::{AtomicBool, AtomicUsize, Ordering},
            mpsc,
        },
    };

    use super::*;

    const NOBODY: User = User(ptr::null_mut());

    fn user(number: usize) -> User {
        User(ptr::without_provenance_mut(number))
    }

    #[test]
    fn the_same_callback_is_registered_once() {
        let callbacks = Callbacks::default();
        assert_eq!(callbacks.register((), 1, user(1)), Ok(()));
        assert_eq!(callbacks.register((), 1, user(1)), Err(Duplicate));
        assert_eq!(callbacks.register((), 1, user(2)), Ok(()));
        assert_eq!(callbacks.register((), 2, user(1)), Ok(()));
        assert_eq!(callbacks.unregister(1, user(1)), Ok(()));
        assert_eq!(callbacks.unregister(1, user(1)), Err(Unknown));
        assert_eq!(callbacks.register((), 1, user(1)), Ok(()));
    }

    #[test]
    fn a_callback_may_unregister_itself() {
        let callbacks = Callbacks::default();
        callbacks.register((), 1, NOBODY).unwrap();
        let mut ran = 0;
        for _ in 0..2 {
            callbacks.each(|(), user| {
                ran += 1;
                callbacks.unregister(1, user).unwrap();
            });
        }
        assert_eq!(ran, 1);
        assert!(callbacks.all().is_empty());
    }

    #[test]
    fn a_callback_may_register_another_one() {
        let callbacks = Callbacks::default();
        callbacks.register((), 1, NOBODY).unwrap();
        let mut ran = 0;
        callbacks.each(|(), user| {
            ran += 1;
            callbacks.register((), 2, user).unwrap();
        });
        assert_eq!(ran, 1);
    }

    #[test]
    fn unregistering_waits_for_a_running_callback() {
        let callbacks = Arc::new(Callbacks::default());
        callbacks.register((), 1, NOBODY).unwrap();
        let (entered, inside) = mpsc::channel();
        let (let_go, gate) = mpsc::channel::<()>();
        let returned = Arc::new(AtomicBool::new(false));
        let runner = thread::spawn({
            let (callbacks, returned) = (Arc::clone(&callbacks), Arc::clone(&returned));
            move || {
                callbacks.each(|(), _| {
                    entered.send(()).unwrap();
                    gate.recv().unwrap();
                    returned.store(true, Ordering::SeqCst);
                });
            }
        });
        inside.recv().unwrap();
        let waiter = thread::spawn({
            let (callbacks, returned) = (Arc::clone(&callbacks), Arc::clone(&returned));
            move || {
                callbacks.unregister(1, NOBODY).unwrap();
                assert!(returned.load(Ordering::SeqCst), "it still runs");
            }
        });
        // It is out of the list as soon as the waiter waits, or is about to.
        while !callbacks.all().is_empty() {
            thread::yield_now();
        }
        let_go.send(()).unwrap();
        waiter.join().unwrap();
        runner.join().unwrap();
    }

    #[test]
    fn nothing_runs_after_unregistering_under_storms() {
        let callbacks = Arc::new(Callbacks::default());
        let stop = Arc::new(AtomicBool::new(false));
        let runner = thread::spawn({
            let (callbacks, stop) = (Arc::clone(&callbacks), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    callbacks.each(|alive: &'static AtomicUsize, _| {
                        assert_eq!(alive.load(Ordering::SeqCst), 1, "it was unregistered");
                    });
                }
            }
        });
        static ALIVE: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];
        let storms: Vec<_> = ALIVE
            .iter()
            .enumerate()
            .map(|(number, alive)| {
                let callbacks = Arc::clone(&callbacks);
                thread::spawn(move || {
                    for _ in 0..25_000 {
                        alive.store(1, Ordering::SeqCst);
                        callbacks.register(alive, number, NOBODY).unwrap();
                        callbacks.unregister(number, NOBODY).unwrap();
                        alive.store(0, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for storm in storms {
            storm.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        runner.join().unwrap();
    }
}

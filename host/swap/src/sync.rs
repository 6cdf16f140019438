//! Where threads, locks and atomics come from: the standard library, or loom's
//! model of it under `--cfg loom`. Nothing else in this crate names either.
//!
//! Under loom a deadline has always passed: a model has no clock, and "expired at
//! once" is the case that interleaves with everything.

use std::time::Instant;

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicPtr, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicPtr, Ordering, fence},
};

/// Locks `mutex`, also after a panic elsewhere: no code of this crate panics while
/// what the lock guards is half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Sleeps until `condition` is notified or `deadline` has passed. The second value
/// says whether it has.
#[cfg(not(loom))]
pub(crate) fn sleep<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Option<Instant>,
) -> (MutexGuard<'a, T>, bool) {
    let Some(deadline) = deadline else {
        let woken = condition.wait(guard);
        return (
            woken.unwrap_or_else(std::sync::PoisonError::into_inner),
            false,
        );
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return (guard, true);
    }
    let (guard, _) = condition
        .wait_timeout(guard, left)
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    (guard, Instant::now() >= deadline)
}

#[cfg(loom)]
pub(crate) fn sleep<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Option<Instant>,
) -> (MutexGuard<'a, T>, bool) {
    if deadline.is_some() {
        return (guard, true);
    }
    let woken = condition.wait(guard);
    (
        woken.unwrap_or_else(std::sync::PoisonError::into_inner),
        false,
    )
}

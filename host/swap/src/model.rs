//! Every order of the steps that matter, up to a bound on preemptions, by loom. The
//! bounds are those at which each single step, when taken out of the crate, makes a
//! model fail.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p hotmerge-swap --release --target-dir target/loom`
//!
//! A version holds a loom cell, which calls read and which is written when the version
//! has been given back: loom reports any call that is not over by then, and any read
//! that memory ordering does not put before that write. It also reports a waiter that
//! nobody wakes. The `membarrier` pair is modelled by sequentially consistent fences,
//! which promise the same (see the crate's text).

use std::time::Instant;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use crate::{Draining, Gate, LEVELS, TooDeep, VersionCell};

struct Version {
    number: UnsafeCell<usize>,
}

// SAFETY: written only by the one owner of the box, and it is the purpose of the
// models to check that nobody reads at that time.
unsafe impl Sync for Version {}

const ENDED: usize = usize::MAX;

impl Version {
    fn boxed(number: usize) -> Box<Self> {
        Box::new(Self {
            number: UnsafeCell::new(number),
        })
    }

    fn read(&self) -> usize {
        // SAFETY: loom checks that nobody writes meanwhile.
        let number = self.number.with(|number| unsafe { *number });
        assert_ne!(number, ENDED);
        number
    }

    fn set(&mut self, number: usize) {
        // SAFETY: exclusively borrowed; loom checks that this is true.
        self.number.with_mut(|own| unsafe { *own = number });
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        self.set(ENDED);
    }
}

/// Runs `f` in every order that takes at most `preemptions` switches away from a
/// thread that could go on, or as many as the environment says.
fn model(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.check(f);
}

fn full() -> Arc<VersionCell<Version>> {
    Arc::new(VersionCell::from(Version::boxed(1)))
}

fn call(cell: &VersionCell<Version>) -> usize {
    cell.with(|live| live.map_or(0, Version::read))
        .expect("not nested")
}

fn calling(cell: &Arc<VersionCell<Version>>) -> thread::JoinHandle<usize> {
    let cell = Arc::clone(cell);
    thread::spawn(move || call(&cell))
}

fn end(draining: Draining<Version>) {
    drop(draining.wait(None).expect("no deadline"));
}

/// Waits for the end of a version, then makes another of it at the same address.
fn remake(draining: Draining<Version>, number: usize) -> Box<Version> {
    let mut version = draining.wait(None).expect("no deadline");
    version.set(number);
    version
}

#[test]
fn a_call_never_sees_an_ended_version() {
    model(5, || {
        let cell = full();
        let caller = calling(&cell);
        end(cell.swap(Some(Version::boxed(2))).expect("full"));
        assert!([1, 2].contains(&caller.join().unwrap()));
    });
}

#[test]
fn the_last_of_two_callers_wakes_the_waiter() {
    model(5, || {
        let cell = full();
        let callers = [calling(&cell), calling(&cell)];
        end(cell.swap(None).expect("full"));
        for caller in callers {
            assert!([0, 1].contains(&caller.join().unwrap()));
        }
    });
}

#[test]
fn a_version_at_a_reused_address_is_safe() {
    model(5, || {
        let cell = full();
        let caller = calling(&cell);
        let version = remake(cell.swap(None).expect("full"), 2);
        assert!(cell.swap(Some(version)).is_none());
        end(cell.swap(None).expect("full"));
        assert!([0, 1, 2].contains(&caller.join().unwrap()));
    });
}

#[test]
fn a_version_in_another_cell_wakes_its_waiter() {
    model(5, || {
        let (first, second) = (full(), VersionCell::new());
        let caller = calling(&first);
        let version = remake(first.swap(None).expect("full"), 2);
        second.swap(Some(version));
        end(second.swap(None).expect("full"));
        assert!([0, 1].contains(&caller.join().unwrap()));
    });
}

#[test]
fn a_caller_overtaken_twice_finds_a_live_version() {
    model(5, || {
        let cell = full();
        let caller = calling(&cell);
        end(cell.swap(Some(Version::boxed(2))).expect("full"));
        end(cell.swap(Some(Version::boxed(3))).expect("full"));
        assert!((1..=3).contains(&caller.join().unwrap()));
    });
}

#[test]
fn concurrent_switches_return_different_old_versions() {
    model(5, || {
        let cell = full();
        let other = Arc::clone(&cell);
        let writer = thread::spawn(move || {
            let old = other.swap(Some(Version::boxed(2))).expect("full");
            let seen = old.read();
            end(old);
            seen
        });
        let old = cell.swap(Some(Version::boxed(3))).expect("full");
        let seen = old.read();
        end(old);
        assert_ne!(writer.join().unwrap(), seen);
    });
}

#[test]
fn nested_calls_and_a_switch_by_another_thread() {
    model(4, || {
        let cell = full();
        let other = Arc::clone(&cell);
        let writer = thread::spawn(move || {
            end(other.swap(Some(Version::boxed(2))).expect("full"));
        });
        let outer = |live: Option<&Version>| {
            let first = live.expect("full").read();
            let second = call(&cell);
            assert!(second >= first);
            assert_eq!(live.expect("full").read(), first);
            let deeper = cell.with(|_| cell.with(|_| ()));
            assert_eq!(deeper, Ok(Err(TooDeep)), "{LEVELS} levels in a model");
        };
        cell.with(outer).expect("not nested");
        writer.join().unwrap();
    });
}

#[test]
fn an_expired_wait_can_be_repeated() {
    model(5, || {
        let cell = full();
        let caller = calling(&cell);
        let old = cell.swap(None).expect("full");
        match old.wait(Some(Instant::now())) {
            Ok(version) => drop(version),
            Err(old) => end(old),
        }
        assert!([0, 1].contains(&caller.join().unwrap()));
    });
}

#[test]
fn dropping_a_version_never_ends_a_running_call() {
    model(5, || {
        let cell = full();
        let caller = calling(&cell);
        drop(cell.swap(None));
        assert!([0, 1].contains(&caller.join().unwrap()));
    });
}

#[test]
fn a_new_versions_call_does_not_delay_draining() {
    model(5, || {
        let cell = full();
        let ended = Arc::new(AtomicBool::new(false));
        let old_has_ended = Arc::clone(&ended);
        let on_thread = Arc::clone(&cell);
        let caller = thread::spawn(move || {
            let call = |live: Option<&Version>| {
                let on_new = live.expect("full").read() == 2;
                while on_new && !old_has_ended.load(Ordering::Acquire) {
                    thread::park();
                }
            };
            on_thread.with(call).expect("not nested");
        });
        end(cell.swap(Some(Version::boxed(2))).expect("full"));
        ended.store(true, Ordering::Release);
        caller.thread().unpark();
        caller.join().unwrap();
    });
}

#[test]
fn a_restored_version_ends_after_all_its_calls() {
    model(4, || {
        let cell = full();
        let callers = [calling(&cell), calling(&cell)];
        let old = cell.swap(None).expect("full");
        assert!(cell.put_back(old).is_none());
        end(cell.swap(Some(Version::boxed(2))).expect("full"));
        for caller in callers {
            assert!([0, 1, 2].contains(&caller.join().unwrap()));
        }
    });
}

fn gate() -> Arc<Gate<Version>> {
    let gate = Gate::new();
    gate.swap(Some(Version::boxed(1)));
    Arc::new(gate)
}

fn calling_through(gate: &Arc<Gate<Version>>) -> thread::JoinHandle<usize> {
    let gate = Arc::clone(gate);
    thread::spawn(move || {
        let call = |live: Option<&Version>| live.map_or(0, Version::read);
        gate.with(call).expect("not nested")
    })
}

#[test]
fn a_call_at_a_closed_gate_waits() {
    model(3, || {
        let gate = gate();
        let callers = [calling_through(&gate), calling_through(&gate)];
        let old = gate.pause().expect("full").wait(None).expect("no deadline");
        assert!(gate.swap(Some(Version::boxed(old.read() + 1))).is_none());
        drop(old);
        for caller in callers {
            assert!([1, 2].contains(&caller.join().unwrap()));
        }
    });
}

#[test]
fn reopening_with_the_old_version_loses_no_call() {
    model(4, || {
        let gate = gate();
        let caller = calling_through(&gate);
        let old = gate.pause().expect("full");
        assert!(gate.put_back(old).is_none());
        let old = gate.pause().expect("full").wait(None).expect("no deadline");
        assert!(gate.swap(Some(old)).is_none());
        assert_eq!(caller.join().unwrap(), 1);
        end(gate.swap(None).expect("full"));
    });
}

#[test]
fn a_gate_that_opens_empty_reports_it() {
    model(4, || {
        let gate = gate();
        let caller = calling_through(&gate);
        end(gate.pause().expect("full"));
        assert!(gate.swap(None).is_none());
        assert!([0, 1].contains(&caller.join().unwrap()));
    });
}

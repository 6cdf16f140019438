//! The atomic switch between two versions of a plugin under running calls, and
//! the detection of when the old version is no longer in use.
//!
//! A [`VersionCell`] holds at most one live version. [`VersionCell::with`] calls into it;
//! [`VersionCell::swap`] replaces it by another and returns the old one as
//! [`Draining`]; [`Draining::wait`] sleeps until the last call on it has returned
//! and returns it by value, so that it can be ended and unloaded.
//!
//! ```no_run
//! use hotmerge_swap::VersionCell;
//!
//! let cell = VersionCell::from(Box::new(String::from("old")));
//! let length = cell.with(|live| live.map_or(0, String::len))?;
//! let draining = cell.swap(Some(Box::new(String::from("new"))));
//! let old = draining.map(|old| old.wait(None));
//! # Ok::<(), hotmerge_swap::TooDeep>(())
//! ```
//!
//! # Invariant
//!
//! A version is freed, or handed out by value, only when no call uses it and none
//! can begin to. A call sees the version that was live at one moment between its
//! start and the start of its closure, and no version only if the cell was empty
//! at that moment.
//!
//! # How
//!
//! Every thread owns a record of slots, one per level of nested calls. A call writes
//! the version's address into its slot, checks that the cell still names that
//! version, and clears the slot at its end. These are stores to memory that no
//! other thread writes while calls run, so a call costs the same with one thread
//! as with many, and all waiting for memory is the writer's: it makes every
//! running thread of the process pass a full barrier (`membarrier`) and then reads
//! all slots. Where the kernel refuses that, both sides use sequentially
//! consistent fences instead.
//!
//! # Why that is enough
//!
//! Write *light* for what the caller's side does and *heavy* for the writer's. The
//! pair promises: of a light and a heavy barrier, one comes first, and what
//! precedes the first is seen by what follows the second. For two `SeqCst` fences
//! the language says so; for a compiler fence paired with `membarrier` the kernel
//! does, because the call returns only after every running thread has passed a
//! full barrier somewhere between two of its instructions, and threads that do not
//! run pass one when they are scheduled.
//!
//! *No call on a freed version.* A call does: (c1) slot ← `v`; light; (c2) read
//! the cell, use `v` only if it is `v`. The writer does: (w1) cell ← other; heavy;
//! (w2) read the slots. If light comes first, w2 sees the slot taken. If heavy
//! comes first, c2 sees w1 and does not use `v`. So every call that uses `v` had
//! its slot taken before w2, and keeps it until it ends. (A thread whose record w2
//! does not find on the list puts it there later, under the list's lock, so its
//! c2 sees w1.) The slot is cleared with `Release` and read with `Acquire`: what the
//! call did to `v` has happened before anything that is done to `v` afterwards.
//! Every other store to a slot is `Release` as well, so that reading a *later* value
//! of the slot says the same.
//!
//! *A reused address is harmless.* If `v` was freed and the same address is
//! live again when c2 reads it, then c2's `Acquire` read sees that new version,
//! and the slot protects it by the argument above: it was taken before c2.
//! A version must have a size for this, or two of them would share an address.
//!
//! *No lost wake-up.* A call ends by: (e1) clear the slot; light; (e2) read the
//! slot's `watched` mark, and if it is set, take the lock and notify. The waiter
//! does, holding the lock: (m1) set the mark on every slot that holds `v`; heavy;
//! (m2) read the marked slots again, and sleep only if one still holds `v`. If light
//! comes first, m2 sees the slot clear. If heavy comes first, e2 sees the mark, and
//! its notification needs the lock, which is free only once the waiter sleeps.
//! After its slot is clear a call touches nothing but its own record and the
//! global registry, neither of which is ever freed.
//!
//! A slot may also name `v` for a moment without using it: a call that read the
//! cell before w1 and wrote its slot after w2. It will fail c2. Slots that take
//! `v` after m1 are of this kind, which is why m2 looks at marked slots alone; one
//! that m1 did see leaves by the same e1 and e2 and wakes the waiter.
//!
//! *Putting a version back is a switch like any other.* Calls that were running on it and
//! calls that start afterwards name the same address, and the next thread that takes it
//! out waits for all of them. The argument for a reused address applies to it, too.
//!
//! *No call is lost at a [`Gate`].* It is shut and opened under its lock, together with the
//! switch that empties or fills the cell. A call looks at it only after it found the cell
//! empty, and under the lock: it then sees the gate shut and sleeps until the one who
//! opens it notifies, or sees it open and the cell as it is.
//!
//! # Absent on purpose
//!
//! Polling; shares of calls between two live versions; calls from signal handlers
//! (a handler that interrupts [`VersionCell::with`] on its own thread would use the same
//! slot); any knowledge of plugins, and any other kind of unsafe code.

mod barrier;
mod cell;
mod draining;
mod gate;
mod hazard;
mod sync;
mod thread;

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;

pub use cell::VersionCell;
pub use draining::{Draining, leaked};
pub use gate::Gate;
pub use hazard::{LEVELS, TooDeep};

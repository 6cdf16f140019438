//! Watches calls on the threads that serve connections.
//!
//! Of these threads one waits for the sockets, for all of them; it does so no longer once it runs a call.
//! If that call is not over soon, the watchdog gives the runtime a task without content: that wakes
//! another thread, which then waits for the sockets and takes over what waits behind the call.
//!
//! Invariant: while nothing is called, its thread sleeps.
//!
//! Absent on purpose: what becomes of the call. It goes on where it is.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::runtime::Handle;

/// How long the sockets may be left alone, at most twice.
const TICK: Duration = Duration::from_millis(1);

/// Watches until dropped.
#[derive(Debug)]
pub(super) struct Watchdog {
    seen: Arc<Seen>,
    most: usize,
    thread: JoinHandle<()>,
}

/// What the thread watches.
#[derive(Debug, Default)]
struct Seen {
    /// Calls that have begun.
    begun: AtomicU64,
    /// Calls under way.
    running: AtomicUsize,
    is_awake: AtomicBool,
    is_over: AtomicBool,
}

/// A call under way, until dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Seen);

impl Watchdog {
    /// Watches so many calls at once, and wakes this runtime's threads.
    pub(super) fn start(most: usize, runtime: Handle) -> io::Result<Self> {
        let seen = Arc::new(Seen::default());
        let watched = Arc::clone(&seen);
        let thread = thread::Builder::new()
            .name("http-watch".to_owned())
            .spawn(move || watched.watch(|| drop(runtime.spawn(async {}))))?;
        Ok(Self { seen, most, thread })
    }

    /// Begins a call, unless too many are under way.
    pub(super) fn turn(&self) -> Option<Turn<'_>> {
        let Seen {
            begun,
            running,
            is_awake,
            ..
        } = &*self.seen;
        if running.fetch_add(1, Ordering::SeqCst) >= self.most {
            running.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        // In this order: either the thread sees this call before it sleeps, or this sees that it sleeps.
        begun.fetch_add(1, Ordering::SeqCst);
        if !is_awake.load(Ordering::SeqCst) && !is_awake.swap(true, Ordering::SeqCst) {
            self.thread.thread().unpark();
        }
        Some(Turn(&self.seen))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.seen.is_over.store(true, Ordering::SeqCst);
        self.thread.thread().unpark();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Seen {
    /// Wakes another thread whenever no call has begun for a while although one is under way: where calls
    /// begin, a thread has just waited for the sockets.
    fn watch(&self, wake_another: impl Fn()) {
        let mut seen = 0;
        while !self.is_over.load(Ordering::SeqCst) {
            if !self.is_awake.load(Ordering::SeqCst) {
                thread::park();
                continue;
            }
            thread::park_timeout(TICK);
            let begun = self.begun.load(Ordering::SeqCst);
            if begun != seen {
                seen = begun;
                continue;
            }
            if self.running.load(Ordering::SeqCst) > 0 {
                wake_another();
            }
            self.is_awake.store(false, Ordering::SeqCst);
            if self.begun.load(Ordering::SeqCst) != seen {
                self.is_awake.store(true, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixStream, sync::mpsc};

    use tokio::{net, runtime};

    use super::*;

    /// Far more than a busy machine needs.
    const SOON: Duration = Duration::from_secs(30);

    fn readable(stream: UnixStream) -> net::UnixStream {
        stream.set_nonblocking(true).unwrap();
        net::UnixStream::from_std(stream).unwrap()
    }

    #[test]
    fn a_call_that_hangs_leaves_sockets_attended() {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let watchdog = Arc::new(Watchdog::start(1, runtime.handle().clone()).unwrap());
        let (first, first_peer) = UnixStream::pair().unwrap();
        let (second, second_peer) = UnixStream::pair().unwrap();
        let (hangs, has_hung) = mpsc::channel();
        let (let_go, go_on) = mpsc::channel::<()>();
        let (told, answered) = mpsc::channel();
        let watched = Arc::clone(&watchdog);
        runtime.spawn(async move {
            readable(first).readable().await.unwrap();
            let turn = watched.turn().expect("it is the only call");
            hangs.send(()).unwrap();
            // Until the test has ended, however it does.
            let _ = go_on.recv();
            drop(turn);
        });
        runtime.spawn(async move {
            readable(second).readable().await.unwrap();
            told.send(()).unwrap();
        });
        // Both threads have nothing to do, and one of them waits for the sockets.
        let metrics = runtime.metrics();
        let is_parked = |thread| metrics.worker_park_unpark_count(thread) % 2 == 1;
        while metrics.num_alive_tasks() < 2 || !(is_parked(0) && is_parked(1)) {
            thread::yield_now();
        }
        drop(first_peer);
        has_hung.recv_timeout(SOON).unwrap();
        assert!(watchdog.turn().is_none(), "one thread runs no call");
        drop(second_peer);
        let outcome = answered.recv_timeout(SOON);
        drop(let_go);
        outcome.unwrap();
    }

    #[test]
    fn the_watchdog_of_quick_calls_sleeps_again() {
        let seen = Arc::new(Seen::default());
        let (woken, wakes) = mpsc::channel();
        let watched = Arc::clone(&seen);
        let thread = thread::spawn(move || watched.watch(|| woken.send(()).unwrap()));
        let watchdog = Watchdog {
            seen,
            most: 2,
            thread,
        };
        let quick = watchdog.turn().unwrap();
        drop(quick);
        let slow = watchdog.turn().unwrap();
        wakes.recv_timeout(SOON).unwrap();
        // It sleeps although the call goes on.
        while watchdog.seen.is_awake.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        let slower = watchdog.turn().unwrap();
        assert!(watchdog.turn().is_none());
        wakes.recv_timeout(SOON).unwrap();
        drop((slow, slower));
        assert!(watchdog.turn().is_some());
    }
}

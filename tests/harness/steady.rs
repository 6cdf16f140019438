//! HTTP clients that call at a constant rate, each on a connection that it keeps.
//!
//! Invariant: no call fails. A connection that the host closes between two requests is made again, which
//! is counted: the next host of a socket may do that, a reload may not.
//!
//! Absent on purpose: how long a call takes.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{Kept, Unanswered};

/// Between two calls of a client.
const BEAT: Duration = Duration::from_millis(4);

/// How many more answers each client waits for: enough to overlap with what is happening.
const MORE: u64 = 20;

/// A call that is made again and again.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// The address.
    pub path: &'static str,
    /// What `Accept` says.
    pub accept: &'static str,
    /// The body.
    pub body: &'static str,
}

impl Ask {
    /// What distinguishes versions of the plugin `actor`.
    pub const MARK: Self = Self {
        path: "/plugins/actor/mark",
        accept: "*/*",
        body: "",
    };
}

/// Clients that call until they are stopped.
#[derive(Debug)]
pub struct Steady {
    clients: Vec<Running>,
    renewed: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Running {
    stop: mpsc::Sender<()>,
    answered: Arc<AtomicU64>,
    thread: JoinHandle<BTreeSet<String>>,
}

impl Steady {
    /// One client for each call.
    pub fn start(address: SocketAddr, asks: &[Ask]) -> Self {
        let renewed = Arc::new(AtomicU64::new(0));
        let client = |ask: &Ask| {
            let (stop, stopped) = mpsc::channel();
            let answered = Arc::new(AtomicU64::new(0));
            let client = Client {
                address,
                ask: *ask,
                stopped,
                answered: Arc::clone(&answered),
                renewed: Arc::clone(&renewed),
            };
            Running {
                stop,
                answered,
                thread: thread::spawn(move || client.run()),
            }
        };
        Self {
            clients: asks.iter().map(client).collect(),
            renewed,
        }
    }

    /// Waits for some more answers of each client.
    ///
    /// # Panics
    /// If a client has failed.
    #[track_caller]
    pub fn go_on(&self) {
        let answered = |it: &Running| it.answered.load(Ordering::Relaxed);
        let until = self.clients.iter().map(|it| answered(it) + MORE);
        for (client, until) in self.clients.iter().zip(until.collect::<Vec<_>>()) {
            while answered(client) < until {
                let failed = self.clients.iter().any(|it| it.thread.is_finished());
                assert!(!failed, "a client has failed");
                thread::yield_now();
            }
        }
    }

    /// How often a connection was made again.
    pub fn renewed(&self) -> u64 {
        self.renewed.load(Ordering::Relaxed)
    }

    /// Ends them, and returns the different answers of each.
    ///
    /// # Panics
    /// If a call failed.
    #[track_caller]
    pub fn stop(self) -> Vec<BTreeSet<String>> {
        let ends = self.clients.into_iter().map(|client| {
            drop(client.stop);
            client.thread.join().expect("no call fails")
        });
        ends.collect()
    }
}

struct Client {
    address: SocketAddr,
    ask: Ask,
    stopped: mpsc::Receiver<()>,
    answered: Arc<AtomicU64>,
    renewed: Arc<AtomicU64>,
}

impl Client {
    fn run(self) -> BTreeSet<String> {
        let (mut said, mut kept) = (BTreeSet::new(), self.connect());
        // Between two calls it waits to be stopped.
        while self.stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
            let Ask { path, accept, body } = self.ask;
            let answer = loop {
                match kept.post(path, &[("accept", accept)], body.as_bytes()) {
                    Ok(answer) => break answer,
                    Err(Unanswered::Closed) => kept = self.renew(),
                    Err(Unanswered::Failed(error)) => panic!("{path}: {error}"),
                }
            };
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!(answer.status, 200, "{path}: {text}");
            said.insert(text);
            if answer.header("connection") == Some("close") {
                kept = self.renew();
            }
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        said
    }

    fn renew(&self) -> Kept {
        self.renewed.fetch_add(1, Ordering::Relaxed);
        self.connect()
    }

    fn connect(&self) -> Kept {
        Kept::connect(self.address).expect("no connection is refused")
    }
}

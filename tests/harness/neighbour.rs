//! A plugin that nobody attacks, and what must hold of its host once an attack is over: it answers as
//! before, the host holds and does no more than before, and it ends on request.
//!
//! Invariant: latency is compared within one run, call by call in turn, with that of a host beside it
//! that nobody attacks: what else the machine does slows both.

use std::time::{Duration, Instant};

use crate::{Callers, Lab, Log, SOON, TestHost, Vitals, actor, call};

/// Pairs of calls in one comparison.
const CALLS: usize = 200;

/// So many times as long as elsewhere may the slowest hundredth of the calls take.
const TIMES: u32 = 2;

/// A difference below this does not count, however fast the machine is.
const NOISE: Duration = Duration::from_micros(200);

/// How long a host may take to end whose plugins do not hinder it.
const ENDS: Duration = Duration::from_secs(1);

/// A plugin beside those that attack, called all the while.
#[derive(Debug)]
pub struct Neighbour {
    callers: Callers,
    plugin: String,
    method: String,
    before: Vitals,
    quiet: TestHost,
    /// Outlives its host.
    _lab: Lab,
}

impl Neighbour {
    /// Begins to call a plugin of a host, and remembers what the host holds.
    #[track_caller]
    pub fn of(host: &TestHost, plugin: &str, method: &str) -> Self {
        let lab = Lab::new();
        lab.put(&actor("mark=1"));
        let quiet = lab.start_by(lab.serve(&lab.living_in("process")));
        let callers = Callers::start(host, 1, [plugin], method);
        Self {
            callers,
            plugin: plugin.to_owned(),
            method: method.to_owned(),
            before: Vitals::of(host),
            quiet,
            _lab: lab,
        }
    }

    /// Records what the host holds now instead: one-time allocations are not leaks.
    pub fn remember(&mut self, host: &TestHost) {
        self.before = Vitals::of(host);
    }

    /// Waits until it was called again.
    ///
    /// # Panics
    /// If calls do not go on.
    #[track_caller]
    pub fn go_on(&self) {
        self.callers.go_on();
    }

    /// Waits until it was called again and nothing is left of an attack.
    ///
    /// # Panics
    /// If that does not happen.
    #[track_caller]
    pub fn goes_on(&self, host: &TestHost, after: &str) {
        self.go_on();
        self.before.regained(host, after);
    }

    /// Ends the host, once no call has failed and all is as it was: what it holds, how fast it answers,
    /// and that it is idle without requests.
    ///
    /// # Panics
    /// If anything is not so.
    #[track_caller]
    pub fn unharmed(self, host: TestHost) -> Log {
        self.unharmed_though(host, Duration::ZERO)
    }

    /// As [`Neighbour::unharmed`], of a host whose plugins hinder its end as long as they may.
    ///
    /// # Panics
    /// If anything is not so.
    #[track_caller]
    pub fn unharmed_though(self, host: TestHost, hindered: Duration) -> Log {
        let Self {
            callers,
            plugin,
            method,
            before,
            quiet,
            ..
        } = self;
        callers.unharmed();
        before.regained(&host, "all attacks");
        compare(&host, &plugin, &method, &quiet);
        host.idles();
        let (usual, _) = time(|| quiet.stop());
        let (took, log) = time(|| host.stop());
        assert!(
            took <= hindered + ENDS.max(10 * usual),
            "it took {took:?} to end, and {usual:?} the host that nobody attacked"
        );
        log
    }
}

/// Waits until calls take no longer than elsewhere.
#[track_caller]
fn compare(host: &TestHost, plugin: &str, method: &str, quiet: &TestHost) {
    let (mut here, mut there) = (host.client(), quiet.client());
    let deadline = Instant::now() + SOON;
    loop {
        let (mut took, mut usual) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            took.push(time(|| call(&mut here, plugin, method, b"").expect("it answers")).0);
            usual.push(time(|| call(&mut there, "actor", "mark", b"").expect("it answers")).0);
        }
        let (took, usual) = (slowest(took), slowest(usual));
        if took <= TIMES * usual + NOISE {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "a hundredth of the calls of `{plugin}` takes {took:?} and more, and {usual:?} where \
             nobody attacks"
        );
    }
}

/// The time that all but a hundredth of the calls take at most.
fn slowest(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() * 99 / 100 - 1]
}

fn time<T>(body: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let result = body();
    (began.elapsed(), result)
}

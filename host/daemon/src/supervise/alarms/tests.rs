//! A day of the clock within a moment: the time is what these tests say.

use proptest::prelude::*;

use super::*;
use crate::find::PAUSE as READ_PAUSE;

const MS: Duration = Duration::from_millis(1);

/// A clock that jumps from one reason to wake to the next.
struct Day {
    alarms: Alarms,
    now: Instant,
    /// How long a scan takes.
    look: Duration,
    ticks: Vec<(Instant, Tick)>,
}

impl Day {
    fn new(look: Duration) -> Self {
        Self {
            alarms: Alarms::default(),
            now: Instant::now(),
            look,
            ticks: Vec::new(),
        }
    }

    /// Carries out what is due until this time; a scan may end after it.
    fn until(&mut self, end: Instant) {
        while self.now <= end {
            match self.alarms.next(self.now) {
                Next::Tick(tick) => {
                    self.ticks.push((self.now, tick));
                    self.now += self.look;
                }
                Next::At(next) if next <= end => self.now = next.max(self.now),
                Next::At(_) | Next::Never | Next::Stop => self.now = end + Duration::from_nanos(1),
            }
        }
    }

    /// Gives a hint after each of these pauses, and rests. Returns when they were given.
    fn hints(&mut self, pauses: &[Duration]) -> Vec<Instant> {
        let mut at = self.now;
        let mut given = Vec::new();
        for pause in pauses {
            at += *pause;
            // Hints come during scans, too.
            self.until(at);
            self.alarms.hint(at);
            given.push(at);
        }
        self.until(at + 10 * (PATIENCE + self.look));
        given
    }
}

/// What a watcher may hold back, and what the clock waits for, are less than what is promised.
#[test]
fn a_single_write_settles_within_50_ms() {
    let mut day = Day::new(MS);
    let written = day.hints(&[MS])[0];
    let (woke, tick) = day.ticks[0];
    assert_eq!(tick, Tick::Hinted);
    assert!(READ_PAUSE + (woke - written) + day.look <= 50 * MS);
    assert_eq!(day.ticks.len(), 1);
}

#[test]
fn a_burst_leads_to_one_final_scan() {
    let mut day = Day::new(MS);
    let given = day.hints(&[5 * MS; 30]);
    let woke: Vec<_> = day.ticks.iter().map(|(at, _)| *at).collect();
    assert_eq!(woke, [given[29] + QUIET]);
}

#[test]
fn a_constant_stream_does_not_starve() {
    let mut day = Day::new(30 * MS);
    let given = day.hints(&[MS; 10_000]);
    let mut last = given[0];
    for (at, _) in &day.ticks {
        assert!(*at - last <= PATIENCE + day.look, "{:?}", *at - last);
        last = *at;
    }
    assert!(last >= given[9_999] && last - given[9_999] <= QUIET);
}

/// Each scan takes so long that the next burst is over when it ends.
#[test]
fn hints_delay_no_full_scan() {
    let mut day = Day::new(2 * PATIENCE);
    let full = day.now + 1_000 * MS;
    day.alarms.full_at(full);
    day.hints(&[MS; 5_000]);
    let found = day.ticks.iter().find(|(_, tick)| *tick == Tick::Full);
    let late = found.expect("it comes").0 - full;
    assert!(late <= day.look, "{late:?}");
}

#[test]
fn a_requested_time_is_kept_by_any_tick() {
    let mut day = Day::new(MS);
    let due = day.now + 100 * MS;
    assert!(day.alarms.wake_at(due + MS));
    assert!(day.alarms.wake_at(due));
    assert!(!day.alarms.wake_at(due + MS), "there is an earlier one");
    day.hints(&[due - QUIET - day.now]);
    assert_eq!(day.ticks, [(due, Tick::Hinted)]);
}

#[test]
fn nothing_requested_wakes_nobody() {
    let mut alarms = Alarms::default();
    assert_eq!(alarms.next(Instant::now()), Next::Never);
    alarms.stop();
    assert_eq!(alarms.next(Instant::now()), Next::Stop);
}

proptest! {
    /// However hints are spread, and however long a scan takes: each one is followed by a scan that began
    /// after it, soon enough, and the last scan begins right after the last burst.
    #[test]
    fn every_hint_leads_to_a_scan_in_time(
        pauses in prop::collection::vec(0..60_u32, 1..400),
        look in 0..100_u32,
    ) {
        let mut day = Day::new(look * MS);
        let pauses: Vec<_> = pauses.into_iter().map(|pause| pause * MS).collect();
        let given = day.hints(&pauses);
        for hint in &given {
            let next = day.ticks.iter().find(|(at, _)| at >= hint);
            let late = next.expect("a scan").0 - *hint;
            prop_assert!(late <= PATIENCE + day.look, "{late:?}");
        }
        let (last, _) = day.ticks.last().expect("a scan");
        let late = *last - *given.last().expect("there are hints");
        prop_assert!(late <= QUIET + day.look, "{late:?}");
        // No scan without a hint: bursts are counted, not hints.
        prop_assert!(day.ticks.len() <= given.len());
    }
}

//! A hostile side that moves every shared word at any moment, while the host's side calls and is called.
//!
//! Each round has its own memory and a seed, which a failure names; the seed does not cover how threads
//! are scheduled. `HOTMERGE_WIRE_S` sets the duration in seconds (see CONTRIBUTING.md).

use std::{
    env,
    sync::atomic::{AtomicBool, AtomicU32},
    thread::JoinHandle,
    time::Instant,
};

use rustix::thread::futex::{self, Flags};

use super::*;
use crate::HEAD_LIMIT;

/// The default duration.
const BRIEFLY: Duration = Duration::from_secs(2);
/// The duration of one round.
const ROUND: Duration = Duration::from_millis(15);
/// How long a call may take.
const CALL_NS: u64 = 2_000_000;
/// A call or a thread that takes longer is stuck.
const KEPT: Duration = Duration::from_secs(30);
const LIMIT: usize = 200_000;

const GEOMETRY: Geometry = Geometry {
    cores: 2,
    slots: 4,
    small_bytes: 4096,
    areas: 2,
    area_bytes: 1 << 18,
};

/// Pseudo-random numbers; xorshift.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }
}

/// All words of head and slots.
fn words(memory: &Memory) -> &[AtomicU32] {
    let bytes = GEOMETRY.slot_offset(GEOMETRY.slots);
    // SAFETY: the mapping begins with them, is aligned, and outlives the borrow; atomics of any size
    // may be looked at as atomics of words.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(memory.head()).cast(), bytes / 4) }
}

/// One step of the hostile side.
fn disturb(memory: &Memory, dice: &mut Dice) {
    let words = words(memory);
    let slot = memory.slot(dice.roll(GEOMETRY.slots as usize) as u32);
    let head = memory.head();
    // The words on which threads sleep or wait, more often than the rest.
    let named = [
        &slot.state,
        &slot.posted,
        &slot.claim,
        &slot.area,
        &slot.cancelled,
        &slot.caller_sleeps,
        &slot.server_sleeps,
        &slot.request_len,
        &slot.reply_len,
        &head.bell,
        &head.used,
        &head.sleepers,
        &head.looks,
    ];
    let any = |dice: &mut Dice| match dice.roll(3) {
        0 => &words[dice.roll(words.len())],
        _ => named[dice.roll(named.len())],
    };
    let (word, other) = (any(dice), any(dice));
    let call = slot.posted.load(Ordering::Relaxed) & 0x1fff_ffff;
    match dice.roll(12) {
        0 => word.store(dice.roll(6) as u32, Ordering::SeqCst),
        1 => word.store(u32::MAX - dice.roll(3) as u32, Ordering::SeqCst),
        2 => word.store(dice.roll(1 << 30) as u32, Ordering::SeqCst),
        3 => _ = word.fetch_add(1, Ordering::SeqCst),
        4 => _ = word.fetch_xor(1 << dice.roll(32), Ordering::SeqCst),
        // As an honest side would write it.
        5 | 6 => slot
            .state
            .store(state::of(call, dice.roll(8) as u32), Ordering::SeqCst),
        7 => slot.claim.store(call, Ordering::SeqCst),
        8 => {
            head.used.store(GEOMETRY.slots, Ordering::SeqCst);
            slot.posted
                .store((call + 1) & 0x1fff_ffff, Ordering::SeqCst);
        }
        9 => word.store(other.load(Ordering::SeqCst), Ordering::SeqCst),
        10 => _ = futex::wake(word, Flags::empty(), 8),
        _ => _ = futex::requeue(word, Flags::empty(), 0, 8, other),
    }
}

/// The work of one thread of the host's side, until it is asked to stop.
type Work = Box<dyn FnOnce() + Send>;

/// Makes calls of all sizes; each must end in time.
fn calls(caller: Arc<Caller>, stop: Arc<AtomicBool>, mut dice: Dice) -> Work {
    Box::new(move || {
        let holder: Arc<str> = "somebody".into();
        while !stop.load(Ordering::Relaxed) {
            let context = CallContext {
                deadline_ns: now_ns() + CALL_NS,
                ..CallContext::default()
            };
            let sizes = [0, 60, 4000, 5000, 100_000];
            let bytes = vec![7; sizes[dice.roll(sizes.len())]];
            let asked = Request {
                reply_limit: LIMIT,
                on_behalf_of: (dice.roll(2) == 0).then_some(&holder),
                ..request(&context, &bytes)
            };
            let mut reply = Reply::default();
            let began = Instant::now();
            let outcome = caller.call(&asked, &mut reply);
            assert!(began.elapsed() < KEPT, "a call was kept: {outcome:?}");
            assert!(reply.bytes.len() <= LIMIT && reply.media_type.len() <= 255);
            let _ = caller.abandoned_due();
            let _ = caller.describe(dice.roll(6) as u32);
            if let Err(NoAnswer::Gone { .. }) = outcome {
                return;
            }
        }
    })
}

/// Answers calls that were never made, until the other side is detected or gone.
fn answers(server: Arc<Server>, mut dice: Dice) -> Work {
    Box::new(move || {
        while let Ok(taken) = server.next() {
            let (method, request) = taken.copy_request();
            assert!(method.len() <= HEAD_LIMIT && request.len() <= 1 << 18);
            let mut writer = taken.writer();
            let _ = writer.media_type(&method[..method.len().min(20)]);
            let sizes = [0, 40, 4000, 9000, 100_000];
            let _ = writer.write(&vec![1; sizes[dice.roll(sizes.len())]]);
            let _ = writer.written();
            taken.finish(STATUS_OK, &writer);
        }
    })
}

/// Runs the host's side while two threads disturb it, then ends it.
fn round(seed: u64, hostile: Memory, work: Vec<Work>, end: impl FnOnce()) {
    let hostile = Arc::new(hostile);
    let stop = Arc::new(AtomicBool::new(false));
    let work: Vec<JoinHandle<()>> = work.into_iter().map(thread::spawn).collect();
    let disturbers: Vec<_> = (1..3)
        .map(|number| {
            let (hostile, stop) = (Arc::clone(&hostile), Arc::clone(&stop));
            let mut dice = Dice(seed.wrapping_mul(number * 2 + 1) | 1);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    disturb(&hostile, &mut dice);
                }
            })
        })
        .collect();
    let began = Instant::now();
    while began.elapsed() < ROUND {
        thread::yield_now();
    }
    end();
    let ended = Instant::now();
    for thread in work {
        // A stuck thread is never joined.
        while !thread.is_finished() {
            assert!(
                ended.elapsed() < KEPT,
                "a thread was kept, with seed {seed}"
            );
            thread::yield_now();
        }
        assert!(thread.join().is_ok(), "with seed {seed}");
    }
    stop.store(true, Ordering::Relaxed);
    for thread in disturbers {
        thread.join().unwrap();
    }
}

fn round_of_calls(seed: u64) {
    let (caller, file) = Caller::create(GEOMETRY).unwrap();
    let (caller, stop) = (Arc::new(caller), Arc::new(AtomicBool::new(false)));
    let hostile = Memory::open(&file, GEOMETRY).unwrap();
    let work = (1..4).map(|number| {
        let (caller, stop) = (Arc::clone(&caller), Arc::clone(&stop));
        calls(caller, stop, Dice(seed.wrapping_add(number) | 1))
    });
    round(seed, hostile, work.collect(), || match seed % 2 {
        0 => caller.hang_up(),
        _ => stop.store(true, Ordering::Relaxed),
    });
    let last = caller.describe(0);
    assert!(last.is_some_and(|last| last.method.len() <= 64 * 3));
}

fn round_of_answers(seed: u64) {
    let (server, file) = Server::create(GEOMETRY).unwrap();
    let server = Arc::new(server);
    let hostile = Memory::open(&file, GEOMETRY).unwrap();
    let work = (1..4).map(|number| {
        let dice = Dice(seed.wrapping_add(number) | 1);
        answers(Arc::clone(&server), dice)
    });
    round(seed, hostile, work.collect(), || server.hang_up());
    assert_eq!(server.next().unwrap_err(), Ended::HungUp);
}

#[test]
fn moving_shared_words_never_harms_the_host() {
    let seconds = env::var("HOTMERGE_WIRE_S");
    let time = seconds.map_or(BRIEFLY, |text| {
        Duration::from_secs(
            text.parse()
                .expect("`HOTMERGE_WIRE_S` is a number of seconds"),
        )
    });
    let began = Instant::now();
    let mut seed = now_ns();
    let mut rounds = 0;
    while rounds < 4 || began.elapsed() < time {
        round_of_calls(seed);
        round_of_answers(seed);
        seed = seed.wrapping_add(1);
        rounds += 1;
    }
    println!("{rounds} rounds of each kind in {:?}", began.elapsed());
}

//! Floors: two processes that pass messages to each other and do nothing else.

use std::{
    cell::Cell,
    fs::File,
    hint::{black_box, spin_loop},
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    ptr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    mm::{MapFlags, ProtFlags, mmap},
    thread::futex::{self, Flags},
};
use tempfile::TempDir;

use super::peer::Peer;

/// How long to look before sleeping.
const LOOK: Duration = Duration::from_micros(50);
/// Glances between two looks at the clock.
const GLANCES: usize = 64;

/// Words that go there with a call: its context, the name of a method, sixteen bytes, lengths.
const REQUEST: usize = 12;
/// Words that come back: a status, lengths.
const REPLY: usize = 2;

/// What one side of a [`Futex`] writes, in lines of the cache of its own.
#[repr(C, align(128))]
struct Side {
    /// Carried, if anything is.
    payload: [AtomicU64; REQUEST],
    /// Number of its newest message.
    newest: AtomicU32,
    /// Whether it sleeps until there is one from the other side.
    sleeps: AtomicU32,
}

/// Two processes that wait for each other's messages: spin, then sleep.
pub(crate) struct Futex {
    sides: &'static Sides,
    number: Cell<u32>,
    carries: bool,
    _peer: Peer,
}

#[repr(C)]
struct Sides {
    /// Whose turn it is, if a message is nothing but that. In one line, so that it goes to and fro.
    turn: Side,
    asks: Side,
    answers: Side,
}

fn sides(file: impl AsFd) -> anyhow::Result<&'static Sides> {
    // SAFETY: a new mapping of a file with a page, which stays for the life of the process.
    unsafe {
        let both = ProtFlags::READ | ProtFlags::WRITE;
        let start = mmap(ptr::null_mut(), 4096, both, MapFlags::SHARED, file, 0)?;
        Ok(&*start.cast::<Sides>())
    }
}

/// Waits until a word is another.
fn wait_while(word: &AtomicU32, value: u32, sleeps: &AtomicU32) {
    loop {
        let began = Instant::now();
        loop {
            for _ in 0..GLANCES {
                if word.load(Ordering::Acquire) != value {
                    return;
                }
                spin_loop();
            }
            if began.elapsed() > LOOK {
                break;
            }
        }
        sleeps.store(1, Ordering::SeqCst);
        if word.load(Ordering::SeqCst) == value {
            let _ = futex::wait(word, Flags::empty(), value, None);
        }
        sleeps.store(0, Ordering::SeqCst);
    }
}

/// Changes a word that the other side waits for.
fn pass(word: &AtomicU32, value: u32, sleeps: &AtomicU32) {
    word.store(value, Ordering::SeqCst);
    if sleeps.load(Ordering::SeqCst) != 0 {
        let _ = futex::wake(word, Flags::empty(), 1);
    }
}

/// Writes a message of so many words, all of them a number.
fn put(side: &Side, words: usize, number: u32) {
    for word in &side.payload[..words] {
        word.store(number.into(), Ordering::Relaxed);
    }
}

/// Reads one.
fn get(side: &Side, words: usize) -> u64 {
    let words = side.payload[..words].iter();
    words.map(|word| word.load(Ordering::Relaxed)).sum()
}

impl Futex {
    /// Messages that are nothing but a turn, or carry what a small call does.
    pub(crate) fn start(carries: bool) -> anyhow::Result<Self> {
        let file = memfd_create("ping-pong", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, 4096)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let kind = if carries { "futex-carrying" } else { "futex" };
        Ok(Self {
            sides: sides(&file)?,
            number: Cell::new(0),
            carries,
            _peer: Peer::start(kind, Path::new(&path))?,
        })
    }

    pub(crate) fn ask(&self) {
        let Sides {
            turn,
            asks,
            answers,
        } = self.sides;
        if !self.carries {
            pass(&turn.newest, 1, &answers.sleeps);
            return wait_while(&turn.newest, 1, &asks.sleeps);
        }
        let before = self.number.get();
        let number = before.wrapping_add(1);
        self.number.set(number);
        put(asks, REQUEST, number);
        pass(&asks.newest, number, &answers.sleeps);
        wait_while(&answers.newest, before, &asks.sleeps);
        black_box(get(answers, REPLY));
    }
}

pub(crate) fn answer_futex(path: &Path, carries: bool) -> anyhow::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let Sides {
        turn,
        asks,
        answers,
    } = sides(&file)?;
    println!("ready");
    let mut before = 0;
    loop {
        if !carries {
            wait_while(&turn.newest, 0, &answers.sleeps);
            pass(&turn.newest, 0, &asks.sleeps);
            continue;
        }
        wait_while(&asks.newest, before, &answers.sleeps);
        before = asks.newest.load(Ordering::Acquire);
        black_box(get(asks, REQUEST));
        put(answers, REPLY, before);
        pass(&answers.newest, before, &asks.sleeps);
    }
}

/// Sixteen bytes each way.
pub(crate) struct Socket {
    // Ended before it is hung up on.
    _peer: Peer,
    stream: UnixStream,
    _dir: TempDir,
}

/// A place for a socket.
pub(crate) fn place() -> anyhow::Result<(TempDir, PathBuf)> {
    let dir = TempDir::new()?;
    let path = dir.path().join("socket");
    Ok((dir, path))
}

impl Socket {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let (dir, path) = place()?;
        let peer = Peer::start("socket", &path)?;
        Ok(Self {
            stream: UnixStream::connect(&path)?,
            _peer: peer,
            _dir: dir,
        })
    }

    pub(crate) fn ask(&mut self) -> anyhow::Result<()> {
        let mut bytes = [0; 16];
        self.stream.write_all(&bytes)?;
        self.stream.read_exact(&mut bytes)?;
        Ok(())
    }
}

pub(crate) fn answer_socket(path: &Path) -> anyhow::Result<()> {
    let listener = UnixListener::bind(path)?;
    println!("ready");
    let (mut stream, _) = listener.accept()?;
    let mut bytes = [0; 16];
    loop {
        stream.read_exact(&mut bytes)?;
        stream.write_all(&bytes)?;
    }
}

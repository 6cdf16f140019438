//! Floors: two processes that pass a turn to each other and do nothing else.

use std::{
    fs::File,
    hint::spin_loop,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
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

/// One word of memory that two processes share: spin, then sleep.
pub(crate) struct Futex {
    words: &'static Words,
    _peer: Peer,
}

#[repr(C)]
struct Words {
    turn: AtomicU32,
    /// Whether the side sleeps that waits while it is the turn of this number.
    sleeps: [AtomicU32; 2],
}

fn words(file: impl AsFd) -> anyhow::Result<&'static Words> {
    // SAFETY: a new mapping of a file with a page, which stays for the life of the process.
    unsafe {
        let both = ProtFlags::READ | ProtFlags::WRITE;
        let start = mmap(ptr::null_mut(), 4096, both, MapFlags::SHARED, file, 0)?;
        Ok(&*start.cast::<Words>())
    }
}

impl Words {
    fn wait_while(&self, value: u32) {
        let sleeps = &self.sleeps[value as usize];
        loop {
            let began = Instant::now();
            loop {
                for _ in 0..GLANCES {
                    if self.turn.load(Ordering::Acquire) != value {
                        return;
                    }
                    spin_loop();
                }
                if began.elapsed() > LOOK {
                    break;
                }
            }
            sleeps.store(1, Ordering::SeqCst);
            if self.turn.load(Ordering::SeqCst) == value {
                let _ = futex::wait(&self.turn, Flags::empty(), value, None);
            }
            sleeps.store(0, Ordering::SeqCst);
        }
    }

    fn pass(&self, value: u32) {
        self.turn.store(value, Ordering::SeqCst);
        if self.sleeps[1 - value as usize].load(Ordering::SeqCst) != 0 {
            let _ = futex::wake(&self.turn, Flags::empty(), 1);
        }
    }
}

impl Futex {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let file = memfd_create("ping-pong", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, 4096)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        Ok(Self {
            words: words(&file)?,
            _peer: Peer::start("futex", Path::new(&path))?,
        })
    }

    pub(crate) fn ask(&self) {
        self.words.pass(1);
        self.words.wait_while(1);
    }
}

pub(crate) fn answer_futex(path: &Path) -> anyhow::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let words = words(&file)?;
    println!("ready");
    loop {
        words.wait_while(0);
        words.pass(0);
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

//! The bytes that a worker sends its host besides answers, through pipes, which carry bytes and
//! nothing else. A socket would carry descriptors, whose closing may block the host, and could be
//! given a name and be asked who holds the other end.
//!
//! A message begins with its length in two bytes, and is one write: a pipe takes all of it or
//! nothing. (Pipes can separate writes by themselves, but give each a page, and have room for 16.)
//!
//! Invariants: nothing in a message is a promise. A plugin holds the same descriptors and may write
//! what it likes; a length that lies costs the messages of its own worker.

use std::{ops::Range, os::fd::AsFd};

/// Longest message in bytes: with its length it is as long as what pipes take at once, everywhere.
pub const LARGEST: usize = 4096 - LENGTH_BYTES;

/// What lies in front of every message, in bytes.
pub const LENGTH_BYTES: usize = 2;

/// What is taken from a pipe at a time, in bytes.
const READ_BYTES: usize = 4096;

/// What to write in front of a message.
pub const fn length(bytes: usize) -> [u8; LENGTH_BYTES] {
    assert!(bytes <= LARGEST);
    (bytes as u16).to_ne_bytes()
}

/// Messages as they come out of a pipe.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Up to where they have been taken.
    taken: usize,
}

/// What reading a pipe returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken<'a> {
    /// A whole message.
    Message(&'a [u8]),
    /// Bytes, and no whole message though the pipe holds no more. Each message is one write, and one read
    /// takes the longest: the plugin wrote this, and if it writes single bytes, each wakes the reader.
    Torn,
    /// Nothing.
    Nothing,
}

impl Inbox {
    /// The next message, if one is there after one read. Never waits if the pipe does not.
    pub fn next(&mut self, pipe: impl AsFd) -> Taken<'_> {
        let has_read = !self.has_one() && self.read(pipe);
        match self.first() {
            Some(message) => {
                self.taken = message.end;
                Taken::Message(&self.bytes[message])
            }
            None if has_read => Taken::Torn,
            None => Taken::Nothing,
        }
    }

    /// Whether there is one that the pipe no longer signals.
    pub fn has_one(&self) -> bool {
        self.first().is_some()
    }

    fn first(&self) -> Option<Range<usize>> {
        let (length, rest) = self.bytes[self.taken..].split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes(*length)).min(LARGEST);
        let begin = self.taken + LENGTH_BYTES;
        (rest.len() >= length).then_some(begin..begin + length)
    }

    /// Whether there was anything. What cannot be read now can be later, or its worker has ended.
    fn read(&mut self, pipe: impl AsFd) -> bool {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let mut bytes = [0; READ_BYTES];
        const { assert!(READ_BYTES >= LENGTH_BYTES + LARGEST) };
        let Ok(read @ 1..) = rustix::io::read(&pipe, &mut bytes) else {
            return false;
        };
        self.bytes.extend(&bytes[..read]);
        true
    }
}

/// A log record, on [`descriptor::LOG`](crate::descriptor::LOG): the level, 1 if it belongs to
/// a call and 0 if not, the 16 bytes of that call's trace id, the 8 of its span id, the text.
pub mod record {
    /// Everything before the text, in bytes.
    pub const HEAD_BYTES: usize = 26;
}

/// A report of a crash, on [`descriptor::CRASH`](crate::descriptor::CRASH): the kind, then what
/// belongs to it.
pub mod report {
    /// A panic that was caught: the length of the method's name in the second byte, the operation of
    /// the request in the fourth; after the head the 16 bytes of the call's trace id, the name, and what the plugin says.
    pub const PANIC: u8 = 1;
    /// A signal that is to kill: its number in the second byte, in the third the slot of the request
    /// plus one, or 0 for none, in the fourth its operation, in the fifth 1 if it was sent and 0 if the
    /// kernel raised it for an address; in the last 8 of the head that address, in the machine's order.
    pub const SIGNAL: u8 = 2;
    /// As [`SIGNAL`], by a stack that has no room left.
    pub const STACK: u8 = 3;
    /// A text, right after the kind: only while probing.
    pub const TEXT: u8 = 4;

    /// A signal that was to kill and has not: the request in which it came goes on to its end. As
    /// [`SIGNAL`], with the length of the method's name in the third byte; after the head the 16
    /// bytes of the call's trace id and the name.
    pub const SURVIVED: u8 = 5;

    /// What every report but a text begins with, in bytes.
    pub const HEAD_BYTES: usize = 16;
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
    }

    fn send(pipe: &OwnedFd, message: &[u8]) -> bool {
        let bytes = [&length(message.len())[..], message].concat();
        rustix::io::write(pipe, &bytes).is_ok_and(|written| written == bytes.len())
    }

    /// The next message, however many reads it takes.
    fn whole(inbox: &mut Inbox, pipe: &OwnedFd) -> Option<Vec<u8>> {
        loop {
            match inbox.next(pipe) {
                Taken::Message(message) => return Some(message.to_vec()),
                Taken::Torn => {}
                Taken::Nothing => return None,
            }
        }
    }

    #[test]
    fn an_incomplete_message_is_reported() {
        let (out, into) = pipe();
        let mut inbox = Inbox::default();
        for byte in [2, 0, 7] {
            rustix::io::write(&into, &[byte]).unwrap();
            assert_eq!(inbox.next(&out), Taken::Torn);
        }
        rustix::io::write(&into, &[8]).unwrap();
        assert_eq!(inbox.next(&out), Taken::Message(&[7, 8]));
    }

    #[test]
    fn messages_come_out_as_they_were_written() {
        let (out, into) = pipe();
        let mut inbox = Inbox::default();
        for round in 0..50 {
            let lengths = [0, 1, 25, LARGEST - 1, LARGEST, round];
            for length in lengths {
                assert!(send(&into, &vec![round as u8; length]));
            }
            for length in lengths {
                assert_eq!(whole(&mut inbox, &out), Some(vec![round as u8; length]));
            }
            assert_eq!(inbox.next(&out), Taken::Nothing);
        }
    }

    #[test]
    fn a_full_pipe_accepts_no_partial_message() {
        let (out, into) = pipe();
        let sent = (0..10_000).take_while(|_| send(&into, &[7; 100])).count();
        assert!(sent > 400, "only {sent}");
        let mut inbox = Inbox::default();
        for _ in 0..sent {
            assert_eq!(whole(&mut inbox, &out), Some(vec![7; 100]));
        }
        assert_eq!(inbox.next(&out), Taken::Nothing);
    }

    #[test]
    fn lengths_that_lie_keep_within_bounds() {
        let (out, into) = pipe();
        let mut inbox = Inbox::default();
        for seed in 0..2000_u32 {
            let noise = seed.wrapping_mul(2_654_435_761).to_ne_bytes();
            let _ = rustix::io::write(&into, &noise[..1 + seed as usize % 4]);
            while let Some(message) = whole(&mut inbox, &out) {
                assert!(message.len() <= LARGEST);
            }
            assert!(inbox.bytes.len() <= LARGEST + LENGTH_BYTES + READ_BYTES);
        }
        drop(into);
        while whole(&mut inbox, &out).is_some() {}
    }
}

//! The journal of systemd, by its native protocol: every field of a record is a field of the journal.
//!
//! `https://systemd.io/JOURNAL_NATIVE_PROTOCOL/`. No library is used, because those that there are send to one
//! socket only, which a journal namespace does not have, and wait for it without limit.
//!
//! Absent on purpose: which records it gets.

use std::{
    io::{self, IoSlice},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixDatagram,
    },
    path::PathBuf,
    time::Duration,
};

use hotmerge_meta::control::LogLevel;
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::{Errno, write},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};

use super::{
    delivery::{Attempt, Deliver, SinkError},
    queue::{Body, Item},
};
use crate::record::Record;

/// How long the journal may take for one record before it counts as failing.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest name of a field, in bytes.
const LONGEST_NAME: usize = 64;

/// Sends records to the journal.
pub(super) struct Journald {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Journald {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, socket: None }
    }

    fn connected(&mut self) -> io::Result<&UnixDatagram> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(&self.path)?;
                socket.set_write_timeout(Some(PATIENCE))?;
                socket
            }
        };
        Ok(self.socket.insert(socket))
    }

    fn send(&mut self, record: &Record) -> io::Result<()> {
        let fields = fields(record);
        let socket = self.connected()?;
        match socket.send(&fields) {
            Err(error) if is_too_long(&error) => send_file(socket, &fields),
            sent => sent.map(drop),
        }
    }
}

fn is_too_long(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MSGSIZE | Errno::NOBUFS))
}

/// Sends a record that is too long for a datagram as a sealed memory file.
fn send_file(socket: &UnixDatagram, mut fields: &[u8]) -> io::Result<()> {
    let file = memfd_create(
        "hotmerge-log",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    while !fields.is_empty() {
        let written = write(&file, fields)?;
        fields = &fields[written..];
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals)?;
    let files: [BorrowedFd<'_>; 1] = [file.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg(
        socket,
        &[IoSlice::new(&[])],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// A record as the journal takes it.
fn fields(record: &Record) -> Vec<u8> {
    let mut fields = Vec::new();
    let mut add = |name: &str, value: &str| field(&mut fields, name, value);
    add("MESSAGE", &record.message);
    add("PRIORITY", priority(record.level));
    add("SYSLOG_IDENTIFIER", "hotmerge");
    add("SYSLOG_PID", &std::process::id().to_string());
    add("HOTMERGE_TIME", &record.time());
    add("HOTMERGE_TARGET", &record.target);
    for (name, value) in record.context() {
        let upper = name.to_ascii_uppercase();
        let mut name = format!("HOTMERGE_{}", upper.replace(is_no_part_of_a_name, "_"));
        name.truncate(LONGEST_NAME);
        add(&name, &value);
    }
    fields
}

fn is_no_part_of_a_name(sign: char) -> bool {
    !(sign.is_ascii_uppercase() || sign.is_ascii_digit())
}

fn field(to: &mut Vec<u8>, name: &str, value: &str) {
    to.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        to.push(b'\n');
        to.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        to.push(b'=');
    }
    to.extend_from_slice(value.as_bytes());
    to.push(b'\n');
}

/// The priority of syslog that a level has.
fn priority(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "3",
        LogLevel::Warn => "4",
        LogLevel::Info => "6",
        LogLevel::Debug | LogLevel::Trace => "7",
    }
}

impl Deliver for Journald {
    fn deliver(&mut self, items: &[Item]) -> Attempt {
        for (delivered, item) in items.iter().enumerate() {
            let Body::Record(record) = &item.body else {
                continue;
            };
            if let Err(source) = self.send(record) {
                if is_too_long(&source) {
                    return Attempt::refused(delivered, source);
                }
                // A journal that was started anew has another socket.
                self.socket = None;
                let what = format!("failed to send to the journal at `{}`", self.path.display());
                return Attempt::failed(delivered, SinkError { what, source });
            }
        }
        Attempt::done(items.len())
    }

    fn reopen(&mut self) {
        self.socket = None;
    }
}

#[cfg(test)]
mod tests;

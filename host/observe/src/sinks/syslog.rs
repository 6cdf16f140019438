//! A syslog server, as RFC 5424 has it: over a Unix socket or UDP a record is a datagram, over TCP it follows
//! its length (RFC 6587).
//!
//! Invariant: a record is one line, whatever a plugin logs.
//!
//! Absent on purpose: which records it gets, and TLS.

use std::{
    fs, io,
    io::Write as _,
    net::{TcpStream, ToSocketAddrs as _, UdpSocket},
    os::unix::net::UnixDatagram,
    time::Duration,
};

use hotmerge_meta::{control::LogLevel, plain};
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use syslog_fmt::{
    Facility, Severity,
    v5424::{Config, Formatter, Msg, Timestamp},
};

use super::{
    delivery::{Attempt, Deliver, SinkError},
    queue::{Body, Item},
    settings::SyslogAddress,
};
use crate::record::Record;

/// How long a server may take to be reached and for each record.
const PATIENCE: Duration = Duration::from_secs(5);
/// The element of structured data. The number is the one that RFC 5612 has for examples; this project has none
/// of its own.
const ELEMENT: &str = "hotmerge@32473";
/// The longest name of a parameter, and of a kind of message.
const LONGEST_NAME: usize = 32;

/// Sends records to a syslog server.
pub(super) struct Syslog {
    address: SyslogAddress,
    format: Formatter,
    connection: Option<Connection>,
}

enum Connection {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Syslog {
    pub(super) fn new(address: SyslogAddress, facility: u8) -> Self {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = name(host.trim_end(), 255);
        let config = Config {
            facility: Facility::try_from(facility).unwrap_or(Facility::Daemon),
            hostname: (!host.is_empty()).then_some(&*host),
            app_name: Some("hotmerge"),
            proc_id: Some(&std::process::id().to_string()),
        };
        Self {
            address,
            format: config.into_formatter(),
            connection: None,
        }
    }

    fn connected(&mut self) -> io::Result<&mut Connection> {
        let connection = match self.connection.take() {
            Some(connection) if !connection.has_ended() => connection,
            _ => connect(&self.address)?,
        };
        Ok(self.connection.insert(connection))
    }

    fn send(&mut self, record: &Record) -> io::Result<()> {
        let message = message(&self.format, record)?;
        self.connected()?.send(&message)
    }
}

fn connect(address: &SyslogAddress) -> io::Result<Connection> {
    match address {
        SyslogAddress::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(Connection::Unix(socket))
        }
        SyslogAddress::Udp(address) => first_of(address, |address| {
            let any = if address.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect(address)?;
            Ok(Connection::Udp(socket))
        }),
        SyslogAddress::Tcp(address) => first_of(address, |address| {
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Connection::Tcp(stream))
        }),
    }
}

/// What the first of a name's addresses gives that gives anything.
fn first_of(
    address: &str,
    connect: impl Fn(std::net::SocketAddr) -> io::Result<Connection>,
) -> io::Result<Connection> {
    let mut last = io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match connect(address) {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Connection {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.send(message).map(drop),
            Self::Udp(socket) => socket.send(message).map(drop),
            Self::Tcp(stream) => {
                let mut framed = format!("{} ", message.len()).into_bytes();
                framed.extend_from_slice(message);
                stream.write_all(&framed)
            }
        }
    }

    /// Whether the server has closed it. A record that is written then would be lost without an error.
    fn has_ended(&self) -> bool {
        let Self::Tcp(stream) = self else {
            return false;
        };
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match recv(stream, &mut byte[..], flags) {
            Ok((_, read)) => read == 0,
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => true,
        }
    }
}

/// A record as the server takes it.
fn message(format: &Formatter, record: &Record) -> io::Result<Vec<u8>> {
    let context: Vec<_> = record
        .context()
        .into_iter()
        .map(|(it, value)| (name(it, LONGEST_NAME), plain(&value)))
        .filter(|(name, _)| !name.is_empty())
        .collect();
    let parameters = context.iter().map(|(name, value)| (&**name, &**value));
    let elements: Vec<_> = match context.is_empty() {
        true => Vec::new(),
        false => vec![(ELEMENT, parameters.collect::<Vec<_>>())],
    };
    let kind = name(&record.target, LONGEST_NAME);
    let mut message = Vec::new();
    format.write_with_data(
        &mut message,
        severity(record.level),
        Timestamp::PreformattedString(record.time()),
        text(&plain(&record.message)),
        (!kind.is_empty()).then_some(&*kind),
        elements,
    )?;
    Ok(message)
}

/// A message: only what is more than ASCII needs the mark that says UTF-8, which not every server removes.
fn text(message: &str) -> Msg<'_> {
    match message.is_ascii() {
        true => Msg::NonUnicodeBytes(message.as_bytes()),
        false => Msg::Utf8Str(message),
    }
}

/// A word with what a name may have, and no more of it than that.
fn name(text: &str, longest: usize) -> String {
    let signs = text.chars();
    let signs = signs.filter(|it| it.is_ascii_graphic() && !matches!(it, '=' | ']' | '"'));
    signs.take(longest).collect()
}

fn severity(level: LogLevel) -> Severity {
    match level {
        LogLevel::Error => Severity::Err,
        LogLevel::Warn => Severity::Warning,
        LogLevel::Info => Severity::Info,
        LogLevel::Debug | LogLevel::Trace => Severity::Debug,
    }
}

impl Deliver for Syslog {
    fn deliver(&mut self, items: &[Item]) -> Attempt {
        for (delivered, item) in items.iter().enumerate() {
            let Body::Record(record) = &item.body else {
                continue;
            };
            if let Err(source) = self.send(record) {
                if Errno::from_io_error(&source) == Some(Errno::MSGSIZE) {
                    return Attempt::refused(delivered, source);
                }
                self.connection = None;
                let what = format!("failed to send to the syslog server at `{}`", self.address);
                return Attempt::failed(delivered, SinkError { what, source });
            }
        }
        Attempt::done(items.len())
    }

    fn reopen(&mut self) {
        self.connection = None;
    }
}

#[cfg(test)]
mod tests;

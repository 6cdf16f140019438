//! What arrives at a syslog server.

use std::{io::Read as _, net::TcpListener, sync::Arc};

use super::*;
use crate::record::Source;

fn record(message: &str) -> Record {
    let mut record = Record::new(LogLevel::Warn, "hotmerge::plugin");
    record.message = message.to_owned();
    record.plugin = Some("a".to_owned());
    record
        .fields
        .insert("wh=y]".to_owned(), "\"odd\"]\nx".into());
    record
}

fn item(record: Record) -> Item {
    Item {
        level: record.level,
        source: Source::Host,
        body: Body::Record(Arc::new(record)),
    }
}

const LOCAL0: u8 = 16;

#[test]
fn a_record_is_one_line_of_rfc_5424() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let server = UnixDatagram::bind(&path).unwrap();
    let mut sink = Syslog::new(SyslogAddress::Unix(path), LOCAL0);
    let attempt = sink.deliver(&[item(record("one\n<0>1 forged")), item(record("zwei ä"))]);
    assert_eq!(attempt.delivered, 2, "{attempt:?}");
    let next = || {
        let mut bytes = [0; 4096];
        let length = server.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let line = next();
    let words: Vec<_> = line.splitn(7, ' ').collect();
    let [priority, time, _, program, pid, kind, rest] = &words[..] else {
        panic!("{line}");
    };
    // 16 * 8 + 4
    assert_eq!(
        (*priority, *program, *kind),
        ("<132>1", "hotmerge", "hotmerge::plugin")
    );
    assert!(time.ends_with('Z') && time.contains('T'), "{time}");
    assert_eq!(*pid, std::process::id().to_string());
    assert_eq!(
        *rest,
        r#"[hotmerge@32473 plugin="a" why="\"odd\"\]\\nx"] one\n<0>1 forged"#
    );
    // What is more than ASCII is marked.
    assert!(next().ends_with("] \u{feff}zwei ä"));
}

#[test]
fn tcp_has_the_length_before_each_record() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let mut sink = Syslog::new(SyslogAddress::Tcp(address), LOCAL0);
    assert_eq!(
        sink.deliver(&[item(record("one")), item(record("two"))])
            .delivered,
        2
    );
    drop(sink);
    let mut text = String::new();
    server
        .accept()
        .unwrap()
        .0
        .read_to_string(&mut text)
        .unwrap();
    for message in ["one", "two"] {
        let (length, rest) = text.split_once(' ').unwrap();
        let (line, rest) = rest.split_at(length.parse().unwrap());
        assert!(line.ends_with(message), "{line}");
        text = rest.to_owned();
    }
    assert_eq!(text, "");
}

#[test]
fn a_closed_connection_loses_no_record() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let mut sink = Syslog::new(SyslogAddress::Tcp(address), LOCAL0);
    assert_eq!(sink.deliver(&[item(record("one"))]).delivered, 1);
    let (mut first, _) = server.accept().unwrap();
    first.read_exact(&mut [0; 8]).unwrap();
    // Read to its end, it closes without an error.
    rustix::net::shutdown(&first, rustix::net::Shutdown::Write).unwrap();
    assert_eq!(sink.deliver(&[item(record("two"))]).delivered, 1);
    drop(sink);
    let mut text = String::new();
    server
        .accept()
        .unwrap()
        .0
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.ends_with("two"), "{text}");
}

#[test]
fn udp_sends_one_record_per_datagram() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let mut sink = Syslog::new(SyslogAddress::Udp(address), LOCAL0);
    let too_long = record(&"x".repeat(70_000));
    let attempt = sink.deliver(&[item(record("one")), item(too_long)]);
    assert_eq!(attempt.delivered, 1);
    assert!(
        attempt
            .failure
            .unwrap()
            .to_string()
            .starts_with("a record was refused"),
        "it is never tried again"
    );
    let mut bytes = [0; 4096];
    let length = server.recv(&mut bytes).unwrap();
    assert!(bytes[..length].ends_with(b"one"));
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut sink = Syslog::new(SyslogAddress::Tcp(closed.to_string()), LOCAL0);
    let reason = sink
        .deliver(&[item(record("one"))])
        .failure
        .unwrap()
        .to_string();
    let wanted =
        format!("failed to send to the syslog server at `tcp:{closed}`: Connection refused");
    assert!(reason.starts_with(&wanted), "{reason}");
}

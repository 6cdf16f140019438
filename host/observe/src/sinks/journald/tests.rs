//! What arrives at the journal's socket.

use std::{collections::BTreeMap, io::IoSliceMut, io::Read as _, io::Seek as _, sync::Arc};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::*;
use crate::record::Source;

/// The fields of an entry, as the protocol has them.
fn parsed(mut entry: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while !entry.is_empty() {
        let end = entry.iter().position(|byte| *byte == b'\n').unwrap();
        let line = String::from_utf8(entry[..end].to_vec()).unwrap();
        entry = &entry[end + 1..];
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => {
                let (length, rest) = entry.split_first_chunk::<8>().unwrap();
                let length = u64::from_le_bytes(*length) as usize;
                let value = String::from_utf8(rest[..length].to_vec()).unwrap();
                assert_eq!(rest[length], b'\n');
                entry = &rest[length + 1..];
                (line, value)
            }
        };
        assert!(fields.insert(name, value).is_none());
    }
    fields
}

fn item(record: Record) -> Item {
    Item {
        level: record.level,
        source: Source::Plugin,
        body: Body::Record(Arc::new(record)),
    }
}

fn record(message: &str) -> Record {
    let mut record = Record::new(LogLevel::Error, "plugin");
    record.message = message.to_owned();
    record.plugin = Some("a".to_owned());
    record.generation = Some(2);
    record.trace_id = Some("0af7".to_owned());
    record.fields.insert("odd näme".to_owned(), 7.into());
    record
}

struct Journal {
    dir: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Journal {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("socket")).unwrap();
        Self { dir, socket }
    }

    fn sink(&self) -> Journald {
        Journald::new(self.dir.path().join("socket"))
    }

    /// The next entry, and whether it came as a file.
    fn entry(&self) -> (BTreeMap<String, String>, bool) {
        let mut bytes = vec![0; 1 << 20];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
        .unwrap();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                assert_eq!(received.bytes, 0);
                let mut file = std::fs::File::from(files.last().unwrap());
                let mut entry = Vec::new();
                file.rewind().unwrap();
                file.read_to_end(&mut entry).unwrap();
                assert!(
                    rustix::fs::fcntl_get_seals(&file)
                        .unwrap()
                        .contains(SealFlags::WRITE)
                );
                return (parsed(&entry), true);
            }
        }
        (parsed(&bytes[..received.bytes]), false)
    }
}

#[test]
fn every_field_of_a_record_is_a_field() {
    let journal = Journal::new();
    let attempt = journal.sink().deliver(&[item(record("one\ntwo"))]);
    assert_eq!(attempt.delivered, 1, "{attempt:?}");
    let (entry, _) = journal.entry();
    for (name, value) in [
        ("MESSAGE", "one\ntwo"),
        ("PRIORITY", "3"),
        ("SYSLOG_IDENTIFIER", "hotmerge"),
        ("HOTMERGE_TARGET", "plugin"),
        ("HOTMERGE_PLUGIN", "a"),
        ("HOTMERGE_GENERATION", "2"),
        ("HOTMERGE_TRACE_ID", "0af7"),
        ("HOTMERGE_ODD_N_ME", "7"),
    ] {
        assert_eq!(entry[name], value, "{entry:?}");
    }
}

#[test]
fn a_field_forges_no_other() {
    let journal = Journal::new();
    let mut forged = record("x\nPRIORITY=0");
    forged
        .fields
        .insert("a\nMESSAGE".to_owned(), "y\nHOTMERGE_TARGET=z".into());
    journal.sink().deliver(&[item(forged)]);
    let (entry, _) = journal.entry();
    assert_eq!(
        (&*entry["PRIORITY"], &*entry["HOTMERGE_TARGET"]),
        ("3", "plugin")
    );
}

#[test]
fn a_record_longer_than_a_datagram_arrives() {
    let journal = Journal::new();
    let long = "x".repeat(4 << 20);
    let attempt = journal.sink().deliver(&[item(record(&long))]);
    assert_eq!(attempt.delivered, 1, "{attempt:?}");
    let (entry, is_file) = journal.entry();
    assert!(is_file);
    assert_eq!(entry["MESSAGE"], long);
}

#[test]
fn a_journal_started_anew_is_found_again() {
    let mut journal = Journal::new();
    let mut sink = journal.sink();
    assert_eq!(sink.deliver(&[item(record("one"))]).delivered, 1);
    let path = journal.dir.path().join("socket");
    std::fs::remove_file(&path).unwrap();
    journal.socket = UnixDatagram::bind(&path).unwrap();
    let lost = sink.deliver(&[item(record("two"))]);
    assert_eq!(lost.delivered, 0);
    let reason = lost.failure.unwrap().to_string();
    assert!(
        reason.starts_with("failed to send to the journal at `"),
        "{reason}"
    );
    assert_eq!(sink.deliver(&[item(record("two"))]).delivered, 1);
    assert_eq!(journal.entry().0["MESSAGE"], "two");
}

//! What a file holds after rotations, kills and errors.

use std::{
    os::unix::fs::{PermissionsExt as _, symlink},
    sync::Arc,
};

use hotmerge_meta::{Trust, control::LogLevel};
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::record::{Record, Source};

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn sink(&self, max_bytes: u64, keep: u32) -> File {
        File::new(FileSettings {
            path: self.dir.path().join("log"),
            max_bytes,
            keep,
            trust: Trust::anybody(),
        })
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    /// The numbers of the records in a file, each of which is whole.
    fn numbers(&self, name: &str) -> Vec<u64> {
        let text = self.read(name);
        assert!(text.is_empty() || text.ends_with('\n'), "{text}");
        let lines = text.lines();
        lines
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                line["fields"]["number"].as_u64().unwrap()
            })
            .collect()
    }
}

fn items(numbers: std::ops::Range<u64>) -> Vec<Item> {
    let item = |number: u64| {
        let mut record = Record::new(LogLevel::Info, "hotmerge::host");
        record.message = "said\nsomething".to_owned();
        record.fields.insert("number".to_owned(), number.into());
        Item {
            level: LogLevel::Info,
            source: Source::Host,
            body: Body::Record(Arc::new(record)),
        }
    };
    numbers.map(item).collect()
}

#[track_caller]
fn delivered(sink: &mut File, numbers: std::ops::Range<u64>) {
    let items = items(numbers);
    let attempt = sink.deliver(&items);
    assert_eq!(attempt.delivered, items.len(), "{attempt:?}");
    assert!(attempt.failure.is_none(), "{attempt:?}");
}

#[track_caller]
fn refused(sink: &mut File) -> String {
    let attempt = sink.deliver(&items(0..1));
    assert_eq!(attempt.delivered, 0);
    attempt.failure.expect("it fails").to_string()
}

#[test]
fn a_line_has_the_fields_of_its_record() {
    let place = Place::new();
    let mut record = Record::new(LogLevel::Warn, "plugin");
    record.plugin = Some("a".to_owned());
    record.generation = Some(2);
    record.message = "x".to_owned();
    let body = Body::Record(Arc::new(record));
    let item = Item {
        level: LogLevel::Warn,
        source: Source::Plugin,
        body,
    };
    assert_eq!(place.sink(0, 1).deliver(&[item]).delivered, 1);
    let line: Value = serde_json::from_str(&place.read("log")).unwrap();
    let names: Vec<_> = line.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        names,
        ["generation", "level", "message", "plugin", "target", "time"]
    );
    assert_eq!(
        (&line["level"], &line["generation"]),
        (&"warn".into(), &2.into())
    );
    let mode = fs::metadata(place.dir.path().join("log"))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o137, 0, "{mode:?}");
}

#[test]
fn rotation_loses_no_record() {
    let place = Place::new();
    let mut sink = place.sink(4096, 1000);
    for batch in 0..50 {
        delivered(&mut sink, batch * 10..batch * 10 + 10);
    }
    let mut names = vec!["log".to_owned()];
    names.extend((1..1000).map(|number| format!("log.{number}")));
    names.retain(|name| place.dir.path().join(name).exists());
    assert!(names.len() > 5, "{names:?}");
    let all: Vec<u64> = names
        .iter()
        .rev()
        .flat_map(|it| place.numbers(it))
        .collect();
    assert_eq!(all, (0..500).collect::<Vec<_>>());
    for name in &names {
        assert!(place.read(name).len() <= 4096, "{name}");
    }
}

#[test]
fn only_so_many_rotated_files_are_kept() {
    let place = Place::new();
    let mut sink = place.sink(4096, 2);
    delivered(&mut sink, 0..200);
    let count = fs::read_dir(place.dir.path()).unwrap().count();
    assert_eq!(count, 3);
    assert_eq!(place.numbers("log").last(), Some(&199));
    drop(sink);
    // A record that is larger than a file has one of its own.
    let mut sink = place.sink(10, 2);
    delivered(&mut sink, 0..3);
    assert_eq!(place.numbers("log.1"), [1]);
}

#[test]
fn a_renamed_file_is_left_when_asked() {
    let place = Place::new();
    let mut sink = place.sink(0, 1);
    delivered(&mut sink, 0..1);
    fs::rename(place.dir.path().join("log"), place.dir.path().join("old")).unwrap();
    delivered(&mut sink, 1..2);
    sink.reopen();
    assert!(place.dir.path().join("log").exists(), "at once");
    delivered(&mut sink, 2..3);
    assert_eq!(
        (place.numbers("old"), place.numbers("log")),
        (vec![0, 1], vec![2])
    );
}

#[test]
fn somebody_elses_rotation_is_not_repeated() {
    let place = Place::new();
    let mut sink = place.sink(4096, 3);
    delivered(&mut sink, 0..20);
    let path = place.dir.path().join("log");
    fs::rename(&path, place.dir.path().join("old")).unwrap();
    fs::write(&path, "theirs\n").unwrap();
    delivered(&mut sink, 20..40);
    assert!(place.read("log").starts_with("theirs\n{"));
    assert!(!place.dir.path().join("log.1").exists());
}

#[test]
fn a_torn_line_is_cut_off() {
    let place = Place::new();
    delivered(&mut place.sink(0, 1), 0..2);
    let path = place.dir.path().join("log");
    let whole = fs::read_to_string(&path).unwrap();
    for torn in [&whole[..60], "{", "{\"time\":\"2"] {
        fs::write(&path, format!("{whole}{torn}")).unwrap();
        delivered(&mut place.sink(0, 1), 2..3);
        assert_eq!(place.numbers("log"), [0, 1, 2], "{torn}");
    }
    // The only one.
    fs::write(&path, &whole[..60]).unwrap();
    delivered(&mut place.sink(0, 1), 7..8);
    assert_eq!(place.numbers("log"), [7]);
}

#[test]
fn text_of_others_is_not_cut_off() {
    let place = Place::new();
    let path = place.dir.path().join("log");
    for theirs in ["precious", "one\nprecious", "{\"precious\":1}"] {
        fs::write(&path, theirs).unwrap();
        delivered(&mut place.sink(0, 1), 0..1);
        assert!(
            place.read("log").starts_with(&format!("{theirs}\n{{")),
            "{theirs}"
        );
    }
}

#[test]
fn two_processes_write_no_file_at_once() {
    let place = Place::new();
    let mut first = place.sink(0, 1);
    delivered(&mut first, 0..1);
    let mut second = place.sink(0, 1);
    let reason = refused(&mut second);
    assert!(reason.ends_with("another process writes it"), "{reason}");
    drop(first);
    delivered(&mut second, 1..2);
    assert_eq!(place.numbers("log"), [0, 1]);
}

#[test]
fn an_unwritable_file_names_the_reason() {
    let place = Place::new();
    let sink = |path: &Path, trust| {
        File::new(FileSettings {
            path: path.to_owned(),
            max_bytes: 0,
            keep: 1,
            trust,
        })
    };
    let link = place.dir.path().join("link");
    symlink("elsewhere", &link).unwrap();
    let fifo = place.dir.path().join("fifo");
    rustix::fs::mkfifoat(CWD, &fifo, Mode::from_raw_mode(0o600)).unwrap();
    for (path, reason) in [
        (
            Path::new("/dev/full"),
            "failed to write to `/dev/full`: No space left",
        ),
        (&link, "it is a symbolic link"),
        (&fifo, "nobody reads from it"),
        (
            Path::new("/no/such/log"),
            "failed to open `/no/such/log`: No such file",
        ),
    ] {
        let said = refused(&mut sink(path, Trust::anybody()));
        assert!(said.contains(reason), "{said}");
    }
    // Others could lead a host elsewhere.
    let open = place.dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let said = refused(&mut sink(&open.join("log"), Trust::own()));
    assert!(said.contains("others may write to it"), "{said}");
    assert!(!open.join("log").exists());
}

#[test]
fn an_interrupted_write_leaves_whole_lines() {
    let place = Place::new();
    let mut sink = place.sink(0, 1);
    delivered(&mut sink, 0..3);
    let whole = place.read("log");
    // As a full disk has it: a part was written.
    let mut lines = Lines::default();
    items(3..5).iter().for_each(|item| lines.add(item));
    let part = lines.ends[0] + 7;
    let open = sink.opened().unwrap();
    open.write(&lines.bytes[..part]).unwrap();
    open.cut(7).unwrap();
    assert_eq!(place.numbers("log"), [0, 1, 2, 3]);
    assert!(place.read("log").starts_with(&whole));
    delivered(&mut sink, 4..5);
    assert_eq!(place.numbers("log"), [0, 1, 2, 3, 4]);
}

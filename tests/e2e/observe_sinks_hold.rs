//! Sinks that are full, slow, rotated or killed lose only what they count, and slow nobody down.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use hotmerge_meta::control::LogSinkStatus;
use hotmerge_tests::{Lab, SOON, TestHost, TinyDisk, actor, call, skipped};
use rustix::{
    fs::{CWD, Mode, mkfifoat},
    process::Signal,
};
use serde_json::Value;

/// Plugins' records to a file, and the host's own to standard error.
fn to_file(path: &Path, more: &str) -> String {
    format!(
        "[[log.sink]]\nname = \"console\"\ntype = \"stderr\"\n\
         [[log.sink]]\nname = \"file\"\ntype = \"file\"\npath = {path:?}\n{more}\n\
         [[log.route]]\nsources = [\"hotmerge\"]\nto = [\"console\"]\n\
         [[log.route]]\nsources = [\"plugin\"]\nto = [\"file\"]\n"
    )
}

fn started(lab: &Lab, path: &Path, more: &str) -> TestHost {
    lab.put(&actor("mark=one"));
    lab.start_with(&to_file(path, more))
}

/// Has the actor log so many records, one per call.
fn produce(host: &TestHost, numbers: std::ops::Range<u64>) {
    let mut client = host.client();
    for number in numbers {
        call(&mut client, "actor", "log", number.to_string().as_bytes()).unwrap();
    }
}

fn file_sink(host: &TestHost) -> LogSinkStatus {
    let sinks = host.status().host.log_sinks;
    sinks
        .into_iter()
        .find(|it| it.name == "file")
        .expect("it is configured")
}

fn sum(sink: &LogSinkStatus) -> u64 {
    assert_eq!(sink.dropped.host, 0, "{sink:?}");
    sink.delivered + sink.dropped.plugins + sink.failed + sink.waiting
}

#[track_caller]
fn wait_for(host: &TestHost, what: &str, is: impl Fn(&LogSinkStatus) -> bool) -> LogSinkStatus {
    host.wait_for(what, |status| {
        let sink = status.host.log_sinks.iter().find(|it| it.name == "file")?;
        is(sink).then(|| sink.clone())
    })
}

/// The records of the files that begin with this name, each line of which is whole.
#[track_caller]
fn records(dir: &Path, name: &str) -> Vec<Value> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(name)
        })
        .collect();
    paths.sort();
    let mut records = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "{}",
            path.display()
        );
        for line in text.lines() {
            let record = serde_json::from_str(line);
            records.push(record.unwrap_or_else(|_| panic!("{}: {line}", path.display())));
        }
    }
    records
}

/// The numbers that `produce` has the actor log.
fn numbers(records: &[Value]) -> Vec<u64> {
    let numbers = records.iter();
    let mut numbers: Vec<_> = numbers
        .filter_map(|it| it["message"].as_str().unwrap().parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn rotation_under_load_loses_no_record() {
    let lab = Lab::new();
    let dir = lab.path("logs");
    fs::create_dir(&dir).unwrap();
    let path = dir.join("log");
    let host = started(&lab, &path, "max_bytes = 16384\nkeep = 1000");
    let rotations = 20;
    for round in 0..rotations {
        produce(&host, round * 200..(round + 1) * 200);
        // Beside the host's own rotation, as logrotate does it.
        if fs::rename(&path, dir.join(format!("log-by-others-{round}"))).is_ok() {
            host.signal(Signal::HUP);
        }
    }
    let produced = rotations * 200;
    let sink = wait_for(&host, "all is delivered", |it| it.waiting == 0);
    assert_eq!(sum(&sink), produced, "{sink:?}");
    host.stop();
    let found = numbers(&records(&dir, "log"));
    assert_eq!(found.len() as u64, sink.delivered, "{sink:?}");
    assert_eq!((sink.dropped.plugins, sink.failed), (0, 0));
    assert_eq!(found, (0..produced).collect::<Vec<_>>());
    let rotated = fs::read_dir(&dir).unwrap().count() as u64;
    assert!(rotated > rotations, "{rotated}");
}

#[test]
fn a_full_disk_is_named_and_outlived() {
    let lab = Lab::new();
    let over = lab.path("disk");
    fs::create_dir(&over).unwrap();
    let Some(disk) = TinyDisk::new(&over, 160 << 10) else {
        skipped("this user may not mount anything");
        return;
    };
    let path = disk.path().join("log");
    let host = started(&lab, &path, "");
    produce(&host, 0..1000);
    let sink = wait_for(&host, "it fails", |it| it.failing);
    assert_eq!(sum(&sink), 1000, "{sink:?}");
    let reason = sink.last_error.unwrap().reason;
    assert!(reason.contains("No space left on device"), "{reason}");
    host.log().wait("the log sink fails and is tried again");
    let shown = lab.hotmerge(["status"]).ok().text();
    assert!(
        shown.contains("the log sink file is failing, last at "),
        "{shown}"
    );
    let kept = records(disk.path(), "log");
    // There is room again.
    fs::remove_file(&path).unwrap();
    host.signal(Signal::HUP);
    let sink = wait_for(&host, "it works again", |it| !it.failing && it.waiting == 0);
    host.log().wait("the log sink works again");
    assert_eq!(sum(&sink), 1000, "{sink:?}");
    let found = kept.len() + records(disk.path(), "log").len();
    assert_eq!(found as u64, sink.delivered, "{sink:?}");
}

#[test]
fn a_full_device_loses_only_counted_records() {
    let lab = Lab::new();
    let host = started(&lab, Path::new("/dev/full"), "queue_bytes = 65536");
    produce(&host, 0..1000);
    let sink = wait_for(&host, "it is full", |it| {
        it.dropped.plugins > 0 && it.failing
    });
    assert_eq!(sum(&sink), 1000, "{sink:?}");
    assert_eq!(sink.delivered, 0);
    let began = Instant::now();
    let log = host.stop();
    assert!(began.elapsed() < SOON / 2);
    let left = log
        .messages()
        .into_iter()
        .find(|it| it.contains("the log sink `file` did not deliver"));
    assert!(left.is_some(), "{log}");
}

#[test]
fn a_hanging_sink_slows_no_call() {
    let lab = Lab::new();
    let path = lab.path("fifo");
    mkfifoat(CWD, &path, Mode::from_raw_mode(0o666)).unwrap();
    // Somebody has it open and never reads.
    let reader = fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let host = started(&lab, &path, "queue_bytes = 65536");
    let (before, during) = (2000, 4000);
    produce(&host, 0..before);
    let sink = wait_for(&host, "there is no room", |it| it.dropped.plugins > 0);
    let delivered = sink.delivered;
    let mut longest = std::time::Duration::ZERO;
    let mut client = host.client();
    for number in 0..during {
        let began = Instant::now();
        call(&mut client, "actor", "log", format!("{number}").as_bytes()).unwrap();
        longest = longest.max(began.elapsed());
    }
    assert!(longest < SOON / 2, "{longest:?}");
    let sink = file_sink(&host);
    assert_eq!(sink.delivered, delivered, "nobody reads: {sink:?}");
    assert_eq!(sum(&sink), before + during, "{sink:?}");
    // The host's own records still arrive, and it still ends.
    host.signal(Signal::USR2);
    host.log().wait("report");
    let log = host.stop();
    let left = log
        .messages()
        .into_iter()
        .find(|it| it.contains("the log sink `file` did not deliver"));
    assert!(left.is_some(), "{log}");
    drop(reader);
}

#[test]
fn a_fifo_without_a_reader_is_named() {
    let lab = Lab::new();
    let path = lab.path("fifo");
    mkfifoat(CWD, &path, Mode::from_raw_mode(0o666)).unwrap();
    let host = started(&lab, &path, "");
    produce(&host, 0..1);
    let sink = wait_for(&host, "it fails", |it| it.failing);
    let reason = sink.last_error.unwrap().reason;
    assert!(reason.ends_with("nobody reads from it"), "{reason}");
}

#[test]
fn a_killed_host_leaves_whole_lines() {
    let lab = Lab::new();
    let dir = lab.path("logs");
    fs::create_dir(&dir).unwrap();
    let path = dir.join("log");
    for _ in 0..5 {
        let host = started(&lab, &path, "max_bytes = 1048576\nkeep = 3");
        // It has cut off what the one before may have left of a line.
        produce(&host, 0..1);
        wait_for(&host, "a record is written", |it| it.delivered > 0);
        records(&dir, "log");
        let text = "x".repeat(5000);
        let callers: Vec<_> =
            (0..4)
                .map(|_| {
                    let text = text.clone();
                    host.in_background(move |client| {
                        while call(client, "actor", "log", text.as_bytes()).is_ok() {}
                    })
                })
                .collect();
        wait_for(&host, "there is a flood", |it| it.delivered > 500);
        host.signal(Signal::KILL);
        for caller in callers {
            caller.join().unwrap();
        }
        drop(host);
    }
    let host = started(&lab, &path, "");
    produce(&host, 0..1);
    wait_for(&host, "a record is written", |it| it.delivered > 0);
    assert!(records(&dir, "log").len() > 500);
}

//! What is kept, and what readers get of it.

use std::thread;

use tracing::{debug_span, error, info};
use tracing_subscriber::layer::SubscriberExt as _;

use hotmerge_meta::control::LogLevel;
use serde_json::Value;
use tracing_subscriber::layer::Identity;

use super::*;
use crate::capture::Capture;

fn capture(records: &Arc<Records>) -> Capture<Identity> {
    Capture::new(Some(Arc::clone(records)), None, Identity::new())
}

const ROOM: Limits = Limits {
    records: 8,
    bytes: 1 << 20,
};

/// What is kept of what happens in `body`.
fn kept(limits: Limits, body: impl FnOnce()) -> Arc<Records> {
    let records = Records::new(limits);
    let subscriber = tracing_subscriber::registry().with(capture(&records));
    tracing::subscriber::with_default(subscriber, body);
    records
}

fn all() -> LogsParams {
    LogsParams::default()
}

#[test]
fn a_record_keeps_its_fields_as_fields() {
    let records = kept(ROOM, || {
        info!(target: "plugin", plugin = "a", version = "1.0.0", generation = 3_u64, trace_id = "t",
            span_id = "s", count = 7, ok = true, what = ?"x\ny", "said {}", 1);
        let _plugin = debug_span!(target: "hotmerge::host", "plugin", plugin = %"b").entered();
        error!(target: "hotmerge::host", "in a span");
    });
    let reply = records.read(&all());
    assert_eq!((reply.next, reply.end, reply.lost), (2, 2, 0));
    let [first, second] = &reply.records[..] else {
        panic!("{reply:?}");
    };
    assert_eq!(first.message, "said 1");
    assert_eq!((&*first.level, &*first.target), ("info", "plugin"));
    assert_eq!(first.plugin.as_deref(), Some("a"));
    assert_eq!(first.version.as_deref(), Some("1.0.0"));
    assert_eq!(first.generation, Some(3));
    assert_eq!(
        (first.trace_id.as_deref(), first.span_id.as_deref()),
        (Some("t"), Some("s"))
    );
    let fields = serde_json::json!({ "count": 7, "ok": true, "what": "\"x\\ny\"" });
    assert_eq!(Value::Object(first.fields.clone()), fields);
    assert_eq!(second.plugin.as_deref(), Some("b"));
}

#[test]
fn records_are_bounded_in_number_and_bytes() {
    let say = |number: usize, length: usize| {
        for number in 0..number {
            info!(target: "hotmerge::host", "{number} {}", "x".repeat(length));
        }
    };
    let records = kept(ROOM, || say(20, 1));
    let reply = records.read(&all());
    assert_eq!(reply.records.len(), 8);
    assert!(reply.records[0].message.starts_with("12 "), "{reply:?}");
    assert_eq!(
        (reply.records[0].position, reply.next, reply.lost),
        (12, 20, 0)
    );
    // From a position that is gone, what was lost is told.
    let from_start = LogsParams {
        from: Some(0),
        ..all()
    };
    assert_eq!(records.read(&from_start).lost, 12);

    let small = Limits {
        records: 1000,
        bytes: 10_000,
    };
    let records = kept(small, || say(100, 1000));
    assert!(records.lock().bytes <= small.bytes);
    let left = records.read(&all()).records.len();
    assert!((1..10).contains(&left), "{left}");
    let records = kept(small, || say(1, 1 << 20));
    assert_eq!(
        records.read(&all()).records.len(),
        0,
        "one that has no room"
    );

    let none = Limits { records: 0, ..ROOM };
    let records = kept(none, || say(3, 1));
    assert_eq!(records.read(&all()).records.len(), 0);
}

#[test]
fn only_requested_records_are_returned() {
    let records = kept(ROOM, || {
        info!(target: "hotmerge::host", plugin = "a", trace_id = "t", "one");
        error!(target: "hotmerge::host", plugin = "b", "two");
        tracing::debug!(target: "hotmerge::host", plugin = "a", "three");
    });
    let told = |wanted: LogsParams| -> Vec<String> {
        let reply = records.read(&wanted);
        assert_eq!(reply.next, 3);
        reply.records.into_iter().map(|it| it.message).collect()
    };
    let of_a = LogsParams {
        plugins: vec!["a".parse().unwrap()],
        ..all()
    };
    assert_eq!(told(of_a.clone()), ["one", "three"]);
    let level = Some(LogLevel::Info);
    assert_eq!(told(LogsParams { level, ..of_a }), ["one"]);
    let trace_id = Some("t".to_owned());
    assert_eq!(told(LogsParams { trace_id, ..all() }), ["one"]);
    let since_ms = Some(i64::MAX);
    assert_eq!(told(LogsParams { since_ms, ..all() }), [""; 0]);
}

#[test]
fn a_long_log_is_returned_in_portions() {
    let limits = Limits {
        records: 5000,
        bytes: 64 << 20,
    };
    let records = kept(limits, || {
        for number in 0..3000 {
            info!(target: "hotmerge::host", "{number}");
        }
    });
    let mut wanted = all();
    let mut told = Vec::new();
    loop {
        let reply = records.read(&wanted);
        assert!(reply.records.len() <= ANSWER);
        told.extend(reply.records.into_iter().map(|it| it.message));
        if reply.next == reply.end {
            break;
        }
        wanted.from = Some(reply.next);
    }
    let expected: Vec<String> = (0..3000).map(|number| number.to_string()).collect();
    assert_eq!(told, expected);
}

#[test]
fn a_reader_waits_for_the_next_record() {
    let records = kept(ROOM, || info!(target: "hotmerge::host", "before"));
    let wanted = LogsParams {
        from: Some(1),
        wait_ms: u64::MAX,
        ..all()
    };
    thread::scope(|scope| {
        let reader = scope.spawn(|| records.read(&wanted));
        let subscriber = tracing_subscriber::registry().with(capture(&records));
        tracing::subscriber::with_default(subscriber, || info!(target: "hotmerge::host", "after"));
        let reply = reader.join().unwrap();
        assert_eq!(reply.records[0].message, "after");
    });
}

#[test]
fn a_reader_that_stalls_blocks_nobody() {
    let records = kept(ROOM, || info!(target: "hotmerge::host", "first"));
    let position = records.read(&all()).next;
    let subscriber = tracing_subscriber::registry().with(capture(&records));
    tracing::subscriber::with_default(subscriber, || {
        for number in 0..1000 {
            info!(target: "hotmerge::host", "{number}");
        }
    });
    let reply = records.read(&LogsParams {
        from: Some(position),
        ..all()
    });
    assert_eq!((reply.records.len() as u64, reply.lost), (8, 992));
}

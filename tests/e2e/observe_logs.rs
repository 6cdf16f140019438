//! The host's log can be read back and followed without any server.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use hotmerge_meta::control::{LogsParams, LogsReply, TraceParent, method};
use hotmerge_tests::{Lab, Process, SOON, TestHost, actor, call, call_params};
use serde_json::Value;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn observed(lab: &Lab, more: &str) -> TestHost {
    lab.put(&actor("mark=one"));
    lab.start_with(&(lab.living_in("process") + more))
}

/// Has the actor log a text, in this trace.
#[track_caller]
fn say(host: &TestHost, text: &str, trace: Option<&str>) {
    let mut params = call_params("actor", "log", text.as_bytes());
    params.trace = trace.map(|id| {
        let parent = format!("00-{id}-b7ad6b7169203331-01");
        parent.parse::<TraceParent>().unwrap()
    });
    let _: Value = host.client().request(method::CALL, &params, SOON).unwrap();
}

/// The records that the command shows, once there are as many.
#[track_caller]
fn logs(host: &TestHost, lab: &Lab, arguments: &[&str], wanted: usize) -> Vec<Value> {
    let arguments = ["logs", "--json"].iter().chain(arguments).copied();
    let arguments: Vec<_> = arguments.collect();
    host.wait_for("the records are there", |_| {
        let lines = lab.hotmerge(arguments.iter().copied()).ok().lines();
        (lines.len() >= wanted).then_some(lines)
    })
}

#[test]
fn a_plugins_record_is_read_with_its_context() {
    let lab = Lab::new();
    let host = observed(&lab, "");
    say(&host, "first", None);
    host.reload_after(|| lab.put(&actor("mark=two").version("1.1.0")));
    say(&host, "second", Some(TRACE));
    let upper = TRACE.to_ascii_uppercase();
    let found = logs(&host, &lab, &["--trace", &upper], 1);
    let [record] = &found[..] else {
        panic!("{found:#?}");
    };
    for (name, value) in [
        ("message", "second"),
        ("level", "warn"),
        ("target", "plugin"),
        ("plugin", "actor"),
        ("version", "1.1.0"),
        ("trace_id", TRACE),
    ] {
        assert_eq!(record[name], value, "{record}");
    }
    assert_eq!(record["generation"], 2, "{record}");
    assert_eq!(
        record["span_id"].as_str().map(str::len),
        Some(16),
        "{record}"
    );
    let since = ["actor", "--level", "warn", "--since", "10m"];
    let texts: Vec<_> = logs(&host, &lab, &since, 2)
        .into_iter()
        .filter(|it| it["target"] == "plugin")
        .map(|it| it["message"].clone())
        .collect();
    assert_eq!(texts, ["first", "second"]);
    let later = ["--since", "2199-01-01T00:00:00Z"];
    assert_eq!(logs(&host, &lab, &later, 0).len(), 0);
    let host_own = logs(&host, &lab, &["actor"], 3);
    assert!(
        host_own.iter().any(|it| it["message"] == "reloaded"),
        "{host_own:#?}"
    );
    assert_eq!(logs(&host, &lab, &["nobody"], 0).len(), 0);
}

#[test]
fn new_records_can_be_followed() {
    let lab = Lab::new();
    let host = observed(&lab, "");
    let mut command = lab.command();
    command
        .args(["logs", "--follow", "--json", "actor", "--level", "warn"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut follower = Process::spawn(&mut command);
    let mut lines = BufReader::new(follower.child().stdout.take().unwrap()).lines();
    for number in 0..3 {
        let text = format!("record {number}");
        say(&host, &text, None);
        let line = lines.next().expect("there is one").unwrap();
        let record: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(record["message"], text, "{record}");
    }
    // A reader that goes ends it, at the next record.
    drop(lines);
    say(&host, "nobody reads this", None);
    assert!(follower.wait(SOON).is_some_and(|status| status.success()));
}

#[test]
fn a_terminal_gets_no_orders_from_a_plugin() {
    let lab = Lab::new();
    let host = observed(&lab, "");
    say(&host, "red \u{1b}[31m\nERROR hotmerge::host: forged", None);
    logs(&host, &lab, &["--level", "warn"], 1);
    let shown = lab.hotmerge(["logs", "--level", "warn"]).ok().text();
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(shown.contains(r"red \u{1b}[31m\nERROR"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn a_host_keeps_no_more_records_than_configured() {
    let lab = Lab::new();
    let host = observed(&lab, "[log]\nrecords = 4\n");
    let mut client = host.client();
    for number in 0..20 {
        call(&mut client, "actor", "log", format!("{number}").as_bytes()).unwrap();
    }
    host.log().wait("19");
    let ask = |from| -> LogsReply {
        let params = LogsParams {
            from,
            ..LogsParams::default()
        };
        host.client().request(method::LOGS, &params, SOON).unwrap()
    };
    let kept = host.wait_for("the last one is kept", |_| {
        let reply = ask(None);
        let last = reply.records.last().map(|it| it.message.clone());
        (last.as_deref() == Some("19")).then_some(reply)
    });
    assert_eq!((kept.records.len(), kept.lost), (4, 0));
    // A reader that continues from long ago learns how much was lost.
    assert_eq!(ask(Some(0)).lost, kept.end - 4);
}

#[test]
fn a_waiting_reader_keeps_no_host_from_ending() {
    let lab = Lab::new();
    let host = observed(&lab, "");
    let reply: LogsReply = host
        .client()
        .request(method::LOGS, &LogsParams::default(), SOON)
        .unwrap();
    let params = LogsParams {
        from: Some(reply.end),
        level: Some("error".parse().unwrap()),
        wait_ms: u64::MAX,
        ..LogsParams::default()
    };
    let waiting = host.in_background(move |client| {
        // It may be cut off.
        client
            .request::<LogsReply>(method::LOGS, &params, SOON)
            .is_ok()
    });
    host.stop();
    waiting.join().unwrap();
}

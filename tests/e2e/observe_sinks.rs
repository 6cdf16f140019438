//! Records of the log reach the sinks that the routes name, and third-party servers understand them.

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
};

use hotmerge_meta::control::{LogSinkStatus, ReloadParams};
use hotmerge_tests::{
    Http, Lab, Process, Rsyslog, SOON, TestHost, actor, is_ready, open_http, run, skipped,
};
use rustix::process::{Signal, geteuid};
use serde_json::Value;

/// Standard error, which the tests watch.
const WATCHED: &str = "[[log.sink]]\nname = \"console\"\ntype = \"stderr\"\n\
                       [[log.route]]\nto = [\"console\"]\n";

fn sink(name: &str, kind: &str, more: &str) -> String {
    format!("[[log.sink]]\nname = \"{name}\"\ntype = \"{kind}\"\n{more}\n")
}

fn file(lab: &Lab, name: &str) -> String {
    let path = lab.path(name);
    sink(name, "file", &format!("path = {path:?}"))
}

fn route(more: &str) -> String {
    format!("[[log.route]]\n{more}\n")
}

fn say(host: &TestHost, text: &str) {
    host.call("actor", "log", text.as_bytes()).unwrap();
}

/// The messages in a file, each line of which is a record.
#[track_caller]
fn messages(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let message = |line| {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        record["message"].as_str().unwrap().to_owned()
    };
    text.lines().map(message).collect()
}

/// Waits until a sink has delivered what it was given.
#[track_caller]
fn settled(host: &TestHost, name: &str, least: u64) -> LogSinkStatus {
    host.wait_for("the sink has delivered", |status| {
        let sink = status.host.log_sinks.iter().find(|it| it.name == name)?;
        (sink.delivered >= least && sink.waiting == 0).then(|| sink.clone())
    })
}

#[test]
fn records_reach_the_sinks_of_their_routes() {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let config = WATCHED.to_owned()
        + &file(&lab, "plugins-log")
        + &file(&lab, "live-log")
        + &route("plugins = [\"actor\"]\nsources = [\"plugin\"]\nto = [\"plugins-log\"]")
        + &route("level = \"info\"\nsources = [\"hotmerge::plugin\"]\nto = [\"live-log\"]")
        + &open_http("");
    let (host, http) = Http::start(&lab, &config);
    say(&host, "first");
    settled(&host, "plugins-log", 1);
    assert_eq!(messages(&lab.path("plugins-log")), ["first"]);
    settled(&host, "live-log", 1);
    let live = messages(&lab.path("live-log"));
    assert!(live.iter().any(|it| it == "loaded"), "{live:?}");
    assert!(!live.iter().any(|it| it == "first"), "{live:?}");
    host.log().wait("first");
    // It is shown, and can be scraped.
    let shown = lab.hotmerge(["status"]).ok().text();
    assert!(
        shown.contains("log sink plugins-log (file): 1 delivered, 0 dropped, 0 failed, 0 waiting"),
        "{shown}"
    );
    let text = String::from_utf8(http.get("/metrics").body).unwrap();
    for line in [
        "hotmerge_log_records_delivered_total{sink=\"plugins-log\"} 1",
        "hotmerge_log_records_failed_total{sink=\"plugins-log\"} 0",
        "hotmerge_log_records_dropped_total{sink=\"plugins-log\",source=\"plugin\"} 0",
        "hotmerge_log_records_waiting{sink=\"plugins-log\"} 0.0",
        "hotmerge_log_sink_failing{sink=\"plugins-log\"} 0.0",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} in {text}");
    }
    // The command says the same, of the host's configuration and of the file without a host.
    let path = lab.path("hotmerge.toml").display().to_string();
    for place in [&[][..], &["--config", &path]] {
        let arguments = ["routes", "test", "--json", "level=ERROR plugin=actor"];
        let arguments = arguments.iter().chain(place).copied();
        let answer = lab.hotmerge(arguments).ok().json();
        let names: Vec<_> = answer["sinks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| &it["name"])
            .collect();
        assert_eq!(names, ["console", "plugins-log"], "{answer}");
        assert_eq!(answer["routes"], serde_json::json!([1, 2]));
    }
}

#[test]
fn a_reload_changes_all_routes_or_none() {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let of_plugin = "sources = [\"plugin\"]\nto = ";
    let with = |name: &str| {
        WATCHED.to_owned() + &file(&lab, name) + &route(&format!("{of_plugin}[\"{name}\"]"))
    };
    let host = lab.start_with(&with("one"));
    say(&host, "first");
    settled(&host, "one", 1);
    let reload = |config: &str| {
        lab.serve(config);
        host.reload_with(&ReloadParams {
            config: true,
            ..ReloadParams::default()
        })
    };
    let wrong = with("two").replace("to = [\"two\"]", "to = [\"twoo\"]");
    let refused = reload(&wrong).config.unwrap().refused.unwrap();
    assert!(refused.contains("names the sink `twoo`"), "{refused}");
    assert!(
        refused.contains("line ") && refused.contains("did you mean `two`?"),
        "{refused}"
    );
    say(&host, "second");
    settled(&host, "one", 2);
    let done = reload(&with("two")).config.unwrap();
    assert_eq!((done.refused, done.needs_restart.len()), (None, 0));
    say(&host, "third");
    settled(&host, "two", 1);
    assert_eq!(messages(&lab.path("one")), ["first", "second"]);
    assert_eq!(messages(&lab.path("two")), ["third"]);
    let names: Vec<_> = host
        .status()
        .host
        .log_sinks
        .into_iter()
        .map(|it| it.name)
        .collect();
    assert_eq!(names, ["console", "two"]);
}

#[test]
fn a_signal_reopens_a_renamed_file() {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let config =
        WATCHED.to_owned() + &file(&lab, "log") + &route("sources = [\"plugin\"]\nto = [\"log\"]");
    let host = lab.start_with(&config);
    say(&host, "first");
    settled(&host, "log", 1);
    fs::rename(lab.path("log"), lab.path("log.1")).unwrap();
    // Also if the configuration cannot be used.
    lab.serve("no-such-key = 1");
    host.signal(Signal::HUP);
    host.wait_for("there is a new file", |_| {
        lab.path("log").exists().then_some(())
    });
    say(&host, "second");
    settled(&host, "log", 2);
    assert_eq!(messages(&lab.path("log.1")), ["first"]);
    assert_eq!(messages(&lab.path("log")), ["second"]);
}

#[test]
fn rsyslog_understands_every_record() {
    let lab = Lab::new();
    lab.put(&actor("mark=one").version("1.2.3"));
    let server = Rsyslog::start(&lab.path(""));
    let config = WATCHED.to_owned()
        + &sink(
            "tcp",
            "syslog",
            &format!(
                "address = \"tcp:{}\"\nfacility = \"local3\"",
                server.address()
            ),
        )
        + &sink(
            "unix",
            "syslog",
            &format!("address = \"unix:{}\"", server.socket().display()),
        )
        + &route("sources = [\"plugin\"]\nto = [\"tcp\", \"unix\"]");
    let host = lab.start_with(&config);
    for number in 0..50 {
        say(&host, &format!("record {number} \"]\nforged"));
    }
    settled(&host, "tcp", 50);
    settled(&host, "unix", 50);
    let received = host.wait_for("rsyslog has them", |_| {
        let received = server.received();
        (received.len() >= 100).then_some(received)
    });
    for facility in ["local3", "daemon"] {
        let of = received
            .iter()
            .filter(|it| it["syslogfacility_text"] == facility);
        let of: Vec<_> = of.collect();
        assert_eq!(of.len(), 50, "{facility}: {received:#?}");
        for (number, record) in of.into_iter().enumerate() {
            let message = record["msg"].as_str().unwrap().trim_start();
            assert_eq!(message, format!("record {number} \"]\\nforged"), "{record}");
            assert_eq!(record["syslogseverity_text"], "warning", "{record}");
            assert_eq!(
                (&record["app_name"], &record["msgid"]),
                (&"hotmerge".into(), &"plugin".into())
            );
            let data = record["structured_data"].as_str().unwrap();
            assert!(
                data.contains("plugin=\"actor\" version=\"1.2.3\""),
                "{record}"
            );
        }
    }
}

/// The journal of systemd in a mount namespace of its own.
struct Journal {
    process: Process,
}

impl Journal {
    fn start() -> Self {
        let script = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log \
                      && mkdir -p /run/log/journal /run/systemd \
                      && { /lib/systemd/systemd-journald & } && echo ready && exec cat";
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                script,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = Process::spawn(&mut command);
        let mut output = process.child().stdout.take().unwrap();
        assert!(is_ready(&output, SOON), "the namespace is not made");
        output.read_exact(&mut [0; 5]).unwrap();
        Self { process }
    }

    /// The number of the process that is inside.
    fn inside(&self) -> u32 {
        let pid = self.process.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn entries(&self) -> Vec<Value> {
        let inside = self.inside().to_string();
        let mut command = Command::new("nsenter");
        command.args([
            "--mount",
            "--target",
            &inside,
            "journalctl",
            "--directory=/run/log/journal",
        ]);
        command.args(["--output=json", "--all", "SYSLOG_IDENTIFIER=hotmerge"]);
        let shown = run(&mut command, SOON);
        let text = String::from_utf8_lossy(&shown.stdout);
        let lines = text.lines();
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

#[test]
fn the_journal_has_every_field() {
    let program = Path::new("/lib/systemd/systemd-journald");
    if !geteuid().is_root() || !program.exists() {
        skipped("the journal runs as root, from Debian's package systemd");
        return;
    }
    let lab = Lab::new();
    lab.put(&actor("mark=one").version("1.2.3"));
    let journal = Journal::start();
    let socket = format!("/proc/{}/root/run/systemd/journal/socket", journal.inside());
    let config = WATCHED.to_owned()
        + &sink("journal", "journald", &format!("socket = \"{socket}\""))
        + &route("sources = [\"plugin\"]\nto = [\"journal\"]");
    let host = lab.start_with(&config);
    let long = "x".repeat(12_000);
    say(&host, "one\nPRIORITY=0");
    say(&host, &long);
    settled(&host, "journal", 2);
    let entries = host.wait_for("the journal has them", |_| {
        let entries = journal.entries();
        (entries.len() >= 2).then_some(entries)
    });
    for (name, value) in [
        ("MESSAGE", "one\nPRIORITY=0"),
        ("PRIORITY", "4"),
        ("HOTMERGE_PLUGIN", "actor"),
        ("HOTMERGE_VERSION", "1.2.3"),
        ("HOTMERGE_GENERATION", "1"),
        ("HOTMERGE_TARGET", "plugin"),
    ] {
        assert_eq!(entries[0][name], value, "{:#}", entries[0]);
    }
    assert_eq!(entries[1]["MESSAGE"], *long);
}

//! The page as it is written.

use serde_json::{Value, from_value, json};

use super::*;

const HASH: &str = "sha256:5f0c3f1b7d4e8a9260b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f50617";

/// What others say, if they mean harm.
const HOSTILE: &str = "\u{202e}<script>alert(1)</script>\" onload='x' &amp;\u{0}\n</style>";

fn host() -> Value {
    json!({
        "version": "0.1.0", "pid": 4711, "abi": "1.3", "target": "x86_64-unknown-linux-gnu",
        "plugin_dir": "/usr/lib/hotmerge/plugins", "started": "2026-01-02T03:00:00Z",
        "watch": "inotify", "rescans": 7, "full_looks": 2, "last_look": "2026-01-02T03:04:00Z",
        "position": 3, "retained": 0, "stuck": 0, "overdue": 0, "log_dropped": 0,
        "limits": "rlimits",
        "watchers": [{
            "name": "inotify", "scope": "a directory", "directories": 3, "events": 12, "overflows": 0,
        }],
        "door": { "connections": 5, "open": 1, "requests": 9 },
        "config": { "file": "/etc/hotmerge/hotmerge.toml", "since": "2026-01-02T03:00:00Z" },
    })
}

fn plugin(name: &str, state: &str) -> Value {
    json!({
        "name": name, "version": "1.2.3", "hash": HASH, "state": state, "generation": 2,
        "isolation": "process", "package": name, "address": null, "calls": 1200,
        "calls_failed": 3, "calls_panicked": 0, "retained": 0, "ending": [], "refused": null,
        "restarts": 1,
        "worker": { "pid": 4712, "memory_bytes": 3 << 20, "cpu_ms": 250, "degraded": [], "log_dropped": 0 },
    })
}

fn change(
    time: &str,
    plugin: &str,
    action: &str,
    pause_ms: Option<f64>,
    reason: Option<&str>,
) -> Value {
    json!({
        "time": time, "cause": "changed",
        "report": {
            "plugin": plugin, "action": action, "hash": HASH, "version": "1.2.3", "generation": 2,
            "pause_ms": pause_ms, "took_ms": 12.5, "reason": reason,
        },
    })
}

fn view(status: Value, changes: Value) -> View {
    View {
        status: from_value(status).expect("it is a status"),
        figures: Figures {
            plugins: vec![PluginFigures {
                plugin: "counter".parse().unwrap(),
                calls: Vec::new(),
                in_flight: 2,
                latency: hotmerge_meta::figures::Distribution {
                    sum: 1.0,
                    buckets: vec![(0.000_01, 1000), (0.001, 199), (f64::INFINITY, 1)],
                },
                crashes: 1,
            }],
            ..Figures::default()
        },
        changes: from_value(changes).expect("they are changes"),
        now: "2026-01-02T03:04:05Z".parse().unwrap(),
    }
}

/// The page, an element per line, without style and script.
fn lines(view: &View) -> String {
    let page = view.render("1-2").into_string();
    page.replace(STYLE, "")
        .replace(SCRIPT, "")
        .replace('<', "\n<")
}

#[test]
fn a_page_shows_host_plugins_and_reloads() {
    let view = view(
        json!({ "host": host(), "plugins": [plugin("counter", "active")], "problems": [] }),
        json!([
            change("2026-01-02T03:00:01Z", "counter", "loaded", None, None),
            change(
                "2026-01-02T03:02:01.250Z",
                "counter",
                "reloaded",
                Some(1.25),
                None
            ),
            change(
                "2026-01-02T03:03:01Z",
                "counter",
                "refused",
                None,
                Some("it refuses to start")
            ),
        ]),
    );
    insta::assert_snapshot!(lines(&view));
}

#[test]
fn a_host_without_plugins_says_so() {
    let view = view(
        json!({ "host": host(), "plugins": [], "problems": [] }),
        json!([]),
    );
    let page = lines(&view);
    for said in [
        "0 plugins, 0 active",
        "There are none in",
        "Nothing has changed",
    ] {
        assert!(page.contains(said), "{said}: {page}");
    }
    assert!(!page.contains("<svg"), "there is nothing to draw: {page}");
}

/// A host where everything that others say is hostile.
fn hostile(said: &str) -> View {
    let mut host = host();
    for field in [
        "version",
        "abi",
        "target",
        "plugin_dir",
        "state_dir",
        "started",
        "watch",
        "limits",
        "last_look",
    ] {
        host[field] = said.into();
    }
    host["degraded"] = json!([said]);
    host["config"] = json!({
        "file": said, "since": said,
        "needs_restart": [{ "key": said, "in_force": said, "configured": said }],
        "refused": { "time": said, "reason": said },
    });
    host["store_failure"] = json!({ "since": said, "reason": said, "plugins": [] });
    host["watchers"] = json!([{
        "name": said, "scope": said, "directories": 1, "events": 1, "overflows": 1, "failure": said,
    }]);
    let mut plugin = plugin("counter", "error");
    for field in ["name", "version", "isolation", "reason"] {
        plugin[field] = said.into();
    }
    plugin["waiting"] = json!([said]);
    plugin["not_granted"] = json!([said]);
    plugin["last_failure"] =
        json!({ "time": said, "what": said, "method": said, "trace_id": said });
    plugin["ending"] = json!([{ "hash": HASH, "state": said }]);
    plugin["canary"] = json!({ "version": said, "hash": HASH, "calls": 1, "failed": 0 });
    let mut refused = plugin.clone();
    refused["refused"] = json!({ "hash": HASH, "reason": said });
    let mut change = change(
        "2026-01-02T03:00:01Z",
        "counter",
        "refused",
        Some(1.0),
        Some(said),
    );
    change["cause"] = said.into();
    let problems = json!([{ "package": said, "reason": said }]);
    view(
        json!({ "host": host, "plugins": [plugin, refused], "problems": problems }),
        json!([change]),
    )
}

#[test]
fn everything_others_say_is_escaped() {
    let page = lines(&hostile(HOSTILE));
    assert!(page.contains("&lt;script&gt;"), "it is shown: {page}");
    for harm in [
        "\u{202e}",
        "\n<script>alert",
        "onload='x' &amp;\u{0}",
        "\u{0}",
        "\n</style>\\",
    ] {
        assert!(!page.contains(harm), "{harm:?}: {page}");
    }
    // One of each: the page's own.
    for element in ["\n<script", "\n</script", "\n<style", "\n</style"] {
        assert_eq!(page.matches(element).count(), 1, "{element}");
    }
    assert!(
        !page.contains("\" onload="),
        "no attribute ends early: {page}"
    );
}

#[test]
fn long_texts_of_others_are_cut() {
    let page = lines(&hostile(&"<".repeat(1 << 20)));
    assert!(page.len() < 128 << 10, "{} bytes", page.len());
    assert!(page.contains("(cut; 1048576 bytes)"));
}

#[test]
fn rows_and_lanes_are_bounded_and_say_so() {
    let plugins: Vec<_> = (0..ROWS + 5)
        .map(|it| plugin(&format!("p{it}"), "active"))
        .collect();
    let changes: Vec<_> = (0..100)
        .map(|it| {
            change(
                "2026-01-02T03:00:01Z",
                &format!("p{it}"),
                "loaded",
                None,
                None,
            )
        })
        .collect();
    let view = view(
        json!({ "host": host(), "plugins": plugins, "problems": [] }),
        json!(changes),
    );
    let page = lines(&view);
    assert!(
        page.contains("5 more plugins are left out"),
        "the table is bounded"
    );
    assert!(
        page.contains("The drawing leaves out 84 more plugins"),
        "the drawing is bounded"
    );
}

#[test]
fn every_table_has_a_caption_and_scopes() {
    let page = lines(&hostile("x"));
    assert_eq!(page.matches("<table").count(), 4);
    assert_eq!(page.matches("<caption").count(), 4);
    let headings = page.matches("<th ").count() + page.matches("<th>").count();
    assert_eq!(page.matches(" scope=\"").count(), headings);
    assert!(
        !page.contains(" style="),
        "the policy permits no such attribute"
    );
    assert!(!page.contains("onclick"), "nor handlers");
}

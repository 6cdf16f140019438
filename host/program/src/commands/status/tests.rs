//! What people see of a host, from fixed data.

use serde_json::{Value, from_value, json};

use super::*;

const HASH: &str = "sha256:5f0c3f1b7d4e8a9260b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f50617";
const OTHER: &str = "sha256:a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90";

fn shown(host: &Value, plugins: &Value, problems: &Value) -> String {
    let mut all = json!({
        "version": "1.2.3",
        "pid": 4711,
        "abi": "1.1",
        "target": "x86_64-unknown-linux-gnu",
        "plugin_dir": "/usr/lib/hotmerge/plugins",
        "started": "2026-01-02T03:04:05Z",
        "watch": "inotify and fanotify",
        "watchers": [
            {
                "name": "inotify",
                "scope": "a watch for each directory",
                "directories": 3,
                "events": 120,
                "overflows": 0,
            },
            {
                "name": "fanotify",
                "scope": "a mark for the whole file system",
                "directories": 1,
                "events": 1,
                "overflows": 2,
            },
        ],
        "rescans": 7,
        "full_looks": 2,
        "last_look": "2026-01-02T04:05:06Z",
        "position": 12,
        "retained": 0,
        "stuck": 0,
        "overdue": 0,
        "log_dropped": 0,
        "limits": "rlimits",
    });
    merge(&mut all, host);
    let status = json!({ "host": all, "plugins": plugins, "problems": problems });
    let text = text(&from_value(status).expect("it is a status"));
    anstream::adapter::strip_str(&text).to_string()
}

fn plugin(own: Value) -> Value {
    let mut all = json!({
        "name": "counter",
        "version": "1.0.0",
        "hash": HASH,
        "state": "active",
        "generation": 1,
        "isolation": "process",
        "package": "counter",
        "address": null,
        "calls_failed": 0,
        "calls_panicked": 0,
        "retained": 0,
        "ending": [],
        "refused": null,
    });
    merge(&mut all, &own);
    all
}

fn merge(all: &mut Value, own: &Value) {
    for (name, value) in own.as_object().expect("it is an object") {
        all[name] = value.clone();
    }
}

#[test]
fn a_host_without_plugins() {
    insta::assert_snapshot!(shown(&json!({}), &json!([]), &json!([])));
}

#[test]
fn a_host_in_trouble() {
    let host = json!({
        "retained": 1, "stuck": 2, "overdue": 1, "log_dropped": 20,
        "replies_given_up": 16, "degraded": ["namespaces: not permitted"],
    });
    let problems = json!([
        { "package": "bad\u{1b}[2J", "reason": "its plugin.meta cannot be read" },
        { "package": "", "reason": "the plugin directory is gone" },
    ]);
    insta::assert_snapshot!(shown(&host, &json!([]), &problems));
}

#[test]
fn sinks_of_the_log_and_their_troubles() {
    let sink = |name: &str, kind: &str, failing: bool| {
        json!({
            "name": name, "type": kind, "delivered": 100, "waiting": 2, "failed": 3,
            "dropped": { "host": 4, "plugins": 5 }, "failing": failing,
            "last_error": {
                "time": "2026-01-02T03:04:06Z",
                "reason": "failed to write to `/a\u{1b}[2J`: No space left on device",
            },
        })
    };
    let host = json!({
        "log_sinks": [sink("json", "file", true), sink("central", "syslog", false)],
    });
    insta::assert_snapshot!(shown(&host, &json!([]), &json!([])));
}

#[test]
fn plugins_with_all_their_notes() {
    let plugins = json!([
        plugin(json!({
            "worker": {
                "pid": 99, "memory_bytes": 5_242_880, "cpu_ms": 1500,
                "degraded": [], "log_dropped": 0,
            },
        })),
        plugin(json!({
            "name": "refused", "version": null, "hash": null, "state": "error", "generation": 0,
            "isolation": null,
            "refused": { "hash": OTHER, "reason": "the symbol policy refuses it" },
        })),
        plugin(json!({
            "name": "crashing", "state": "error", "reason": "crashed too often", "restarts": 6,
            "last_failure": {
                "time": "2026-01-02T03:04:06Z", "what": "was killed by SIGSEGV at 0x8",
                "method": "count", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
                "stack": ["counter::add", "counter::call"], "state_age_ms": 1200,
            },
            "worker": {
                "pid": null, "memory_bytes": null, "cpu_ms": null,
                "degraded": ["Landlock"], "log_dropped": 1,
            },
        })),
        plugin(json!({
            "name": "changing", "state": "reloading", "rolled_back": OTHER,
            "canary": { "version": "2.0.0", "hash": OTHER, "calls": 1, "failed": 0 },
            "ending": [{ "hash": OTHER, "state": "draining" }, { "hash": HASH, "state": "stuck" }],
            "signed": { "by": "releases", "key": "E7620F1842B4E81F", "comment": "timestamp:1" },
            "not_granted": ["net", "fs:/etc/motd:ro"], "waiting": ["a thread for its start"],
            "retained": 1, "calls_panicked": 3,
        })),
    ]);
    insta::assert_snapshot!(shown(&json!({}), &plugins, &json!([])));
}

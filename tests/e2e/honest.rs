//! Honest plugins do not notice the sandbox: with default settings and without grants
//! they load, and answer as they do anywhere.

use hotmerge_daemon::lifecycle::PluginState;
use hotmerge_tests::{Lab, TestHost, UNTIRING, honest};

/// Each with a request, and the answer to it.
const WORK: &[(&str, &str, &str)] = &[
    ("formatting", "", "   3.142|0xff  |\"a\\tb\"|1.2345e3|0.41"),
    (
        "hashing",
        "abc",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    ),
    ("random", "", "100 numbers, true"),
    ("rayon", "", "999999000000, 7"),
    (
        "regex",
        "A plug, two plugins and a PLUUUG",
        "plug,plugins,PLUUUG",
    ),
    (
        "serde",
        r#"{"name":"Ann","items":[{"price":1.5,"count":2},{"price":0.25,"count":4}]}"#,
        r#"{"to":"Ann","total":4.0}"#,
    ),
    ("threads", "", "6 32 true true true"),
    (
        "time",
        "2026-02-27T23:59:59Z",
        "2026-03-29T23:59:59Z true true",
    ),
];

fn put_all(lab: &Lab) {
    for (name, _, _) in WORK {
        lab.package(name).put(&[&honest(name)]);
    }
}

#[track_caller]
fn all_work(host: &TestHost) {
    for (name, request, answer) in WORK {
        let plugin = host.plugin(name);
        assert_eq!(
            plugin.state,
            PluginState::Active,
            "{name}: {:?}",
            plugin.refused
        );
        let reply = host.call(name, "work", request.as_bytes());
        let reply = reply.unwrap_or_else(|error| panic!("{name}: {error}"));
        let text = String::from_utf8_lossy(&reply.output_base64.0).into_owned();
        assert_eq!(text, *answer, "{name}");
    }
}

#[test]
fn honest_plugins_work_in_workers_without_grants() {
    let lab = Lab::new();
    put_all(&lab);
    let Some(host) = lab.start_sandboxed("symbols = \"enforce\"\n") else {
        return;
    };
    for _ in 0..2 {
        all_work(&host);
    }
    for (name, _, _) in WORK {
        let plugin = host.plugin(name);
        assert!(plugin.worker.is_some(), "{name}");
        let failure = plugin.last_failure.map(|failure| failure.to_string());
        assert_eq!((plugin.restarts, failure), (0, None), "{name}");
    }
    host.stop();
}

#[test]
fn honest_plugins_pass_the_hosts_strict_rules() {
    let lab = Lab::new();
    put_all(&lab);
    let host = lab.start_with("symbols = \"enforce\"\nisolation = \"host\"\n");
    all_work(&host);
    host.stop();
}

#[test]
fn honest_plugins_print_log_sleep_and_panic_safely() {
    let lab = Lab::new();
    lab.package("formatting").put(&[&honest("formatting")]);
    let more = format!("symbols = \"enforce\"\n{UNTIRING}");
    let Some(host) = lab.start_sandboxed(&more) else {
        return;
    };
    assert_eq!(host.text("formatting", "sleep"), "Ok(())");
    assert_eq!(host.text("formatting", "print"), "done");
    for text in [
        r#"printed to "stdout" \ as it is"#,
        "printed to stderr",
        "logged by a plugin",
    ] {
        let record = host.log().wait(text);
        assert_eq!(record["plugin"], "formatting", "{record}");
    }
    let error = host
        .call("formatting", "panic", b"")
        .expect_err("it panics");
    assert!(error.to_string().contains("an honest mistake"), "{error}");
    let failure = host.replaced("formatting", 1);
    assert!(failure.contains("in `panic`"), "{failure}");
    assert_eq!(host.text("formatting", "sleep"), "Ok(())");
    host.stop();
}

//! Calls and status of plugins over HTTP.

use hotmerge_tests::{Gate, Http, Lab, actor, closed_http, open_http};

fn front() -> (Lab, hotmerge_tests::TestHost, Http) {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let (host, http) = Http::start(&lab, &open_http(""));
    (lab, host, http)
}

#[test]
fn a_call_takes_and_gives_bytes() {
    let (_lab, host, http) = front();
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let answer = http.post("/plugins/actor/echo", &bytes);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body == bytes, "the bytes differ");
    assert_eq!(
        answer.header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(answer.header("hotmerge-generation"), Some("1"));
    let hash = host.plugin("actor").hash.expect("it is live").to_string();
    assert_eq!(answer.header("hotmerge-hash"), Some(hash.as_str()));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
}

#[test]
fn replies_keep_their_content_type() {
    let (_lab, _host, http) = front();
    let answer = http.post("/plugins/actor/mark", b"");
    assert_eq!(answer.body, b"one");
    let media_type = answer.header("content-type").expect("there is one");
    assert!(media_type.starts_with("text/plain"), "{media_type}");
}

#[test]
fn media_types_reach_the_plugin_by_headers() {
    let (_lab, _host, http) = front();
    let headers = [("content-type", "a/b"), ("accept", "x/y")];
    let answer = http.post_with("/plugins/actor/media", &headers, b"");
    assert_eq!(answer.body, br#"Some("a/b") Some("x/y")"#);
    assert_eq!(answer.header("content-type"), Some("x/y"));
    assert_eq!(answer.header("vary"), Some("accept"));
    for (path, status, kind) in [
        ("/plugins/actor/no-media", 406, "not-acceptable"),
        ("/plugins/actor/no-such-media", 415, "unsupported-media"),
    ] {
        let answer = http.post(path, b"");
        assert_eq!((answer.status, answer.problem().as_str()), (status, kind));
        assert_eq!(http.get(&format!("/problems/{kind}")).status, 200);
    }
    let long = "a".repeat(256);
    let answer = http.post_with("/plugins/actor/media", &[("content-type", &long)], b"");
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (400, "bad-parameters")
    );
}

#[test]
fn every_refusal_is_a_problem_document() {
    let (_lab, _host, http) = front();
    for (path, status, kind) in [
        ("/plugins/nobody/mark", 404, "no-plugin"),
        ("/plugins/actor/nothing", 404, "no-method"),
        ("/plugins/actor/fail", 422, "plugin-refused"),
        ("/plugins/actor/panic", 500, "plugin-panicked"),
        ("/plugins/%FF/mark", 400, "bad-parameters"),
        ("/plugins/actor", 405, "wrong-method"),
        ("/nothing", 404, "no-route"),
    ] {
        let answer = http.post(path, b"");
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (status, kind),
            "{path}"
        );
        let explained = http.get(&format!("/problems/{kind}"));
        assert_eq!(explained.status, 200, "{kind}");
    }
    let answer = http.get("/plugins/actor/mark");
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (405, "wrong-method")
    );
    assert_eq!(answer.header("allow"), Some("POST"));
}

#[test]
fn a_plugin_that_is_not_live_is_unavailable() {
    let lab = Lab::new();
    lab.put(&actor("mark=one start=refuse"));
    let (_host, http) = Http::start(&lab, &open_http(""));
    let answer = http.post("/plugins/actor/mark", b"");
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (503, "not-live")
    );
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
}

#[test]
fn traces_are_honoured_and_returned() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    let (_lab, _host, http) = front();
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "vendor=1")];
    let answer = http.post_with("/plugins/actor/mark", &headers, b"");
    let returned = answer.header("traceparent").expect("there is one");
    assert!(returned.starts_with(&format!("00-{TRACE}-")), "{returned}");
    assert_ne!(returned, parent, "the call is a span of its own");
    assert_eq!(answer.header("tracestate"), Some("vendor=1"));
    // One that cannot be read begins a new trace.
    let answer = http.post_with("/plugins/actor/mark", &[("traceparent", "nonsense")], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.header("traceparent").is_some());
}

#[test]
fn a_named_deadline_ends_the_call() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    lab.put(&actor("mark=one"));
    let config = lab.living_in("process") + &open_http("") + &gate.config_in_worker("actor");
    let (_host, http) = Http::start(&lab, &config);
    let answer = http.post_with(
        "/plugins/actor/wait",
        &[("hotmerge-deadline-ms", "20")],
        b"",
    );
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (504, "deadline")
    );
    let answer = http.post_with(
        "/plugins/actor/mark",
        &[("hotmerge-deadline-ms", "soon")],
        b"",
    );
    assert_eq!(answer.problem(), "bad-parameters");
}

#[test]
fn a_client_that_goes_cancels_its_call() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    lab.put(&actor("mark=one"));
    let config = lab.living_in("process") + &open_http("") + &gate.config_in_worker("actor");
    let (host, http) = Http::start(&lab, &config);
    let stream = http
        .send(b"POST /plugins/actor/wait HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
    let _visitor = gate.visitor();
    drop(stream);
    host.wait_for("the call is cancelled", |status| {
        (status.plugins[0].calls_cancelled == 1).then_some(())
    });
}

#[test]
fn running_plugins_are_shown() {
    let (_lab, host, http) = front();
    assert_eq!(http.get("/plugins").json()[0]["name"], "actor");
    let seen = http.get("/plugins/actor").json();
    assert_eq!(seen["methods"][0]["name"], "mark", "{seen}");
    // Places in memory are for administrators.
    assert_eq!(seen["address"], serde_json::Value::Null);
    assert_eq!(
        http.get("/plugins").json()[0]["address"],
        serde_json::Value::Null
    );
    assert_eq!(seen["generation"], 1, "{seen}");
    let status = http.get("/status").json();
    assert_eq!(status["host"]["pid"], host.pid());
    let history = http.get("/plugins/actor/history").json();
    assert_eq!(history[0]["plugin"], "actor", "{history}");
    assert_eq!(http.get("/plugins/nobody").problem(), "no-plugin");
    assert_eq!(
        http.get("/plugins/nobody/history").problem(),
        "not-possible"
    );
}

#[test]
fn a_known_version_is_not_sent_again() {
    let (lab, host, http) = front();
    let first = http.get("/plugins/actor");
    let tag = first.header("etag").expect("there is one");
    let known = [("if-none-match", tag)];
    assert_eq!(http.get_with("/plugins/actor", &known).status, 304);
    host.reload_after(|| lab.put(&actor("mark=two")));
    let second = http.get_with("/plugins/actor", &known);
    assert_eq!(second.status, 200);
    assert_ne!(second.header("etag"), Some(tag));
}

#[test]
fn readiness_follows_the_named_plugins() {
    let lab = Lab::new();
    let (host, http) = Http::start(&lab, &closed_http("ready = [\"actor\"]"));
    assert_eq!(http.get("/healthz").status, 200);
    let answer = http.get("/readyz");
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (503, "not-live")
    );
    host.reload_after(|| lab.put(&actor("mark=one")));
    assert_eq!(http.get("/readyz").status, 200);
}

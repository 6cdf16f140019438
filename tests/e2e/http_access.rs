//! Over HTTP, clients can do only what an entry of the configuration permits.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
};

use hotmerge_tests::{Http, Lab, SOON, actor, closed_http, open_http};

const SECRET: &str = "a secret of sixteen characters or more";
const OTHER: &str = "another secret, which is as long as that";

/// A lab with a file of tokens, and the line of configuration that names it.
fn with_tokens() -> (Lab, String) {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let line = lab.tokens(&[("ops", SECRET), ("shop", OTHER)]);
    (lab, line)
}

#[test]
fn by_default_nobody_may_do_anything() {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let (_host, http) = Http::start(&lab, &closed_http(""));
    for path in [
        "/plugins",
        "/plugins/actor",
        "/plugins/actor/history",
        "/status",
    ] {
        let answer = http.get(path);
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (401, "unauthenticated"),
            "{path}"
        );
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Bearer realm=\"hotmerge\"")
        );
    }
    for path in [
        "/plugins/actor/mark",
        "/admin/reload",
        "/admin/plugins/actor/pin",
    ] {
        let answer = http.post(path, b"");
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (401, "unauthenticated"),
            "{path}"
        );
    }
    assert_eq!(http.get("/healthz").status, 200);
}

#[test]
fn everybody_can_never_be_administrator() {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let (host, http) = Http::start(&lab, &open_http(""));
    assert_eq!(http.post("/plugins/actor/mark", b"").status, 200);
    for path in [
        "/admin/reload",
        "/admin/plugins/actor/rollback",
        "/admin/plugins/actor/pin",
    ] {
        assert_eq!(http.post(path, b"").status, 401, "{path}");
    }
    assert!(!host.plugin("actor").pinned, "nobody may pin it");
}

#[test]
fn a_token_does_what_its_entries_permit() {
    let (lab, line) = with_tokens();
    let config = format!(
        "[[door.allow]]\ntoken = \"ops\"\nrole = \"admin\"\n\
         [[door.allow]]\ntoken = \"shop\"\nrole = \"call\"\nplugins = [\"actor\"]\nmethods = [\"mark\"]\n{}",
        closed_http(&line)
    );
    let (host, http) = Http::start(&lab, &config);
    let ops = http.with_token(SECRET);
    assert_eq!(ops.post("/admin/reload", b"{}").status, 200);
    assert_eq!(ops.post("/admin/plugins/actor/pin", b"").status, 200);
    assert!(host.plugin("actor").pinned);
    assert_eq!(ops.post("/admin/plugins/actor/unpin", b"").status, 200);
    let again = ops.post("/admin/plugins/actor/unpin", b"");
    assert_eq!(
        (again.status, again.problem().as_str()),
        (409, "not-possible")
    );
    assert_eq!(
        ops.post("/admin/reload", b"[1]").problem(),
        "bad-parameters"
    );
    assert_eq!(
        ops.post("/admin/plugins/actor/explode", b"").problem(),
        "no-route"
    );

    let shop = http.with_token(OTHER);
    assert_eq!(shop.post("/plugins/actor/mark", b"").status, 200);
    for path in ["/plugins/actor/echo", "/admin/reload"] {
        let answer = shop.post(path, b"");
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (403, "forbidden"),
            "{path}"
        );
        let said = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(
            said.contains("token `shop`") && said.contains("role `"),
            "{said}"
        );
    }
    assert_eq!(shop.get("/status").status, 403);
}

#[test]
fn an_unknown_token_is_refused_everywhere() {
    let (lab, line) = with_tokens();
    let (_host, http) = Http::start(&lab, &open_http(&line));
    let stranger = http.with_token("nobody has ever seen this token");
    // Also where no token is needed: a client that sends one means it.
    assert_eq!(
        stranger.post("/plugins/actor/mark", b"").problem(),
        "unauthenticated"
    );
    let basic = [("authorization", "Basic b3BzOm9wcw==")];
    assert_eq!(
        http.get_with("/status", &basic).problem(),
        "unauthenticated"
    );
}

#[test]
fn readable_tokens_keep_the_host_from_starting() {
    let (lab, line) = with_tokens();
    fs::set_permissions(lab.path("tokens.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    let mut serve = lab.serve(&closed_http(&line));
    let refused = hotmerge_tests::run(&mut serve, SOON);
    refused
        .ended_with(3)
        .said(&["can read or write the token file"]);
}

#[test]
fn pages_of_other_sites_are_not_served() {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let (_host, http) = Http::start(&lab, &open_http(""));
    let cross = [("origin", "https://evil.example")];
    assert_eq!(
        http.post_with("/plugins/actor/mark", &cross, b"").problem(),
        "cross-origin"
    );
    let rebound = [("host", "evil.example")];
    assert_eq!(
        http.post_with("/plugins/actor/mark", &rebound, b"")
            .problem(),
        "wrong-host"
    );
}

#[test]
fn a_unix_socket_identifies_its_user() {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let path = lab.path("http.sock");
    let config = format!("[http]\nlisten = [\"unix:{}\"]\n", path.display());
    let host = lab.start_with(&config);
    host.log().wait("the HTTP front listens");
    // The tests' user is the host's own or root.
    let mut stream = UnixStream::connect(&path).unwrap();
    stream
        .write_all(b"POST /plugins/actor/mark HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    host.stop();
    assert!(!path.exists(), "the socket is left behind");
}

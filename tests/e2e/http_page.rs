//! The status page shows what happens, as it happens, to clients with the role.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpStream,
};

use hotmerge_tests::{Browser, Http, Lab, TestHost, actor, closed_http, open_http};
use rustix::process::Signal;

const SECRET: &str = "a secret of sixteen characters or more";

fn front() -> (Lab, TestHost, Http) {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let (host, http) = Http::start(&lab, &open_http(""));
    (lab, host, http)
}

/// The page as text.
#[track_caller]
fn page(http: &Http) -> String {
    let answer = http.get("/");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("text/html; charset=utf-8")),
        "{answer:?}"
    );
    String::from_utf8(answer.body).expect("it says so")
}

/// A client that follows the changes.
struct Follower(BufReader<TcpStream>);

impl Follower {
    #[track_caller]
    fn start(http: &Http) -> Self {
        let mut follower = Self::ask(http);
        let first = follower.line();
        assert_eq!(first, "HTTP/1.1 200 OK", "it is let in");
        follower
    }

    fn ask(http: &Http) -> Self {
        let request = b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n";
        Self(BufReader::new(http.send(request)))
    }

    /// The next line; empty at the end.
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0
            .read_line(&mut line)
            .expect("a line or the end comes soon");
        line.trim_end().to_owned()
    }

    /// What the next event names; `None` if the stream ends.
    #[track_caller]
    fn next(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            let length = self.0.read_line(&mut line);
            let length = length.expect("an event or the end comes soon");
            // The last chunk has no bytes.
            if length == 0 || line == "0\r\n" {
                return None;
            }
            if let Some(mark) = line.strip_prefix("data: ") {
                return Some(mark.trim_end().to_owned());
            }
        }
    }

    /// Waits for the event that names the page's own moment, and returns that page.
    #[track_caller]
    fn catch_up(&mut self, http: &Http) -> String {
        loop {
            let mark = self.next().expect("the host runs");
            let page = page(http);
            if page.contains(&format!("data-mark=\"{mark}\"")) {
                return page;
            }
        }
    }
}

#[test]
fn the_page_shows_plugins_and_reloads() {
    let (lab, host, http) = front();
    host.text("actor", "mark");
    host.reload_after(|| lab.put(&actor("mark=two")));
    let text = page(&http);
    let hash = host.plugin("actor").hash.expect("it is live");
    for said in [
        "1 plugin, 1 active",
        "<th scope=\"row\" rowspan=\"1\">actor</th>",
        "<span class=\"state good\">active</span>",
        &format!("<code title=\"{hash}\">{}</code>", hash.short()),
        " loaded</span>",
        " reloaded</span>",
        "<svg class=\"timeline\"",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn the_page_forbids_foreign_scripts_and_frames() {
    let (_lab, _host, http) = front();
    let answer = http.get("/");
    let policy = answer.header("content-security-policy").unwrap_or_default();
    for part in [
        "default-src 'none'; ",
        "script-src 'sha256-",
        "style-src 'sha256-",
        "base-uri 'none'; ",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
}

#[test]
fn page_and_events_need_the_role_read() {
    let lab = Lab::new();
    let other = SECRET.replace('a', "b");
    let tokens = lab.tokens(&[("reader", SECRET), ("shop", &other)]);
    let config = format!(
        "[[door.allow]]\ntoken = \"reader\"\nrole = \"read\"\n\
         [[door.allow]]\ntoken = \"shop\"\nrole = \"call\"\n{}",
        closed_http(&tokens)
    );
    let (_host, http) = Http::start(&lab, &config);
    for path in ["/", "/events"] {
        let refused = http.get(path);
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (401, "unauthenticated")
        );
        let refused = http.with_token(&other).get(path);
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (403, "forbidden")
        );
    }
    assert_eq!(http.with_token(SECRET).get("/").status, 200);
}

#[test]
fn followers_hear_of_every_change() {
    let (lab, host, http) = front();
    let mut follower = Follower::start(&http);
    let first = follower.catch_up(&http);
    assert!(!first.contains(" reloaded</span>"), "{first}");
    host.reload_after(|| lab.put(&actor("mark=two")));
    let mut page = follower.catch_up(&http);
    // A reload has several steps, of which the first may be reported alone.
    while !page.contains(" reloaded</span>") {
        page = follower.catch_up(&http);
    }
    // A package without a plugin version is a change too, and so is its removal.
    fs::create_dir(lab.plugin_dir().join("odd")).unwrap();
    fs::write(lab.plugin_dir().join("odd/plugin.meta"), "nonsense").unwrap();
    host.reload();
    while !follower.catch_up(&http).contains("id=\"problems\"") {}
    fs::remove_dir_all(lab.plugin_dir().join("odd")).unwrap();
    host.reload();
    while follower.catch_up(&http).contains("id=\"problems\"") {}
}

#[test]
fn followers_are_bounded() {
    let (_lab, host, http) = front();
    let mut followers: Vec<_> = (0..16).map(|_| Follower::start(&http)).collect();
    let refused = http.get("/events");
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (503, "too-many-followers")
    );
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert_eq!(http.get("/").status, 200, "the page itself is there");
    followers.pop();
    host.wait_for("a place is free again", |_| {
        let first = Follower::ask(&http).line();
        (first == "HTTP/1.1 200 OK").then_some(())
    });
}

#[test]
fn streams_end_with_the_host() {
    let (_lab, mut host, http) = front();
    let mut follower = Follower::start(&http);
    assert!(follower.next().is_some());
    host.signal(Signal::TERM);
    while follower.next().is_some() {}
    assert!(host.ended().success());
    host.log().wait_end();
    assert_eq!(
        host.log().count("were cut off"),
        0,
        "no stream outlasts the host's patience"
    );
}

#[test]
fn a_revoked_role_ends_the_stream() {
    let lab = Lab::new();
    let tokens = lab.tokens(&[("reader", SECRET)]);
    let closed = closed_http(&tokens);
    let role = "[[door.allow]]\nanybody = true\nrole = \"read\"\n";
    let (_host, http) = Http::start(&lab, &format!("{role}{closed}"));
    let mut follower = Follower::start(&http);
    assert!(follower.next().is_some());
    let path = lab.path("hotmerge.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace(role, "")).unwrap();
    lab.hotmerge(["reload", "--config"]).ok();
    while follower.next().is_some() {}
    assert_eq!(http.get("/").status, 401);
}

#[test]
fn a_browser_shows_reloads_as_they_happen() {
    let (lab, host, http) = front();
    let browser = Browser::start(&lab, true);
    browser.open(&http.url("/"));
    browser.wait_for("document.querySelector('#live').textContent === 'Live'");
    let marks = "document.querySelectorAll('svg.timeline g.mark').length";
    assert_eq!(browser.read(marks), 1);
    browser.read("window.stays = true");
    // A box that was focused stays so.
    browser.read("document.querySelector('main .scroll').focus()");
    for version in ["two", "three"] {
        host.reload_after(|| lab.put(&actor(&format!("mark={version}"))));
    }
    browser.wait_for(&format!("{marks} === 3"));
    assert_eq!(
        browser.read("window.stays"),
        true,
        "the page was not loaded anew"
    );
    assert_eq!(browser.read("document.activeElement.className"), "scroll");
    let text = browser.text();
    assert!(
        text.contains("reloaded") && text.contains("1 plugin, 1 active"),
        "{text}"
    );
    assert_eq!(
        browser.console(),
        Vec::<serde_json::Value>::new(),
        "the console is silent"
    );
}

#[test]
fn names_of_packages_run_no_script() {
    let (lab, host, http) = front();
    for name in [
        "<img src=x onerror=window.harm=1>",
        "<script>window.harm=1<",
    ] {
        let dir = lab.plugin_dir().join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("plugin.meta"), "nonsense").unwrap();
    }
    host.reload();
    let browser = Browser::start(&lab, true);
    browser.open(&http.url("/"));
    browser.wait_for("document.querySelector('#live').textContent === 'Live'");
    let text = browser.text();
    assert!(text.contains("<img src=x onerror=window.harm=1>"), "{text}");
    assert_eq!(browser.read("window.harm === undefined"), true);
    assert_eq!(browser.read("document.images.length"), 0);
    assert_eq!(browser.console(), Vec::<serde_json::Value>::new());
}

#[test]
fn a_browser_without_scripts_shows_the_page() {
    let (lab, host, http) = front();
    host.reload_after(|| lab.put(&actor("mark=two")));
    let browser = Browser::start(&lab, false);
    browser.open(&http.url("/"));
    let text = browser.text();
    for said in [
        "Reload the page for newer figures.",
        "actor",
        "active",
        "reloaded",
        "Sandbox",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains("Live"), "scripts are off: {text}");
}

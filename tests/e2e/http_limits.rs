//! Slow, greedy and hostile HTTP clients get an error, and harm nobody else.

use std::{
    io::{Read as _, Write as _},
    sync::mpsc,
    thread,
};

use hotmerge_tests::{Footprint, Gate, Http, Lab, Neighbour, actor, open_http, read_all};

fn front(limits: &str) -> (Lab, hotmerge_tests::TestHost, Http) {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let (host, http) = Http::start(&lab, &open_http(limits));
    (lab, host, http)
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("no answer")
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let (_lab, _host, http) = front("max_body_bytes = 1000");
    assert_eq!(http.post("/plugins/actor/echo", &[b'x'; 1000]).status, 200);
    // Before it is sent, if its length is announced.
    let said = http.exchange(
        b"POST /plugins/actor/echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1001\r\n\r\n",
    );
    assert_eq!(status(&said), "413", "{said}");
    // And while it is, if it comes in chunks.
    let mut chunks = b"POST /plugins/actor/echo HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    chunks.extend(b"3e9\r\n");
    chunks.extend([b'x'; 1001]);
    chunks.extend(b"\r\n0\r\n\r\n");
    assert_eq!(status(&http.exchange(&chunks)), "413");
}

#[test]
fn a_head_over_the_limit_is_refused() {
    let (_lab, _host, http) = front("max_header_bytes = 8192");
    let head = format!(
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "x".repeat(9000)
    );
    assert_eq!(status(&http.exchange(head.as_bytes())), "431");
    let many = "a: b\r\n".repeat(200);
    let head = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{many}\r\n");
    assert_eq!(status(&http.exchange(head.as_bytes())), "431");
}

#[test]
fn a_slow_client_is_given_up() {
    let (_lab, host, http) = front("header_ms = 50\nbody_ms = 50");
    let neighbour = Neighbour::of(&host, "actor", "mark");
    // It sends a head and no end of it; a client that never ends it is closed without a reply.
    let said = http.exchange(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: ");
    assert!(said.is_empty() || status(&said) == "408", "{said}");
    let said = http.exchange(
        b"POST /plugins/actor/echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nfive ",
    );
    assert_eq!(status(&said), "408", "{said}");
    neighbour.unharmed(host);
}

#[test]
fn a_greedy_client_leaves_room_for_others() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    lab.put(&actor("mark=one"));
    let limits = "max_calls = 3\nmax_calls_per_client = 2";
    let (host, http) = Http::start(&lab, &(open_http(limits) + &gate.config("actor")));
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let http = http.clone();
            thread::spawn(move || http.post("/plugins/actor/wait", b""))
        })
        .collect();
    let visitors = [gate.visitor(), gate.visitor()];
    let answer = http.post("/plugins/actor/mark", b"");
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (429, "too-many-calls")
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    // Others, and what is no call, are served.
    assert_eq!(http.get("/plugins").status, 200);
    assert_eq!(host.text("actor", "mark"), "one");
    drop(visitors);
    for thread in waiting {
        assert_eq!(thread.join().unwrap().status, 200);
    }
    assert_eq!(http.post("/plugins/actor/mark", b"").status, 200);
}

#[test]
fn idle_connections_make_room() {
    let (_lab, host, http) = front("max_connections = 16");
    let neighbour = Neighbour::of(&host, "actor", "mark");
    let mut idle: Vec<_> = (0..200)
        .map(|_| http.send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"))
        .collect();
    assert_eq!(http.get("/plugins").status, 200);
    // The oldest was answered or closed, and is closed now.
    let oldest = read_all(idle.remove(0));
    assert!(oldest.is_empty() || status(&oldest) == "200", "{oldest}");
    drop(idle);
    let closed = host.status().host.door.expect("the door is counted").closed;
    assert!(closed >= 184, "only {closed} were closed");
    neighbour.unharmed(host);
}

#[test]
fn ambiguous_requests_are_refused() {
    let (_lab, host, http) = front("");
    let neighbour = Neighbour::of(&host, "actor", "mark");
    let call = "POST /plugins/actor/echo HTTP/1.1\r\nhost: localhost\r\n";
    for (name, bytes) in [
        (
            "two lengths",
            format!("{call}content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        ),
        (
            "a signed length",
            format!("{call}content-length: +1\r\n\r\na"),
        ),
        (
            "a chunk of no size",
            format!("{call}transfer-encoding: chunked\r\n\r\nzz\r\n"),
        ),
        (
            "an unknown encoding",
            format!("{call}transfer-encoding: gzip\r\n\r\na"),
        ),
        (
            "a space before a colon",
            format!("{call}content-length : 1\r\n\r\na"),
        ),
        (
            "a folded header",
            format!("{call}x: a\r\n b\r\ncontent-length: 0\r\n\r\n"),
        ),
        (
            "an unknown version",
            "GET /healthz HTTP/3.0\r\nhost: localhost\r\n\r\n".to_owned(),
        ),
        ("no HTTP", "\x16\x03\x01\x02\x00\r\n\r\n".to_owned()),
        (
            "a bare line feed in a name",
            "GET /healthz HTTP/1.1\r\nho\nst: localhost\r\n\r\n".to_owned(),
        ),
    ] {
        let mut stream = http.send(bytes.as_bytes());
        // Whatever follows must not be taken for a request of its own.
        let _ = stream.write_all(
            b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        );
        let said = read_all(stream);
        assert!(
            matches!(status(&said), "400" | "no answer"),
            "{name}: {said}"
        );
        assert!(!said.contains("\"openapi\""), "{name}: {said}");
    }
    // Both at once: chunks count, and the connection ends.
    let both = format!("{call}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    let mut stream = http.send(both.as_bytes());
    let _ = stream
        .write_all(b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let said = read_all(stream);
    assert!(
        matches!(status(&said), "400" | "200" | "no answer"),
        "{said}"
    );
    neighbour.unharmed(host);
}

#[test]
fn a_request_names_its_host() {
    let (_lab, _host, http) = front("");
    let said = http.exchange(b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n");
    assert_eq!(status(&said), "400", "{said}");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_lab, _host, http) = front("");
    let mut requests = String::new();
    for number in 0..50 {
        requests += &format!(
            "POST /plugins/actor/echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{number:02}"
        );
    }
    requests += "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let said = http.exchange(requests.as_bytes());
    let bodies = said.split("\r\n\r\n").skip(1);
    let bodies: Vec<_> = bodies.take(50).map(|body| &body[..2]).collect();
    let wanted: Vec<_> = (0..50).map(|number| format!("{number:02}")).collect();
    assert_eq!(bodies, wanted);
}

#[test]
fn replies_that_nobody_reads_are_given_back() {
    const MIB: u64 = 1 << 10;

    let (_lab, host, http) = front("max_connections = 64");
    assert_eq!(http.post("/plugins/actor/echo", b"").status, 200);
    let mut neighbour = Neighbour::of(&host, "actor", "mark");
    let before = Footprint::of(host.pid());
    let body = vec![b'x'; 4 << 20];
    let ask = || {
        let mut stream = http.send(
            format!(
                "POST /plugins/actor/echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
                body.len()
            )
            .as_bytes(),
        );
        stream.write_all(&body).unwrap();
        // The head is there: the reply is made.
        stream.read_exact(&mut [0; 12]).unwrap();
        stream
    };
    // Once more, since what is made once is not a leak.
    for _ in 0..2 {
        neighbour.remember(&host);
        let streams: Vec<_> = (0..20).map(|_| ask()).collect();
        drop(streams);
        host.holds_no_more_than(&before, 16 * MIB);
    }
    assert_eq!(http.get("/healthz").status, 200);
    neighbour.unharmed(host);
}

/// Before they have sent their bodies, clients take no places of calls.
#[test]
fn unfinished_requests_take_no_places_of_calls() {
    let (_lab, _host, http) = front("max_calls = 2\nmax_calls_per_client = 2");
    let begun: Vec<_> = (0..20)
        .map(|_| {
            let head = "POST /plugins/actor/echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nfive ";
            http.send(head.as_bytes())
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(http.post("/plugins/actor/mark", b"").status, 200);
    }
    for mut stream in begun {
        stream.write_all(b"bytes").unwrap();
        let mut said = [0; 15];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"HTTP/1.1 200 OK");
    }
}

#[test]
fn bodies_together_are_limited() {
    let (_lab, _host, http) =
        front("max_body_bytes = 1000\nmax_calls = 2\nmax_calls_per_client = 2");
    let head =
        "POST /plugins/actor/echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n";
    let (answers, answered) = mpsc::channel();
    let begun: Vec<_> = (0..3)
        .map(|number| {
            let mut stream = http.send(head.as_bytes());
            stream.write_all(&[b'x'; 999]).unwrap();
            let (mut reader, answers) = (stream.try_clone().unwrap(), answers.clone());
            thread::spawn(move || {
                let mut said = [0; 12];
                reader.read_exact(&mut said).unwrap();
                let said = String::from_utf8_lossy(&said).into_owned();
                answers.send((number, said)).unwrap();
            });
            stream
        })
        .collect();
    // Two of the three have room.
    let (refused, said) = answered.recv().unwrap();
    assert_eq!(said, "HTTP/1.1 429");
    for (number, mut stream) in begun.into_iter().enumerate() {
        if number != refused {
            stream.write_all(b"x").unwrap();
            assert_eq!(answered.recv().unwrap().1, "HTTP/1.1 200");
        }
    }
}

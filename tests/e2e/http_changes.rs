//! HTTP clients notice neither new versions of plugins nor, under socket activation, a new host.

use std::{
    net::TcpListener,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::Command,
    thread,
};

use hotmerge_tests::{
    Ask, Gate, Http, Lab, Steady, Workspace, actions, actor, open_http, read_all,
};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::Signal,
};

#[test]
fn kept_connections_see_no_failure_during_reloads() {
    let lab = Lab::new();
    lab.put(&actor("mark=0"));
    let (host, http) = Http::start(&lab, &open_http(""));
    let clients = Steady::start(http.address(), &[Ask::MARK; 4]);
    for version in 1..=20 {
        clients.go_on();
        host.reload_after(|| lab.put(&actor(&format!("mark={version}"))));
    }
    clients.go_on();
    assert_eq!(clients.renewed(), 0, "connections are kept");
    for marks in clients.stop() {
        assert!(marks.contains("0") && marks.contains("20"), "{marks:?}");
    }
}

/// What the plugin `announce` is asked.
const fn announce(accept: &'static str) -> Ask {
    Ask {
        path: "/plugins/announce/generate",
        accept,
        body: include_str!("../../plugins/announcement/samples/announcement.json"),
    }
}

#[test]
fn a_changed_template_or_encoder_reloads_announce_alone() {
    let sources = Workspace::copied(
        "announce-changes",
        &[
            "plugins/abi",
            "plugins/sdk",
            "plugins/announcement",
            "plugins/announce",
            "plugins/samples/counter",
        ],
    );
    let lab = Lab::new();
    lab.put(&actor("mark=0"));
    sources.driver(&lab).run().ok();
    let config = format!("watch = false\n{}", open_http(""));
    let (host, http) = Http::start(&lab, &config);
    let asks = [
        announce("text/markdown"),
        announce("text/html"),
        announce("application/json"),
        Ask::MARK,
    ];
    let clients = Steady::start(http.address(), &asks);
    let generations = || ["announce", "counter", "actor"].map(|it| host.plugin(it).generation);
    assert_eq!(generations(), [1, 1, 1]);
    clients.go_on();
    for (version, file, from, to) in [
        (
            2,
            "templates/markdown.en.md",
            "{{ body }}",
            "Hear, hear.\n\n{{ body }}",
        ),
        (3, "src/html.rs", "<article>", "<article id=\\\"news\\\">"),
    ] {
        sources.edit_file(&format!("plugins/announcement/{file}"), from, to);
        let built = sources.driver(&lab).run().ok().lines();
        let actions = actions(&built);
        assert_eq!(actions["announce"], "reloaded", "{actions:?}");
        assert_eq!(actions["counter"], "unchanged", "{actions:?}");
        assert_eq!(generations(), [version, 1, 1]);
        clients.go_on();
    }
    assert_eq!(clients.renewed(), 0, "connections are kept");
    let kinds: Vec<_> = clients.stop().iter().map(|it| it.len()).collect();
    assert_eq!(
        kinds,
        [2, 2, 1, 1],
        "each change is seen, and only where it matters"
    );
}

#[test]
fn requests_under_way_are_answered_at_the_end() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    lab.put(&actor("mark=one"));
    let (mut host, http) = Http::start(&lab, &(open_http("") + &gate.config("actor")));
    let stream = http
        .send(b"POST /plugins/actor/wait HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
    let idle = http.send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let visitor = gate.visitor();
    host.signal(Signal::TERM);
    host.log().wait("stopping");
    // A client that waits for nothing is closed at once.
    assert!(read_all(idle).starts_with("HTTP/1.1 200"));
    drop(visitor);
    let said = read_all(stream);
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert!(
        said.to_ascii_lowercase().contains("connection: close"),
        "{said}"
    );
    assert!(host.ended().success());
}

/// The command that starts a host with a listening socket, as systemd does.
fn activated(lab: &Lab, listener: &TcpListener, config: &str) -> Command {
    let serve = lab.serve(config);
    let mut command = Command::new("sh");
    hotmerge_tests::copy_environment(&serve, &mut command);
    let fd = listener.as_raw_fd();
    let script =
        format!("LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec \"$@\" 3<&{fd}");
    command
        .args(["-c", &script, "sh"])
        .arg(serve.get_program())
        .args(serve.get_args());
    // Ordinary programs keep their descriptors to themselves; this is the manager's part.
    fcntl_setfd(listener, FdFlags::empty()).unwrap();
    command.process_group(0);
    command
}

#[test]
fn no_connection_is_refused_while_the_host_restarts() {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = Http::at(listener.local_addr().unwrap());
    let config = open_http("").replace("tcp:127.0.0.1:0", "systemd");
    let mut host = lab.start_by(activated(&lab, &listener, &config));
    for _ in 0..5 {
        // A request that comes while nobody is there waits in the socket.
        assert_eq!(http.post("/plugins/actor/mark", b"").status, 200);
        host.signal(Signal::TERM);
        let ended = host.ended();
        assert!(ended.success(), "{ended}");
        let waiting = {
            let http = Http::at(http.address());
            thread::spawn(move || http.post("/plugins/actor/mark", b""))
        };
        host = lab.start_by(activated(&lab, &listener, &config));
        assert_eq!(waiting.join().unwrap().status, 200);
    }
}

/// The host says on a connection that it ends, or closes it between two requests.
#[test]
fn kept_connections_move_to_the_next_host() {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = open_http("").replace("tcp:127.0.0.1:0", "systemd");
    let mut host = lab.start_by(activated(&lab, &listener, &config));
    let clients = Steady::start(listener.local_addr().unwrap(), &[Ask::MARK; 8]);
    for _ in 0..10 {
        clients.go_on();
        host.signal(Signal::TERM);
        let ended = host.ended();
        assert!(ended.success(), "{ended}");
        host = lab.start_by(activated(&lab, &listener, &config));
    }
    clients.go_on();
    assert!(clients.renewed() >= 80, "each client moved each time");
    clients.stop();
}

#[test]
fn a_socket_the_manager_lacks_is_an_error() {
    let lab = Lab::new();
    let config = open_http("").replace("tcp:127.0.0.1:0", "systemd");
    let refused = hotmerge_tests::run(&mut lab.serve(&config), hotmerge_tests::SOON);
    refused
        .ended_with(3)
        .said(&["the service manager passed no socket"]);
}

#[test]
fn two_hosts_cannot_listen_at_one_place() {
    let lab = Lab::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = open_http("").replace("127.0.0.1:0", &address.to_string());
    let refused = hotmerge_tests::run(&mut lab.serve(&config), hotmerge_tests::SOON);
    refused
        .ended_with(3)
        .said(&[&format!("failed to listen on `tcp:{address}`")]);
}

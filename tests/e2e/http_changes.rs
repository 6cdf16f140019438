//! HTTP clients notice neither new versions of plugins nor, under socket activation, a new host.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use hotmerge_tests::{Gate, Http, Lab, actor, open_http, read_all};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::Signal,
};

/// Clients that call on connections that are kept, until they are told to stop.
struct Clients {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<BTreeSet<String>>>,
}

impl Clients {
    fn start(http: &Http, count: usize) -> Self {
        let (stop, answered) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let client = |_| {
            // An agent of its own has connections of its own.
            let http = Http::at(http.address());
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || {
                let mut marks = BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = http.try_post("/plugins/actor/mark", &[], b"");
                    let answer = answer.expect("no connection is refused or cut off");
                    assert_eq!(answer.status, 200, "{answer:?}");
                    marks.insert(String::from_utf8(answer.body).unwrap());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                marks
            })
        };
        let threads = (0..count).map(client).collect();
        Self {
            stop,
            answered,
            threads,
        }
    }

    /// Waits for some more answers.
    fn go_on(&self) {
        let until = self.answered.load(Ordering::Relaxed) + 20;
        while self.answered.load(Ordering::Relaxed) < until {
            assert!(
                !self.threads.iter().all(JoinHandle::is_finished),
                "every client has failed"
            );
            thread::yield_now();
        }
    }

    fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        let marks = self.threads.into_iter().flat_map(|it| it.join().unwrap());
        marks.collect()
    }
}

#[test]
fn kept_connections_see_no_failure_during_reloads() {
    let lab = Lab::new();
    lab.put(&actor("mark=0"));
    let (host, http) = Http::start(&lab, &open_http(""));
    let clients = Clients::start(&http, 4);
    for version in 1..=20 {
        clients.go_on();
        host.reload_after(|| lab.put(&actor(&format!("mark={version}"))));
    }
    clients.go_on();
    let marks = clients.stop();
    assert!(marks.contains("0") && marks.contains("20"), "{marks:?}");
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
    // Whoever waits for nothing is closed at once.
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

#[test]
fn a_missing_socket_of_the_manager_is_an_error() {
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

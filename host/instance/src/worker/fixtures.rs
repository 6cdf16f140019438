//! A worker for unit tests of its parts: a thread of the test answers in place of a
//! process, over a real wire.

use std::{
    fs::File,
    io::Write as _,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, Sender},
    },
    time::Duration,
};

use hotmerge_abi::{self as abi, CallContext, TableHeader};
use hotmerge_loader::{
    CallError, Constructors, HostServices, LogRecord, OutgoingCall, Reply, Verified,
};
use hotmerge_meta::{Trust, testing::plugin};
use hotmerge_wire::{Caller, Geometry, Request, Server, after_ns, op};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    pipe::{PipeFlags, pipe_with},
};

use crate::{
    cancel::Cancel,
    settings::{
        OnDegraded, PluginSettings, PolicyFiles, RestartConfig, Settings, StartWith, Symbols,
    },
    upward::{Report, Upward},
    worker::{
        calls::Worker,
        machine::Availability,
        process::{Callers, Link, event},
        shared::Workers,
    },
};

/// Longer than any test takes; only a failing one waits for it.
pub(super) const LONG: Duration = Duration::from_secs(30);

type Answer = dyn Fn(OutgoingCall<'_>, &mut Reply) -> Result<(), CallError> + Send + Sync;

/// The host above a worker: records what it receives, and answers the plugin's calls.
pub(super) struct Host {
    reports: Mutex<Sender<Report>>,
    pub(super) records: Mutex<Vec<String>>,
    answer: Box<Answer>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Host")
    }
}

impl Host {
    /// A host without other plugins, and its reports.
    pub(super) fn alone() -> (Arc<Self>, Receiver<Report>) {
        Self::with(|call, _| Err(CallError::NoPlugin(call.plugin.to_owned())))
    }

    /// A host that answers the plugin's calls, and its reports.
    pub(super) fn with(
        answer: impl Fn(OutgoingCall<'_>, &mut Reply) -> Result<(), CallError> + Send + Sync + 'static,
    ) -> (Arc<Self>, Receiver<Report>) {
        let (reports, receive) = mpsc::channel();
        let host = Self {
            reports: Mutex::new(reports),
            records: Mutex::default(),
            answer: Box::new(answer),
        };
        (Arc::new(host), receive)
    }
}

impl HostServices for Host {
    fn log(&self, record: LogRecord<'_>) {
        self.records.lock().unwrap().push(record.message.to_owned());
    }
}

impl Upward for Host {
    fn report(&self, report: Report) {
        // A test may not care.
        let _ = self.reports.lock().unwrap().send(report);
    }

    fn call_until(
        &self,
        _: &Cancel,
        call: OutgoingCall<'_>,
        reply: &mut Reply,
    ) -> Result<(), CallError> {
        (self.answer)(call, reply)
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        worker: None,
        isolation: None,
        degraded: OnDegraded::Run,
        symbols: Symbols::Off,
        policies: PolicyFiles::default(),
        trust: Trust::anybody(),
        restart: RestartConfig::default(),
        call_limit: None,
        start_limit: LONG,
        cgroup: None,
        by_default: PluginSettings {
            idempotent: vec!["get".to_owned()],
            drain: LONG,
            teardown: LONG,
            ..PluginSettings::default()
        },
        plugins: Default::default(),
    }
}

/// Bytes that count as verified. No process ever loads them.
pub(super) fn image() -> Verified {
    let memory = memfd_create("image", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    let mut file = File::from(memory);
    file.write_all(b"image").unwrap();
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK).unwrap();
    let header = TableHeader::CURRENT;
    let none = Constructors::default();
    Verified::by_host(file.into(), "/nowhere".into(), header, none).unwrap()
}

/// A worker whose first process is still to come.
pub(super) fn worker(settings: Settings, host: Arc<Host>) -> Arc<Worker> {
    let meta = Arc::new(plugin("one", "1.0.0", Vec::new()));
    let workers = Workers::without_processes(settings);
    let with = StartWith {
        settings: &workers.settings(),
        config: "{}",
        break_off: &Cancel::default(),
    };
    Worker::new(&workers, host, &meta, image(), Vec::new(), &with).unwrap()
}

/// What leads to a process, and the process's end of the wire.
pub(super) fn link() -> (Arc<Link>, Server) {
    let geometry = Geometry::default();
    let (caller, wire) = Caller::create(geometry).unwrap();
    (over(caller, None), Server::open(wire, geometry).unwrap())
}

/// What leads to a process whose plugin may call others, and the end through which it calls.
pub(super) fn calling_link(slots: u32) -> (Arc<Link>, Caller) {
    let geometry = Geometry {
        slots,
        ..Geometry::default()
    };
    let (caller, _) = Caller::create(Geometry::default()).unwrap();
    let (outgoing, wire) = Server::create(geometry).unwrap();
    let link = over(caller, Some(outgoing));
    (link, Caller::open(wire, geometry).unwrap())
}

fn over(caller: Caller, outgoing: Option<Server>) -> Arc<Link> {
    let (crash, _) = pipe();
    Link::new(caller, outgoing, "one", 1, crash, event().unwrap())
}

pub(super) fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
}

/// Lets a process take the calls.
pub(super) fn go_live(worker: &Worker, link: &Arc<Link>) {
    worker.go_live(Callers::of(link));
    worker.publish(Availability::Serving, None);
}

/// Answers as a process does, with the operation, the method and the request, until it is told to
/// exit; refuses the method `refuse`.
pub(super) fn echo(server: &Server) {
    loop {
        let taken = server.next().unwrap();
        let (method, request) = taken.copy_request();
        let mut writer = taken.writer();
        let status = if method == b"refuse" {
            writer.write(b"no");
            abi::STATUS_FAILED
        } else {
            let method = String::from_utf8_lossy(&method);
            writer.write(format!("{} {method} ", taken.op()).as_bytes());
            writer.write(&request)
        };
        let is_end = taken.op() == op::EXIT;
        taken.finish(status, &writer);
        if is_end {
            return;
        }
    }
}

/// Ends the thread that answers at the other end when dropped, also if a test fails.
pub(super) struct Exit<'a>(pub(super) &'a Link);

impl Drop for Exit<'_> {
    fn drop(&mut self) {
        let request = Request {
            op: op::EXIT,
            context: &no_context(),
            method: "",
            bytes: b"",
            reply_limit: 1 << 10,
            give_up_ns: after_ns(LONG),
            cancel: None,
            on_behalf_of: None,
        };
        let _ = self.0.caller.ask(&request, Vec::new());
    }
}

pub(super) fn no_context() -> CallContext {
    CallContext {
        size: size_of::<CallContext>() as u32,
        ..CallContext::default()
    }
}

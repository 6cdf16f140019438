//! The kit with which authors test their plugins: a failing test tells what failed, and a plugin meets in
//! a test what it meets in a host.
//!
//! What a failing test prints is seen from outside: each such test runs this program once more, for itself
//! alone, and fails there.

use std::{
    env,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use hotmerge_sdk::{
    Call, Error, Host, Level, Plugin, Reply, abi,
    testing::{Instance, Refused},
};

/// Says that a test is to fail.
const FAIL: &str = "HOTMERGE_TEST_FAIL";

/// What a failing test prints, and how it ends.
fn failed(test: &str) -> String {
    let program = env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--exact", test, "--test-threads", "1"])
        .env(FAIL, "1")
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    // 101 is the test program's own: it was not killed.
    assert_eq!(output.status.code(), Some(101), "{said}");
    assert!(said.contains("1 failed"), "{said}");
    assert!(said.contains(&format!("thread '{test}'")), "{said}");
    said
}

fn is_to_fail() -> bool {
    env::var_os(FAIL).is_some()
}

/// Adds numbers, asks others, and misbehaves when asked to.
struct Sums {
    host: Host,
    sum: AtomicU64,
    /// Ends its thread, which says goodbye.
    stop: Mutex<Option<Sender<()>>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Plugin for Sums {
    fn start(host: Host, config: &[u8]) -> Result<Self, Error> {
        if config == b"{\"refuse\":true}" {
            return Err("told to refuse".into());
        }
        if config == b"{\"ask\":true}" {
            host.call("other", "at start", b"")?;
        }
        let (stop, stopped) = channel();
        let thread = thread::spawn(move || {
            let _ = stopped.recv();
            host.log(Level::Info, "the thread is gone");
        });
        Ok(Self {
            host,
            sum: AtomicU64::new(0),
            stop: Mutex::new(Some(stop)),
            thread: Mutex::new(Some(thread)),
        })
    }

    fn call(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error> {
        match call.method() {
            "add" => {
                let sum = self.sum.fetch_add(1, Ordering::Relaxed) + 1;
                reply.text(&sum.to_string())
            }
            "remaining" => reply.text(&format!("{:?}", call.remaining())),
            "log" => {
                self.host.log_in(call, Level::Warn, "as told");
                Ok(())
            }
            "ask" => {
                let answer = self.host.call_media(
                    call,
                    "other",
                    "question",
                    call.request(),
                    "text/x",
                    "text/y",
                )?;
                reply.content_type(&answer.content_type);
                reply.bytes(&answer.bytes)
            }
            "panic" => panic!("told to panic with {}", call.request().len()),
            _ => Err(Error::NoMethod),
        }
    }

    fn self_check(&self) -> Result<(), Error> {
        match self.sum.load(Ordering::Relaxed) {
            0 => Ok(()),
            sum => Err(format!("{sum} is not a good start").into()),
        }
    }

    fn save(&self, state: &mut Reply<'_>) -> Result<(), Error> {
        state.bytes(&self.sum.load(Ordering::Relaxed).to_le_bytes())
    }

    fn restore(&self, from: &str, state: &[u8]) -> Result<(), Error> {
        let sum = state.try_into().map_err(|_| {
            Error::bad_request(format!("{from} saved {} bytes, not 8", state.len()))
        })?;
        self.sum.store(u64::from_le_bytes(sum), Ordering::Relaxed);
        Ok(())
    }

    fn teardown(&self, limit: Duration) -> Result<(), Error> {
        if limit < Duration::from_millis(1) {
            return Err("too little time".into());
        }
        drop(self.stop.lock().unwrap().take());
        if let Some(thread) = self.thread.lock().unwrap().take() {
            thread.join().map_err(|_| "the thread panicked")?;
        }
        Ok(())
    }
}

/// Its version before: half of the state, or none at all.
struct Before {
    state: bool,
}

impl Plugin for Before {
    fn start(_: Host, config: &[u8]) -> Result<Self, Error> {
        let state = config != b"{}";
        Ok(Self { state })
    }

    fn call(&self, _: &Call<'_>, _: &mut Reply<'_>) -> Result<(), Error> {
        Err(Error::NoMethod)
    }

    fn save(&self, state: &mut Reply<'_>) -> Result<(), Error> {
        match self.state {
            true => state.bytes(&[0; 4]),
            false => Err(Error::Unsupported),
        }
    }
}

fn sums() -> Instance<Sums> {
    Instance::start("{}").unwrap()
}

#[test]
fn a_failing_assert_names_its_values() {
    if is_to_fail() {
        let sums = sums();
        let answer = sums.call("add", b"").unwrap();
        assert_eq!(String::from_utf8(answer.bytes).unwrap(), "sum of 7");
    } else {
        let said = failed("a_failing_assert_names_its_values");
        assert!(said.contains("  left: \"1\""), "{said}");
        assert!(said.contains(" right: \"sum of 7\""), "{said}");
        assert!(said.contains("author_kit.rs:"), "{said}");
    }
}

#[test]
#[should_panic(expected = "the sum is 1")]
fn should_panic_works_with_an_instance() {
    let sums = sums();
    let answer = sums.call("add", b"").unwrap();
    panic!("the sum is {}", String::from_utf8(answer.bytes).unwrap());
}

#[test]
fn a_fakes_panic_fails_the_test() {
    if is_to_fail() {
        let sums = Instance::<Sums>::prepare("{}")
            .fake("other", |call, _| {
                assert_eq!(call.request(), b"expected");
                Ok(())
            })
            .start()
            .unwrap();
        // The plugin gets an error, which does not hide that the fake is not content.
        let _ = sums.call("ask", b"sent");
    } else {
        let said = failed("a_fakes_panic_fails_the_test");
        assert!(said.contains("left: [115, 101, 110, 116]"), "{said}");
    }
}

#[test]
fn a_plugins_panic_is_its_answer() {
    let sums = sums();
    let refused = sums.call("panic", b"four").unwrap_err();
    assert_eq!(refused.status, abi::STATUS_PANIC);
    let reason = refused.reason;
    assert!(reason.contains("author_kit.rs:"), "{reason}");
    assert!(reason.contains("told to panic with 4"), "{reason}");
    assert_eq!(sums.call("add", b"").unwrap().bytes, b"1");
}

#[test]
fn instances_are_used_from_many_threads() {
    let sums = sums();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| drop(sums.call("add", b"").unwrap())));
        }
    });
    assert_eq!(sums.call("add", b"").unwrap().bytes, b"201");
}

#[test]
fn starts_and_self_checks_may_refuse() {
    let refused = Instance::<Sums>::start("{\"refuse\":true}").unwrap_err();
    assert_eq!(refused.reason, "told to refuse");
    let sums = sums();
    assert_eq!(sums.self_check(), Ok(()));
    sums.call("add", b"").unwrap();
    let refused = sums.self_check().unwrap_err();
    assert_eq!(refused.status, abi::STATUS_FAILED);
    assert_eq!(refused.reason, "1 is not a good start");
}

#[test]
fn state_moves_between_versions() {
    let (old, new) = (sums(), sums());
    old.call("add", b"").unwrap();
    new.take_over("0.1.0", &old).unwrap();
    assert_eq!(new.call("add", b"").unwrap().bytes, b"2");
    // A version without state leaves the new one as it is; one whose state it does not know is refused.
    let none = Instance::<Before>::start("{}").unwrap();
    new.take_over("0.0.1", &none).unwrap();
    assert_eq!(new.call("add", b"").unwrap().bytes, b"3");
    let short = Instance::<Before>::start("{\"state\":true}").unwrap();
    let refused = new.take_over("0.0.2", &short).unwrap_err();
    assert_eq!(refused.reason, "0.0.2 saved 4 bytes, not 8");
}

#[test]
fn an_end_says_what_it_refuses() {
    sums().teardown(Duration::from_secs(3)).unwrap();
    let refused = sums().teardown(Duration::ZERO).unwrap_err();
    assert_eq!(refused.reason, "too little time");
}

#[test]
fn records_are_kept_with_their_call() {
    let sums = sums();
    let (trace, span) = ([7; 16], [9; 8]);
    sums.request("log").trace(trace, span).call().unwrap();
    let record = sums.wait_for_record("as told");
    assert_eq!(record.level, Level::Warn);
    let call = record.call.unwrap();
    assert_eq!((call.trace_id, call.span_id), (trace, span));
    assert_eq!(sums.records().len(), 1);
}

#[test]
fn plugins_see_their_deadlines() {
    let sums = sums();
    let remaining = |request: hotmerge_sdk::testing::Request<'_, Sums>| {
        String::from_utf8(request.call().unwrap().bytes).unwrap()
    };
    assert_eq!(remaining(sums.request("remaining")), "None");
    let passed = sums.request("remaining").deadline(Duration::ZERO);
    assert_eq!(remaining(passed), "Some(0ns)");
    let hour = sums
        .request("remaining")
        .deadline(Duration::from_secs(3600));
    assert!(remaining(hour).starts_with("Some(35"));
}

#[test]
fn fakes_answer_for_required_plugins() {
    let sums = Instance::<Sums>::prepare("{\"ask\":true}")
        .fake("other", |call, reply| match call.method() {
            "at start" => Ok(()),
            "question" if call.request() == b"bad" => Err(Error::bad_request("no such thing")),
            "question" => {
                let types = (call.content_type(), call.accept());
                assert_eq!(types, (Some("text/x"), Some("text/y")));
                assert!(call.remaining().is_some());
                reply.text("an answer")
            }
            _ => Err(Error::NoMethod),
        })
        .start()
        .unwrap();
    let ask = |what: &str| {
        let hour = Duration::from_secs(3600);
        sums.request("ask").body(what).deadline(hour).call()
    };
    let answer = ask("good").unwrap();
    assert_eq!(answer.bytes, b"an answer");
    assert_eq!(answer.content_type, "text/plain; charset=utf-8");
    let refused = ask("bad").unwrap_err();
    assert_eq!(refused.reason, "no such thing");
    // Without a fake nobody answers, and the refusal says what to write.
    let refused = Instance::<Sums>::start("{\"ask\":true}").unwrap_err();
    assert!(
        refused.reason.contains(".fake(\"other\", …)"),
        "{}",
        refused.reason
    );
}

/// An instance whose fake waits until its test lets it go on.
fn waiting() -> (Instance<Sums>, Receiver<()>, Sender<()>) {
    let ((arrived, arrivals), (go, gone)) = (channel(), channel());
    let gone = Mutex::new(gone);
    let sums = Instance::<Sums>::prepare("{}")
        .fake("other", move |_, reply| {
            arrived.send(()).unwrap();
            gone.lock().unwrap().recv().unwrap();
            reply.text("late")
        })
        .start()
        .unwrap();
    (sums, arrivals, go)
}

#[test]
fn calls_run_beside_the_test() {
    let (sums, arrivals, go) = waiting();
    let pending = sums.request("ask").begin();
    arrivals.recv().unwrap();
    assert!(!pending.has_ended());
    // Another call is answered meanwhile.
    assert_eq!(sums.call("add", b"").unwrap().bytes, b"1");
    go.send(()).unwrap();
    assert_eq!(pending.wait().unwrap().bytes, b"late");
}

#[test]
fn a_cancelled_call_ends_before_the_plugin() {
    let (sums, arrivals, go) = waiting();
    let pending = sums.request("ask").begin();
    arrivals.recv().unwrap();
    pending.cancel();
    // The plugin was told nothing, and goes on; its instance cannot end so long.
    let Err(Refused { status, reason }) = sums.teardown(Duration::from_millis(1)) else {
        panic!("it ended under a running call");
    };
    assert_eq!(status, abi::STATUS_DEADLINE);
    assert!(reason.starts_with("1 calls still run"), "{reason}");
    go.send(()).unwrap();
}

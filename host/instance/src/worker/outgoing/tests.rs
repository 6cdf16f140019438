//! Calls of a plugin whose process is the test itself.

use std::{
    sync::{Condvar, Mutex},
    time::Duration,
};

use hotmerge_abi::{self as abi, CallContext};
use hotmerge_wire::{Answer, Caller, NoAnswer, Request, now_ns};

use super::*;
use crate::worker::fixtures::{Host, LONG, calling_link, no_context, settings, worker};

/// A plugin that may call others, until dropped.
struct Plugin {
    worker: Arc<Worker>,
    link: Arc<Link>,
    caller: Caller,
}

impl Plugin {
    fn new(host: Arc<Host>) -> Self {
        let limited = crate::Settings {
            call_limit: Some(LONG),
            ..settings()
        };
        let worker = worker(limited, host);
        let (link, caller) = calling_link(MOST_OUTGOING);
        worker.forward_calls(&link).unwrap();
        Self {
            worker,
            link,
            caller,
        }
    }

    fn ask(&self, op: u32, context: &CallContext, method: &str) -> Result<Answer, NoAnswer> {
        let request = Request {
            op,
            context,
            method,
            bytes: b"request",
            reply_limit: 1 << 20,
            give_up_ns: after_ns(LONG),
            cancel: None,
            on_behalf_of: None,
        };
        self.caller.ask(&request, Vec::new())
    }

    fn call(&self, method: &str) -> Result<String, (i32, String)> {
        match self.ask(op::CALL_OTHER, &no_context(), method).unwrap() {
            Answer::Reply { bytes, .. } => Ok(String::from_utf8(bytes).unwrap()),
            Answer::Refusal { status, reason } => Err((status, String::from_utf8(reason).unwrap())),
        }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.link.hang_up();
    }
}

#[test]
fn a_call_reaches_the_plugin_it_names() {
    let (host, _) = Host::with(|call, reply| {
        let OutgoingCall {
            plugin,
            method,
            request,
            ..
        } = call;
        let request = String::from_utf8_lossy(request);
        reply.fill(format!("{plugin}|{method}|{request}").into_bytes(), b"");
        Ok(())
    });
    let plugin = Plugin::new(host);
    assert_eq!(
        plugin.call("other go on"),
        Ok("other|go on|request".to_owned())
    );
}

#[test]
fn a_refusal_comes_back_with_its_reason() {
    let plugin = Plugin::new(Host::alone().0);
    let (status, reason) = plugin.call("other go").unwrap_err();
    assert_eq!(
        (status, reason.as_str()),
        (CallError::NoPlugin(String::new()).status().0, "other")
    );
}

#[test]
fn anything_but_a_call_is_unsupported() {
    let plugin = Plugin::new(Host::alone().0);
    for (op, method) in [(op::SAVE, "other go"), (op::CALL_OTHER, "other")] {
        let answer = plugin.ask(op, &no_context(), method).unwrap();
        let Answer::Refusal { status, .. } = answer else {
            panic!("{method} was answered");
        };
        assert_eq!(status, abi::STATUS_UNSUPPORTED);
    }
}

#[test]
fn a_panic_of_the_host_fails_one_call() {
    let (host, _) = Host::with(|call, _| match call.method {
        "panic" => panic!("on purpose"),
        _ => Ok(()),
    });
    let plugin = Plugin::new(host);
    let (status, reason) = plugin.call("other panic").unwrap_err();
    assert_eq!(status, abi::STATUS_FAILED);
    assert!(
        reason.contains("the host failed to forward the call"),
        "{reason}"
    );
    assert_eq!(plugin.call("other go"), Ok(String::new()));
}

#[test]
fn no_call_outlasts_the_hosts_limit() {
    let (host, _) = Host::with(|call, reply| {
        let deadline_ns = call.context.map_or(0, |context| context.deadline_ns);
        reply.fill(deadline_ns.to_string().into_bytes(), b"");
        Ok(())
    });
    let plugin = Plugin::new(host);
    let far = CallContext {
        deadline_ns: after_ns(100 * LONG),
        ..no_context()
    };
    let answer = plugin.ask(op::CALL_OTHER, &far, "other go").unwrap();
    let Answer::Reply { bytes, .. } = answer else {
        panic!("it was refused");
    };
    let deadline_ns: u64 = String::from_utf8(bytes).unwrap().parse().unwrap();
    assert!(deadline_ns <= now_ns() + LONG.as_nanos() as u64);
}

/// Counts the calls that are under way together.
#[derive(Default)]
struct Together {
    count: Mutex<u32>,
    changed: Condvar,
}

impl Together {
    /// Whether so many calls are under way before too long.
    fn reach(&self, all: u32, limit: Duration) -> bool {
        *self.count.lock().unwrap() += 1;
        self.changed.notify_all();
        let count = self.count.lock().unwrap();
        let waited = self
            .changed
            .wait_timeout_while(count, limit, |count| *count < all);
        !waited.unwrap().1.timed_out()
    }
}

#[test]
fn as_many_calls_as_allowed_run_together() {
    let together = Together::default();
    let (host, _) = Host::with(move |_, _| match together.reach(MOST_OUTGOING, LONG) {
        true => Ok(()),
        false => Err(CallError::Failed("the others were not carried".to_owned())),
    });
    let plugin = Plugin::new(host);
    thread::scope(|scope| {
        let calls = (0..MOST_OUTGOING).map(|_| scope.spawn(|| plugin.call("other go")));
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.join().unwrap(), Ok(String::new()));
        }
    });
    assert!(plugin.worker.forwarders.load(Ordering::Relaxed) <= MOST_OUTGOING);
}

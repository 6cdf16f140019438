//! Hosts whose plugins live in processes of their own.

use hotmerge_daemon::status::WorkerStatus;
use hotmerge_meta::control::{CallReply, method};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{Lab, SOON, TestHost, call_params, memory::keep_one_heap, skipped};

/// Replaces crashed workers as often as a test crashes them.
pub const UNTIRING: &str = "restart = { most = 1000000, within_s = 1, pause_ms = 0 }\n";

/// The deadline of a call that is to hang, in milliseconds: a worker on a busy machine must have
/// taken it before, or nothing hangs in it.
pub const HANGS_MS: u64 = 1000;

impl Lab {
    /// Lines of configuration: plugins live in a `process` of their own or in the `host`'s, and the
    /// worker program is there in any case.
    pub fn living_in(&self, isolation: &str) -> String {
        format!(
            "worker = {:?}\nisolation = \"{isolation}\"\n",
            self.worker()
        )
    }

    /// Starts a host that keeps plugins in workers; `None`, and a recorded skip, where this system does not
    /// give the whole sandbox.
    #[track_caller]
    pub fn start_sandboxed(&self, more: &str) -> Option<TestHost> {
        let mut serve = self.serve(&format!("{}{more}", self.living_in("process")));
        keep_one_heap(&mut serve);
        let host = self.start_by(serve);
        let degraded = host.status().host.degraded;
        if degraded.is_empty() {
            return Some(host);
        }
        skipped(&format!(
            "this system gives no whole sandbox: {}",
            degraded.join("; ")
        ));
        None
    }
}

impl TestHost {
    /// The status of a plugin's worker.
    ///
    /// # Panics
    /// If the plugin has none.
    #[track_caller]
    pub fn worker(&self, plugin: &str) -> WorkerStatus {
        let plugin = self.plugin(plugin);
        plugin.worker.expect("it lives in a process of its own")
    }

    /// Kills the worker of a plugin, and nobody else: when its number is used, it may be another's.
    ///
    /// # Panics
    /// If the plugin has none that runs.
    #[track_caller]
    pub fn kill_worker(&self, plugin: &str) {
        let pid = || Pid::from_raw(self.worker(plugin).pid?);
        let found = pid().expect("a worker runs");
        let worker = pidfd_open(found, PidfdFlags::empty()).expect("it lives");
        assert_eq!(pid(), Some(found), "nobody else ends it");
        pidfd_send_signal(&worker, Signal::KILL).expect("it lives");
    }

    /// Waits until a fixture answers that may have been ended and replaced, or handed over to another
    /// version.
    #[track_caller]
    pub fn answers_again(&self, plugin: &str) {
        self.wait_for("it answers again", |_| self.call(plugin, "echo", b"").ok());
    }

    /// Makes as many calls as a worker may leave unanswered before it counts as hung.
    #[track_caller]
    pub fn leaves_calls_unanswered(&self, plugin: &str) {
        let mut params = call_params(plugin, "echo", b"");
        params.deadline_ms = Some(50);
        let mut client = self.client();
        for _ in 0..3 {
            let late: Result<CallReply, _> = client.request(method::CALL, &params, SOON);
            late.expect_err("it does not answer");
        }
    }

    /// Waits until the worker of a plugin was replaced so often and takes calls; says why it was
    /// the last time.
    #[track_caller]
    pub fn replaced(&self, plugin: &str, restarts: u64) -> String {
        let failure = self.wait_for("the worker is replaced", |status| {
            let mut plugins = status.plugins.iter();
            let plugin = plugins.find(|it| it.name == plugin)?;
            plugin.worker.as_ref()?.pid?;
            (plugin.restarts >= restarts).then(|| plugin.last_failure.clone())
        });
        failure.expect("it is named").to_string()
    }
}

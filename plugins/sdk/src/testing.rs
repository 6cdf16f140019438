//! Runs a plugin in a unit test the way a host does: through its exported table.
//!
//! ```
//! # use hotmerge_sdk::{Call, Error, Host, Plugin, Reply, testing::Instance};
//! # struct Echo;
//! # impl Plugin for Echo {
//! #     fn start(_: Host, _: &[u8]) -> Result<Self, Error> { Ok(Self) }
//! #     fn call(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error> {
//! #         reply.bytes(call.request())
//! #     }
//! # }
//! let plugin = Instance::<Echo>::start("{}").unwrap();
//! assert_eq!(plugin.call("any", b"hi").unwrap().bytes, b"hi");
//! ```
//!
//! A panic of the plugin is an outcome like any other ([`Refused`]). A panic of the test, or of a fake
//! that it gave the plugin, fails the test with its message: the first instance of a test program
//! makes both share the panic hook, and nothing changes the hook after that.
//!
//! Absent on purpose: the sandbox, and the requirements of a `plugin.meta`.

mod described;
mod host;
mod refused;
mod request;
mod running;

use std::{fmt, ptr, sync::Arc, time::Duration};

use hotmerge_abi::{self as abi, Bytes};

pub use self::{
    host::Record,
    refused::Refused,
    request::{Pending, Request},
};
use self::{host::TestHost, refused::gather, running::Running};
pub use crate::answer::Answer;
use crate::{Call, Error, Plugin, Reply, panic, table};

/// The time that an instance gets for its end when it is dropped: what a host gives by default.
const END_LIMIT: Duration = Duration::from_secs(3);

/// A started plugin, to be used from any number of threads. Ended when dropped, after the calls that
/// still run.
pub struct Instance<P: Plugin> {
    running: Arc<Running<P>>,
}

impl<P: Plugin> fmt::Debug for Instance<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

/// A plugin that is about to start, with what it finds in its host.
pub struct Prepared<P: Plugin> {
    config: String,
    host: TestHost,
    plugin: std::marker::PhantomData<P>,
}

impl<P: Plugin> fmt::Debug for Prepared<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").finish_non_exhaustive()
    }
}

impl<P: Plugin> Prepared<P> {
    /// Lets `fake` answer the calls of this plugin to the plugin `name`, which it requires. It has the
    /// arguments of [`Plugin::call`]; a panic in it fails the test.
    #[must_use]
    pub fn fake(
        mut self,
        name: &str,
        fake: impl Fn(&Call<'_>, &mut Reply<'_>) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Self {
        self.host.fakes.insert(name.to_owned(), Box::new(fake));
        self
    }

    /// Starts the plugin.
    ///
    /// # Errors
    /// The refusal of `start`.
    pub fn start(self) -> Result<Instance<P>, Refused> {
        panic::share_hook();
        let (table, host, config) = (table::<P>(), self.host.install(), self.config);
        let mut instance = ptr::null_mut();
        let outcome = gather(|sink| {
            // SAFETY: the host table is never freed, the rest lives for the call.
            unsafe {
                (table.create)(
                    &raw const host.table,
                    Bytes::new(config.as_bytes()),
                    &raw mut instance,
                    sink,
                )
            }
        });
        let started = outcome.map(|_| Instance {
            // SAFETY: `create` has just made the instance, and nobody else has it.
            running: Arc::new(unsafe { Running::new(table, instance, host) }),
        });
        host.raise();
        started
    }
}

impl<P: Plugin> Instance<P> {
    /// Starts the plugin with a JSON object as its configuration.
    ///
    /// # Errors
    /// The refusal of `start`.
    pub fn start(config: &str) -> Result<Self, Refused> {
        Self::prepare(config).start()
    }

    /// A plugin that needs fakes of others ([`Prepared::fake`]) before it starts with a JSON object as
    /// its configuration.
    pub fn prepare(config: &str) -> Prepared<P> {
        Prepared {
            config: config.to_owned(),
            host: TestHost::default(),
            plugin: std::marker::PhantomData,
        }
    }

    /// Calls a method.
    ///
    /// # Errors
    /// The plugin's error.
    pub fn call(&self, method: &str, request: &[u8]) -> Result<Answer, Refused> {
        self.request(method).body(request).call()
    }

    /// As [`Instance::call`], with the request's media type and those that the caller accepts; either
    /// may be empty.
    ///
    /// # Errors
    /// The plugin's error.
    pub fn call_media(
        &self,
        method: &str,
        request: &[u8],
        content_type: &str,
        accept: &str,
    ) -> Result<Answer, Refused> {
        self.request(method)
            .body(request)
            .media(content_type, accept)
            .call()
    }

    /// A call with a deadline, a trace or media types, or one that runs beside the test.
    pub fn request(&self, method: &str) -> Request<'_, P> {
        Request::new(&self.running, method)
    }

    /// Lets the plugin check itself, as a host does before it gives it calls.
    ///
    /// # Errors
    /// The plugin's reason not to take over.
    pub fn self_check(&self) -> Result<(), Refused> {
        self.running.self_check()
    }

    /// The JSON document in which the plugin describes itself.
    ///
    /// # Errors
    /// The plugin's error, `STATUS_UNSUPPORTED` if it describes nothing.
    pub fn describe(&self) -> Result<String, Refused> {
        self.running.describe()
    }

    /// Checks the plugin's description against its answers: it has every method that it
    /// describes and none called `no-such-method`, each example succeeds, and the reply has one of the
    /// described media types, also where a caller accepts only that one.
    ///
    /// # Panics
    /// If something is not as described, and says all that is not.
    pub fn check_description(&self) {
        described::check(&self.running);
    }

    /// Saves the state.
    ///
    /// # Errors
    /// The plugin's error.
    pub fn save(&self) -> Result<Vec<u8>, Refused> {
        self.running.save()
    }

    /// Hands over the state that version `from` saved.
    ///
    /// # Errors
    /// The plugin's refusal.
    pub fn restore(&self, from: &str, state: &[u8]) -> Result<(), Refused> {
        self.running.restore(from, state)
    }

    /// Takes the state over from another version of the plugin, which may be another type, as a host
    /// lets versions take over: nothing moves if the old one has no state.
    ///
    /// # Errors
    /// The refusal of either; a host keeps the old version then.
    pub fn take_over<Old: Plugin>(&self, from: &str, old: &Instance<Old>) -> Result<(), Refused> {
        match old.save() {
            Ok(state) => self.restore(from, &state),
            Err(refused) if refused.status == abi::STATUS_UNSUPPORTED => Ok(()),
            Err(refused) => Err(refused),
        }
    }

    /// What the plugin has logged so far, oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.running.host.records()
    }

    /// Waits for a record whose message contains `text`, which a thread of the plugin may log.
    ///
    /// # Panics
    /// If none comes for ten seconds, and says what came instead.
    pub fn wait_for_record(&self, text: &str) -> Record {
        self.running.host.wait_for_record(text)
    }

    /// Ends the plugin with so much time, as a host does: `teardown`, once no call runs, then drops
    /// the plugin.
    ///
    /// # Errors
    /// The plugin's error.
    pub fn teardown(self, limit: Duration) -> Result<(), Refused> {
        let outcome = self.running.end(limit);
        self.running.host.raise();
        outcome
    }
}

impl<P: Plugin> Drop for Instance<P> {
    fn drop(&mut self) {
        // A host logs what a teardown refuses, and goes on.
        if let Err(refused) = self.running.end(END_LIMIT) {
            eprintln!("the plugin did not end well: {refused}");
        }
        // A test that fails already fails with its own message.
        if !std::thread::panicking() {
            self.running.host.raise();
        }
    }
}

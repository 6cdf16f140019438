//! A caller's handle to a plugin: the same for all its versions.

use std::{fmt, time::Instant};

use hotmerge_abi::CallContext;
use hotmerge_instance::{
    Call, Failure,
    failure::{self},
};
use hotmerge_loader::{self as loader, Reply};
use hotmerge_meta::{Digest, PluginName, control::code};
use hotmerge_swap::{Draining, Gate, VersionCell};

mod calls;
mod canary;
mod lane;
mod version;

pub(crate) use calls::Failed;
use calls::{Calls, UnderWay};
use canary::Canary;
pub(crate) use version::Version;

/// A plugin of a running host. Calls are cheap from any thread; each call runs on one
/// version from start to finish.
pub struct Plugin {
    name: PluginName,
    pub(crate) live: Gate<Version>,
    /// The version that hands over its state while the gate is closed.
    pub(crate) handing: VersionCell<Version>,
    canary: Canary,
    pub(crate) calls: Calls,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Which version answered a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Counts the versions that went live, from 1.
    pub generation: u64,
}

impl Answered {
    fn by(version: &Version) -> Self {
        Self {
            generation: version.generation,
        }
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No version of the plugin takes calls.
    #[error("no version of plugin `{0}` is loaded; see `hotmerge status`")]
    NotLoaded(String),
    /// Calls between plugins are nested too deeply on this thread.
    #[error("calls are nested too deeply")]
    TooDeep,
    /// The plugin answered with an error.
    #[error(transparent)]
    Plugin(#[from] loader::CallError),
}

impl CallError {
    /// Its [`code`] in the control protocol.
    pub fn code(&self) -> i32 {
        match self {
            Self::NotLoaded(_) => code::NO_PLUGIN,
            Self::TooDeep => code::INTERNAL,
            Self::Plugin(error) => match error {
                loader::CallError::NoMethod(_) => code::NO_PLUGIN_METHOD,
                loader::CallError::BadRequest(_) => code::BAD_REQUEST,
                loader::CallError::Deadline => code::DEADLINE,
                loader::CallError::Panicked(_) => code::PANICKED,
                loader::CallError::ReplyTooLarge => code::REPLY_TOO_LARGE,
                loader::CallError::NotAcceptable(_) => code::NOT_ACCEPTABLE,
                loader::CallError::UnsupportedMedia(_) => code::UNSUPPORTED_MEDIA,
                _ => code::PLUGIN_FAILED,
            },
        }
    }
}

impl Plugin {
    pub(crate) fn new(name: PluginName) -> Self {
        Self {
            name,
            live: Gate::new(),
            handing: VersionCell::new(),
            canary: Canary::default(),
            calls: Calls::new(),
        }
    }

    /// The plugin's name.
    pub fn name(&self) -> &PluginName {
        &self.name
    }

    /// Calls a method and says which version answered. `reply` belongs to the caller.
    ///
    /// # Errors
    /// Why the call failed; never because of a reload.
    #[inline]
    pub fn call(&self, call: &Call<'_>, reply: &mut Reply) -> Result<Answered, CallError> {
        self.call_as(call, reply, Answered::by)
    }

    /// As [`Plugin::call`], and says which bytes answered.
    ///
    /// # Errors
    /// As [`Plugin::call`].
    pub fn call_and_identify(
        &self,
        call: &Call<'_>,
        reply: &mut Reply,
    ) -> Result<(Answered, Digest), CallError> {
        self.call_as(call, reply, |version| (Answered::by(version), version.hash))
    }

    /// Asks the live version for its description. This is not a client's call: no canary takes it,
    /// and a plugin that says nothing has not failed.
    ///
    /// # Errors
    /// [`loader::CallError::Unsupported`] if it says nothing; otherwise as [`Plugin::call`].
    pub fn describe(
        &self,
        context: &CallContext,
        reply: &mut Reply,
    ) -> Result<Answered, CallError> {
        let call = Call::describe(context);
        let outcome = self.live.with(|live| {
            let version = live.ok_or_else(|| self.not_loaded())?;
            match version.instance.call(&call, reply) {
                Ok(()) => Ok(Answered::by(version)),
                Err(error) if matches!(*error, loader::CallError::Unsupported) => {
                    Err(Box::new(CallError::Plugin(*error)))
                }
                Err(error) => Err(self.failed(version, &call, *error)),
            }
        });
        match outcome {
            Ok(outcome) => outcome.map_err(|error| *error),
            Err(_) => Err(CallError::TooDeep),
        }
    }

    /// Calls a method and queries the version that answered.
    #[inline]
    fn call_as<R>(
        &self,
        call: &Call<'_>,
        reply: &mut Reply,
        ask: impl FnOnce(&Version) -> R,
    ) -> Result<R, CallError> {
        let counted = self.calls.begin();
        if self.canary.takes_some() && self.canary.takes_this() {
            return self.call_canary(counted, call, reply, ask);
        }
        self.call_live(counted, call, reply, ask)
    }

    #[cold]
    #[inline(never)]
    fn call_canary<R>(
        &self,
        counted: UnderWay<'_>,
        call: &Call<'_>,
        reply: &mut Reply,
        ask: impl FnOnce(&Version) -> R,
    ) -> Result<R, CallError> {
        let tried = self.canary.version.with(|version| {
            let Some(version) = version else {
                return Err(ask);
            };
            let outcome = version.instance.call(call, reply);
            self.canary
                .count(outcome.as_ref().err().map(|error| &**error));
            Ok(match outcome {
                Ok(()) => Ok(ask(version)),
                Err(error) => Err(self.failed(version, call, *error)),
            })
        });
        match tried {
            Ok(Ok(outcome)) => {
                counted.end(outcome.is_ok());
                outcome.map_err(|error| *error)
            }
            // The trial has just ended.
            Ok(Err(ask)) => self.call_live(counted, call, reply, ask),
            Err(_) => Err(self.too_deep(counted)),
        }
    }

    #[inline(always)]
    fn call_live<R>(
        &self,
        counted: UnderWay<'_>,
        call: &Call<'_>,
        reply: &mut Reply,
        ask: impl FnOnce(&Version) -> R,
    ) -> Result<R, CallError> {
        // Errors are boxed until the call is over: a small result stays in registers, a large
        // one goes through memory in pieces and stalls every call.
        let outcome = self.live.with(|live| match live {
            Some(version) => match version.instance.call(call, reply) {
                Ok(()) => Ok(ask(version)),
                Err(error) => Err(self.failed(version, call, *error)),
            },
            None => Err(self.not_loaded()),
        });
        match outcome {
            Ok(Ok(answer)) => {
                counted.end(true);
                Ok(answer)
            }
            Ok(Err(error)) => {
                counted.end(false);
                Err(*error)
            }
            Err(_) => Err(self.too_deep(counted)),
        }
    }

    /// Makes calls wait, and sets the live version aside once the last running call has returned.
    /// At the deadline it gives up and returns the number of calls still running.
    pub(crate) fn pause(&self, deadline: Instant) -> Result<(), usize> {
        let Some(live) = self.live.pause() else {
            self.live.swap(None);
            return Err(0);
        };
        match live.wait(Some(deadline)) {
            Ok(version) => {
                self.handing.swap(Some(version));
                Ok(())
            }
            Err(live) => {
                let calls = live.in_flight();
                self.live.put_back(live);
                Err(calls)
            }
        }
    }

    /// Queries the live version, or the one set aside during a hand-over. Never waits.
    pub(crate) fn peek<R>(&self, ask: impl Fn(&Version) -> Option<R>) -> Option<R> {
        let ask = |version: Option<&Version>| version.and_then(&ask);
        let live = self.live.peek(ask).ok().flatten();
        live.or_else(|| self.handing.with(ask).ok().flatten())
    }

    /// The state of the version that was set aside, and which version saved it.
    pub(crate) fn save(&self, state: &mut Reply) -> Result<String, Box<loader::CallError>> {
        let saved = self.handing.with(|version| match version {
            Some(version) => version.instance.save(state),
            None => Err(refused("its hand-over has ended")),
        });
        saved.unwrap_or_else(|error| Err(refused(error)))
    }

    /// Lets the version that was set aside take calls again, if there is one.
    pub(crate) fn resume(&self) {
        if let Some(version) = self.handing.swap(None) {
            self.live.put_back(version);
        }
    }

    /// Gives a version its share of the calls.
    pub(crate) fn begin_canary(&self, version: Box<Version>, share: f64) {
        self.canary.begin(version, share);
    }

    /// Stops giving it calls and returns it.
    pub(crate) fn end_canary(&self) -> Option<Draining<Version>> {
        self.canary.end()
    }

    /// How many calls it took, and how many of them failed.
    pub(crate) fn canary_counts(&self) -> (u64, u64) {
        self.canary.counts()
    }

    #[cold]
    fn too_deep(&self, counted: UnderWay<'_>) -> CallError {
        self.calls.fail(Failed::TooDeep);
        counted.end(false);
        CallError::TooDeep
    }

    #[cold]
    fn not_loaded(&self) -> Box<CallError> {
        self.calls.fail(Failed::NotLoaded);
        Box::new(CallError::NotLoaded(self.name.to_string()))
    }

    #[cold]
    fn failed(
        &self,
        version: &Version,
        call: &Call<'_>,
        error: loader::CallError,
    ) -> Box<CallError> {
        self.calls.fail(Failed::of(&error));
        let error = match error {
            loader::CallError::Panicked(text) => {
                let failure = Failure::panic(&text).in_call(call.method, call.context);
                version.instance.caught(failure);
                // The stack frames are only for the host.
                loader::CallError::Panicked(failure::message(text))
            }
            other => other,
        };
        Box::new(CallError::Plugin(error))
    }
}

fn refused(reason: impl ToString) -> Box<loader::CallError> {
    Box::new(loader::CallError::Failed(reason.to_string()))
}

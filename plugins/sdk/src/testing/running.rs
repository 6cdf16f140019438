//! A plugin that runs in a test: the only place that calls its table.
//!
//! Invariant: `teardown` and `destroy` run once, when no call does. An instance whose calls do not end in
//! time is leaked, because they still use it.

use std::{
    ffi::c_void,
    marker::PhantomData,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hotmerge_abi::{self as abi, Bytes, CallContext, MediaTypes, PluginTable};

use super::{
    host::TestHost,
    refused::{Refused, gather},
};
use crate::{Plugin, answer::Answer};

pub(super) struct Running<P: Plugin> {
    table: PluginTable,
    instance: *mut c_void,
    pub(super) host: &'static TestHost,
    calls: Mutex<Calls>,
    idle: Condvar,
    plugin: PhantomData<P>,
}

#[derive(Default)]
struct Calls {
    running: usize,
    ended: bool,
}

// SAFETY: the instance is a `P`, which is `Send` and `Sync` by the bounds of `Plugin`; the table is
// immutable and takes calls from every thread by contract.
unsafe impl<P: Plugin> Send for Running<P> {}
// SAFETY: as above.
unsafe impl<P: Plugin> Sync for Running<P> {}

impl<P: Plugin> Running<P> {
    /// # Safety
    /// `instance` comes from this table's `create` with this host, and nobody else uses it.
    pub(super) unsafe fn new(
        table: PluginTable,
        instance: *mut c_void,
        host: &'static TestHost,
    ) -> Self {
        Self {
            table,
            instance,
            host,
            calls: Mutex::default(),
            idle: Condvar::new(),
            plugin: PhantomData,
        }
    }

    /// The plugin itself. The owner of the `Instance` keeps it alive.
    pub(super) fn plugin(&self) -> &P {
        // SAFETY: `create` made the instance as a `P`, which lives until `end`.
        unsafe { &*self.instance.cast::<P>() }
    }

    /// A call begins beside the test; [`Running::leave`] ends it.
    pub(super) fn enter(&self) {
        self.calls().running += 1;
    }

    /// A call has ended.
    pub(super) fn leave(&self) {
        self.calls().running -= 1;
        self.idle.notify_all();
    }

    pub(super) fn self_check(&self) -> Result<(), Refused> {
        // SAFETY: the instance is alive.
        self.raising(gather(|sink| unsafe {
            (self.table.self_check)(self.instance, sink)
        }))
        .map(drop)
    }

    pub(super) fn describe(&self) -> Result<String, Refused> {
        let answer = self.raising(gather(|sink| match self.table.describe {
            // SAFETY: the instance is alive.
            Some(describe) => unsafe { describe(self.instance, sink) },
            None => abi::STATUS_UNSUPPORTED,
        }))?;
        Ok(String::from_utf8_lossy(&answer.bytes).into_owned())
    }

    pub(super) fn save(&self) -> Result<Vec<u8>, Refused> {
        // SAFETY: the instance is alive.
        self.raising(gather(|sink| unsafe {
            (self.table.save)(self.instance, sink)
        }))
        .map(|answer| answer.bytes)
    }

    pub(super) fn restore(&self, from: &str, state: &[u8]) -> Result<(), Refused> {
        let (from, state) = (Bytes::new(from.as_bytes()), Bytes::new(state));
        // SAFETY: the instance is alive, the rest lives for the call.
        self.raising(gather(|sink| unsafe {
            (self.table.restore)(self.instance, from, state, sink)
        }))
        .map(drop)
    }

    /// Calls a method; without media types, as a host does for callers that name none.
    pub(super) fn call(
        &self,
        context: &CallContext,
        method: &str,
        request: &[u8],
        media: Option<(&str, &str)>,
    ) -> Result<Answer, Refused> {
        let (method, request) = (Bytes::new(method.as_bytes()), Bytes::new(request));
        let Some((content_type, accept)) = media else {
            // SAFETY: the instance is alive, the rest lives for the call.
            return gather(|sink| unsafe {
                (self.table.call)(self.instance, context, method, request, sink)
            });
        };
        let types = MediaTypes {
            size: size_of::<MediaTypes>(),
            content_type: Bytes::new(content_type.as_bytes()),
            accept: Bytes::new(accept.as_bytes()),
        };
        gather(|sink| match self.table.call_media {
            // SAFETY: as above.
            Some(call) => unsafe {
                call(
                    self.instance,
                    context,
                    method,
                    request,
                    &raw const types,
                    sink,
                )
            },
            None => abi::STATUS_UNSUPPORTED,
        })
    }

    /// Ends the plugin once no call runs, the first time it is called.
    pub(super) fn end(&self, limit: Duration) -> Result<(), Refused> {
        let (mut calls, _) = self
            .idle
            .wait_timeout_while(self.calls(), limit, |calls| calls.running != 0)
            .unwrap_or_else(PoisonError::into_inner);
        if calls.ended {
            return Ok(());
        }
        calls.ended = true;
        if calls.running != 0 {
            return Err(Refused {
                status: abi::STATUS_DEADLINE,
                reason: format!("{} calls still run after {limit:?}", calls.running),
            });
        }
        drop(calls);
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: the instance is alive, no call runs and none begins: the only `Instance` is about to go.
        // This point is reached once.
        unsafe {
            let outcome = gather(|sink| (self.table.teardown)(self.instance, limit, sink));
            (self.table.destroy)(self.instance);
            outcome.map(drop)
        }
    }

    /// Fails the test where a fake has failed it.
    fn raising(&self, outcome: Result<Answer, Refused>) -> Result<Answer, Refused> {
        self.host.raise();
        outcome
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

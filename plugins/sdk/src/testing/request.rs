//! One call of a test: its deadline, trace and media types, at once or beside the test.

use std::{fmt, sync::Arc, thread, time::Duration};

use hotmerge_abi::CallContext;

use super::{refused::Refused, running::Running};
use crate::{Plugin, answer::Answer, clock::monotonic_ns};

/// A call that is about to be made.
pub struct Request<'a, P: Plugin> {
    running: &'a Arc<Running<P>>,
    method: String,
    body: Vec<u8>,
    media: Option<(String, String)>,
    context: CallContext,
}

impl<P: Plugin> fmt::Debug for Request<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("body", &self.body)
            .field("media", &self.media)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

impl<'a, P: Plugin> Request<'a, P> {
    pub(super) fn new(running: &'a Arc<Running<P>>, method: &str) -> Self {
        Self {
            running,
            method: method.to_owned(),
            body: Vec::new(),
            media: None,
            context: CallContext {
                size: size_of::<CallContext>() as u32,
                ..CallContext::default()
            },
        }
    }

    /// The request's bytes.
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = bytes.into();
        self
    }

    /// The request's media type and those that the caller accepts; either may be empty.
    #[must_use]
    pub fn media(mut self, content_type: &str, accept: &str) -> Self {
        self.media = Some((content_type.to_owned(), accept.to_owned()));
        self
    }

    /// The caller waits no longer than this, as the plugin sees in [`Call::remaining`](crate::Call::remaining);
    /// zero is a deadline that has passed. Nothing ends a plugin that goes on: the reply is its own.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        // Zero would mean none.
        self.context.deadline_ns = monotonic_ns().saturating_add(limit).max(1);
        self
    }

    /// The call belongs to a trace, as big-endian bytes of the W3C ids.
    #[must_use]
    pub fn trace(mut self, trace_id: [u8; 16], span_id: [u8; 8]) -> Self {
        (self.context.trace_id, self.context.span_id) = (trace_id, span_id);
        self
    }

    /// Calls the plugin and waits for its reply.
    ///
    /// # Errors
    /// The plugin's error.
    pub fn call(self) -> Result<Answer, Refused> {
        let outcome = self.running.call(
            &self.context,
            &self.method,
            &self.body,
            self.media.as_ref().map(|(sent, taken)| (&**sent, &**taken)),
        );
        self.running.host.raise();
        outcome
    }

    /// Calls the plugin on a thread of its own.
    pub fn begin(self) -> Pending<P> {
        let (running, context) = (Arc::clone(self.running), self.context);
        let (method, body, media) = (self.method, self.body, self.media);
        running.enter();
        let of_thread = Arc::clone(&running);
        let thread = thread::spawn(move || {
            // The plugin's panics are outcomes, and those of fakes are kept: nothing unwinds here.
            let media = media.as_ref().map(|(sent, taken)| (&**sent, &**taken));
            let outcome = of_thread.call(&context, &method, &body, media);
            of_thread.leave();
            outcome
        });
        Pending { running, thread }
    }
}

/// A call that runs beside the test. The plugin's instance ends after it.
pub struct Pending<P: Plugin> {
    running: Arc<Running<P>>,
    thread: thread::JoinHandle<Result<Answer, Refused>>,
}

impl<P: Plugin> fmt::Debug for Pending<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

impl<P: Plugin> Pending<P> {
    /// Waits for the reply.
    ///
    /// # Errors
    /// The plugin's error.
    pub fn wait(self) -> Result<Answer, Refused> {
        let outcome = self
            .thread
            .join()
            .unwrap_or_else(|payload| std::panic::resume_unwind(payload));
        self.running.host.raise();
        outcome
    }

    /// Whether the plugin has answered.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// The caller goes away, as one that cancels or whose connection ends. A plugin is told nothing of
    /// that, goes on, and its reply is dropped.
    pub fn cancel(self) {}
}

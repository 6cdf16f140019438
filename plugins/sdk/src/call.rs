//! One call from the plugin's side: the request and the reply.

use std::{fmt, io, marker::PhantomData, time::Duration};

use hotmerge_abi::{self as abi, Bytes, CallContext, Sink};

use crate::{Error, clock::monotonic_ns};

/// A request to the plugin. Borrowed for the duration of the call.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    context: &'a CallContext,
    method: &'a str,
    request: &'a [u8],
    content_type: &'a str,
    accept: &'a str,
}

impl<'a> Call<'a> {
    pub(crate) fn new(context: &'a CallContext, method: &'a str, request: &'a [u8]) -> Self {
        Self {
            context,
            method,
            request,
            content_type: "",
            accept: "",
        }
    }

    pub(crate) fn with_media(self, content_type: &'a str, accept: &'a str) -> Self {
        Self {
            content_type,
            accept,
            ..self
        }
    }

    /// The name of the method.
    #[inline]
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The request's bytes.
    #[inline]
    pub fn request(&self) -> &'a [u8] {
        self.request
    }

    /// The request's media type; `None` if the caller named none.
    #[inline]
    pub fn content_type(&self) -> Option<&'a str> {
        (!self.content_type.is_empty()).then_some(self.content_type)
    }

    /// The media types that the caller accepts, in the syntax of HTTP's `Accept`; `None` if it named
    /// none and takes any.
    #[inline]
    pub fn accept(&self) -> Option<&'a str> {
        (!self.accept.is_empty()).then_some(self.accept)
    }

    /// Deadline and trace ids, as defined by the contract.
    #[inline]
    pub fn context(&self) -> &'a CallContext {
        self.context
    }

    /// Time left until the deadline; `None` if the caller set no deadline, zero if it
    /// has passed.
    pub fn remaining(&self) -> Option<Duration> {
        (self.context.deadline_ns != 0)
            .then(|| Duration::from_nanos(self.context.deadline_ns.saturating_sub(monotonic_ns())))
    }
}

/// The plugin's reply. Writing appends to memory that the host owns.
#[derive(Debug)]
pub struct Reply<'a> {
    sink: &'a Sink,
    // A sink belongs to the thread of its call.
    thread: PhantomData<*const ()>,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(sink: &'a Sink) -> Self {
        Self {
            sink,
            thread: PhantomData,
        }
    }

    /// Appends bytes to the reply.
    ///
    /// # Errors
    /// [`Error::ReplyTooLarge`] if the host's limit is reached; nothing is appended then.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        // SAFETY: the host keeps the sink and its context valid for the call, and this
        // reply can neither outlive the call nor leave its thread.
        match unsafe { (self.sink.write)(self.sink.context, Bytes::new(bytes)) } {
            abi::STATUS_OK => Ok(()),
            _ => Err(Error::ReplyTooLarge),
        }
    }

    /// Appends text and sets the content type to `text/plain`.
    ///
    /// # Errors
    /// As [`Reply::bytes`].
    pub fn text(&mut self, text: &str) -> Result<(), Error> {
        self.content_type("text/plain; charset=utf-8");
        self.bytes(text.as_bytes())
    }

    /// Sets the media type of the reply. Without it a reply is `application/octet-stream`.
    pub fn content_type(&mut self, media_type: &str) {
        // SAFETY: as in `bytes`. A type that the host refuses leaves the default in place.
        unsafe {
            (self.sink.content_type)(self.sink.context, Bytes::new(media_type.as_bytes()));
        }
    }

    pub(crate) fn replace(&mut self, text: &str) {
        // SAFETY: as in `bytes`.
        unsafe { (self.sink.clear)(self.sink.context) };
        // A reason that does not fit is lost; the status still reports the failure.
        let _ = self.bytes(text.as_bytes());
    }
}

impl io::Write for Reply<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::FileTooLarge, error))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for Reply<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

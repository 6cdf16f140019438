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
        self.clear();
        if self.bytes(text.as_bytes()).is_err() {
            // The status alone would not say why.
            self.clear();
            let _ = self.bytes(shortened(text).as_bytes());
        }
    }

    fn clear(&mut self) {
        // SAFETY: as in `bytes`.
        unsafe { (self.sink.clear)(self.sink.context) };
    }
}

/// What is left of a reason for which the host has no room, in bytes: its begin, where it says what
/// happened …
const HEAD: usize = 3 << 10;
/// … and its end, where a panic says from where it comes.
const TAIL: usize = 1 << 10;

fn shortened(reason: &str) -> String {
    let head = &reason[..reason.floor_char_boundary(HEAD)];
    let tail =
        &reason[reason.ceil_char_boundary(reason.len().saturating_sub(TAIL).max(head.len()))..];
    let lost = reason.len() - head.len() - tail.len();
    format!("{head} … ({lost} bytes left out) … {tail}")
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

#[cfg(test)]
mod tests {
    use std::ffi::c_void;

    use super::*;

    /// A host that takes so many bytes of one reply.
    struct Room {
        bytes: Vec<u8>,
        most: usize,
    }

    unsafe extern "C" fn write(context: *mut c_void, bytes: Bytes) -> abi::Status {
        // SAFETY: the context is the room of `said`, and the bytes live for the call.
        let (room, bytes) = unsafe { (&mut *context.cast::<Room>(), bytes.as_slice()) };
        if room.bytes.len() + bytes.len() > room.most {
            return abi::STATUS_REPLY_TOO_LARGE;
        }
        room.bytes.extend(bytes);
        abi::STATUS_OK
    }

    unsafe extern "C" fn clear(context: *mut c_void) {
        // SAFETY: as in `write`.
        unsafe { (*context.cast::<Room>()).bytes.clear() };
    }

    unsafe extern "C" fn content_type(_: *mut c_void, _: Bytes) -> abi::Status {
        abi::STATUS_OK
    }

    /// The reason for a host with room for 64 KiB, instead of what was written before.
    fn said(reason: &str) -> String {
        let mut room = Room {
            bytes: b"a reply".to_vec(),
            most: 64 << 10,
        };
        let sink = Sink {
            size: size_of::<Sink>(),
            context: (&raw mut room).cast(),
            write,
            clear,
            content_type,
        };
        Reply::new(&sink).replace(reason);
        String::from_utf8(room.bytes).expect("it is text")
    }

    #[test]
    fn a_reason_that_fits_stays_whole() {
        let reason = "x".repeat(64 << 10);
        assert_eq!(said(&reason), reason);
        assert_eq!(said(""), "");
    }

    #[test]
    fn a_reason_without_room_keeps_both_ends() {
        let said = said(&format!("why{}\nstack: 1a 2b", "ü".repeat(64 << 10)));
        assert!(said.len() < 5 << 10, "{}", said.len());
        assert!(said.starts_with("whyü") && said.ends_with("ü\nstack: 1a 2b"));
        assert!(said.contains("bytes left out"), "{said}");
    }
}

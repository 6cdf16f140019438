//! The memory a reply is written to. It belongs to the caller and is used again.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
};

use hotmerge_abi::{self as abi, Bytes, Sink, Status};

/// Longest media type a plugin may set, in bytes.
const MEDIA_TYPE_LIMIT: usize = 255;

/// A reply's bytes and media type. Keep one for many calls: its memory is used again.
#[derive(Clone, Debug)]
pub struct Reply {
    bytes: Vec<u8>,
    content_type: String,
    limit: usize,
}

impl Default for Reply {
    fn default() -> Self {
        Self::with_limit(Self::DEFAULT_LIMIT)
    }
}

impl Reply {
    /// Limit of a reply unless one is given: 64 MiB.
    pub const DEFAULT_LIMIT: usize = 64 << 20;

    /// An empty reply that takes up to `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            content_type: String::new(),
            limit,
        }
    }

    /// What the plugin wrote.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The media type the plugin set.
    pub fn content_type(&self) -> &str {
        if self.content_type.is_empty() {
            "application/octet-stream"
        } else {
            &self.content_type
        }
    }

    /// What the plugin wrote, as a buffer of its own.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// How many bytes it takes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Takes the buffer out, empty, to be filled elsewhere and put back by [`Reply::fill`].
    pub fn take_buffer(&mut self) -> Vec<u8> {
        self.reset();
        std::mem::take(&mut self.bytes)
    }

    /// Puts a reply in that came from another process. A media type that the contract does not
    /// permit is dropped.
    pub fn fill(&mut self, bytes: Vec<u8>, media_type: &[u8]) {
        self.bytes = bytes;
        self.content_type.clear();
        if let Some(text) = permitted(media_type) {
            self.content_type.push_str(text);
        }
    }

    pub(crate) fn reset(&mut self) {
        self.bytes.clear();
        self.content_type.clear();
    }

    /// A sink over this reply, valid while the borrow is.
    pub(crate) fn sink(&mut self) -> Sink {
        Sink {
            size: size_of::<Sink>(),
            context: std::ptr::from_mut(self).cast(),
            write,
            clear,
            content_type,
        }
    }
}

/// A panic here (no memory, say) must not unwind into the plugin.
///
/// # Safety
/// `context` is that of a [`Reply::sink`] whose borrow lasts, and nobody else uses the reply.
unsafe fn contained(context: *mut c_void, body: impl FnOnce(&mut Reply) -> Status) -> Status {
    catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: a sink's context is its reply, and the caller vouches for the rest.
        body(unsafe { &mut *context.cast::<Reply>() })
    }))
    .unwrap_or(abi::STATUS_REPLY_TOO_LARGE)
}

unsafe extern "C" fn write(context: *mut c_void, bytes: Bytes) -> Status {
    // SAFETY: the plugin lends the bytes for this call.
    let bytes = unsafe { bytes.as_slice() };
    let write = |reply: &mut Reply| {
        let room = reply.limit - reply.bytes.len();
        if bytes.len() > room || reply.bytes.try_reserve(bytes.len()).is_err() {
            return abi::STATUS_REPLY_TOO_LARGE;
        }
        reply.bytes.extend_from_slice(bytes);
        abi::STATUS_OK
    };
    // SAFETY: the reply is mutably borrowed for the call under way, and the contract keeps the
    // sink on the call's thread.
    unsafe { contained(context, write) }
}

unsafe extern "C" fn clear(context: *mut c_void) {
    let clear = |reply: &mut Reply| {
        reply.bytes.clear();
        abi::STATUS_OK
    };
    // SAFETY: as in `write`.
    unsafe { contained(context, clear) };
}

unsafe extern "C" fn content_type(context: *mut c_void, media_type: Bytes) -> Status {
    // SAFETY: the plugin lends the bytes for this call.
    let media_type = unsafe { media_type.as_slice() };
    let set = |reply: &mut Reply| match permitted(media_type) {
        Some(text) => {
            text.clone_into(&mut reply.content_type);
            abi::STATUS_OK
        }
        None => abi::STATUS_FAILED,
    };
    // SAFETY: as in `write`.
    unsafe { contained(context, set) }
}

fn permitted(media_type: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(media_type).ok()?;
    (text.len() <= MEDIA_TYPE_LIMIT && !text.contains(char::is_control)).then_some(text)
}

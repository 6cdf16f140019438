//! Calls of plugins.

use std::{
    cell::RefCell,
    ffi::{c_char, c_int},
    sync::Arc,
    time::Duration,
};

use hotmerge_daemon::{Call, Media, Reply, context};
use hotmerge_meta::control::TraceParent;

use crate::{
    code::{Failure, HM_NOT_FOUND, HM_NOT_LOADED, HM_STOPPED},
    exported::{self, Buffer},
    host::Plugin,
};

/// Replies larger than this, in bytes, give their memory back once they were copied.
const KEPT: usize = 64 * 1024;

/// The room for a media type, with its NUL.
const MEDIA_TYPE_ROOM: usize = 256;

/// Options of a call. All zero except `size` means: no options.
#[repr(C)]
#[derive(Debug)]
pub struct Options {
    /// The size of this structure, in bytes.
    pub size: usize,
    /// How long the caller waits, in milliseconds; 0 means as long as the host's configuration says.
    pub deadline_ms: u64,
    /// The largest reply that is accepted, in bytes; 0 means 64 MiB.
    pub max_reply: usize,
    /// The media type of the request, or null.
    pub content_type: *const c_char,
    /// The media types that are accepted, as in HTTP's `Accept`, or null.
    pub accept: *const c_char,
    /// The trace that the call belongs to, as a W3C `traceparent`, or null.
    pub traceparent: *const c_char,
    /// What ends the call from another thread, or null.
    pub cancel: *const Cancel,
}

/// What is known of a reply besides its bytes.
#[repr(C)]
#[derive(Debug)]
pub struct Answer {
    /// The size of this structure, in bytes, set by the caller.
    pub size: usize,
    /// Which version answered, counted from 1.
    pub generation: u64,
    /// The SHA-256 of the version that answered.
    pub hash: [u8; 32],
    /// The media type of the reply, with a NUL.
    pub content_type: [c_char; 256],
}

/// Ends calls from another thread.
#[derive(Debug, Default)]
pub struct Cancel(Arc<hotmerge_daemon::Cancel>);

/// A reply, and which version gave it.
#[derive(Debug)]
struct Kept {
    reply: Reply,
    generation: u64,
    hash: [u8; 32],
    /// Whether its caller has not got it yet.
    is_wanted: bool,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            reply: Reply::with_limit(Reply::DEFAULT_LIMIT),
            generation: 0,
            hash: [0; 32],
            is_wanted: false,
        }
    }
}

thread_local! {
    /// The last reply of this thread: its memory is used again, and what did not fit is kept.
    static LAST: RefCell<Option<Kept>> = RefCell::default();
}

impl Kept {
    /// Hands it to the caller.
    fn give(
        &mut self,
        buffer: &mut Buffer<'_>,
        answer: Option<&mut Answer>,
    ) -> Result<(), Failure> {
        if let Some(answer) = answer {
            answer.generation = self.generation;
            answer.hash = self.hash;
            answer.content_type = [0; 256];
            let media_type = self.reply.content_type().bytes();
            let room = answer.content_type.iter_mut().take(MEDIA_TYPE_ROOM - 1);
            for (place, byte) in room.zip(media_type) {
                *place = byte as c_char;
            }
        }
        let filled = buffer.fill(self.reply.bytes());
        self.is_wanted = filled.is_err();
        filled
    }

    /// Keeps it for the next call of this thread, or for a call with a larger buffer.
    fn keep(self) {
        let is_small = self.reply.bytes().len() <= KEPT;
        if self.is_wanted || is_small && self.reply.limit() == Reply::DEFAULT_LIMIT {
            // A thread that ends calls no more.
            let _ = LAST.try_with(|last| *last.borrow_mut() = Some(self));
        }
    }
}

/// Hands bytes to the caller as a reply, and keeps them if they do not fit.
pub(crate) fn give(bytes: Vec<u8>, buffer: &mut Buffer<'_>) -> Result<(), Failure> {
    let mut kept = last();
    kept.reply.fill(bytes, b"application/json");
    let given = kept.give(buffer, None);
    kept.keep();
    given
}

fn last() -> Kept {
    let last = LAST.try_with(|last| last.borrow_mut().take());
    last.ok().flatten().unwrap_or_default()
}

/// The caller's structure, if its size is known.
fn sized<T>(
    value: Option<T>,
    size: impl Fn(&T) -> usize,
    least: usize,
    what: &str,
) -> Result<Option<T>, Failure> {
    match value {
        Some(value) if size(&value) < least => Err(Failure::invalid(format!(
            "`{what}->size` is {}, expected {least}: set it to the size of the structure",
            size(&value)
        ))),
        value => Ok(value),
    }
}

/// Calls a method of a plugin. It runs on one version from start to finish, on this thread or in the plugin's
/// own process.
///
/// The reply is copied into `buffer`, and `*length` set to its length. If the buffer is too small
/// (`HM_TOO_SMALL`), it is untouched, the length is set, and `hm_take_reply` gets the reply into a larger
/// one without another call. `options` and `answer` may be null.
///
/// # Safety
/// `plugin` comes from `hm_plugin`, `method` is text that ends with NUL, `request_length` bytes can be read
/// at `request`, `capacity` bytes written at `buffer`, which nobody else uses meanwhile; `options` and
/// `answer` are null or valid, with their `size` set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_call(
    plugin: *const Plugin,
    method: *const c_char,
    request: *const u8,
    request_length: usize,
    options: *const Options,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
    answer: *mut Answer,
) -> c_int {
    exported::run(|| {
        // SAFETY: the caller's promise.
        let (plugin, method, request, options, mut buffer, answer) = unsafe {
            (
                exported::reference(plugin, "plugin")?,
                exported::text(method, "method")?,
                exported::bytes(request, request_length, "request")?,
                options.as_ref(),
                Buffer::new(buffer, capacity, length)?,
                answer.as_mut(),
            )
        };
        let options = sized(options, |it| it.size, size_of::<Options>(), "options")?;
        let answer = sized(answer, |it| it.size, size_of::<Answer>(), "answer")?;
        let mut kept = last();
        match options {
            None => {
                let context = context(None);
                let call = Call::new(&context, method, request);
                kept.make(plugin, &call)?;
            }
            // SAFETY: the caller's promise.
            Some(options) => unsafe { kept.make_with(plugin, method, request, options) }?,
        }
        let given = kept.give(&mut buffer, answer);
        kept.keep();
        given
    })
}

impl Kept {
    fn make(&mut self, plugin: &Plugin, call: &Call<'_>) -> Result<(), Failure> {
        let outcome = plugin.plugin.call_and_identify(call, &mut self.reply);
        let (answered, hash) = outcome.map_err(|error| {
            let failure = Failure::from(error);
            match failure.code == HM_NOT_LOADED && plugin.host.is_stopped() {
                true => Failure::new(HM_STOPPED, "this host has been stopped"),
                false => failure,
            }
        })?;
        self.generation = answered.generation;
        self.hash = *hash.as_bytes();
        Ok(())
    }

    /// # Safety
    /// The texts of `options` are null or end with NUL, its `cancel` is null or valid.
    unsafe fn make_with(
        &mut self,
        plugin: &Plugin,
        method: &str,
        request: &[u8],
        options: &Options,
    ) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        let (content_type, accept, trace, cancel) = unsafe {
            (
                exported::optional_text(options.content_type, "options->content_type")?,
                exported::optional_text(options.accept, "options->accept")?,
                exported::optional_text(options.traceparent, "options->traceparent")?,
                options.cancel.as_ref(),
            )
        };
        let deadline =
            (options.deadline_ms > 0).then(|| Duration::from_millis(options.deadline_ms));
        let mut context = context(deadline);
        if let Some(trace) = trace {
            let trace: TraceParent = trace.parse().map_err(|error| {
                Failure::invalid(format!("`options->traceparent`, `{trace}`: {error}"))
            })?;
            context.trace_id = trace.trace_id;
            context.trace_flags = trace.flags.into();
        }
        let media = Media::new(content_type.unwrap_or_default(), accept.unwrap_or_default())
            .map_err(|error| Failure::invalid(error.to_string()))?;
        let mut call = Call::new(&context, method, request).with_media(media);
        // Somebody may free it during the call.
        let cancel = cancel.map(|cancel| Arc::clone(&cancel.0));
        if let Some(cancel) = &cancel {
            call = call.cancelled_by(cancel);
        }
        if options.max_reply > 0 {
            self.reply = Reply::with_limit(options.max_reply);
        }
        self.make(plugin, &call)
    }
}

/// Gets the reply that did not fit into the buffer of this thread's last `hm_call`.
///
/// `HM_NOT_FOUND` if there is none: it was fetched, or another call was made since.
///
/// # Safety
/// As for `hm_call`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_take_reply(
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
    answer: *mut Answer,
) -> c_int {
    exported::run(|| {
        // SAFETY: the caller's promise.
        let (mut buffer, answer) =
            unsafe { (Buffer::new(buffer, capacity, length)?, answer.as_mut()) };
        let answer = sized(answer, |it| it.size, size_of::<Answer>(), "answer")?;
        let mut kept = last();
        if !kept.is_wanted {
            kept.keep();
            let text = "this thread has no reply that did not fit";
            return Err(Failure::new(HM_NOT_FOUND, text));
        }
        let given = kept.give(&mut buffer, answer);
        kept.keep();
        given
    })
}

/// Makes something that can end calls from another thread: name it in `hm_options`.
///
/// # Safety
/// `cancel` is a place for a pointer. The caller frees it with `hm_cancel_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_cancel_new(cancel: *mut *mut Cancel) -> c_int {
    exported::run(|| {
        // SAFETY: the caller's promise.
        let cancel = unsafe { exported::place(cancel, "cancel") }?;
        *cancel = Box::into_raw(Box::default());
        Ok(())
    })
}

/// Ends the calls that name it, those under way and those to come, with `HM_CANCELLED`. A call in the host's
/// own process returns when the plugin does.
///
/// # Safety
/// `cancel` comes from `hm_cancel_new` and is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_cancel_calls(cancel: *const Cancel) -> c_int {
    exported::run(|| {
        // SAFETY: the caller's promise.
        unsafe { exported::reference(cancel, "cancel") }?.0.cancel();
        Ok(())
    })
}

/// Frees it. Calls that name it may still be under way; they are not ended. Null is allowed.
///
/// # Safety
/// `cancel` is null or comes from `hm_cancel_new`, and nobody uses it any more in another function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_cancel_free(cancel: *mut Cancel) {
    exported::run(|| {
        if !cancel.is_null() {
            // SAFETY: the caller's promise: it was made by `Box::into_raw`, and this is the last use.
            drop(unsafe { Box::from_raw(cancel) });
        }
        Ok(())
    });
}

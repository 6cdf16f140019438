//! The host's services for a started plugin: the table through which it logs and calls others.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
};

use hotmerge_abi::{self as abi, Bytes, CallContext, HostTable, MediaTypes, Sink, Status};

use crate::{CallError, Media, Reply};

/// One log record of a plugin, borrowed for the length of the call.
#[derive(Clone, Copy, Debug)]
pub struct LogRecord<'a> {
    /// One of the contract's levels; treat any other value as the least important.
    pub level: u32,
    /// The plugin's own target; often empty.
    pub target: &'a str,
    /// The message.
    pub message: &'a str,
    /// The call it belongs to, if it belongs to one.
    pub call: Option<&'a CallContext>,
}

/// A host's services for an instance. Called from every thread; must not block.
pub trait HostServices: Send + Sync {
    /// Takes one log record.
    fn log(&self, record: LogRecord<'_>);

    /// Calls another plugin on behalf of this one, which is in a call or starting.
    ///
    /// # Errors
    /// The error to return instead of a reply.
    fn call(&self, call: OutgoingCall<'_>, reply: &mut Reply) -> Result<(), CallError> {
        let _ = reply;
        let plugin = call.plugin;
        Err(CallError::NoPlugin(format!(
            "this host lets no plugin call `{plugin}`"
        )))
    }
}

/// A call of one plugin by another.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingCall<'a> {
    /// The plugin to call.
    pub plugin: &'a str,
    /// The method.
    pub method: &'a str,
    /// The request.
    pub request: &'a [u8],
    /// What the caller says of request and reply.
    pub media: Media<'a>,
    /// The call on whose behalf it is made.
    pub context: Option<&'a CallContext>,
}

/// The context of the host's table. Freed only when no code of the plugin can run any more.
pub(crate) struct Context {
    services: Arc<dyn HostServices>,
    pub(crate) table: HostTable,
}

impl Context {
    /// The table points to its own context, which therefore never moves.
    pub(crate) fn new(services: Arc<dyn HostServices>) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            services,
            table: HostTable {
                abi_major: abi::ABI_MAJOR,
                abi_minor: abi::ABI_MINOR,
                size: size_of::<HostTable>() as u32,
                context: this.as_ptr().cast_mut().cast(),
                log,
                call,
                call_media,
            },
        })
    }
}

unsafe extern "C" fn call(
    context: *mut c_void,
    plugin: Bytes,
    method: Bytes,
    request: Bytes,
    call: *const CallContext,
    reply: *const Sink,
) -> Status {
    let none = Media::default().raw();
    // SAFETY: as the plugin promises of its own arguments; the media types live for this call.
    unsafe {
        call_media(
            context,
            plugin,
            method,
            request,
            call,
            &raw const none,
            reply,
        )
    }
}

unsafe extern "C" fn call_media(
    context: *mut c_void,
    plugin: Bytes,
    method: Bytes,
    request: Bytes,
    call: *const CallContext,
    media_types: *const MediaTypes,
    reply: *const Sink,
) -> Status {
    // A panic of the host's own must not unwind into the plugin.
    catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the context lives until no code of the plugin can run any more; the rest is
        // lent for this call.
        let (context, plugin, method, request, call, content_type, accept, sink) = unsafe {
            (
                &*context.cast::<Context>(),
                plugin.as_slice(),
                method.as_slice(),
                request.as_slice(),
                call.as_ref(),
                (*media_types).content_type.as_slice(),
                (*media_types).accept.as_slice(),
                &*reply,
            )
        };
        let (content_type, accept) = (
            String::from_utf8_lossy(content_type),
            String::from_utf8_lossy(accept),
        );
        let mut reply = Reply::default();
        let outcome = match Media::new(&content_type, &accept) {
            Ok(media) => {
                let outgoing = OutgoingCall {
                    plugin: &String::from_utf8_lossy(plugin),
                    method: &String::from_utf8_lossy(method),
                    request,
                    media,
                    context: call,
                };
                context.services.call(outgoing, &mut reply)
            }
            Err(error) => Err(CallError::BadRequest(error.to_string())),
        };
        let (status, reason) = match outcome {
            Ok(()) => (abi::STATUS_OK, String::new()),
            Err(error) => error.into_status(),
        };
        let (bytes, media_type) = match status {
            abi::STATUS_OK => (reply.bytes(), reply.content_type()),
            _ => (reason.as_bytes(), ""),
        };
        // SAFETY: the plugin keeps its sink valid for this call.
        let written = unsafe {
            if !media_type.is_empty() {
                (sink.content_type)(sink.context, Bytes::new(media_type.as_bytes()));
            }
            (sink.write)(sink.context, Bytes::new(bytes))
        };
        if status == abi::STATUS_OK {
            written
        } else {
            status
        }
    }))
    .unwrap_or(abi::STATUS_FAILED)
}

unsafe extern "C" fn log(
    context: *mut c_void,
    level: u32,
    target: Bytes,
    message: Bytes,
    call: *const CallContext,
) {
    // A panic of the host's own must not unwind into the plugin; the record is lost then.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the context lives until no code of the plugin can run any more; texts and
        // call are lent for this call.
        let (context, target, message, call) = unsafe {
            (
                &*context.cast::<Context>(),
                target.as_slice(),
                message.as_slice(),
                call.as_ref(),
            )
        };
        context.services.log(LogRecord {
            level,
            target: &String::from_utf8_lossy(target),
            message: &String::from_utf8_lossy(message),
            call,
        });
    }));
}

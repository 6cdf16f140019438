//! A call of a plugin, as it travels from its caller to the plugin's code.

use std::time::Duration;

use hotmerge_abi::CallContext;
use hotmerge_loader::Media;
use hotmerge_wire::after_ns;

use crate::cancel::Cancel;

/// A call of a plugin. The reply is not part of it: it belongs to the caller throughout.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Its trace and deadline.
    pub context: &'a CallContext,
    /// What is called.
    pub method: &'a str,
    /// The request, as the plugin gets it.
    pub request: &'a [u8],
    /// The media types of request and reply, as the caller states them.
    pub media: Media<'a>,
    /// Ends the call from another thread.
    pub cancel: Option<&'a Cancel>,
    /// Whether the plugin is to describe itself; then there is no method and no request.
    pub(crate) describes: bool,
}

impl<'a> Call<'a> {
    /// A call that nobody cancels.
    #[inline]
    pub fn new(context: &'a CallContext, method: &'a str, request: &'a [u8]) -> Self {
        Self {
            context,
            method,
            request,
            media: Media::default(),
            cancel: None,
            describes: false,
        }
    }

    /// A request for the plugin's description; the reply is the document that the contract
    /// defines.
    pub fn describe(context: &'a CallContext) -> Self {
        Self {
            describes: true,
            ..Self::new(context, "", &[])
        }
    }

    /// The same call, with the media types of request and reply.
    #[inline]
    #[must_use]
    pub fn with_media(self, media: Media<'a>) -> Self {
        Self { media, ..self }
    }

    /// The same call, which ends when somebody cancels it. See [`Cancel`] for what becomes of a
    /// call that has begun: in a worker it returns at once, in the host's own process when the
    /// plugin does.
    #[inline]
    #[must_use]
    pub fn cancelled_by(self, cancel: &'a Cancel) -> Self {
        Self {
            cancel: Some(cancel),
            ..self
        }
    }
}

/// The context of a call without a caller's context: a new trace, and a deadline if the caller
/// has one.
pub fn context(deadline: Option<Duration>) -> CallContext {
    let mut context = CallContext {
        size: size_of::<CallContext>() as u32,
        trace_flags: 1,
        ..CallContext::default()
    };
    context.trace_id[..8].copy_from_slice(&fastrand::u64(1..).to_be_bytes());
    context.trace_id[8..].copy_from_slice(&fastrand::u64(..).to_be_bytes());
    context.span_id = fastrand::u64(1..).to_be_bytes();
    if let Some(deadline) = deadline {
        context.deadline_ns = after_ns(deadline);
    }
    context
}

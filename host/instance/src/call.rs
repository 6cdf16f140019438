//! A call of a plugin, as it travels from its caller to the plugin's code.

use hotmerge_abi::CallContext;

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
    /// Ends the call from another thread.
    pub cancel: Option<&'a Cancel>,
}

impl<'a> Call<'a> {
    /// A call that nobody cancels.
    #[inline]
    pub fn new(context: &'a CallContext, method: &'a str, request: &'a [u8]) -> Self {
        Self {
            context,
            method,
            request,
            cancel: None,
        }
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

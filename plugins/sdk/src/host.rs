//! The host's services for a plugin.

use std::fmt;

use hotmerge_abi::{self as abi, Bytes, HostTable, MediaTypes};

use crate::{
    Call, Error,
    answer::{Answer, gather},
};

/// How important a log record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something failed and needs attention.
    Error,
    /// Something is unusual, but work continues.
    Warn,
    /// Information for operators.
    Info,
    /// Information for developers.
    Debug,
    /// Everything else.
    Trace,
}

impl Level {
    pub(crate) fn from_code(code: u32) -> Self {
        match code {
            abi::level::ERROR => Self::Error,
            abi::level::WARN => Self::Warn,
            abi::level::INFO => Self::Info,
            abi::level::DEBUG => Self::Debug,
            _ => Self::Trace,
        }
    }

    fn code(self) -> u32 {
        match self {
            Self::Error => abi::level::ERROR,
            Self::Warn => abi::level::WARN,
            Self::Info => abi::level::INFO,
            Self::Debug => abi::level::DEBUG,
            Self::Trace => abi::level::TRACE,
        }
    }
}

/// A handle to the host, valid for the plugin's lifetime.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    table: &'static HostTable,
}

impl Host {
    /// Takes the host's table as `create` got it.
    ///
    /// # Safety
    /// `table` must stay valid until the plugin's `destroy` has returned, and the value must
    /// not be used after that.
    pub(crate) unsafe fn new(table: *const HostTable) -> Self {
        Self {
            // SAFETY: passed on to the caller.
            table: unsafe { &*table },
        }
    }

    /// Writes one record to the host's log. Never waits for a slow log.
    pub fn log(&self, level: Level, message: impl fmt::Display) {
        self.record(level, message, std::ptr::null());
    }

    /// Writes one record that belongs to a call, so that the log shows its trace.
    pub fn log_in(&self, call: &Call<'_>, level: Level, message: impl fmt::Display) {
        self.record(level, message, call.context());
    }

    /// Calls a method of another plugin, which this one must require in its `plugin.meta`.
    /// Waits for the reply, on this thread.
    ///
    /// # Errors
    /// The other plugin's error, or [`Error::NotLoaded`].
    pub fn call(&self, plugin: &str, method: &str, request: &[u8]) -> Result<Answer, Error> {
        self.ask(plugin, method, request, None, ("", ""))
    }

    /// Like [`Host::call`], on behalf of a call: inherits its deadline and trace.
    ///
    /// # Errors
    /// As [`Host::call`].
    pub fn call_in(
        &self,
        call: &Call<'_>,
        plugin: &str,
        method: &str,
        request: &[u8],
    ) -> Result<Answer, Error> {
        self.ask(plugin, method, request, Some(call), ("", ""))
    }

    /// Like [`Host::call_in`], with the request's media type and those that are accepted for the
    /// reply; either may be empty. A plugin that was built with an older SDK does not see them.
    ///
    /// # Errors
    /// As [`Host::call`].
    pub fn call_media(
        &self,
        call: &Call<'_>,
        plugin: &str,
        method: &str,
        request: &[u8],
        content_type: &str,
        accept: &str,
    ) -> Result<Answer, Error> {
        self.ask(plugin, method, request, Some(call), (content_type, accept))
    }

    fn ask(
        &self,
        plugin: &str,
        method: &str,
        request: &[u8],
        call: Option<&Call<'_>>,
        (content_type, accept): (&str, &str),
    ) -> Result<Answer, Error> {
        let call = call.map_or(std::ptr::null(), |call| std::ptr::from_ref(call.context()));
        let media_types = MediaTypes {
            size: size_of::<MediaTypes>(),
            content_type: Bytes::new(content_type.as_bytes()),
            accept: Bytes::new(accept.as_bytes()),
        };
        let (status, answer) = gather(|sink| {
            // SAFETY: the host keeps table and context valid for the plugin's life and takes
            // calls from every thread; texts, `call` and the sink live for this call. A host
            // that runs this plugin knows its minor version, so the field is there.
            unsafe {
                (self.table.call_media)(
                    self.table.context,
                    Bytes::new(plugin.as_bytes()),
                    Bytes::new(method.as_bytes()),
                    Bytes::new(request),
                    call,
                    &raw const media_types,
                    sink,
                )
            }
        });
        match status {
            abi::STATUS_OK => Ok(answer),
            status => Err(Error::from_status(status, answer.bytes)),
        }
    }

    fn record(&self, level: Level, message: impl fmt::Display, call: *const abi::CallContext) {
        let message = message.to_string();
        // SAFETY: the host keeps table and context valid for the plugin's life and takes
        // records from every thread; `call` is null or borrowed from a running call.
        unsafe {
            (self.table.log)(
                self.table.context,
                level.code(),
                Bytes::EMPTY,
                Bytes::new(message.as_bytes()),
                call,
            );
        }
    }
}

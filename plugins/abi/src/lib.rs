//! The C contract between a hotmerge host and its plugins.
//!
//! A plugin is a shared object that exports one data symbol,
//! [`ENTRY_SYMBOL`], of type [`PluginTable`]. Its first 16 bytes
//! ([`TableHeader`]) contain no pointers, so a host reads and checks them in the
//! file, before the dynamic loader runs any code.
//!
//! Rules for the whole contract:
//!
//! * Only C types cross the boundary, and nothing unwinds across it.
//! * Neither side frees memory that the other allocated. Requests are borrowed for
//!   the duration of a call; replies are written through a [`Sink`] that the host owns.
//! * Tables are versioned and sized. A newer minor version only appends fields, so
//!   a host runs plugins of its own major version whose minor is not newer than
//!   its own; it refuses all others.
//!
//! Absent on purpose: dependencies, features, `std`, and any knowledge of names,
//! versions or hashes (those live in `plugin.meta`).

#![no_std]

use core::ffi::c_void;

/// The first eight bytes of every plugin's table.
pub const MAGIC: [u8; 8] = *b"hotmerge";

/// The binary layout. A host never runs plugins of another major.
pub const ABI_MAJOR: u16 = 1;

/// The interface version: incremented whenever a table gains fields.
///
/// * 1: [`HostTable::call`], [`STATUS_NO_PLUGIN`].
/// * 2: [`PluginTable::call_media`], [`PluginTable::describe`], [`HostTable::call_media`],
///   [`MediaTypes`], [`STATUS_NOT_ACCEPTABLE`], [`STATUS_UNSUPPORTED_MEDIA`].
pub const ABI_MINOR: u16 = 2;

/// The name of the exported [`PluginTable`].
pub const ENTRY_SYMBOL: &str = "hotmerge_plugin";

/// The contract for plugins in C, to be included as `hotmerge/plugin.h`; made of this file.
pub const C_HEADER: &str = include_str!("../include/hotmerge/plugin.h");

/// The result of a plugin function. A plain integer, because a C enum would make any
/// other value undefined behaviour.
pub type Status = i32;

/// The call succeeded.
pub const STATUS_OK: Status = 0;
/// The plugin refused the call; the reply holds the reason as UTF-8.
pub const STATUS_FAILED: Status = 1;
/// The plugin has no method with that name.
pub const STATUS_NO_METHOD: Status = 2;
/// The request is invalid for the method; the reply holds the reason.
pub const STATUS_BAD_REQUEST: Status = 3;
/// The deadline of the call passed.
pub const STATUS_DEADLINE: Status = 4;
/// The plugin panicked; the panic was caught inside the plugin and the reply holds
/// its message and location. An optional last line `stack: 1a2b 3c4d` holds the plugin's
/// frames, innermost first: return addresses relative to its ELF header, in hexadecimal.
pub const STATUS_PANIC: Status = 5;
/// The plugin does not support this (it has no state to save, for example).
pub const STATUS_UNSUPPORTED: Status = 6;
/// The reply exceeds the host's size limit.
pub const STATUS_REPLY_TOO_LARGE: Status = 7;
/// No plugin with that name takes calls, or the caller does not require it (minor 1); the
/// reply names the cause.
pub const STATUS_NO_PLUGIN: Status = 8;
/// The plugin can reply in none of the media types that the caller accepts (minor 2); the reply
/// names those that it can.
pub const STATUS_NOT_ACCEPTABLE: Status = 9;
/// The plugin does not understand the request's media type (minor 2); the reply names those that
/// it does.
pub const STATUS_UNSUPPORTED_MEDIA: Status = 10;

/// Log levels, most important first.
pub mod level {
    /// Something failed and needs attention.
    pub const ERROR: u32 = 1;
    /// Something is unusual, but work continues.
    pub const WARN: u32 = 2;
    /// Information for operators.
    pub const INFO: u32 = 3;
    /// Information for developers.
    pub const DEBUG: u32 = 4;
    /// Everything else.
    pub const TRACE: u32 = 5;
}

/// Borrowed bytes. Valid for the duration of the call they are passed to.
///
/// `ptr` may be null only if `len` is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    /// First byte.
    pub ptr: *const u8,
    /// Length in bytes.
    pub len: usize,
}

impl Bytes {
    /// No bytes.
    pub const EMPTY: Self = Self {
        ptr: core::ptr::null(),
        len: 0,
    };

    /// Borrows `bytes`; the caller keeps them alive for the call.
    pub const fn new(bytes: &[u8]) -> Self {
        Self {
            ptr: bytes.as_ptr(),
            len: bytes.len(),
        }
    }

    /// The bytes as a slice; empty for a null pointer.
    ///
    /// # Safety
    /// `ptr` must be null, or valid for reads of `len` bytes that nobody writes during `'a`.
    pub const unsafe fn as_slice<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() {
            return &[];
        }
        // SAFETY: the caller vouches for pointer and length.
        unsafe { core::slice::from_raw_parts(self.ptr, self.len) }
    }
}

/// The context of a call. 56 bytes, filled by the host.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallContext {
    /// Size of this struct in bytes as the host knows it.
    pub size: u32,
    /// W3C trace flags in the lowest byte; other bits are 0.
    pub trace_flags: u32,
    /// Point on `CLOCK_MONOTONIC`, in nanoseconds, by which the reply is wanted; 0 for none.
    pub deadline_ns: u64,
    /// W3C trace id, big-endian bytes; all zero if there is none.
    pub trace_id: [u8; 16],
    /// W3C span id of this call, big-endian bytes; all zero if there is none.
    pub span_id: [u8; 8],
    /// Reserved for later minors, 0.
    pub reserved: [u64; 2],
}

/// What a caller says of the media types of a call (minor 2). Each is empty if the caller says
/// nothing; otherwise visible characters, tabs and spaces of UTF-8.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MediaTypes {
    /// Size of this struct in bytes as the host knows it.
    pub size: usize,
    /// Media type of the request, at most [`CONTENT_TYPE_LIMIT`] bytes.
    pub content_type: Bytes,
    /// Media types wanted for the reply, in the syntax of HTTP's `Accept`, at most
    /// [`ACCEPT_LIMIT`] bytes.
    pub accept: Bytes,
}

/// Longest media type in bytes.
pub const CONTENT_TYPE_LIMIT: usize = 255;

/// Longest list of accepted media types in bytes.
pub const ACCEPT_LIMIT: usize = 2048;

/// Output for a plugin: memory that the host owns.
///
/// Each `write` appends. Both functions may be called only during the call the
/// sink was passed to, and only from its thread.
#[repr(C)]
#[derive(Debug)]
pub struct Sink {
    /// Size of this struct in bytes as the host knows it.
    pub size: usize,
    /// The host's own, passed back unchanged.
    pub context: *mut c_void,
    /// Appends bytes. [`STATUS_OK`], or [`STATUS_REPLY_TOO_LARGE`] with nothing appended.
    pub write: unsafe extern "C" fn(context: *mut c_void, bytes: Bytes) -> Status,
    /// Discards everything written so far, so that an error text can replace a partial reply.
    pub clear: unsafe extern "C" fn(context: *mut c_void),
    /// Sets the media type of the reply (`text/plain`, …); UTF-8, at most 255 bytes.
    pub content_type: unsafe extern "C" fn(context: *mut c_void, media_type: Bytes) -> Status,
}

/// The host's services for a plugin. Valid from `create` until `destroy` returns,
/// from every thread.
#[repr(C)]
#[derive(Debug)]
pub struct HostTable {
    /// ABI of the host; a plugin may use only fields within `size`.
    pub abi_major: u16,
    /// Minor version of the host's ABI.
    pub abi_minor: u16,
    /// Size of this struct in bytes as the host knows it.
    pub size: u32,
    /// The host's own, passed back unchanged.
    pub context: *mut c_void,
    /// Writes one log record. `level` is one of [`level`]; `call` is null outside a call.
    /// Never blocks on a slow log: if the buffer is full, the host counts the record as lost.
    pub log: unsafe extern "C" fn(
        context: *mut c_void,
        level: u32,
        target: Bytes,
        message: Bytes,
        call: *const CallContext,
    ),
    /// Calls another plugin, which the caller's `plugin.meta` must require, on this thread
    /// (minor 1). `call` is the call on whose behalf this one is made, or null: it inherits
    /// deadline and trace. The reply, or the reason of a refusal, is written to `reply`, a sink of the
    /// caller's own.
    pub call: unsafe extern "C" fn(
        context: *mut c_void,
        plugin: Bytes,
        method: Bytes,
        request: Bytes,
        call: *const CallContext,
        reply: *const Sink,
    ) -> Status,
    /// As `call`, with the media types of request and reply (minor 2). A plugin of an older minor is
    /// called without them.
    pub call_media: unsafe extern "C" fn(
        context: *mut c_void,
        plugin: Bytes,
        method: Bytes,
        request: Bytes,
        call: *const CallContext,
        media_types: *const MediaTypes,
        reply: *const Sink,
    ) -> Status,
}

// SAFETY: the table is immutable, and its functions may be called from every thread by contract.
unsafe impl Sync for HostTable {}
// SAFETY: nothing in the table belongs to a thread.
unsafe impl Send for HostTable {}

/// The part of the table that is read from the file before it is loaded: 16 bytes
/// without a pointer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableHeader {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`ABI_MAJOR`] the plugin was built with, in the machine's byte order.
    pub abi_major: u16,
    /// [`ABI_MINOR`] the plugin was built with.
    pub abi_minor: u16,
    /// Size of the plugin's [`PluginTable`] in bytes.
    pub size: u32,
}

impl TableHeader {
    /// The header of a table built with this version of the contract.
    ///
    /// cbindgen:ignore
    pub const CURRENT: Self = Self {
        magic: MAGIC,
        abi_major: ABI_MAJOR,
        abi_minor: ABI_MINOR,
        size: size_of::<PluginTable>() as u32,
    };

    /// Size in bytes of the [`PluginTable`] of a minor.
    pub const fn table_bytes(minor: u16) -> u32 {
        match minor {
            0 | 1 => core::mem::offset_of!(PluginTable, call_media) as u32,
            _ => size_of::<PluginTable>() as u32,
        }
    }
}

/// The table that a plugin exports as [`ENTRY_SYMBOL`].
///
/// The host calls `create` once, then any of `self_check`, `restore`, `call`, `describe` and `save`
/// (from any thread, several at once), then `teardown` after the last call has returned,
/// then `destroy`. After `destroy` no thread of the plugin may run. If the plugin runs in
/// its own process, that process exits instead of `destroy`; after a crash or a panic it exits
/// without `teardown`, too.
#[repr(C)]
#[derive(Debug)]
pub struct PluginTable {
    /// Magic and version.
    pub header: TableHeader,
    /// Makes an instance. `config` is a JSON object (UTF-8), `{}` by default. On any
    /// status but [`STATUS_OK`] the sink holds the reason and `instance` is unchanged.
    pub create: unsafe extern "C" fn(
        host: *const HostTable,
        config: Bytes,
        instance: *mut *mut c_void,
        error: *const Sink,
    ) -> Status,
    /// Checks whether the instance can take calls; if not, the sink holds the reason.
    pub self_check: unsafe extern "C" fn(instance: *mut c_void, error: *const Sink) -> Status,
    /// Answers one call. On any status but [`STATUS_OK`] the sink holds the reason as UTF-8.
    pub call: unsafe extern "C" fn(
        instance: *mut c_void,
        call: *const CallContext,
        method: Bytes,
        request: Bytes,
        reply: *const Sink,
    ) -> Status,
    /// Writes the state for the next version, or [`STATUS_UNSUPPORTED`].
    pub save: unsafe extern "C" fn(instance: *mut c_void, state: *const Sink) -> Status,
    /// Restores the state that version `from` saved, or [`STATUS_UNSUPPORTED`].
    pub restore: unsafe extern "C" fn(
        instance: *mut c_void,
        from: Bytes,
        state: Bytes,
        error: *const Sink,
    ) -> Status,
    /// Ends the instance's work within `limit_ns` nanoseconds: threads joined, files closed.
    pub teardown:
        unsafe extern "C" fn(instance: *mut c_void, limit_ns: u64, error: *const Sink) -> Status,
    /// Frees the instance. Nothing may be called with it afterwards.
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
    /// As `call`, for a caller that names media types (minor 2). If it is null, the host uses `call`
    /// and drops them.
    pub call_media: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *const CallContext,
            method: Bytes,
            request: Bytes,
            media_types: *const MediaTypes,
            reply: *const Sink,
        ) -> Status,
    >,
    /// Writes what the plugin says of its methods (minor 2), or [`STATUS_UNSUPPORTED`]; null means the
    /// same. May be called as `call` may. The reply is a JSON object:
    /// `{"methods":[{"name":"…","summary":"…","request":PAYLOAD,"reply":PAYLOAD,"example":"…"}]}`,
    /// where PAYLOAD is `{"content_types":["…"],"schema":"a JSON schema as text"}`. All but `name` may be
    /// absent.
    pub describe: Option<unsafe extern "C" fn(instance: *mut c_void, reply: *const Sink) -> Status>,
}

//! The contract's sink over a reply in shared memory.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
};

use hotmerge_abi::{self as abi, Bytes, Sink, Status};
use hotmerge_wire::Writer;

/// A sink that is valid as long as the borrow.
pub(crate) fn over(writer: &mut Writer<'_>) -> Sink {
    Sink {
        size: size_of::<Sink>(),
        context: std::ptr::from_mut(writer).cast(),
        write,
        clear,
        content_type,
    }
}

/// A panic here must not unwind into the plugin.
fn contained(context: *mut c_void, body: impl FnOnce(&mut Writer<'_>) -> Status) -> Status {
    catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `context` is the writer of the call under way, borrowed for it and touched by
        // nobody else; the contract keeps the sink on the call's thread.
        body(unsafe { &mut *context.cast::<Writer<'_>>() })
    }))
    .unwrap_or(abi::STATUS_REPLY_TOO_LARGE)
}

unsafe extern "C" fn write(context: *mut c_void, bytes: Bytes) -> Status {
    // SAFETY: the plugin lends the bytes for this call.
    let bytes = unsafe { bytes.as_slice() };
    contained(context, |writer| writer.write(bytes))
}

unsafe extern "C" fn clear(context: *mut c_void) {
    contained(context, |writer| {
        writer.clear();
        abi::STATUS_OK
    });
}

unsafe extern "C" fn content_type(context: *mut c_void, media_type: Bytes) -> Status {
    // SAFETY: as in `write`.
    let media_type = unsafe { media_type.as_slice() };
    contained(context, |writer| writer.media_type(media_type))
}

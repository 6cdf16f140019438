//! Collects another plugin's answer in this plugin's memory.

use std::ffi::c_void;

use hotmerge_abi::{self as abi, Bytes, Sink, Status};

/// What another plugin answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What it wrote.
    pub bytes: Vec<u8>,
    /// The media type it set; empty if it set none.
    pub content_type: String,
}

/// Lets `body` write to this plugin's own sink and returns the bytes.
pub(crate) fn gather(body: impl FnOnce(&Sink) -> Status) -> (Status, Answer) {
    let mut answer = Answer::default();
    let sink = Sink {
        size: size_of::<Sink>(),
        context: (&raw mut answer).cast(),
        write,
        clear,
        content_type,
    };
    let status = body(&sink);
    (status, answer)
}

unsafe extern "C" fn write(context: *mut c_void, bytes: Bytes) -> Status {
    // SAFETY: `context` is the answer on the stack of `gather`, which nobody else touches
    // during the call; the bytes are valid for it.
    unsafe {
        (*context.cast::<Answer>())
            .bytes
            .extend_from_slice(bytes.as_slice())
    };
    abi::STATUS_OK
}

unsafe extern "C" fn clear(context: *mut c_void) {
    // SAFETY: as in `write`.
    unsafe { (*context.cast::<Answer>()).bytes.clear() };
}

unsafe extern "C" fn content_type(context: *mut c_void, media_type: Bytes) -> Status {
    // SAFETY: as in `write`.
    unsafe {
        (*context.cast::<Answer>()).content_type =
            String::from_utf8_lossy(media_type.as_slice()).into_owned();
    }
    abi::STATUS_OK
}

//! The border to C: pointers in, codes out.
//!
//! Invariant: nothing unwinds through it, and every failure leaves its sentence behind.

use std::{
    cell::RefCell,
    ffi::{CStr, CString, c_char, c_int},
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{
    code::{Failure, HM_BUG, HM_FORKED, HM_OK, HM_TOO_SMALL},
    fork,
};

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Runs an exported function.
#[inline]
pub(crate) fn run(body: impl FnOnce() -> Result<(), Failure>) -> c_int {
    if fork::is_child() {
        return failed(Failure::new(
            HM_FORKED,
            "this process was forked from the one that started the host: only that one may use it",
        ));
    }
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => HM_OK,
        Ok(Err(failure)) => failed(failure),
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            let message = message.unwrap_or("it has no message");
            failed(Failure::new(
                HM_BUG,
                format!("a fault of hotmerge: {message}"),
            ))
        }
    }
}

#[cold]
fn failed(failure: Failure) -> c_int {
    let mut bytes = failure.text.into_bytes();
    bytes.retain(|byte| *byte != 0);
    // No NUL is left in it. A thread that ends has nobody who asks.
    let _ = LAST.try_with(|last| *last.borrow_mut() = CString::new(bytes).unwrap_or_default());
    failure.code
}

/// Why the last function of this thread that failed did so, as one sentence.
///
/// The text belongs to the library and stays until the next function of this thread fails; it is empty if
/// none has failed.
#[unsafe(no_mangle)]
pub extern "C" fn hm_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr())
        .unwrap_or(c"".as_ptr())
}

/// A reference to what the caller passed.
///
/// # Errors
/// If it is null.
///
/// # Safety
/// Otherwise it points to a valid `T` that outlives the call and that nobody changes meanwhile.
pub(crate) unsafe fn reference<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: the caller's promise.
    given(unsafe { pointer.as_ref() }, what)
}

/// A place where the caller wants a result.
///
/// # Errors
/// If it is null.
///
/// # Safety
/// Otherwise it is valid for writing a `T` during the call, and nobody else uses it.
pub(crate) unsafe fn place<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: the caller's promise.
    given(unsafe { pointer.as_mut() }, what)
}

/// What the caller may not leave out, such as a function.
///
/// # Errors
/// If it is null.
pub(crate) fn given<T>(value: Option<T>, what: &str) -> Result<T, Failure> {
    value.ok_or_else(|| Failure::invalid(format!("`{what}` is null")))
}

/// Text that ends with NUL.
///
/// # Errors
/// If it is null or not UTF-8.
///
/// # Safety
/// Otherwise it ends with NUL and stays unchanged during the call.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if pointer.is_null() {
        return Err(Failure::invalid(format!("`{what}` is null")));
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str()
        .map_err(|_| Failure::invalid(format!("`{what}` is not UTF-8")))
}

/// As [`text`], where null means none.
///
/// # Errors
/// If it is not UTF-8.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn optional_text<'a>(
    pointer: *const c_char,
    what: &str,
) -> Result<Option<&'a str>, Failure> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    unsafe { text(pointer, what) }.map(Some)
}

/// Bytes of a given length; null is allowed without any.
///
/// # Errors
/// If they are null, or longer than memory can be.
///
/// # Safety
/// Otherwise so many bytes can be read and stay unchanged during the call.
pub(crate) unsafe fn bytes<'a>(
    pointer: *const u8,
    length: usize,
    what: &str,
) -> Result<&'a [u8], Failure> {
    if length == 0 {
        return Ok(&[]);
    }
    check(pointer, length, what)?;
    // SAFETY: the caller's promise; null and lengths that no slice has are refused.
    Ok(unsafe { std::slice::from_raw_parts(pointer, length) })
}

fn check(pointer: *const u8, length: usize, what: &str) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(Failure::invalid(format!(
            "`{what}` is null, with a length of {length}"
        )));
    }
    if length > isize::MAX as usize {
        return Err(Failure::invalid(format!(
            "the length of `{what}`, {length}, is not possible"
        )));
    }
    Ok(())
}

/// A buffer of the caller, and where the caller wants to know how much there is for it.
#[derive(Debug)]
pub(crate) struct Buffer<'a> {
    pointer: *mut u8,
    capacity: usize,
    length: &'a mut usize,
}

impl<'a> Buffer<'a> {
    /// # Errors
    /// If it is null or impossibly large, or the place of the length is null.
    ///
    /// # Safety
    /// `capacity` bytes at `pointer` and the length can be written during the call, and nobody else uses
    /// them.
    pub(crate) unsafe fn new(
        pointer: *mut u8,
        capacity: usize,
        length: *mut usize,
    ) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        let length = unsafe { place(length, "length") }?;
        if capacity > 0 {
            check(pointer, capacity, "buffer")?;
        }
        Ok(Self {
            pointer,
            capacity,
            length,
        })
    }

    /// Copies into it and sets the length; if it is too small, only the length.
    pub(crate) fn fill(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        *self.length = bytes.len();
        if bytes.len() > self.capacity {
            return Err(too_small(bytes.len(), self.capacity));
        }
        // SAFETY: so many bytes can be written there, and no slice of the library lies in a buffer
        // that nobody else uses.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.pointer, bytes.len()) };
        Ok(())
    }
}

#[cold]
fn too_small(needed: usize, capacity: usize) -> Failure {
    let text = format!("{needed} bytes do not fit into the buffer of {capacity}");
    Failure::new(HM_TOO_SMALL, text)
}

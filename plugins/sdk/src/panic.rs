//! The panic guard: nothing unwinds out of a plugin, and every panic is reported.
//!
//! The hook writes the message into a string on the stack of the guard that will catch the
//! panic. The thread-local that finds it is a plain pointer: one with a destructor would
//! keep the library mapped after `dlclose`.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind},
    ptr,
    sync::Mutex,
};

use hotmerge_abi::{self as abi, Status};

use crate::{Host, Level, stack};

thread_local! {
    static MESSAGE: Cell<*mut String> = const { Cell::new(ptr::null_mut()) };
}

/// The host of the instance, for panics on threads that the plugin started.
static HOST: Mutex<Option<Host>> = Mutex::new(None);

/// Runs `body`; a panic becomes [`abi::STATUS_PANIC`] and is described by `tell`.
pub(crate) fn guard(body: impl FnOnce() -> Status, tell: impl FnOnce(&str)) -> Status {
    let mut message = String::new();
    let outer = MESSAGE.replace(&raw mut message);
    let result = catch_unwind(AssertUnwindSafe(body));
    MESSAGE.set(outer);
    match result {
        Ok(status) => status,
        Err(payload) => {
            // Dropping a payload runs the author's code, which may panic again.
            std::mem::forget(payload);
            // The sink is the host's and does not unwind.
            tell(if message.is_empty() {
                "panicked"
            } else {
                &message
            });
            abi::STATUS_PANIC
        }
    }
}

/// Puts the hook in place. Undone by [`uninstall`].
pub(crate) fn install(host: Host) {
    *HOST.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(host);
    std::panic::set_hook(Box::new(hook));
}

/// Removes the hook, so that nothing of the plugin remains.
pub(crate) fn uninstall() {
    drop(std::panic::take_hook());
    *HOST.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
}

fn hook(info: &PanicHookInfo<'_>) {
    let text = info.payload_as_str().unwrap_or("(no message)");
    let mut report = match info.location() {
        Some(place) => format!("panicked at {place}: {text}"),
        None => format!("panicked: {text}"),
    };
    let stack = stack::line();
    if !stack.is_empty() {
        report.push('\n');
        report.push_str(&stack);
    }
    let slot = MESSAGE.get();
    if slot.is_null() {
        // The plugin's own thread: nothing else reports its panics.
        if let Ok(host) = HOST.try_lock()
            && let Some(host) = *host
        {
            host.log(Level::Error, report);
        }
    } else {
        // SAFETY: the pointer is set by `guard` further up this very stack, which clears it
        // before its string goes away; no other reference to the string exists meanwhile.
        unsafe { *slot = report };
    }
}

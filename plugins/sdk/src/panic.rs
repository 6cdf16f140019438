//! The panic guard: nothing unwinds out of a plugin, and every panic is reported.
//!
//! The hook writes the message into a string on the stack of the guard that will catch the
//! panic. The thread-local that finds it is a plain pointer: one with a destructor would
//! keep the library mapped after `dlclose`.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind},
    ptr,
    sync::{
        Mutex, Once,
        atomic::{AtomicBool, Ordering},
    },
};

use hotmerge_abi::{self as abi, Status};

use crate::{Host, Level, stack};

thread_local! {
    static MESSAGE: Cell<*mut String> = const { Cell::new(ptr::null_mut()) };
}

/// The host of the instance, for panics on threads that the plugin started.
static HOST: Mutex<Option<Host>> = Mutex::new(None);

/// Whether the plugin shares its process's hook with a test, and so leaves it alone.
static SHARED: AtomicBool = AtomicBool::new(false);

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
    if SHARED.load(Ordering::Relaxed) {
        return;
    }
    *HOST.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(host);
    std::panic::set_hook(Box::new(hook));
}

/// Removes the hook, so that nothing of the plugin remains.
pub(crate) fn uninstall() {
    if SHARED.load(Ordering::Relaxed) {
        return;
    }
    drop(std::panic::take_hook());
    *HOST.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
}

/// Lets plugins and the tests that drive them share a process: panics in a plugin's functions are reported
/// by their guard, all others by the hook that was there before. Done once and never undone: a test's
/// plugin may end while the test unwinds, when nobody may touch the hook.
pub(crate) fn share_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if MESSAGE.get().is_null() {
                before(info);
            } else {
                hook(info);
            }
        }));
        SHARED.store(true, Ordering::Relaxed);
    });
}

/// Runs code of a test that a plugin has called: its panic is the test's, not the plugin's.
pub(crate) fn as_the_tests_own<T>(body: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    let outer = MESSAGE.replace(ptr::null_mut());
    let result = catch_unwind(AssertUnwindSafe(body));
    MESSAGE.set(outer);
    result
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

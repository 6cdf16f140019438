//! What happens before and around the loading of the plugin.

use std::{
    ffi::CString,
    mem,
    os::fd::{FromRawFd as _, OwnedFd},
    path::PathBuf,
    ptr,
};

use hotmerge_abi::TableHeader;
use hotmerge_loader::{Constructors, Loaded, Verified};
use hotmerge_sandbox::{Plan, descriptor};

use crate::error::StartError;

/// The host starts this program with all signals blocked.
pub(crate) fn let_signals_in() {
    // SAFETY: the set is initialised by the call that fills it.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Most arenas of the C library's allocator: each reserves address space, which is limited.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 8;

/// Keeps the allocator from reserving one arena per thread.
pub(crate) fn keep_few_arenas() {
    // SAFETY: the call takes numbers only; nothing runs beside this thread yet.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS)
    };
}

/// Loads the parts of the C runtime that the plugin needs and this program may not, such as the
/// mathematics.
pub(crate) fn load_libraries(names: &[String]) {
    for name in names {
        let Ok(name) = CString::new(name.as_str()) else {
            continue;
        };
        // SAFETY: a library of the system, without effects of its own; it stays loaded. What cannot
        // be loaded is missed by the dynamic loader again, which says so.
        unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    }
}

/// Loads the plugin without running any of its code, and completes the sandbox.
pub(crate) fn load(plan: &Plan, plugin: PathBuf) -> Result<Loaded, StartError> {
    // SAFETY: the host put it there; it is taken once.
    let image = unsafe { OwnedFd::from_raw_fd(descriptor::IMAGE) };
    let constructors = Constructors::from_words(plan.constructors);
    let loaded =
        Verified::by_host(image, plugin, header(plan), constructors).and_then(Loaded::load)?;
    match hotmerge_sandbox::lock(plan) {
        Ok(()) => Ok(loaded),
        Err(error) => {
            // Its destructors must not run without the filter either.
            mem::forget(loaded);
            Err(StartError::Lock(error))
        }
    }
}

fn header(plan: &Plan) -> TableHeader {
    let bytes = &plan.header;
    TableHeader {
        magic: [0, 1, 2, 3, 4, 5, 6, 7].map(|at| bytes[at]),
        abi_major: u16::from_ne_bytes([bytes[8], bytes[9]]),
        abi_minor: u16::from_ne_bytes([bytes[10], bytes[11]]),
        size: u32::from_ne_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]),
    }
}

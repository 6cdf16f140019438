//! The heap of this process: what plugins and their callers have freed goes back to the system.

/// Gives memory back that was freed. The C library keeps it for the threads that freed it, which may
/// be gone.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: `malloc_trim` may be called at any time from any thread; it takes the arenas'
        // locks itself and touches only what is free.
        unsafe {
            malloc_trim(0);
        }
    }
}

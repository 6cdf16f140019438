//! The heap of this process, of which plugins in it use a part.

/// Has every large block of memory go back to the system as soon as it is freed: otherwise the C
/// library keeps some tens of megabytes for each thread that ever freed one. To be called by a
/// program, before it starts threads.
pub fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    {
        /// From `malloc.h`; the same for all machines.
        const M_MMAP_THRESHOLD: std::ffi::c_int = -3;
        /// In bytes. A block of its own costs a page fault per 4 KiB.
        const LARGE: std::ffi::c_int = 1 << 20;
        unsafe extern "C" {
            fn mallopt(option: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
        }
        // SAFETY: `mallopt` takes the allocator's lock and changes one number; blocks that exist
        // already are freed as they were made.
        unsafe {
            mallopt(M_MMAP_THRESHOLD, LARGE);
        }
    }
}

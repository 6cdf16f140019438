//! The heap of this process, of which plugins in it use a part.

/// Keeps the heap small that threads leave behind. It limits the number of arenas to that of processors,
/// because each arena keeps the free memory between its blocks, and returns every large block to the
/// system as soon as it is freed: otherwise the C library keeps some tens of megabytes for each thread
/// that ever freed one. A program calls this before it starts threads.
pub fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    {
        /// From `malloc.h`; the same for all machines.
        const M_MMAP_THRESHOLD: std::ffi::c_int = -3;
        /// In bytes. A separate mapping costs a page fault per 4 KiB.
        const LARGE: std::ffi::c_int = 1 << 20;
        /// The default is eight arenas per processor, one for each thread.
        const M_ARENA_MAX: std::ffi::c_int = -8;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let parts = std::ffi::c_int::try_from(cores).unwrap_or(std::ffi::c_int::MAX);
        unsafe extern "C" {
            fn mallopt(option: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
        }
        // SAFETY: `mallopt` takes the allocator's lock and changes one number; blocks that exist
        // already are freed as they were made.
        unsafe {
            mallopt(M_MMAP_THRESHOLD, LARGE);
            if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
                mallopt(M_ARENA_MAX, parts);
            }
        }
    }
}

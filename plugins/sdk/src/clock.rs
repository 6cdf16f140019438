//! The clock of deadlines.

/// Now on `CLOCK_MONOTONIC`, in nanoseconds: the clock of `CallContext::deadline_ns`.
pub(crate) fn monotonic_ns() -> u64 {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: core::ffi::c_long,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: core::ffi::c_int, time: *mut Timespec) -> core::ffi::c_int;
    }
    const CLOCK_MONOTONIC: core::ffi::c_int = 1;
    let mut time = Timespec {
        seconds: 0,
        nanoseconds: 0,
    };
    // SAFETY: the struct is the C library's `struct timespec` on 64-bit Linux, and lives
    // for the call. The clock always exists there.
    unsafe { clock_gettime(CLOCK_MONOTONIC, &raw mut time) };
    (time.seconds as u64).wrapping_mul(1_000_000_000) + time.nanoseconds as u64
}

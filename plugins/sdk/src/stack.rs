//! Where a panic came from: the frames of this plugin, as addresses that mean something outside.
//!
//! The standard library's own backtrace opens the files that the process was loaded from. What a
//! host loads has no names in it, and a plugin in a sandbox may open nothing; so only addresses
//! go out, relative to where the plugin lies, and whoever has the file finds the names.

use std::{
    ffi::{c_int, c_void},
    fmt::Write as _,
};

/// Most frames that are told.
const MOST: usize = 32;
/// Most frames that are looked at: a stack that overflows is deep.
const FAR: usize = 64;

unsafe extern "C" {
    fn _Unwind_Backtrace(
        visit: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        data: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
    /// Where this object begins and ends in memory: the linker's own symbols.
    static __ehdr_start: u8;
    static _end: u8;
}

struct Walk {
    seen: usize,
    frames: Vec<usize>,
}

/// The frames above this one as a line of text, `stack: 1a2b 3c4d`; empty if there are none.
#[inline(never)]
pub(crate) fn line() -> String {
    let mut walk = Walk {
        seen: 0,
        frames: Vec::with_capacity(MOST),
    };
    // SAFETY: the unwinder calls `visit` with the walk, which outlives the call.
    unsafe { _Unwind_Backtrace(visit, (&raw mut walk).cast()) };
    let mut line = String::new();
    for frame in walk.frames {
        let before = if line.is_empty() { "stack: " } else { " " };
        // Writing to a string does not fail.
        let _ = write!(line, "{before}{frame:x}");
    }
    line
}

extern "C" fn visit(context: *mut c_void, walk: *mut c_void) -> c_int {
    // SAFETY: `line` passed the walk, and the unwinder its own context.
    let (walk, address) = unsafe { (&mut *walk.cast::<Walk>(), _Unwind_GetIP(context)) };
    let (begin, end) = ((&raw const __ehdr_start).addr(), (&raw const _end).addr());
    // Frames of other objects mean nothing to the plugin's file.
    if (begin..end).contains(&address) {
        walk.frames.push(address - begin);
    }
    walk.seen += 1;
    c_int::from(walk.seen == FAR || walk.frames.len() == MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_is_one_bounded_line() {
        fn deep(depth: usize) -> String {
            if depth == 0 {
                return line();
            }
            std::hint::black_box(deep(depth - 1))
        }
        let line = deep(2 * MOST);
        let frames = line.strip_prefix("stack: ").expect("there are frames");
        let frames: Vec<_> = frames.split(' ').collect();
        assert_eq!(frames.len(), MOST);
        for frame in frames {
            usize::from_str_radix(frame, 16).expect("a hexadecimal number");
        }
    }
}

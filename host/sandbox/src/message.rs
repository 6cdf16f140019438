//! What a worker tells its host besides answers, byte by byte. One write is one message.
//!
//! Invariant: nothing in a message is a promise. A plugin holds the same descriptors and may
//! write what it likes.

/// A log record, on [`descriptor::LOG`](crate::descriptor::LOG): the level, 1 if it belongs to
/// a call and 0 if not, the 16 bytes of that call's trace id, the 8 of its span id, the text.
pub mod record {
    /// Everything before the text, in bytes.
    pub const HEAD_BYTES: usize = 26;
}

/// A report of a crash, on [`descriptor::CRASH`](crate::descriptor::CRASH): the kind, then what
/// belongs to it.
pub mod report {
    /// A panic that was caught: the length of the method's name in the second byte; after the
    /// head the 16 bytes of the call's trace id, the name, and what the plugin says.
    pub const PANIC: u8 = 1;
    /// A signal that kills: its number in the second byte, in the third the slot of the call
    /// plus one, or 0 for none; in the last 8 of the head the address, in the machine's order.
    pub const SIGNAL: u8 = 2;
    /// As [`SIGNAL`], by a stack that has no room left.
    pub const STACK: u8 = 3;
    /// A text, right after the kind: only while probing.
    pub const TEXT: u8 = 4;

    /// What every report but a text begins with, in bytes.
    pub const HEAD_BYTES: usize = 16;
}

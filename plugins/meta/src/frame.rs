//! Frames on the control socket: one JSON text a line, of limited length.
//!
//! Absent on purpose: reading and writing; both sides bring their own kind of socket.

/// The largest frame in bytes without its newline, in both directions. Holds a reply of
/// 12 MiB as base64.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// A line that is longer than [`MAX_FRAME_BYTES`]. The connection cannot go on: nobody knows
/// where the next frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame is longer than {MAX_FRAME_BYTES} bytes")]
pub struct FrameTooLong;

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// Up to here there is no newline.
    searched: usize,
}

impl Frames {
    /// No bytes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what was received.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame without its newline (and without a carriage return before it);
    /// blank lines are skipped. `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`FrameTooLong`]; from then on every call says so.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameTooLong> {
        loop {
            let rest = &self.bytes[self.searched..];
            let Some(at) = rest.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.bytes.len();
                return if self.bytes.len() > MAX_FRAME_BYTES {
                    Err(FrameTooLong)
                } else {
                    Ok(None)
                };
            };
            let end = self.searched + at;
            if end > MAX_FRAME_BYTES {
                return Err(FrameTooLong);
            }
            let rest = self.bytes.split_off(end + 1);
            let mut frame = std::mem::replace(&mut self.bytes, rest);
            self.searched = 0;
            frame.truncate(frame.trim_ascii_end().len());
            if !frame.is_empty() {
                return Ok(Some(frame));
            }
        }
    }

    /// Bytes received that are not part of a frame yet.
    pub fn pending(&self) -> usize {
        self.bytes.len()
    }
}

/// Adds the newline. JSON texts written without indentation hold none themselves.
pub fn frame(mut json: Vec<u8>) -> Vec<u8> {
    json.push(b'\n');
    json
}

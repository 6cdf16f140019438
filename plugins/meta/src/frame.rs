//! Frames on the control socket: one JSON text per line, of limited length.
//!
//! Absent on purpose: reading and writing; both sides bring their own kind of socket.

/// The largest frame in bytes without its newline, in both directions. Holds a reply of
/// almost 12 MiB as base64.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// A buffer that grew larger than this for one frame is freed after it.
const KEEP_BYTES: usize = 256 * 1024;

/// A line that is longer than [`MAX_FRAME_BYTES`]. The connection is unusable: the
/// start of the next frame is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame is longer than {MAX_FRAME_BYTES} bytes; send less at once")]
pub struct FrameTooLong;

/// Cuts a stream of bytes into frames. Each byte is looked at once.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// Up to here the bytes belong to frames that were handed out.
    start: usize,
    /// From `start` to here there is no newline.
    searched: usize,
}

impl Frames {
    /// No bytes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what was received.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, without its newline and without blanks around it; blank lines are
    /// skipped. `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`FrameTooLong`]; from then on every call says so.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameTooLong> {
        loop {
            let unseen = &self.bytes[self.searched..];
            let newline = unseen.iter().position(|byte| *byte == b'\n');
            let end = self.searched + newline.unwrap_or(unseen.len());
            if end - self.start > MAX_FRAME_BYTES {
                return Err(FrameTooLong);
            }
            self.searched = end;
            if newline.is_none() {
                return Ok(None);
            }
            let frame = self.bytes[self.start..end].trim_ascii().to_vec();
            self.start = end + 1;
            self.searched = self.start;
            if self.start == self.bytes.len() && self.bytes.capacity() > KEEP_BYTES {
                // Its answer may take long to be read.
                *self = Self::default();
            }
            if !frame.is_empty() {
                return Ok(Some(frame));
            }
        }
    }

    /// Bytes received that are not part of a frame yet.
    pub fn pending(&self) -> usize {
        self.bytes.len() - self.start
    }
}

/// Adds the newline. JSON texts written without indentation hold none themselves.
pub fn frame(mut json: Vec<u8>) -> Vec<u8> {
    json.push(b'\n');
    json
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(frames: &mut Frames) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| frames.next_frame().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn frames_parse_however_the_bytes_arrive(
            stream in proptest::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')], 0..200),
            cuts in proptest::collection::vec(1_usize..20, 1..20),
        ) {
            let lines = stream.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            let mut expected: Vec<_> = lines.map(<[u8]>::to_vec).collect();
            expected.pop();
            expected.retain(|line| !line.is_empty());

            let mut frames = Frames::new();
            let (mut got, mut rest) = (Vec::new(), &stream[..]);
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(*cut));
                frames.push(now);
                got.extend(all(&mut frames));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, expected);
            let tail = stream.rsplit(|byte| *byte == b'\n').next().unwrap();
            prop_assert_eq!(frames.pending(), tail.len());
        }
    }

    #[test]
    fn an_oversized_frame_is_refused() {
        let mut frames = Frames::new();
        frames.push(&vec![b'1'; MAX_FRAME_BYTES]);
        assert_eq!(frames.next_frame(), Ok(None));
        frames.push(b"\n");
        assert_eq!(frames.next_frame().unwrap().unwrap().len(), MAX_FRAME_BYTES);
        frames.push(b"2\n");
        assert_eq!(frames.next_frame(), Ok(Some(b"2".to_vec())));
        assert!(
            frames.bytes.capacity() <= KEEP_BYTES,
            "the large buffer is kept"
        );

        frames.push(&vec![b'1'; MAX_FRAME_BYTES]);
        frames.push(b"1");
        assert_eq!(frames.next_frame(), Err(FrameTooLong));
        frames.push(b"\n");
        assert_eq!(frames.next_frame(), Err(FrameTooLong));
    }
}

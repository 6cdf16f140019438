//! The layout of the shared memory. Both sides compute it from numbers that the host chose, and never
//! read it from the memory itself.

use std::{sync::LazyLock, thread};

use crate::slot::{Head, INLINE_REPLY, INLINE_REQUEST, REPLY_OFFSET, REQUEST_OFFSET, Slot};

/// Alignment of the payload areas.
const PAGE_BYTES: usize = 4096;

/// Sizes of a shared memory. The same on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Calls that may be in flight, 1 to 31.
    pub slots: u32,
    /// Size of a slot's request and of its reply, each, in bytes.
    pub small_bytes: u32,
    /// Areas for larger payloads. A call that needs one waits until one is free.
    pub areas: u32,
    /// Size of an area's request and of its reply, each, in bytes. Only payloads in transit occupy
    /// memory.
    pub area_bytes: u64,
    /// Processors that both sides may use. With a single one neither side polls, because that would keep
    /// the other from running.
    pub cores: u32,
}

/// Determined once: the system reads a dozen files for it.
static CORES: LazyLock<u32> = LazyLock::new(|| {
    thread::available_parallelism()
        .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
});

impl Default for Geometry {
    /// 16 concurrent calls of up to 64 KiB each way, of which two may take up to 64 MiB, on the
    /// processors that the system reports.
    fn default() -> Self {
        Self {
            cores: *CORES,
            slots: 16,
            small_bytes: 64 << 10,
            areas: 2,
            area_bytes: 64 << 20,
        }
    }
}

/// The numbers do not describe a valid memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a geometry has 1 to 31 slots, at most 32 areas, whole pages, less than 4 GiB per area and at most 64 GiB"
)]
pub struct GeometryError;

impl Geometry {
    /// Checks the numbers.
    ///
    /// # Errors
    /// If they are out of bounds.
    pub fn check(self) -> Result<Self, GeometryError> {
        let pages = (self.small_bytes as usize).is_multiple_of(PAGE_BYTES)
            && self.small_bytes > 0
            && self.area_bytes.is_multiple_of(PAGE_BYTES as u64);
        let small = (1..=31).contains(&self.slots) && self.areas <= 32;
        let bytes = u64::from(self.areas)
            .checked_mul(2)
            .and_then(|areas| areas.checked_mul(self.area_bytes))
            .is_some_and(|bytes| bytes <= 64 << 30);
        let lengths = self.small_bytes <= 16 << 20 && self.area_bytes <= u32::MAX.into();
        if pages && small && bytes && lengths {
            Ok(self)
        } else {
            Err(GeometryError)
        }
    }

    /// Encodes it for the worker.
    pub fn to_words(self) -> [u64; 5] {
        [
            self.slots.into(),
            self.small_bytes.into(),
            self.areas.into(),
            self.area_bytes,
            self.cores.into(),
        ]
    }

    /// Decodes what [`Geometry::to_words`] encoded.
    ///
    /// # Errors
    /// If the numbers are out of bounds.
    pub fn from_words(words: [u64; 5]) -> Result<Self, GeometryError> {
        let [slots, small, areas, area_bytes, cores] = words;
        let narrow = |word: u64| u32::try_from(word).map_err(|_| GeometryError);
        Self {
            slots: narrow(slots)?,
            small_bytes: narrow(small)?,
            areas: narrow(areas)?,
            area_bytes,
            cores: narrow(cores)?,
        }
        .check()
    }

    pub(crate) fn slot_offset(&self, slot: u32) -> usize {
        size_of::<Head>() + slot as usize * size_of::<Slot>()
    }

    fn payloads_offset(&self) -> usize {
        self.slot_offset(self.slots).next_multiple_of(PAGE_BYTES)
    }

    fn areas_offset(&self) -> usize {
        self.payloads_offset() + self.slots as usize * 2 * self.small_bytes as usize
    }

    /// Offset of a request of `len` bytes, method included.
    pub(crate) fn request(&self, slot: u32, area: Option<u32>, len: usize) -> usize {
        if len <= INLINE_REQUEST {
            self.slot_offset(slot) + REQUEST_OFFSET
        } else {
            self.room(slot, area).request
        }
    }

    /// Offset of a complete reply of `len` bytes.
    pub(crate) fn reply(&self, slot: u32, area: Option<u32>, len: usize) -> usize {
        if len <= INLINE_REPLY {
            self.slot_offset(slot) + REPLY_OFFSET
        } else {
            self.room(slot, area).reply()
        }
    }

    /// Where a slot's larger payloads lie: in its area if it has one, otherwise in the slot's own room.
    pub(crate) fn room(&self, slot: u32, area: Option<u32>) -> Room {
        match area {
            None => {
                let bytes = self.small_bytes as usize;
                let request = self.payloads_offset() + slot as usize * 2 * bytes;
                Room { request, bytes }
            }
            Some(area) => {
                let bytes = self.area_bytes as usize;
                let request = self.areas_offset() + area as usize * 2 * bytes;
                Room { request, bytes }
            }
        }
    }

    /// Size of the whole memory in bytes.
    pub fn bytes(&self) -> usize {
        self.areas_offset() + self.areas as usize * 2 * self.area_bytes as usize
    }
}

/// Room for a request, and for a reply right behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Offset of the request.
    pub(crate) request: usize,
    /// Size of each of the two.
    pub(crate) bytes: usize,
}

impl Room {
    /// Offset of the reply.
    pub(crate) fn reply(&self) -> usize {
        self.request + self.bytes
    }
}

//! How the shared memory is divided. Computed on both sides from numbers that the host chose; never
//! read from the memory itself.

use std::{sync::LazyLock, thread};

use crate::slot::{Head, INLINE_REPLY, INLINE_REQUEST, REPLY_OFFSET, REQUEST_OFFSET, Slot};

/// Start of the memory that belongs to the payload areas is a multiple of this.
const PAGE_BYTES: usize = 4096;

/// Sizes of a shared memory. The same on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Calls that may be in flight, 1 to 31.
    pub slots: u32,
    /// Room of a slot for a request, and again for a reply, in bytes.
    pub small_bytes: u32,
    /// Areas for larger payloads. A call that needs one waits until one is free.
    pub areas: u32,
    /// Room of an area for a request, and again for a reply, in bytes. Memory is used only
    /// while a payload fills it.
    pub area_bytes: u64,
    /// Processors that both sides may use. With one, the other side cannot get on while this one
    /// looks whether it has.
    pub cores: u32,
}

/// Asked once: the answer is gathered from a dozen files.
static CORES: LazyLock<u32> = LazyLock::new(|| {
    thread::available_parallelism()
        .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
});

impl Default for Geometry {
    /// 16 calls of up to 64 KiB each way, two of which may have up to 64 MiB. Asks the system for the
    /// number of processors.
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

/// Numbers that make no memory.
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

    /// As numbers, to be handed to the worker.
    pub fn to_words(self) -> [u64; 5] {
        [
            self.slots.into(),
            self.small_bytes.into(),
            self.areas.into(),
            self.area_bytes,
            self.cores.into(),
        ]
    }

    /// What [`Geometry::to_words`] made.
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

    /// Where a request of so many bytes lies, method included.
    pub(crate) fn request(&self, slot: u32, area: Option<u32>, len: usize) -> usize {
        if len <= INLINE_REQUEST {
            self.slot_offset(slot) + REQUEST_OFFSET
        } else {
            self.room(slot, area).request
        }
    }

    /// Where a reply of so many bytes lies once it is complete.
    pub(crate) fn reply(&self, slot: u32, area: Option<u32>, len: usize) -> usize {
        if len <= INLINE_REPLY {
            self.slot_offset(slot) + REPLY_OFFSET
        } else {
            self.room(slot, area).reply()
        }
    }

    /// Where larger payloads of a slot lie: in an area if it has one, in its own room otherwise.
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

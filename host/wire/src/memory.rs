//! The mapping of the shared memory, and the only reads and writes of payload bytes.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    ptr::{self, NonNull},
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat},
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap},
};

use crate::{
    geometry::{Geometry, Room},
    slot::{Head, Slot},
};

/// A mapped shared memory. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    start: NonNull<u8>,
    pub(crate) geometry: Geometry,
}

// SAFETY: the mapping is plain memory, and every access to shared parts of it is atomic or a
// copy of bytes by the slot's one owner.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Creates the file, seals its size and maps it.
    pub(crate) fn create(geometry: Geometry) -> io::Result<(Self, OwnedFd)> {
        let geometry = geometry.check().map_err(io::Error::other)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = match rustix::fs::memfd_create("hotmerge-wire", flags | MemfdFlags::NOEXEC_SEAL)
        {
            // The flag is unknown before Linux 6.3.
            Err(Errno::INVAL) => rustix::fs::memfd_create("hotmerge-wire", flags)?,
            other => other?,
        };
        rustix::fs::ftruncate(&file, geometry.bytes() as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok((Self::map(&file, geometry)?, file))
    }

    /// Maps a file that the other side created.
    pub(crate) fn open(file: impl AsFd, geometry: Geometry) -> io::Result<Self> {
        let geometry = geometry.check().map_err(io::Error::other)?;
        let size = fstat(&file)?.st_size;
        let seals = fcntl_get_seals(&file)?;
        if size != geometry.bytes() as i64 || !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
            return Err(io::Error::other(
                "the shared memory is not the one that was agreed on",
            ));
        }
        Self::map(file, geometry)
    }

    fn map(file: impl AsFd, geometry: Geometry) -> io::Result<Self> {
        let len = geometry.bytes();
        // SAFETY: a new mapping at a place of the kernel's choice; the file has `len` bytes and
        // is sealed against shrinking, so no access faults.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )?
        };
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { start, geometry })
    }

    pub(crate) fn head(&self) -> &Head {
        // SAFETY: the mapping is page-aligned, larger than a head, lives as long as `self`, was
        // zero at first, and every pattern of bytes is a head of atomics.
        unsafe { self.start.cast::<Head>().as_ref() }
    }

    pub(crate) fn slot(&self, slot: u32) -> &Slot {
        assert!(slot < self.geometry.slots);
        // SAFETY: as in `head`; the offset is within the mapping because the index is.
        unsafe {
            self.at(self.geometry.slot_offset(slot))
                .cast::<Slot>()
                .as_ref()
        }
    }

    fn at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset <= self.geometry.bytes());
        // SAFETY: offsets come from the geometry, which is checked against the mapping's size.
        unsafe { self.start.add(offset) }
    }

    /// Writes to a payload's room. The caller owns the slot that has it.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.geometry.bytes());
        // SAFETY: within the mapping, which private memory never overlaps.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(offset).as_ptr(), bytes.len());
        }
    }

    /// Appends what lies in a payload's room to `to`.
    pub(crate) fn read(&self, offset: usize, len: usize, to: &mut Vec<u8>) {
        assert!(offset + len <= self.geometry.bytes());
        to.reserve(len);
        let end = to.len();
        // SAFETY: within the mapping; the room was just reserved and is initialised by the copy.
        // Another process may write meanwhile: the copy then holds arbitrary bytes, which are valid
        // for a `Vec<u8>` and are judged only after the copy.
        unsafe {
            ptr::copy_nonoverlapping(self.at(offset).as_ptr(), to.as_mut_ptr().add(end), len);
            to.set_len(end + len);
        }
    }

    /// Bytes in place.
    ///
    /// # Safety
    /// Nobody may write to them while the slice is in use.
    pub(crate) unsafe fn borrow(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset + len <= self.geometry.bytes());
        // SAFETY: within the mapping, initialised, and the caller vouches for the rest.
        unsafe { std::slice::from_raw_parts(self.at(offset).as_ptr(), len) }
    }

    /// Copies within the mapping, from one payload's room to another.
    pub(crate) fn copy(&self, from: usize, to: usize, len: usize) {
        assert!(from.max(to) + len <= self.geometry.bytes());
        // SAFETY: both within the mapping; they may overlap, and no reference is made.
        unsafe { ptr::copy(self.at(from).as_ptr(), self.at(to).as_ptr(), len) };
    }

    /// Gives an area's pages back to the system.
    pub(crate) fn clear(&self, room: Room) {
        // SAFETY: within the mapping; the pages stay mapped and read as zeroes. A failure costs
        // memory until the worker ends, nothing else.
        let _ = unsafe {
            madvise(
                self.at(room.request).as_ptr().cast(),
                2 * room.bytes,
                Advice::LinuxRemove,
            )
        };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped once with this size, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.geometry.bytes()) };
    }
}

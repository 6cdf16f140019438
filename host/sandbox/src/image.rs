//! The copy of a plugin's image that a worker loads: the verified bytes, but for the words that would
//! make the dynamic loader run something of it.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create, sendfile},
    io::Errno,
};

/// Copies an image, and writes the words over it.
pub(crate) fn copy(image: BorrowedFd<'_>, disarmed: &[(u64, u64)], to: &File) -> io::Result<()> {
    let mut offset = 0;
    while sendfile(to, image, Some(&mut offset), 1 << 30)? > 0 {}
    for (at, word) in disarmed {
        to.write_all_at(&word.to_ne_bytes(), *at)?;
    }
    Ok(())
}

/// A copy in sealed memory, for workers without a root of their own.
pub(crate) fn sealed(image: BorrowedFd<'_>, disarmed: &[(u64, u64)]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag.
    let memory = match memfd_create("hotmerge-plugin", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create("hotmerge-plugin", flags)?,
        other => other?,
    };
    let file = File::from(memory);
    copy(image, disarmed, &file)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(file.as_fd(), seals)?;
    Ok(file.into())
}

//! A signal to the host whenever a pipe has something to read.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// Makes the kernel send SIGUSR1 to this process when `pipe` can be read or was closed. The
/// process must have a handler: without one the signal kills it.
///
/// A worker cannot signal its host by number: in its own process table the host is 0, and so
/// would mean the worker's whole group.
///
/// # Errors
/// What the system says.
pub fn signal_on_message(pipe: BorrowedFd<'_>) -> io::Result<()> {
    let fd = pipe.as_raw_fd();
    // SAFETY: the calls take numbers only.
    let result = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        libc::fcntl(fd, libc::F_SETOWN, libc::getpid())
            | libc::fcntl(fd, F_SETSIG, libc::SIGUSR1)
            | libc::fcntl(fd, libc::F_SETFL, flags | libc::O_ASYNC)
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Makes the kernel send no more signals for `pipe`: closing it on purpose is not news.
///
/// # Errors
/// What the system says.
pub fn no_signal_on_message(pipe: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(pipe)?;
    Ok(rustix::fs::fcntl_setfl(
        pipe,
        flags.difference(rustix::fs::OFlags::from_bits_retain(libc::O_ASYNC as u32)),
    )?)
}

/// The same on every architecture of Linux.
const F_SETSIG: libc::c_int = 10;

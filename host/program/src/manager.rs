//! The service manager's readiness protocol.
//!
//! Absent on purpose: a failure. A host runs without its manager's knowledge as well; the log
//! says so.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use sd_notify::NotifyState;

/// Names the manager's socket; unset or empty without a manager.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Tells the service manager, if there is one.
pub(crate) fn tell(state: &[NotifyState<'_>]) {
    let Some(socket) = env::var_os(SOCKET).filter(|socket| !socket.is_empty()) else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(target: "hotmerge::host", "failed to notify the service manager: {error}");
    }
}

/// Sends to a socket in the file system, or to an abstract one, which is written `@name`.
fn send(socket: &OsStr, state: &[NotifyState<'_>]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let lines: String = state.iter().map(|state| format!("{state}\n")).collect();
    UnixDatagram::unbound()?.send_to_addr(lines.as_bytes(), &address)?;
    Ok(())
}

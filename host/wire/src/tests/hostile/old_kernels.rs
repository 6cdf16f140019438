//! A hostile side, and a kernel that lets a thread wait on one word at a time: one before Linux 5.16, or
//! one whose filter forbids more.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
};

use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use super::{
    bells::{SOON, move_away},
    *,
};

/// The same on every architecture.
const FUTEX_WAITV: i64 = 449;

/// How such kernels refuse to wait on several words.
const REFUSALS: [Errno; 2] = [Errno::NOSYS, Errno::PERM];

/// Runs `work` on a thread for which the kernel refuses that.
fn refused<T: Send + 'static>(
    refusal: Errno,
    work: impl FnOnce() -> T + Send + 'static,
) -> mpsc::Receiver<T> {
    let filter = SeccompFilter::new(
        BTreeMap::from([(FUTEX_WAITV, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(refusal.raw_os_error().unsigned_abs()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let filter: BpfProgram = filter.and_then(BpfProgram::try_from).unwrap();
    let (sender, receiver) = mpsc::channel();
    // Not waited for: it would never end if what is tested failed.
    thread::spawn(move || {
        apply_filter(&filter).unwrap();
        sender.send(work())
    });
    receiver
}

#[test]
fn hanging_up_wakes_moved_sleepers_on_old_kernels() {
    for refusal in REFUSALS {
        let (server, file) = Server::create(SMALL).unwrap();
        let server = Arc::new(server);
        let sleeper = Arc::clone(&server);
        let waits = refused(refusal, move || sleeper.next().unwrap_err());
        move_away(&Memory::open(&file, SMALL).unwrap().head().bell);
        server.hang_up();
        assert_eq!(waits.recv_timeout(SOON), Ok(Ended::HungUp), "{refusal}");
    }
}

#[test]
fn calls_are_answered_on_old_kernels() {
    for refusal in REFUSALS {
        let (server, file) = Server::create(SMALL).unwrap();
        let caller = Caller::open(file, SMALL).unwrap();
        let served = refused(refusal, move || serve(&server));
        let context = CallContext::default();
        for op in [ECHO, ECHO, STOP] {
            let asked = Request {
                op,
                ..request(&context, b"hello")
            };
            let mut reply = Reply::default();
            assert_eq!(caller.call(&asked, &mut reply), Ok(STATUS_OK), "{refusal}");
            assert_eq!(reply.bytes, b"hello");
        }
        assert_eq!(served.recv_timeout(SOON), Ok(()), "{refusal}");
    }
}

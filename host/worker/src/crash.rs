//! Says what happened before this process dies of it.
//!
//! A report is one message on a pipe whose other end signals the host. The kernel's account
//! of the end is the authority; a report adds which call it was and where.

use std::{cell::Cell, ffi::c_int, ptr};

use hotmerge_sandbox::{
    descriptor,
    message::{LARGEST, LENGTH_BYTES, length, report},
};
use hotmerge_wire::Taken;

const CAUGHT: [c_int; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGTRAP,
];

/// Longest name of a method in a report, in bytes.
const METHOD: usize = 64;

/// Longest text of a panic, in bytes.
const TEXT: usize = 3 << 10;

/// A fault this close to the stack pointer is an overflow.
const NEAR_BYTES: usize = 64 << 10;

thread_local! {
    /// The slot of the request that this thread carries out, plus one, and its operation.
    static CURRENT: Cell<(u8, u8)> = const { Cell::new((0, 0)) };
    /// What this thread has reported and was to die of.
    static HIT: Cell<Option<Hit>> = const { Cell::new(None) };
}

/// A signal that is to kill.
#[derive(Clone, Copy)]
struct Hit {
    signal: u8,
    /// Whether somebody sent it: then it has no address.
    is_sent: bool,
    address: usize,
}

/// Notes which request this thread carries out.
pub(crate) fn enter(taken: &Taken<'_>) {
    CURRENT.set((taken.slot() as u8 + 1, taken.op() as u8));
}

/// Notes that this thread carries out no request.
pub(crate) fn leave() {
    CURRENT.set((0, 0));
}

/// Reports a panic that was caught, with what the plugin says of it.
///
/// It names the call itself: the slot may be another call's when the host reads this.
pub(crate) fn panicked(method: &[u8], trace_id: &[u8; 16], text: &[u8]) {
    let method = &method[..method.len().min(METHOD)];
    let mut bytes = vec![0; LENGTH_BYTES + report::HEAD_BYTES];
    bytes[LENGTH_BYTES] = report::PANIC;
    bytes[LENGTH_BYTES + 1] = method.len() as u8;
    (_, bytes[LENGTH_BYTES + 3]) = CURRENT.get();
    bytes.extend(trace_id);
    bytes.extend(method);
    // The host cuts what is longer; the end is what it needs most, for there are the frames.
    let frames = text.iter().rposition(|byte| *byte == b'\n');
    let (message, frames) = text.split_at(frames.unwrap_or(text.len()));
    let frames = &frames[..frames.len().min(TEXT / 2)];
    bytes.extend(&message[..message.len().min(TEXT - frames.len())]);
    bytes.extend(frames);
    send(&mut bytes);
}

/// Reports what was to kill this thread during the request that it has just come back from, if
/// anything was. Only a trap or a signal that was sent can be survived; the next one is reported
/// as well.
pub(crate) fn tell_survived(method: &[u8], trace_id: &[u8; 16]) {
    let Some(hit) = HIT.take() else {
        return;
    };
    let method = &method[..method.len().min(METHOD)];
    let mut bytes = vec![0; LENGTH_BYTES];
    let (_, op) = CURRENT.get();
    let is_sent = u8::from(hit.is_sent);
    bytes.extend([
        report::SURVIVED,
        hit.signal,
        method.len() as u8,
        op,
        is_sent,
        0,
        0,
        0,
    ]);
    bytes.extend((hit.address as u64).to_ne_bytes());
    bytes.extend(trace_id);
    bytes.extend(method);
    send(&mut bytes);
    catch(hit.signal.into());
}

/// Reports a text.
pub(crate) fn tell(text: &str) {
    let text = text.as_bytes();
    let mut bytes = vec![0; LENGTH_BYTES];
    bytes.push(report::TEXT);
    bytes.extend(&text[..text.len().min(LARGEST - 1)]);
    send(&mut bytes);
}

/// Whether the plugin has left what reports go to open.
pub(crate) fn can_report() -> bool {
    let mut pipe = libc::pollfd {
        fd: descriptor::CRASH,
        events: 0,
        revents: 0,
    };
    // SAFETY: one entry, which lives for the call; if the plugin closed the descriptor, it says so.
    let polled = unsafe { libc::poll(&raw mut pipe, 1, 0) };
    polled >= 0 && pipe.revents & libc::POLLNVAL == 0
}

/// Reports a signal; may be called in its handler.
fn tell_signal(kind: u8, hit: Hit) {
    let mut bytes = [0; LENGTH_BYTES + report::HEAD_BYTES];
    let (_, report) = bytes.split_at_mut(LENGTH_BYTES);
    report[0] = kind;
    report[1] = hit.signal;
    (report[2], report[3]) = CURRENT.get();
    report[4] = hit.is_sent.into();
    report[8..].copy_from_slice(&(hit.address as u64).to_ne_bytes());
    send(&mut bytes);
}

/// Sends a message with room for its length in front. What finds no room is lost: the kernel's
/// account of the end remains.
fn send(bytes: &mut [u8]) {
    let message = bytes.len() - LENGTH_BYTES;
    bytes[..LENGTH_BYTES].copy_from_slice(&length(message));
    // SAFETY: the bytes live for the call, which a signal handler may make as well.
    unsafe { libc::write(descriptor::CRASH, bytes.as_ptr().cast(), bytes.len()) };
}

/// Reports signals that kill, before they do. The handlers run on the stacks that the standard
/// library gives to its threads for this purpose.
pub(crate) fn catch_signals() {
    CAUGHT.into_iter().for_each(catch);
}

fn catch(signal: c_int) {
    // SAFETY: the handler makes only calls that a handler may make.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(signal, &raw const action, ptr::null_mut());
    }
}

extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes both, valid for the handler. Resetting the action lets the fault
    // that happens again on return kill, even the first process of a namespace.
    unsafe {
        // Of a signal that was sent, its sender lies there.
        let is_sent = (*info).si_code <= 0;
        let address = if is_sent { 0 } else { (*info).si_addr().addr() };
        let hit = Hit {
            signal: signal as u8,
            is_sent,
            address,
        };
        let overflow = signal == libc::SIGSEGV
            && !is_sent
            && stack_pointer(context.cast())
                .is_some_and(|stack| stack.abs_diff(address) < NEAR_BYTES);
        let kind = if overflow {
            report::STACK
        } else {
            report::SIGNAL
        };
        tell_signal(kind, hit);
        HIT.set(Some(hit));
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(signal, &raw const action, ptr::null_mut());
    }
}

/// `None` on machines that nobody has looked at: a null pointer is not an overflow there.
///
/// # Safety
/// `context` is what the kernel passed to a handler.
unsafe fn stack_pointer(context: *const libc::ucontext_t) -> Option<usize> {
    // SAFETY: passed on to the caller.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        return Some((*context).uc_mcontext.gregs[libc::REG_RSP as usize] as usize);
        #[cfg(target_arch = "aarch64")]
        return Some((*context).uc_mcontext.sp as usize);
        #[cfg(target_arch = "riscv64")]
        return Some((*context).uc_mcontext.__gregs[libc::REG_SP] as usize);
        #[cfg(not(any(
            target_arch = "x86_64",
            target_arch = "aarch64",
            target_arch = "riscv64"
        )))]
        return None;
    }
}

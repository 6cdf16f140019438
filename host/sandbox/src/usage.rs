//! How much memory a worker uses, and when to check: the kernel's limits count what is mapped, and code
//! that means to can have more of it than they say.
//!
//! Invariant: a worker that does nothing wakes nothing. The clock is the worker's own processor time.
//!
//! Absent on purpose: what follows from too much.

use std::{fs, io, mem::MaybeUninit, ptr, time::Duration};

/// Wakes the thread that made it each time that a process has used so much processor time.
#[derive(Debug)]
pub struct CpuTimer(libc::timer_t);

// SAFETY: the kernel's name for a timer, which any thread of the process may use.
unsafe impl Send for CpuTimer {}

impl CpuTimer {
    /// Sends `signal` to the calling thread, which must have a handler for it: a sleep in `poll` ends.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(pid: i32, every: Duration, signal: i32) -> io::Result<Self> {
        let mut clock = MaybeUninit::<libc::clockid_t>::uninit();
        let mut timer = MaybeUninit::<libc::timer_t>::uninit();
        let period = libc::timespec {
            tv_sec: every.as_secs() as _,
            tv_nsec: every.subsec_nanos() as _,
        };
        let times = libc::itimerspec {
            it_interval: period,
            it_value: period,
        };
        // SAFETY: all structures live for the calls, and each is filled by a call before it is read.
        unsafe {
            let error = libc::clock_getcpuclockid(pid, clock.as_mut_ptr());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = signal;
            event.sigev_notify_thread_id = libc::gettid();
            if libc::timer_create(clock.assume_init(), &raw mut event, timer.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let timer = Self(timer.assume_init());
            match libc::timer_settime(timer.0, 0, &raw const times, ptr::null_mut()) {
                0 => Ok(timer),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }
}

impl Drop for CpuTimer {
    fn drop(&mut self) {
        // SAFETY: made once, deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// The private memory of a process in bytes, in the machine or swapped out.
pub fn private_bytes(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |name: &str| -> Option<u64> {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        rest.trim().trim_end_matches(" kB").parse().ok()
    };
    Some((kib("RssAnon:")? + kib("VmSwap:").unwrap_or(0)) << 10)
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Child, Command, Stdio},
        sync::atomic::{AtomicU32, Ordering},
        thread,
        time::Instant,
    };

    use super::*;

    static COME: AtomicU32 = AtomicU32::new(0);

    extern "C" fn count(_: i32) {
        COME.fetch_add(1, Ordering::SeqCst);
    }

    fn shell(script: &str) -> Child {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).stdin(Stdio::piped());
        shell.spawn().unwrap()
    }

    #[test]
    fn only_a_busy_process_wakes_its_watcher() {
        // SAFETY: the handler only counts.
        unsafe { libc::signal(libc::SIGVTALRM, count as *const () as usize) };
        let (mut busy, mut idle) = (shell("while :; do :; done"), shell("read _"));
        let timer = |child: &Child| {
            let pid = i32::try_from(child.id()).unwrap();
            CpuTimer::new(pid, Duration::from_millis(10), libc::SIGVTALRM).unwrap()
        };
        {
            let _timer = timer(&busy);
            let began = Instant::now();
            while COME.load(Ordering::SeqCst) < 5 {
                assert!(began.elapsed() < Duration::from_secs(60), "nobody is woken");
                thread::yield_now();
            }
        }
        busy.kill().unwrap();
        busy.wait().unwrap();
        let before = COME.load(Ordering::SeqCst);
        let _timer = timer(&idle);
        drop(idle.stdin.take());
        idle.wait().unwrap();
        assert!(COME.load(Ordering::SeqCst) <= before + 1);
    }

    #[test]
    fn memory_is_counted_that_was_written_to() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = private_bytes(own).unwrap();
        let kept = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(private_bytes(own).unwrap() >= before + (48 << 20));
        drop(kept);
    }
}

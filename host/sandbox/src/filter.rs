//! Filters as words, and their installation.

use seccompiler::{BpfProgram, sock_filter};

use crate::Program;

/// The kernel refused a system call filter.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct FilterError(#[from] seccompiler::Error);

/// Stands in a compiled filter for the worker's own process id.
pub(crate) const SELF: u32 = 0x5e1f_5e1f;

const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Where the kernel puts the number and the architecture of a call.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;

/// The same on every architecture.
const CLONE3: u32 = 435;
/// Marks calls of the x32 interface, which have other numbers.
const X32: u32 = 0x4000_0000;

fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> u64 {
    u64::from(code) << 48 | u64::from(jt) << 40 | u64::from(jf) << 32 | u64::from(k)
}

/// Puts in front of a filter: calls that are newer than `newest`, and `clone3` (whose flags no
/// filter sees), fail with ENOSYS; calls of another architecture end the process. `None` on an
/// unknown architecture.
pub(crate) fn guarded(newest: u32, program: Program) -> Option<Program> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => 0xc000_003e,
        "aarch64" => 0xc000_00b7,
        "riscv64" => 0xc000_00f3,
        _ => return None,
    };
    let mut words = vec![
        instruction(LOAD_WORD, ARCH_AT, 0, 0),
        instruction(JUMP_EQUAL, arch, 0, 6),
        instruction(LOAD_WORD, NUMBER_AT, 0, 0),
        instruction(JUMP_NOT_LESS, X32, 4, 0),
        instruction(JUMP_GREATER, newest, 2, 0),
        instruction(JUMP_EQUAL, CLONE3, 1, 0),
        instruction(JUMP, 2, 0, 0),
        instruction(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32, 0, 0),
        instruction(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
    ];
    words.extend(program.0);
    Some(Program(words))
}

pub(crate) fn pack(program: &BpfProgram) -> Program {
    let words = program.iter();
    Program(
        words
            .map(|one| instruction(one.code, one.k, one.jt, one.jf))
            .collect(),
    )
}

/// Installs a filter for all threads of this process.
pub(crate) fn install(program: &Program) -> Result<(), FilterError> {
    let own = std::process::id();
    let program: BpfProgram = program
        .0
        .iter()
        .map(|word| {
            let (code, k) = ((word >> 48) as u16, *word as u32);
            let is_self = code == JUMP_EQUAL && k == SELF;
            sock_filter {
                code,
                jt: (word >> 40) as u8,
                jf: (word >> 32) as u8,
                k: if is_self { own } else { k },
            }
        })
        .collect();
    Ok(seccompiler::apply_filter_all_threads(&program)?)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{self, Read as _, Write as _},
        os::fd::AsRawFd as _,
        ptr,
    };

    use libc::{
        MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE, SYS_mmap,
        SYS_mprotect, SYS_pkey_mprotect, SYS_prctl, SYS_seccomp, c_int, c_long,
    };

    use super::*;
    use crate::Policy;

    /// A system call: what it would achieve, its number, its arguments.
    type Attempt = (&'static str, c_long, [c_long; 6]);

    /// Executable memory that no file has, or that can be written.
    fn executable(file: c_long, page: c_long) -> Vec<Attempt> {
        let map = |protection: c_int, flags: c_int, file| {
            let address = 0;
            [address, 4096, protection.into(), flags.into(), file, 0]
        };
        let all = PROT_READ | PROT_WRITE | PROT_EXEC;
        let run = PROT_READ | PROT_EXEC;
        let private = MAP_PRIVATE | MAP_ANONYMOUS;
        let shared = MAP_SHARED | MAP_ANONYMOUS;
        let change = |protection: c_int| [page, 4096, protection.into(), -1, 0, 0];
        vec![
            ("write and run", SYS_mmap, map(all, private, -1)),
            (
                "write and run a file",
                SYS_mmap,
                map(all, MAP_PRIVATE, file),
            ),
            ("run new memory", SYS_mmap, map(run, private, -1)),
            ("run shared memory", SYS_mmap, map(run, shared, -1)),
            ("run a shared file", SYS_mmap, map(run, MAP_SHARED, file)),
            ("run what was written", SYS_mprotect, change(run)),
            ("go on writing", SYS_mprotect, change(all)),
            ("run it with a key", SYS_pkey_mprotect, change(run)),
        ]
    }

    const SYNC: c_long = libc::SECCOMP_FILTER_FLAG_TSYNC as c_long;

    fn filter(flags: c_long, program: &libc::sock_fprog) -> [c_long; 6] {
        let mode = libc::SECCOMP_SET_MODE_FILTER.into();
        [mode, flags, ptr::from_ref(program) as c_long, 0, 0, 0]
    }

    /// Filters that are not the second one, which is for all threads and nothing else.
    fn filters(program: &libc::sock_fprog) -> Vec<Attempt> {
        const LOG: c_long = libc::SECCOMP_FILTER_FLAG_LOG as c_long;
        const LISTENER: c_long = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as c_long;
        let strict = libc::SECCOMP_SET_MODE_STRICT.into();
        let by_prctl = |mode: u32| {
            let program = ptr::from_ref(program) as c_long;
            [libc::PR_SET_SECCOMP.into(), mode.into(), program, 0, 0, 0]
        };
        let (strictly, filtered) = (libc::SECCOMP_MODE_STRICT, libc::SECCOMP_MODE_FILTER);
        vec![
            ("filter one thread", SYS_seccomp, filter(0, program)),
            ("filter and log", SYS_seccomp, filter(SYNC | LOG, program)),
            ("filter and listen", SYS_seccomp, filter(LISTENER, program)),
            ("be strict", SYS_seccomp, [strict, 0, 0, 0, 0, 0]),
            ("filter by prctl", SYS_prctl, by_prctl(filtered)),
            ("be strict by prctl", SYS_prctl, by_prctl(strictly)),
        ]
    }

    /// The error of a system call; 0 if it succeeds.
    fn error((_, number, arguments): &Attempt) -> i32 {
        let [a, b, c, d, e, f] = *arguments;
        // SAFETY: memory is only added, or changed where nothing else is; what it points to lives on.
        match unsafe { libc::syscall(*number, a, b, c, d, e, f) } {
            -1 => io::Error::last_os_error().raw_os_error().unwrap_or(-1),
            _ => 0,
        }
    }

    /// What a process does in its turn.
    enum Step<'a> {
        Install(&'a Program),
        /// A system call, and the error that it must meet; 0 for none.
        Try(&'a str, &'a Attempt, i32),
    }

    impl Step<'_> {
        fn take(&self) -> i32 {
            match self {
                Self::Install(program) => install(program).is_err().into(),
                Self::Try(_, attempt, _) => error(attempt),
            }
        }

        /// What is not as it must be.
        fn judge(&self, result: i32) -> Option<String> {
            let told = |text: String| Some(text);
            match self {
                Self::Install(_) if result != 0 => told("a filter is refused".into()),
                Self::Try(when, (what, ..), error) if result != *error => told(format!(
                    "{when} an attempt to {what} met error {result}, not {error}"
                )),
                _ => None,
            }
        }
    }

    /// Takes the steps in a process of its own.
    fn in_child(steps: &[Step<'_>]) -> Vec<i32> {
        let (mut theirs, mut ours) = io::pipe().unwrap();
        // SAFETY: the child is a copy of this thread alone. It makes system calls, allocates, which the
        // C library prepares for, and ends without running anything else of this program's.
        let child = unsafe { libc::fork() };
        if child == 0 {
            for step in steps {
                let _ = ours.write_all(&step.take().to_ne_bytes());
            }
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) };
        }
        drop(ours);
        let mut bytes = Vec::new();
        theirs.read_to_end(&mut bytes).unwrap();
        let mut status = 0;
        // SAFETY: the child is this process's, and nobody else waits for it.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        let results = bytes.as_chunks().0;
        assert_eq!((status, results.len()), (0, steps.len()), "it ended early");
        results.iter().copied().map(i32::from_ne_bytes).collect()
    }

    #[test]
    fn the_first_filter_permits_only_the_second() {
        let own = File::open("/proc/self/exe").unwrap();
        let file = c_long::from(own.as_raw_fd());
        let mut pages = vec![0_u8; 2 * 4096];
        let page = (pages.as_mut_ptr() as c_long + 4095) & !4095;
        let mut permit = libc::sock_filter {
            code: RETURN,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ALLOW,
        };
        let permits_all = libc::sock_fprog {
            len: 1,
            filter: &raw mut permit,
        };
        let executable = executable(file, page);
        let filters = filters(&permits_all);
        let run = PROT_READ | PROT_EXEC;
        let code = [0, 4096, run.into(), MAP_PRIVATE.into(), file, 0];
        let load = ("load code", SYS_mmap, code);
        let lock = ("lock again", SYS_seccomp, filter(SYNC, &permits_all));
        let policy = Policy::parse(Policy::BUILTIN).unwrap();
        let (first, second) = policy.compile(&[], true).unwrap();

        let before = |it| Step::Try("before any filter", it, 0);
        let between = |it| Step::Try("before the lock", it, libc::EPERM);
        let after = |it| Step::Try("after the lock", it, libc::EPERM);
        let steps: Vec<_> = (executable.iter().map(before))
            .chain(first.iter().map(Step::Install))
            .chain(executable.iter().chain(&filters).map(between))
            .chain([
                Step::Try("before the lock", &load, 0),
                Step::Install(&second),
            ])
            .chain(executable.iter().chain(&filters).map(after))
            .chain([after(&load), after(&lock)])
            .collect();
        let results = in_child(&steps);
        let wrong = steps
            .iter()
            .zip(results)
            .filter_map(|(step, it)| step.judge(it));
        let wrong: Vec<_> = wrong.collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn filters_tell_own_descriptors_from_given_ones() {
        const OPEN_NOWHERE: c_long = 1000;
        let mut pair = [0 as c_int; 2];
        let place = pair.as_mut_ptr() as c_long;
        let unix = c_long::from(libc::AF_UNIX);
        let pair = |family, kind: c_int| [family, kind.into(), 0, place, 0, 0];
        let close = |number| [number, 0, 0, 0, 0, 0];
        let send = |number, address| [number, place, 1, 0, address, 16];
        let (ok, no, none) = (0, libc::EPERM, libc::EBADF);
        let attempts: [(Attempt, i32); 14] = [
            (("make a pipe", libc::SYS_pipe2, [place, 0, 0, 0, 0, 0]), ok),
            (
                (
                    "make a pair",
                    libc::SYS_socketpair,
                    pair(unix, libc::SOCK_STREAM),
                ),
                ok,
            ),
            (
                (
                    "pair datagrams",
                    libc::SYS_socketpair,
                    pair(unix, libc::SOCK_DGRAM),
                ),
                no,
            ),
            (
                (
                    "pair packets",
                    libc::SYS_socketpair,
                    pair(unix, libc::SOCK_SEQPACKET),
                ),
                no,
            ),
            (
                (
                    "pair others",
                    libc::SYS_socketpair,
                    pair(2, libc::SOCK_STREAM),
                ),
                no,
            ),
            (("wake", libc::SYS_eventfd2, [0; 6]), ok),
            (
                ("close its own", libc::SYS_close, close(OPEN_NOWHERE)),
                none,
            ),
            (("close its input", libc::SYS_close, close(0)), no),
            (("close its log", libc::SYS_close, close(6)), no),
            (
                ("close its report", libc::SYS_close, close(0x1_0000_0007)),
                no,
            ),
            (
                ("send on its own", libc::SYS_sendto, send(OPEN_NOWHERE, 0)),
                none,
            ),
            (
                (
                    "send elsewhere",
                    libc::SYS_sendto,
                    send(OPEN_NOWHERE, place),
                ),
                no,
            ),
            (("send on its log", libc::SYS_sendto, send(6, 0)), no),
            (
                (
                    "set a mode",
                    libc::SYS_fchmod,
                    [OPEN_NOWHERE, 0o644, 0, 0, 0, 0],
                ),
                no,
            ),
        ];
        let policy = Policy::parse(Policy::BUILTIN).unwrap();
        let without = policy.compile(&[], true).unwrap().1;
        try_all(&without, &attempts);
    }

    #[test]
    fn granted_files_can_be_mapped_and_changed() {
        const OPEN_NOWHERE: c_long = 1000;
        let own = File::open("/proc/self/exe").unwrap();
        let file = c_long::from(own.as_raw_fd());
        let view =
            |protection: c_int, flags: c_int| [0, 4096, protection.into(), flags.into(), file, 0];
        let mode = |bits| [OPEN_NOWHERE, bits, 0, 0, 0, 0];
        let anonymous = MAP_SHARED | MAP_ANONYMOUS;
        let attempts: [(Attempt, i32); 5] = [
            (("map a file", SYS_mmap, view(PROT_READ, MAP_SHARED)), 0),
            (
                (
                    "share memory",
                    SYS_mmap,
                    view(PROT_READ | PROT_WRITE, anonymous),
                ),
                libc::EPERM,
            ),
            (
                (
                    "run a file",
                    SYS_mmap,
                    view(PROT_READ | PROT_EXEC, MAP_SHARED),
                ),
                libc::EPERM,
            ),
            (("set a mode", libc::SYS_fchmod, mode(0o644)), libc::EBADF),
            (
                ("set a user id", libc::SYS_fchmod, mode(0o4755)),
                libc::EPERM,
            ),
        ];
        let files = crate::Grant::Files {
            path: "/srv".into(),
            write: true,
        };
        let policy = Policy::parse(Policy::BUILTIN).unwrap();
        let granted = policy.compile(&[files], true).unwrap().1;
        try_all(&granted, &attempts);
    }

    /// Makes attempts under a filter, in a process of its own.
    fn try_all(filter: &Program, attempts: &[(Attempt, i32)]) {
        let tried = attempts.iter();
        let tried = tried.map(|(attempt, error)| Step::Try("after the lock", attempt, *error));
        let steps: Vec<_> = std::iter::once(Step::Install(filter))
            .chain(tried)
            .collect();
        let results = steps.iter().zip(in_child(&steps));
        let wrong: Vec<_> = results.filter_map(|(step, it)| step.judge(it)).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

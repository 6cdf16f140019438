//! The symbol policy and the system call policy agree: what the one lets through the other permits, what the
//! one refuses the other does not permit, and no call is granted that no symbol leads to.
//!
//! Each pattern of the symbol policy stands here with the calls behind it as the C library makes them. A
//! pattern or a granted call that is not here fails the test: decide what it means for the other policy.

use std::collections::BTreeSet;

use hotmerge_policy::{Groups, When};
use hotmerge_sandbox::{Grant, Policy};

/// Groups whose symbols ask for nothing but what every plugin has from its first instruction on: the corpus of
/// honest plugins shows that these calls are permitted, and the corpus of hostile ones that no others are.
const COMPUTING: [&str; 8] = [
    "unwinding",
    "runtime",
    "memory",
    "bytes and text",
    "threads",
    "signals",
    "time and random numbers",
    "mathematics",
];

/// Symbols that no call is behind, or whose calls are those of other symbols here.
const NO_CALL: &[&str] = &[
    "syscall",
    "puts",
    "putchar",
    "fputs",
    "fputc",
    "fwrite",
    "fflush",
    "stdout",
    "stderr",
    "stdin",
    "__overflow",
    "dirfd",
    "fdopen",
    "fclose",
    "fread",
    "fgets",
    "fseek*",
    "ftell*",
    "freeaddrinfo",
    "gai_strerror",
    "inet_*",
];

/// Symbols that pass, so that libraries that can do without their calls are loaded, and why those fail.
const FAILS: &[(&str, &str)] = &[
    (
        "dup2",
        "could replace a descriptor that the worker was given",
    ),
    ("dup3", "as dup2"),
    (
        "ioctl",
        "asks whether output is a terminal, which it is not; sockets have their own",
    ),
    ("isatty", "as ioctl"),
    (
        "splice",
        "the standard library copies by reading and writing where it fails",
    ),
    (
        "if_*",
        "asks for interfaces over sockets that reach the kernel's network tables",
    ),
];

/// A symbol pattern, and calls with their first arguments; others are 0.
const BEHIND: &[(&str, &[&str])] = &[
    // output and descriptors
    ("read", &["read"]),
    ("readv", &["readv"]),
    ("write", &["write"]),
    ("writev", &["writev"]),
    ("close", &["close 9", "close 3"]),
    ("open", &["openat"]),
    ("open64", &["openat"]),
    ("openat", &["openat"]),
    ("openat64", &["openat"]),
    ("lseek", &["lseek"]),
    ("lseek64", &["lseek"]),
    ("fstat*", &["fstat", "fstatfs"]),
    ("__fxstat*", &["fstat"]),
    ("stat", &["newfstatat"]),
    ("stat64", &["newfstatat"]),
    ("statx", &["statx"]),
    ("lstat*", &["newfstatat"]),
    ("__xstat*", &["newfstatat"]),
    ("readlink", &["readlinkat", "readlink"]),
    ("realpath", &["readlinkat", "getcwd"]),
    ("getcwd", &["getcwd"]),
    ("poll", &["poll"]),
    ("ppoll", &["ppoll"]),
    ("__poll_chk", &["poll"]),
    ("__read_chk", &["read"]),
    (
        "fcntl",
        &[
            "fcntl 9 1030",
            "fcntl 9 3",
            "fcntl 9 4 0x800",
            "fcntl 9 6",
            "fcntl 9 2",
            "fcntl 9 1",
        ],
    ),
    ("fcntl64", &["fcntl 9 0", "fcntl 9 5", "fcntl 9 7"]),
    ("dup", &["dup"]),
    ("pipe", &["pipe", "pipe2 0 0x80000"]),
    ("pipe2", &["pipe2 0 0x80000"]),
    ("eventfd", &["eventfd2"]),
    ("access", &["access", "faccessat"]),
    ("faccessat", &["faccessat", "faccessat2"]),
    // pairs: std reads them by `recv` and writes them by `send` or `write`
    (
        "socketpair",
        &["socketpair 1 0x80001 0", "socketpair 1 0x80801 0"],
    ),
    ("send", &["sendto 9 0 1 0x4000 0"]),
    ("recv", &["recvfrom 9 0 1 0 0"]),
    ("shutdown", &["shutdown 9"]),
    // files
    ("opendir", &["openat", "fstat"]),
    ("fdopendir", &["fstat", "fcntl 9 3"]),
    ("readdir*", &["getdents64"]),
    ("closedir", &["close 9"]),
    ("rewinddir", &["lseek"]),
    ("mkdir", &["mkdirat", "mkdir"]),
    ("mkdirat", &["mkdirat"]),
    ("rmdir", &["unlinkat", "rmdir"]),
    ("rename*", &["renameat2", "renameat", "rename"]),
    ("unlink*", &["unlinkat", "unlink"]),
    ("link", &["linkat", "link"]),
    ("linkat", &["linkat"]),
    ("chmod", &["chmod 0 0o755", "fchmodat 0 0 0o755"]),
    (
        "fchmod*",
        &[
            "fchmod 9 0o644",
            "fchmodat 0 0 0o644",
            "fchmodat2 0 0 0o644",
        ],
    ),
    ("chown", &["chown", "fchownat"]),
    ("fchown*", &["fchown", "fchownat"]),
    ("lchown", &["lchown", "fchownat"]),
    // users and groups
    ("setuid", &["setuid"]),
    ("setgid", &["setgid"]),
    ("seteuid", &["setresuid"]),
    ("setegid", &["setresgid"]),
    ("setreuid", &["setreuid"]),
    ("setregid", &["setregid"]),
    ("setresuid", &["setresuid"]),
    ("setresgid", &["setresgid"]),
    ("setgroups", &["setgroups"]),
    ("truncate*", &["truncate"]),
    ("ftruncate*", &["ftruncate"]),
    ("fsync", &["fsync"]),
    ("fdatasync", &["fdatasync"]),
    ("sync_file_range", &["sync_file_range"]),
    ("pread*", &["pread64"]),
    ("pwrite*", &["pwrite64"]),
    ("preadv*", &["preadv", "preadv2"]),
    ("pwritev*", &["pwritev", "pwritev2"]),
    ("fopen*", &["openat"]),
    ("utimens*", &["utimensat"]),
    ("futimens", &["utimensat"]),
    ("copy_file_range", &["copy_file_range"]),
    ("sendfile*", &["sendfile"]),
    ("flock", &["flock"]),
    ("fallocate*", &["fallocate"]),
    ("posix_fallocate*", &["fallocate"]),
    ("posix_fadvise*", &["fadvise64"]),
    ("readlinkat", &["readlinkat"]),
    ("chdir", &["chdir"]),
    ("fchdir", &["fchdir"]),
    ("umask", &["umask"]),
    ("mkstemp*", &["openat", "getrandom"]),
    ("mkdtemp", &["mkdirat", "getrandom"]),
    ("statfs*", &["statfs"]),
    ("fstatfs*", &["fstatfs"]),
    ("statvfs*", &["statfs"]),
    // network; what cannot be told apart by names is the policy's own: internet sockets
    ("socket", &["socket 2 1", "socket 10 0x80002"]),
    ("connect", &["connect"]),
    ("bind", &["bind"]),
    ("listen", &["listen"]),
    ("accept*", &["accept", "accept4"]),
    ("sendto", &["sendto 9 0 1 0 0x1000"]),
    ("sendmsg", &["sendmsg"]),
    ("sendmmsg", &["sendmmsg"]),
    ("recvfrom", &["recvfrom 9 0 1 0 0x1000"]),
    ("recvmsg", &["recvmsg"]),
    ("recvmmsg", &["recvmmsg"]),
    ("getsockopt", &["getsockopt"]),
    ("setsockopt", &["setsockopt"]),
    ("getsockname", &["getsockname"]),
    ("getpeername", &["getpeername"]),
    (
        "getaddrinfo",
        &[
            "socket 2 2",
            "connect",
            "sendmmsg",
            "recvfrom 9 0 1 0 0x1000",
            "poll",
            "close 9",
        ],
    ),
    ("getnameinfo", &["socket 2 2", "connect", "sendmmsg"]),
    ("gethostby*", &["socket 2 2", "connect", "sendmmsg"]),
    ("gethostname", &["uname"]),
    ("__res_*", &["socket 2 2", "sendmmsg"]),
    ("res_*", &["socket 2 2", "sendmmsg"]),
    (
        "epoll_*",
        &[
            "epoll_create1",
            "epoll_ctl",
            "epoll_wait",
            "epoll_pwait",
            "epoll_pwait2",
        ],
    ),
    ("select", &["pselect6", "select"]),
    ("eventfd*", &["eventfd2"]),
    // for the host's own process, and for nobody
    ("symlink*", &["symlinkat", "symlink"]),
    (
        "*xattr",
        &["getxattr", "setxattr", "fsetxattr", "listxattr"],
    ),
    ("inotify_*", &["inotify_init1", "inotify_add_watch"]),
    ("sync", &["sync"]),
    ("syncfs", &["syncfs"]),
    ("exec*", &["execve", "execveat"]),
    ("fexecve", &["execveat"]),
    ("posix_spawn*", &["clone 0x4111", "execve"]),
    ("pidfd_spawn*", &["clone 0x4111", "execve"]),
    ("fork", &["fork", "clone 17"]),
    ("_Fork", &["fork", "clone 17"]),
    ("vfork", &["vfork"]),
    ("clone", &["clone 17"]),
    ("clone3", &["clone3"]),
    ("__clone*", &["clone 17"]),
    ("system", &["execve"]),
    ("popen", &["execve"]),
    ("dlopen", &["mmap 0 4096 5 2 9"]),
    ("dlmopen", &["mmap 0 4096 5 2 9"]),
    ("memfd_create", &["memfd_create"]),
    ("ptrace", &["ptrace"]),
    ("process_vm_*", &["process_vm_readv", "process_vm_writev"]),
    (
        "pidfd_*",
        &["pidfd_open", "pidfd_send_signal", "pidfd_getfd"],
    ),
];

/// The group of what only root may ask anyhow, by calls that are never permitted.
const SYSTEM: &str = "the system";

/// Calls that are granted for what is no symbol of their own.
const WITHOUT_SYMBOL: &[(&str, &str)] = &[
    ("mmap", "a symbol of every plugin; files are mapped by it"),
    ("msync", "mapped files"),
    ("open", "older C libraries"),
    ("ioctl", "sockets that do not block"),
];

fn files(write: bool) -> Grant {
    let path = "/srv".into();
    Grant::Files { path, write }
}

/// Whether a call as it stands above is permitted.
fn permits(policy: &Policy, grants: &[Grant], call: &str) -> bool {
    let mut words = call.split(' ');
    let name = words.next().unwrap();
    let mut arguments = [0; 6];
    for (argument, word) in arguments.iter_mut().zip(words) {
        *argument = match (word.strip_prefix("0x"), word.strip_prefix("0o")) {
            (Some(digits), _) => u64::from_str_radix(digits, 16),
            (_, Some(digits)) => u64::from_str_radix(digits, 8),
            _ => word.parse(),
        }
        .unwrap();
    }
    policy.permits((grants, true), name, &arguments).unwrap()
}

/// What a machine without it does by another call that stands beside it.
fn is_absent_here(call: &str) -> bool {
    const OLD: [&str; 17] = [
        "access",
        "chmod",
        "chown",
        "epoll_wait",
        "fork",
        "lchown",
        "link",
        "mkdir",
        "pipe",
        "poll",
        "readlink",
        "rename",
        "rmdir",
        "select",
        "symlink",
        "unlink",
        "vfork",
    ];
    cfg!(not(target_arch = "x86_64")) && OLD.contains(&call.split(' ').next().unwrap())
}

#[test]
fn symbols_and_system_calls_agree() {
    let policy = Policy::parse(Policy::BUILTIN).unwrap();
    let groups = Groups::parse(Groups::BUILTIN).unwrap();
    let everything = [files(true), Grant::Network];
    let mut problems = Vec::new();
    let mut reached = BTreeSet::new();
    for (group, pattern) in groups.patterns() {
        let name = &group.name;
        if COMPUTING.contains(&name.as_str()) || name == SYSTEM || NO_CALL.contains(&pattern) {
            continue;
        }
        let Some((_, calls)) = BEHIND.iter().find(|(of, _)| *of == pattern) else {
            if !FAILS.iter().any(|(of, _)| *of == pattern) {
                problems.push(format!(
                    "`{pattern}` of \"{name}\": its calls are not known here"
                ));
            }
            continue;
        };
        let grants: &[Grant] = match group.when {
            // What opens files is in every plugin, and has something to open with a grant.
            When::Always if name == "output and descriptors" => &everything[..1],
            When::Always => &[],
            When::Fs => &everything[..1],
            When::Net => &everything[1..],
            When::Host | When::Worker | When::Never => {
                let permitted = calls
                    .iter()
                    .filter(|call| permits(&policy, &everything, call));
                problems.extend(permitted.map(|call| {
                    format!("`{pattern}` of \"{name}\" must not work, and `{call}` is permitted")
                }));
                continue;
            }
        };
        for call in *calls {
            reached.insert(call.split(' ').next().unwrap());
            if !permits(&policy, grants, call) && !is_absent_here(call) {
                problems.push(format!(
                    "`{pattern}` of \"{name}\" passes, and `{call}` is not permitted"
                ));
            }
        }
    }
    for call in policy.granted_calls() {
        let is_other = WITHOUT_SYMBOL.iter().any(|(other, _)| *other == call);
        if !reached.contains(call) && !is_other {
            problems.push(format!("`{call}` is granted, and no symbol leads to it"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn pairs_and_pipes_reach_nobody_else() {
    let policy = Policy::parse(Policy::BUILTIN).unwrap();
    let may = |call| permits(&policy, &[], call);
    for call in [
        "pipe2",
        "socketpair 1 1",
        "eventfd2",
        "close 3",
        "close 9",
        "sendto 63 1 1",
    ] {
        assert!(may(call), "{call}");
    }
    for call in [
        // Datagrams could be sent elsewhere, and other families lead out.
        "socketpair 1 2",
        "socketpair 1 5",
        "socketpair 2 1",
        "socket 1 1",
        // An address; what the host reads and writes.
        "sendto 9 1 1 0 0x1000",
        "recvfrom 9 1 1 0 0x1000",
        "sendto 7 1 1",
        "close 0",
        "close 2",
        "close 6",
        "close 7",
        "close 0x100000007",
        "sendmsg 9",
        "connect 9",
        "bind 9",
    ] {
        assert!(!may(call), "{call}");
    }
}

#[test]
fn files_are_changed_only_where_enforceable() {
    let policy = Policy::parse(Policy::BUILTIN).unwrap();
    let may = |write, in_root, call, arguments: &[u64; 6]| {
        policy
            .permits((&[files(write)], in_root), call, arguments)
            .unwrap()
    };
    for call in ["fchmod", "fchmodat", "fchown", "utimensat", "truncate"] {
        assert!(may(true, true, call, &[0; 6]), "{call}");
        assert!(!may(true, false, call, &[0; 6]), "{call} without a root");
        assert!(!may(false, true, call, &[0; 6]), "{call} to be read");
    }
    // Nothing that runs as its user.
    assert!(!may(true, true, "fchmod", &[9, 0o4755, 0, 0, 0, 0]));
    assert!(!may(true, true, "fchmodat", &[9, 1, 0o2755, 0, 0, 0]));
    // A view of a file: to be written with `rw` alone, and never memory without a file or code.
    let view = |protection, flags| [0, 4096, protection, flags, 9, 0];
    assert!(may(false, true, "mmap", &view(1, 1)));
    assert!(!may(false, true, "mmap", &view(3, 1)));
    assert!(may(true, true, "mmap", &view(3, 1)));
    for (protection, flags) in [(1, 0x21), (3, 0x21), (5, 1), (3, 0x101), (7, 2)] {
        assert!(
            !may(true, true, "mmap", &view(protection, flags)),
            "{flags:#x}"
        );
    }
}

//! What to do about an error of the system, where a setting is behind it.
//!
//! An error number says little of why: a limit, a switch and a lack look alike. Where a setting
//! can be read that explains the error, it is named.

use std::{fs, io};

use rustix::io::Errno;

/// Settings behind an error, each with the line that causes it, and what to say then.
const SETTINGS: &[(Errno, &str, &str, &str)] = &[
    (
        Errno::ACCESS,
        "/proc/sys/vm/memfd_noexec",
        "2",
        "`vm.memfd_noexec` is 2, which forbids the memory that plugins are loaded from: set it to 0 \
         or 1",
    ),
    (
        Errno::NOSPC,
        "/proc/sys/user/max_user_namespaces",
        "0",
        "`user.max_user_namespaces` is 0: raise it",
    ),
    (
        Errno::NOSPC,
        "/proc/sys/user/max_pid_namespaces",
        "0",
        "`user.max_pid_namespaces` is 0: raise it",
    ),
    (
        Errno::NOSPC,
        "/proc/sys/user/max_mnt_namespaces",
        "0",
        "`user.max_mnt_namespaces` is 0: raise it",
    ),
    (
        Errno::NOSPC,
        "/proc/sys/user/max_net_namespaces",
        "0",
        "`user.max_net_namespaces` is 0: raise it",
    ),
    (
        Errno::NOSPC,
        "/proc/sys/user/max_ipc_namespaces",
        "0",
        "`user.max_ipc_namespaces` is 0: raise it",
    ),
    (
        Errno::NOSPC,
        "/proc/sys/user/max_uts_namespaces",
        "0",
        "`user.max_uts_namespaces` is 0: raise it",
    ),
    (
        Errno::NOSPC,
        "/proc/sys/user/max_cgroup_namespaces",
        "0",
        "`user.max_cgroup_namespaces` is 0: raise it",
    ),
    (
        Errno::PERM,
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "`kernel.unprivileged_userns_clone` is 0: set it to 1",
    ),
    (
        Errno::PERM,
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "`kernel.apparmor_restrict_unprivileged_userns` is 1: set it to 0, or give the host an \
         AppArmor profile with `userns`",
    ),
    (Errno::PERM, STATUS, FILTERED, BY_FILTER),
    (Errno::NOSYS, STATUS, FILTERED, BY_FILTER),
];

const STATUS: &str = "/proc/self/status";
/// A line of it.
const FILTERED: &str = "Seccomp:\t2";
const BY_FILTER: &str = "a filter of system calls is in force for the host, such as a container's or a \
                         unit's: it must permit `clone` with new namespaces, `mount`, `pivot_root`, \
                         `seccomp` and Landlock";

/// Names the AppArmor profile of this process.
const PROFILE: &str = "/proc/self/attr/current";
/// Behind the name of a profile that forbids.
const ENFORCED: &str = " (enforce)";
const BY_PROFILE: &str = "an AppArmor profile is in force for the host, such as a container's: it must permit `userns`, \
                          `mount`, `umount` and `pivot_root`";

/// What an error means whatever the settings are.
const ALWAYS: &[(Errno, &str)] = &[
    (
        Errno::MFILE,
        "the host has reached its limit of open files: raise its limit (`ulimit -n`, or `LimitNOFILE=`)",
    ),
    (
        Errno::NFILE,
        "the system has reached its limit of open files: raise `fs.file-max`",
    ),
    (
        Errno::AGAIN,
        "the host has reached its limit of processes and threads: raise its limit (`ulimit -u`, or \
         `TasksMax=`)",
    ),
    (
        Errno::FBIG,
        "the host has reached its limit of file size: raise its limit (`ulimit -f`, or `LimitFSIZE=`)",
    ),
    (
        Errno::NOMEM,
        "the host has reached its limit of memory: raise its limit (`ulimit -v`, `LimitAS=`, or `MemoryMax=`)",
    ),
    (
        Errno::NOSPC,
        "no more namespaces can be made: raise `user.max_user_namespaces` and its kind, or nest fewer",
    ),
    (
        Errno::USERS,
        "no more user namespaces can be made: raise `user.max_user_namespaces`, or nest fewer",
    ),
];

/// What to do about an error, to be put behind it; empty where nothing is known.
pub fn advice(error: &io::Error) -> String {
    advise(error, |path| fs::read_to_string(path).ok())
}

/// Settings that may be behind a failure without an error number, such as one inside a sandbox; to be
/// put behind it. Empty where none is known.
pub fn suspicions() -> String {
    suspect(|path| fs::read_to_string(path).ok())
}

fn suspect(read: impl Fn(&str) -> Option<String>) -> String {
    let mut all: Vec<_> = SETTINGS
        .iter()
        .filter(|(errno, path, line, _)| *errno == Errno::PERM && has(&read, path, line))
        .map(|(.., advice)| *advice)
        .chain(is_confined(&read).then_some(BY_PROFILE))
        .collect();
    all.dedup();
    match all.is_empty() {
        true => String::new(),
        false => format!(" ({})", all.join("; ")),
    }
}

/// Whether a file has a line.
fn has(read: &impl Fn(&str) -> Option<String>, path: &str, line: &str) -> bool {
    read(path).is_some_and(|text| text.lines().any(|it| it.trim_end() == line))
}

fn is_confined(read: &impl Fn(&str) -> Option<String>) -> bool {
    read(PROFILE).is_some_and(|profile| profile.trim_end().ends_with(ENFORCED))
}

fn advise(error: &io::Error, read: impl Fn(&str) -> Option<String>) -> String {
    let Some(number) = Errno::from_io_error(error) else {
        return String::new();
    };
    let setting = SETTINGS
        .iter()
        .find(|(errno, path, line, _)| *errno == number && has(&read, path, line))
        .map(|(.., advice)| *advice)
        .or_else(|| (number == Errno::ACCESS && is_confined(&read)).then_some(BY_PROFILE));
    let always = ALWAYS.iter().find(|(errno, _)| *errno == number);
    match setting.or(always.map(|(_, advice)| *advice)) {
        Some(advice) => format!(" ({advice})"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_setting_in_effect_is_named() {
        for (errno, path, value, advice) in SETTINGS {
            let error = io::Error::from(*errno);
            let set = |asked: &str| (asked == *path).then(|| format!("{value}\n"));
            assert_eq!(advise(&error, set), format!(" ({advice})"));
            let unset = |_: &str| Some("17\n".to_owned());
            assert_ne!(advise(&error, unset), format!(" ({advice})"), "{path}");
            assert_ne!(advise(&error, |_| None), format!(" ({advice})"), "{path}");
            let suspected = suspect(set);
            // A failure inside a sandbox is most often one of permission.
            if *errno == Errno::PERM {
                assert_eq!(suspected, format!(" ({advice})"), "{path}");
            }
        }
        assert_eq!(suspect(|_| Some("17\n".to_owned())), "");
    }

    #[test]
    fn only_a_profile_in_force_is_named() {
        let denied = io::Error::from(Errno::ACCESS);
        let confined = |profile: &'static str| {
            move |asked: &str| (asked == PROFILE).then(|| format!("{profile}\n"))
        };
        for none in ["unconfined", "it (complain)", "user_u:role_r:type_t:s0"] {
            assert_eq!(advise(&denied, confined(none)), "", "{none}");
            assert_eq!(suspect(confined(none)), "", "{none}");
        }
        let profile = || confined("docker-default (enforce)");
        assert_eq!(advise(&denied, profile()), format!(" ({BY_PROFILE})"));
        assert_eq!(suspect(profile()), format!(" ({BY_PROFILE})"));
    }

    #[test]
    fn exhaustion_is_reported_with_its_limit() {
        let error = io::Error::from(Errno::MFILE);
        assert!(advice(&error).contains("LimitNOFILE="));
        assert_eq!(advice(&io::Error::other("no")), "");
    }
}

//! The worker's half: confines the calling process, in an order that works.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    path::PathBuf,
};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{
        DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal, setsid,
    },
    thread::{CapabilitySet, CapabilitySets},
};

use crate::{
    Grant, PLUGIN_PATH, Plan, descriptor,
    filter::{self, FilterError},
    grants, image, limits, root,
};

/// Newest version of Landlock that is asked for; older kernels give what they have.
const LANDLOCK: ABI = ABI::V6;

/// Where to load the plugin from, and which parts of the sandbox are missing.
#[derive(Debug)]
pub struct Entered {
    /// The plugin's file.
    pub plugin: PathBuf,
    /// Parts that the kernel refused, for people.
    pub missing: Vec<String>,
}

/// Confines the calling process, up to and including the first filter. The process must have one
/// thread, and all libraries that the plugin needs must be loaded: their files are out of reach
/// afterwards.
///
/// # Errors
/// If a part fails without which the plugin must not be loaded at all.
pub fn enter(plan: &Plan) -> io::Result<Entered> {
    let mut missing = Vec::new();
    // Fails where the process leads a session already, which is as good.
    let _ = setsid();
    // SAFETY: the descriptor is the worker's by agreement and stays open.
    let image = unsafe { BorrowedFd::borrow_raw(descriptor::IMAGE) };
    let plugin = if plan.namespaces {
        root::change(image, &plan.disarmed, (&plan.grants, &plan.judged))?;
        PathBuf::from(PLUGIN_PATH)
    } else {
        missing.push(
            "namespaces, and with them a root, a network and a process table of its own".to_owned(),
        );
        replace_image(image, &plan.disarmed)?;
        PathBuf::from(format!("/proc/self/fd/{}", descriptor::IMAGE))
    };
    missing.extend(limits::set(plan));
    drop_privileges(plan)?;
    die_with_host()?;
    grants::check(plan)?;
    if let Some(part) = landlock(plan) {
        if !plan.namespaces
            && let Some((grant, ..)) = grants::files(&plan.grants).next()
        {
            let why = format!("nothing could confine it to that: no namespaces, and no {part}");
            return Err(grants::refused(grant, &why));
        }
        missing.push(part);
    }
    for program in &plan.first {
        if let Err(error) = filter::install(program) {
            missing.push(format!("the system call filter: {error}"));
            break;
        }
    }
    Ok(Entered { plugin, missing })
}

/// Puts the copy that is to be loaded where the image was.
fn replace_image(image: BorrowedFd<'_>, disarmed: &[(u64, u64)]) -> io::Result<()> {
    if disarmed.is_empty() {
        return Ok(());
    }
    let copy = image::sealed(image, disarmed)?;
    // SAFETY: both are open, and the image's number is the worker's by agreement.
    match unsafe { libc::dup2(copy.as_raw_fd(), descriptor::IMAGE) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Installs the second filter, after the plugin was loaded and before any of its code runs.
///
/// # Errors
/// If the kernel refuses it; the plugin must not run then.
pub fn lock(plan: &Plan) -> Result<(), FilterError> {
    filter::install(&plan.second)
}

fn drop_privileges(plan: &Plan) -> io::Result<()> {
    // Needs privilege itself, so it comes first; without privilege there is none to drop.
    for capability in 0..64 {
        // SAFETY: the call takes numbers only.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if result != 0 {
            break;
        }
    }
    if let Some(id) = plan.become_id {
        // SAFETY: an empty list is a list, and the process has one thread, so that the plain
        // calls reach all of it.
        let result = unsafe {
            libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>())
                | libc::syscall(libc::SYS_setresgid, id, id, id)
                | libc::syscall(libc::SYS_setresuid, id, id, id)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::clear_ambient_capability_set().or_else(ignore_unknown)?;
    rustix::thread::set_capabilities(None, none)?;
    rustix::thread::set_no_new_privs(true)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn ignore_unknown(error: Errno) -> Result<(), Errno> {
    if error == Errno::INVAL {
        Ok(())
    } else {
        Err(error)
    }
}

/// The kernel kills this process when the host's thread that started it ends. Cleared by any
/// change of credentials, so it comes after them; a host that died before is seen by its
/// pipe.
fn die_with_host() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // SAFETY: the descriptor is the worker's by agreement and stays open.
    let crash = unsafe { BorrowedFd::borrow_raw(descriptor::CRASH) };
    let mut fds = [PollFd::new(&crash, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now))?;
    // Nobody reads it.
    if fds[0].revents().contains(PollFlags::ERR) {
        return Err(io::Error::other("the host is gone"));
    }
    Ok(())
}

/// Returns what is missing.
fn landlock(plan: &Plan) -> Option<String> {
    match restrict(plan) {
        Ok(RulesetStatus::NotEnforced) => Some("Landlock: this kernel does not have it".to_owned()),
        Ok(_) => None,
        Err(error) => Some(format!("Landlock: {error}")),
    }
}

fn restrict(plan: &Plan) -> Result<RulesetStatus, Box<dyn std::error::Error>> {
    let read = AccessFs::from_read(LANDLOCK);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?;
    if !plan.grants.contains(&Grant::Network) {
        ruleset = ruleset.handle_access(AccessNet::from_all(LANDLOCK))?;
    }
    let mut created = ruleset.create()?;
    if plan.namespaces {
        created = created.add_rules(path_beneath_rules([PLUGIN_PATH], read))?;
    }
    for (grant, path, write) in grants::files(&plan.grants) {
        let file = grants::open(grant, path, &plan.judged)?;
        let access = grants::access(LANDLOCK, write, grants::is_dir(&file)?);
        created = created.add_rule(PathBeneath::new(file, access))?;
    }
    Ok(created.restrict_self()?.ruleset)
}

/// Attempts what a hostile plugin would attempt, and names what succeeded. The last attempt, to run
/// another program, ends the process if the policy holds.
pub fn probe(tell: impl Fn(&str)) {
    let path = |text: &str| CString::new(text).unwrap_or_default();
    let (secret, etc) = (path("/etc/passwd"), path("/etc"));
    // SAFETY: plain system calls on paths and numbers that live for the call; none of them may
    // succeed, and none touches this process's memory if it does.
    let attempts: [(&str, i64); 8] = unsafe {
        [
            (
                "open",
                libc::syscall(libc::SYS_openat, libc::AT_FDCWD, secret.as_ptr(), 0),
            ),
            (
                "list directories",
                libc::syscall(
                    libc::SYS_openat,
                    libc::AT_FDCWD,
                    etc.as_ptr(),
                    libc::O_DIRECTORY,
                ),
            ),
            (
                "socket",
                libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0),
            ),
            (
                "unix socket",
                libc::syscall(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0),
            ),
            ("kill", libc::syscall(libc::SYS_kill, libc::getppid(), 0)),
            ("kill all", libc::syscall(libc::SYS_kill, -1, 0)),
            (
                "fork",
                libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0),
            ),
            (
                "executable memory",
                libc::syscall(
                    libc::SYS_mmap,
                    0,
                    4096,
                    libc::PROT_EXEC | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                ),
            ),
        ]
    };
    for (name, result) in attempts {
        if result != -1 {
            tell(name);
        }
        if name == "fork" && result == 0 {
            // SAFETY: a child that must not be: it ends without running anything of the parent's.
            unsafe { libc::_exit(0) };
        }
    }
    tell("tried");
    let shell = path("/bin/sh");
    // SAFETY: the arguments are valid; without a filter this would become another program, whose
    // exit the host distinguishes from a kill.
    unsafe {
        libc::syscall(
            libc::SYS_execve,
            shell.as_ptr(),
            std::ptr::null::<*const u8>(),
            std::ptr::null::<*const u8>(),
        );
    }
    tell("go on after exec");
}

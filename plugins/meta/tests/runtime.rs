//! Who holds a runtime directory, and that nobody else is ever signalled.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::fs::{PermissionsExt, symlink},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use hotmerge_meta::{
    PidFile, RuntimeDir,
    runtime::{HostState, RuntimeError, Signalled, host_pid, host_state, send_hup},
};
use rustix::fs::FlockOperation;
use signal_hook::{consts::SIGHUP, iterator::Signals};

fn runtime() -> (tempfile::TempDir, RuntimeDir) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = RuntimeDir::new(dir.path().join("run"));
    runtime.create().unwrap();
    (dir, runtime)
}

fn own_pid() -> i32 {
    std::process::id() as i32
}

/// A process that dies of a SIGHUP, and answers whether it lives.
struct Stranger {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Stranger {
    fn new() -> Self {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A signal that was sent before would have been delivered before the answer.
    fn assert_unharmed(&mut self) {
        self.input.write_all(b"alive\n").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line, "alive\n", "somebody who is no host was signalled");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start_time(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    rest.split_whitespace().nth(19).unwrap().to_owned()
}

/// What a host that crashed leaves: a file, and nobody who locks it.
fn leave_behind(runtime: &RuntimeDir, pid: u32) {
    let text = format!("{pid}\nstart={}\n", start_time(pid));
    fs::write(runtime.pid_file(), text).unwrap();
}

#[test]
fn an_empty_directory_has_no_host() {
    let runtime = RuntimeDir::new("/nowhere/at/all");
    assert_eq!(send_hup(&runtime).unwrap(), Signalled::NotRunning);
    let (_dir, runtime) = self::runtime();
    assert_eq!(send_hup(&runtime).unwrap(), Signalled::NotRunning);
    assert!(host_pid(&runtime).unwrap().is_none());
}

#[test]
fn a_running_host_gets_the_signal() {
    let (_dir, runtime) = runtime();
    let mut signals = Signals::new([SIGHUP]).unwrap();
    let lock = PidFile::acquire(&runtime).unwrap();
    lock.write_pid().unwrap();
    let text = fs::read_to_string(runtime.pid_file()).unwrap();
    assert_eq!(text.lines().next(), Some(own_pid().to_string().as_str()));
    let host = host_pid(&runtime).unwrap().unwrap();
    assert_eq!(host.pid.as_raw_pid(), own_pid());
    assert!(matches!(send_hup(&runtime).unwrap(), Signalled::Sent(pid) if pid == host.pid));
    assert_eq!(signals.forever().next(), Some(SIGHUP));
}

#[test]
fn a_host_without_handlers_is_not_signalled() {
    let (_dir, runtime) = runtime();
    let _lock = PidFile::acquire(&runtime).unwrap();
    assert!(matches!(host_state(&runtime).unwrap(), HostState::Starting));
    assert_eq!(send_hup(&runtime).unwrap(), Signalled::Starting);
    assert!(host_pid(&runtime).unwrap().is_none());
}

#[test]
fn one_runtime_directory_has_one_host() {
    let (_dir, runtime) = runtime();
    let lock = PidFile::acquire(&runtime).unwrap();
    let path = runtime.path().display().to_string();
    let refusal = format!(
        "a host is already running in `{path}` (process {}); \
         stop it or choose another runtime directory",
        own_pid()
    );
    let refused = || PidFile::acquire(&runtime).unwrap_err().to_string();
    assert_eq!(refused(), refusal);
    lock.write_pid().unwrap();
    assert_eq!(refused(), refusal);
    drop(lock);
    assert_eq!(
        fs::read(runtime.pid_file()).unwrap(),
        b"",
        "the file stays, empty"
    );
    PidFile::acquire(&runtime).unwrap();
}

#[test]
fn a_cleared_lock_is_still_held() {
    let (_dir, runtime) = runtime();
    let lock = PidFile::acquire(&runtime).unwrap();
    lock.write_pid().unwrap();
    assert!(!lock.keep().unwrap());
    for whole in [false, true] {
        if whole {
            fs::remove_dir_all(runtime.path()).unwrap();
            runtime.create().unwrap();
        } else {
            fs::remove_file(runtime.pid_file()).unwrap();
        }
        let error = PidFile::acquire(&runtime).unwrap_err();
        assert!(matches!(error, RuntimeError::Held { .. }), "{error}");
        assert!(lock.keep().unwrap(), "it is created again");
        assert!(!lock.keep().unwrap());
        let host = host_pid(&runtime).unwrap().unwrap();
        assert_eq!(host.pid.as_raw_pid(), own_pid());
    }
    drop(lock);
    PidFile::acquire(&runtime).unwrap();
}

#[test]
fn a_place_is_held_however_many_ask() {
    let (_dir, runtime) = runtime();
    let lock = PidFile::acquire(&runtime).unwrap();
    lock.write_pid().unwrap();
    for _ in 0..6 {
        fs::remove_dir_all(runtime.path()).unwrap();
        runtime.create().unwrap();
        let error = PidFile::acquire(&runtime).unwrap_err();
        assert!(matches!(error, RuntimeError::Held { .. }), "{error}");
    }
}

#[test]
fn a_query_does_not_block_a_starting_host() {
    let (_dir, runtime) = runtime();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            for _ in 0..2000 {
                host_state(&runtime).unwrap();
            }
        });
        while !asking.is_finished() {
            drop(PidFile::acquire(&runtime).unwrap());
        }
    });
}

#[test]
fn a_stale_pid_file_signals_nobody() {
    let (_dir, runtime) = runtime();
    let mut stranger = Stranger::new();
    leave_behind(&runtime, stranger.pid());
    assert_eq!(send_hup(&runtime).unwrap(), Signalled::NotRunning);
    stranger.assert_unharmed();
}

#[test]
fn a_reused_pid_is_not_signalled() {
    let (_dir, runtime) = runtime();
    let mut stranger = Stranger::new();
    // What a crashed host left, whose pid the stranger has now; and a new host that holds the
    // lock already and has not emptied the file yet.
    let text = format!("{}\nstart=1\n", stranger.pid());
    fs::write(runtime.pid_file(), text).unwrap();
    let new_host = File::open(runtime.pid_file()).unwrap();
    rustix::fs::flock(&new_host, FlockOperation::LockExclusive).unwrap();

    let error = send_hup(&runtime).unwrap_err();
    assert!(matches!(error, RuntimeError::Stranger { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "`{}` names process {}, which is not the host that holds it; nothing was signalled",
            runtime.pid_file().display(),
            stranger.pid()
        )
    );
    stranger.assert_unharmed();
}

#[test]
fn a_dead_pid_signals_nobody() {
    let (_dir, runtime) = runtime();
    let stranger = Stranger::new();
    leave_behind(&runtime, stranger.pid());
    drop(stranger);
    let holder = File::open(runtime.pid_file()).unwrap();
    rustix::fs::flock(&holder, FlockOperation::LockExclusive).unwrap();
    let error = send_hup(&runtime).unwrap_err();
    assert!(matches!(error, RuntimeError::Stranger { .. }), "{error}");
    drop(holder);
    assert_eq!(send_hup(&runtime).unwrap(), Signalled::NotRunning);
}

#[test]
fn a_malformed_pid_file_signals_nobody() {
    let (_dir, runtime) = runtime();
    let _lock = PidFile::acquire(&runtime).unwrap();
    let (own, start) = (own_pid(), start_time(std::process::id()));
    for text in [
        "0\nstart=1\n".to_owned(),
        "-1\nstart=1\n".to_owned(),
        format!("-{own}\nstart={start}\n"),
        format!("{own}\n"),
        format!("{own}\nstart={start}"),
        format!("{own}\nstart={start}\n\n"),
        format!("{own} \nstart={start}\n"),
        "99999999999999999999\nstart=1\n".to_owned(),
        "x".repeat(10_000),
        "\0\0\n\n".to_owned(),
    ] {
        fs::write(runtime.pid_file(), &text).unwrap();
        assert_eq!(send_hup(&runtime).unwrap(), Signalled::Starting, "{text:?}");
    }
}

#[test]
fn a_user_cannot_make_root_signal_others() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("NOT TESTED: a pid file of another user (only root can make one)");
    }
    let (_dir, runtime) = runtime();
    let mut stranger = Stranger::new();
    leave_behind(&runtime, stranger.pid());
    let nobody = rustix::fs::Uid::from_raw(65534);
    rustix::fs::chown(runtime.pid_file(), Some(nobody), None).unwrap();
    let holder = File::open(runtime.pid_file()).unwrap();
    rustix::fs::flock(&holder, FlockOperation::LockExclusive).unwrap();
    let error = send_hup(&runtime).unwrap_err();
    assert!(matches!(error, RuntimeError::Stranger { .. }), "{error}");
    stranger.assert_unharmed();
}

#[test]
fn a_symlinked_pid_file_is_not_followed() {
    let (dir, runtime) = runtime();
    let target = dir.path().join("target");
    fs::write(&target, "keep").unwrap();
    symlink(&target, runtime.pid_file()).unwrap();
    assert!(PidFile::acquire(&runtime).is_err());
    assert!(send_hup(&runtime).is_err());
    assert_eq!(fs::read(&target).unwrap(), b"keep");
}

#[test]
fn only_the_owner_can_access_a_runtime_directory() {
    let (dir, runtime) = runtime();
    let mode = fs::metadata(runtime.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    runtime.create().unwrap();

    fs::set_permissions(runtime.path(), fs::Permissions::from_mode(0o770)).unwrap();
    assert_eq!(
        runtime.create().unwrap_err().to_string(),
        format!(
            "`{}` is not safe as a runtime directory: others may write in it; \
             choose another or remove it",
            runtime.path().display()
        )
    );
    let link = dir.path().join("link");
    symlink(runtime.path(), &link).unwrap();
    let error = RuntimeDir::new(&link).create().unwrap_err();
    assert!(
        error.to_string().contains("it is not a directory"),
        "{error}"
    );
}

#[test]
fn names_in_a_runtime_directory_never_change() {
    let runtime = RuntimeDir::new("/run/hotmerge");
    assert_eq!(
        runtime.control_socket().to_str(),
        Some("/run/hotmerge/control.sock")
    );
    assert_eq!(
        runtime.pid_file().to_str(),
        Some("/run/hotmerge/hotmerge.pid")
    );
}

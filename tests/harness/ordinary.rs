//! Hosts of a user without privileges.

use std::{
    fs,
    os::unix::{fs::chown, net::UnixListener, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use hotmerge_meta::RuntimeDir;
use rustix::{
    process::{Uid, geteuid},
    thread::set_thread_uid,
};

use crate::{Lab, copy_environment, copy_program, hotmerge, programs::example_of, worker};

/// Root reads whatever it likes; this user does not.
pub const NOBODY: u32 = 65_534;

/// Whether hosts run as an ordinary user, unless a test chooses one itself. What holds for
/// plugins must hold for every user's host: `HOTMERGE_TEST_USER=ordinary` lets root test that too.
///
/// # Panics
/// If the variable says anything else than `ordinary` or `tester`.
#[track_caller]
pub fn hosts_are_ordinary() -> bool {
    match std::env::var("HOTMERGE_TEST_USER").as_deref() {
        Err(_) | Ok("tester") => !geteuid().is_root(),
        Ok("ordinary") => true,
        Ok(other) => panic!("HOTMERGE_TEST_USER is `tester` or `ordinary`, not `{other}`"),
    }
}

impl Lab {
    /// The same command of `hotmerge`, run by a user without privileges, to whom everything in
    /// this test's directory belongs from then on. A tester without privileges
    /// is that user already.
    ///
    /// # Panics
    /// If the programs cannot be copied.
    pub fn as_ordinary_user(&self, command: Command) -> Command {
        if !geteuid().is_root() {
            return command;
        }
        let mut ordinary = Command::new(self.within_reach(hotmerge(), "hotmerge"));
        let within_reach = self.ordinary_worker();
        let args = command.get_args().map(|arg| match arg == worker() {
            true => within_reach.as_os_str(),
            false => arg,
        });
        ordinary.args(args).uid(NOBODY).gid(NOBODY);
        copy_environment(&command, &mut ordinary);
        give_away(&self.path(""));
        ordinary
    }

    /// The worker program for the hosts of this test, whichever user runs them.
    ///
    /// # Panics
    /// If it cannot be copied.
    pub fn worker(&self) -> PathBuf {
        match hosts_are_ordinary() && geteuid().is_root() {
            true => self.ordinary_worker(),
            false => worker().to_owned(),
        }
    }

    /// The worker program that such a user can reach: beside the host's, where it looks first.
    fn ordinary_worker(&self) -> PathBuf {
        self.within_reach(worker(), "hotmerge-worker")
    }

    /// A worker program that says it has confined itself, and has left out what the name says.
    pub fn unconfined_worker(&self, name: &str) -> PathBuf {
        self.within_reach(&example_of("hotmerge-worker", "unconfined"), name)
    }

    /// A program in this test's directory: the build directory may be out of a user's reach.
    fn within_reach(&self, program: &Path, name: &str) -> PathBuf {
        let copy = self.path(name);
        // Once: a program that runs cannot be written.
        if !copy.exists() {
            copy_program(program, &copy);
        }
        copy
    }
}

/// Listens in a runtime directory as another user; the thread that does is that user from then on.
///
/// # Panics
/// If the tester is not root, or there is no such directory.
pub fn listen_as(uid: u32, dir: &RuntimeDir) -> UnixListener {
    let socket = dir.control_socket();
    let listen = move || {
        set_thread_uid(Uid::from_raw(uid)).expect("root may");
        UnixListener::bind(socket).expect("the directory is open to everybody")
    };
    thread::spawn(listen).join().expect("it listens")
}

fn give_away(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("the test's own directory") {
            give_away(&entry.expect("the test's own directory").path());
        }
    }
}

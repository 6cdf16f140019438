//! Hosts of a user without privileges.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::Path,
    process::Command,
};

use rustix::process::geteuid;

use crate::{Lab, copy_environment, hotmerge, worker};

/// Root reads whatever it likes; this user does not.
pub const NOBODY: u32 = 65_534;

impl Lab {
    /// The same command of `hotmerge`, run by a user without privileges, to whom everything in
    /// this test's directory belongs from then on. Whoever runs the tests without privileges
    /// is that user already.
    ///
    /// # Panics
    /// If the programs cannot be copied.
    pub fn as_ordinary_user(&self, command: Command) -> Command {
        if !geteuid().is_root() {
            return command;
        }
        // The build directory may be out of this user's reach.
        let program = self.path("hotmerge");
        fs::copy(hotmerge(), &program).expect("the test's own directory");
        fs::copy(worker(), self.ordinary_worker()).expect("the test's own directory");
        let mut ordinary = Command::new(program);
        ordinary.args(command.get_args()).uid(NOBODY).gid(NOBODY);
        copy_environment(&command, &mut ordinary);
        give_away(&self.path(""));
        ordinary
    }

    /// The worker program that such a user can reach: beside the host's, where it looks first.
    pub fn ordinary_worker(&self) -> std::path::PathBuf {
        self.path("hotmerge-worker")
    }
}

fn give_away(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("the test's own directory") {
            give_away(&entry.expect("the test's own directory").path());
        }
    }
}

//! A disk that is full soon.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Process, SOON, process::is_ready};

/// A small file system in a mount namespace of its own, seen through the process that keeps
/// it. Gone with that process.
#[derive(Debug)]
pub struct TinyDisk {
    _keeper: Process,
    path: PathBuf,
}

impl TinyDisk {
    /// Makes one over an empty directory; `None` if this user may not mount anything.
    ///
    /// # Panics
    /// If the keeper says nothing at all.
    pub fn new(over: &Path, bytes: u64) -> Option<Self> {
        let script = format!(
            "mount -t tmpfs -o size={bytes},mode=755 tmpfs \"$0\" && echo ready && exec cat"
        );
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .arg(over)
            // The keeper ends when its input does, even if this process is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut keeper = Process::spawn(&mut command);
        let mut output = keeper.child().stdout.take().expect("it is a pipe");
        assert!(is_ready(&output, SOON), "the keeper says nothing");
        let mut said = [0; 5];
        output.read_exact(&mut said).ok()?;
        let root = format!("/proc/{}/root", keeper.pid());
        let inside = over.strip_prefix("/").expect("labs have absolute paths");
        Some(Self {
            path: Path::new(&root).join(inside),
            _keeper: keeper,
        })
    }

    /// Where it is seen from outside.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

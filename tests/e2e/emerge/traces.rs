//! Traces of what Portage does, so that a test can verify that it happened.

use std::{fs, mem::MaybeUninit, os::fd::OwnedFd};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::inotify;

use crate::lab::Lab;

/// Every name that appears in a directory of a lab.
pub(crate) struct Names(OwnedFd);

impl Names {
    /// Watches from now on.
    pub(crate) fn watch(lab: &Lab, dir: &str) -> Result<Self> {
        let first = fs::read_to_string(lab.path("open.pid"))?;
        let dir = format!("/proc/{}/root{dir}", first.trim());
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        inotify::add_watch(&fd, &*dir, inotify::WatchFlags::CREATE)
            .with_context(|| format!("failed to watch `{dir}`"))?;
        Ok(Self(fd))
    }

    /// The names so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut names = Vec::new();
        while let Ok(event) = reader.next() {
            names.extend(
                event
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
        }
        names
    }
}

/// Has every phase that compiles say who it is and in which name spaces.
pub(crate) fn tell_confinement(lab: &Lab) -> Result<()> {
    fs::write(
        lab.path("portage/bashrc"),
        "post_src_compile() { echo \"compiled by $(id -un) in\" $(readlink /proc/self/ns/{net,pid,ipc,mnt}); }\n",
    )?;
    Ok(())
}

/// Portage compiled as its own user, without network, and apart in every way it knows.
pub(crate) fn was_confined(lab: &Lab, log: &str) -> Result<()> {
    let told = log
        .lines()
        .find_map(|line| line.strip_prefix("compiled by portage in "))
        .with_context(|| format!("it was not Portage's user who compiled:\n{log}"))?;
    let ours = lab.shell("readlink /proc/self/ns/{net,pid,ipc,mnt}")?;
    let (theirs, ours): (Vec<_>, Vec<_>) =
        (told.split_whitespace().collect(), ours.lines().collect());
    ensure!(theirs.len() == 4 && ours.len() == 4, "{theirs:?} {ours:?}");
    for (theirs, ours) in theirs.iter().zip(&ours) {
        ensure!(theirs != ours, "compiled in {ours}, as everything else");
    }
    Ok(())
}

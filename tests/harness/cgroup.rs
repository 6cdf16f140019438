//! Control groups of a test's own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    fs::{XattrFlags, setxattr, statfs},
    process::geteuid,
};

/// `CGROUP2_SUPER_MAGIC`
const MAGIC: u64 = 0x6367_7270;

/// A control group that was made for a test. What is left in it is killed, and it is removed,
/// when dropped.
#[derive(Debug)]
pub struct TestGroup(PathBuf);

impl TestGroup {
    /// A new one, or why there can be none.
    ///
    /// # Errors
    /// The reason of a skipped test.
    pub fn new() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() {
            return Err("only root can make a cgroup to delegate".to_owned());
        }
        let is_mount = |dir: &&str| statfs(*dir).is_ok_and(|system| system.f_type as u64 == MAGIC);
        let mount = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .into_iter()
            .find(is_mount)
            .ok_or("this system has no cgroups of version 2")?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hotmerge-test-{}-{number}", std::process::id());
        let dir = Path::new(mount).join(name);
        fs::create_dir(&dir).map_err(|error| format!("no cgroup can be made: {error}"))?;
        Ok(Self(dir))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Gives it to a user, as service managers do.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn delegate(&self, user: u32) {
        for name in [
            "",
            "cgroup.procs",
            "cgroup.threads",
            "cgroup.subtree_control",
        ] {
            std::os::unix::fs::chown(self.0.join(name), Some(user), Some(user)).expect("root may");
        }
        setxattr(&self.0, "user.delegate", b"1", XattrFlags::empty()).expect("groups have marks");
    }

    /// The groups in it and below, with their processes, by their path in it.
    pub fn below(&self) -> Vec<(String, Vec<i32>)> {
        let mut found = Vec::new();
        let mut to_do = vec![self.0.clone()];
        while let Some(dir) = to_do.pop() {
            // Groups go away while this scans.
            let Ok(entries) = fs::read_dir(&dir) else {
                continue;
            };
            for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
                let path = entry.path();
                let pids = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
                let pids = pids.lines().filter_map(|pid| pid.parse().ok()).collect();
                let name = path.strip_prefix(&self.0).expect("it is below");
                found.push((name.to_string_lossy().into_owned(), pids));
                to_do.push(path);
            }
        }
        found.sort();
        found
    }
}

impl Drop for TestGroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for (name, _) in self.below().into_iter().rev() {
            let _ = fs::remove_dir(self.0.join(name));
        }
        let _ = fs::remove_dir(&self.0);
    }
}

//! Limits of the kernel's control groups (version 2), where a part of their tree was given to
//! the host.
//!
//! ```text
//! PATH/                 delegated: by the service manager, or by the operator
//! ├── host              the host itself, if it was in PATH: groups with limits have no
//! │                     processes beside them
//! └── hotmerge-PID-N/   one host's, locked while it lives
//!     └── worker-N      one worker
//! ```
//!
//! Invariants: a worker is in its group before it runs; its group goes with it; what a dead
//! host left is removed by the next one, and nothing of a host that lives.
//!
//! Absent on purpose: version 1, and anything outside of what was delegated.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::fs::{FlockOperation, flock, getxattr, statfs};

use crate::Limits;

/// Where version 2 is mounted: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// `CGROUP2_SUPER_MAGIC`
const MAGIC: u64 = 0x6367_7270;
/// What service managers mark a delegated group with.
const MARKS: [&str; 2] = ["trusted.delegate", "user.delegate"];
/// The leaf that the host moves to.
const LEAF: &str = "host";
/// What a host's own group begins with.
const OURS: &str = "hotmerge-";
/// Controllers that are of use here.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// The period that processor time is measured in, in microseconds.
const PERIOD_US: u64 = 100_000;
/// What a worker needs beyond its plugin's memory and the shared one: program, kernel memory.
const SLACK_BYTES: u64 = 32 << 20;
/// Cgroups of dead hosts that are examined, and attempts to get one.
const MOST: usize = 1024;

/// The part of the tree that is this host's. Removed when dropped.
#[derive(Debug)]
pub struct Cgroups {
    dir: PathBuf,
    has: Vec<&'static str>,
    next: AtomicU32,
    _lock: File,
}

/// The group of one worker. Its processes are killed, and it is removed, when dropped.
#[derive(Debug)]
pub struct Cgroup {
    dir: PathBuf,
    _tree: Arc<Cgroups>,
}

impl Cgroups {
    /// The group that was delegated to this process, if one was.
    pub fn delegated() -> Option<PathBuf> {
        let own = own()?;
        let parent = own
            .parent()
            .filter(|_| own.file_name().is_some_and(|name| name == LEAF));
        [Some(own.as_path()), parent]
            .into_iter()
            .flatten()
            .find(|dir| is_marked(dir))
            .map(Path::to_owned)
    }

    /// Makes this host's part of the tree below `path`, and removes what dead hosts left there.
    ///
    /// # Errors
    /// If `path` is not a group, or not this host's to change.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        if statfs(path)?.f_type as u64 != MAGIC {
            return Err(io::Error::other("it is not a version 2 cgroup"));
        }
        if own().is_some_and(|own| own == path) {
            let leaf = path.join(LEAF);
            make(&leaf)?;
            fs::write(leaf.join("cgroup.procs"), "0")?;
        }
        sweep(path);
        let (dir, lock) = claim(path)?;
        // Each level hands on what it has; what cannot be handed on is not there.
        for level in [path, &dir] {
            for controller in controllers(level, "cgroup.controllers") {
                let _ = fs::write(
                    level.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                );
            }
        }
        Ok(Arc::new(Self {
            has: controllers(&dir, "cgroup.subtree_control"),
            dir,
            next: AtomicU32::new(0),
            _lock: lock,
        }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Controllers that limits hold of: `memory`, `pids`, `cpu`.
    pub fn has(&self) -> &[&'static str] {
        &self.has
    }

    /// Removes it if no worker is left; what a dead host leaves is removed by the next.
    pub fn close(&self) {
        let _ = fs::remove_dir(&self.dir);
    }

    /// A group for one worker, which may use `shared_bytes` beside its own memory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn group(self: &Arc<Self>, limits: &Limits, shared_bytes: u64) -> io::Result<Cgroup> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(format!("worker-{number}"));
        fs::create_dir(&dir)?;
        let group = Cgroup {
            dir,
            _tree: Arc::clone(self),
        };
        let memory = limits.memory_bytes + shared_bytes + SLACK_BYTES;
        let cpu = limits
            .cpu_permille
            .map(|permille| format!("{} {PERIOD_US}", permille * PERIOD_US / 1000));
        for (controller, file, value) in [
            ("memory", "memory.max", Some(memory.to_string())),
            ("memory", "memory.swap.max", Some("0".into())),
            ("memory", "memory.oom.group", Some("1".into())),
            ("pids", "pids.max", Some(limits.threads.to_string())),
            ("cpu", "cpu.max", cpu),
        ] {
            let file = group.dir.join(file);
            // Kernels without swap have no file for it.
            if let Some(value) = value
                && self.has.contains(&controller)
                && file.exists()
            {
                fs::write(file, value)?;
            }
        }
        Ok(group)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.close();
    }
}

impl Cgroup {
    /// Puts a process in.
    pub(crate) fn take(&self, pid: i32) -> io::Result<()> {
        fs::write(self.dir.join("cgroup.procs"), pid.to_string())
    }

    /// Kills everything in it.
    pub fn kill(&self) {
        kill(&self.dir);
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.kill();
        // A process that is just dying keeps it; the next host removes it then.
        let _ = fs::remove_dir(&self.dir);
    }
}

/// The group that this process is in.
fn own() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let is_mount = |dir: &&str| statfs(*dir).is_ok_and(|system| system.f_type as u64 == MAGIC);
    MOUNTS
        .into_iter()
        .find(is_mount)
        .map(|mount| Path::new(mount).join(path))
}

fn is_marked(dir: &Path) -> bool {
    MARKS
        .iter()
        .any(|mark| getxattr(dir, *mark, &mut [0_u8; 8][..]).is_ok())
}

fn controllers(dir: &Path, file: &str) -> Vec<&'static str> {
    let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
    let has = |name: &&str| text.split_whitespace().any(|word| word == *name);
    CONTROLLERS.into_iter().filter(has).collect()
}

fn make(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Holds a host's group for as long as the file is open.
fn lock(dir: &Path) -> io::Result<File> {
    let file = File::open(dir)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// A new group of this host's own, with its lock.
fn claim(path: &Path) -> io::Result<(PathBuf, File)> {
    for attempt in 0..MOST {
        let dir = path.join(format!("{OURS}{}-{attempt}", std::process::id()));
        match fs::create_dir(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        }
        // A host that sweeps meanwhile may take it for a dead one's.
        if let Ok(lock) = lock(&dir)
            && dir.exists()
        {
            return Ok((dir, lock));
        }
    }
    Err(io::Error::other("every name for its own cgroup is taken"))
}

/// Removes what hosts that are dead have left.
fn sweep(path: &Path) {
    for dir in children(path, OURS) {
        if let Ok(_lock) = lock(&dir) {
            remove(&dir);
        }
    }
}

fn remove(dir: &Path) {
    kill(dir);
    for group in children(dir, "worker-") {
        let _ = fs::remove_dir(group);
    }
    let _ = fs::remove_dir(dir);
}

fn kill(dir: &Path) {
    // Since Linux 5.14. Older ones end with their first process, as ever.
    let _ = fs::write(dir.join("cgroup.kill"), "1");
}

fn children(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let ours = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.starts_with(prefix));
    entries
        .filter_map(Result::ok)
        .filter(|entry| ours(&entry.file_name()))
        .map(|entry| entry.path())
        .take(MOST)
        .collect()
}

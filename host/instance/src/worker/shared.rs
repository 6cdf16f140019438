//! What all workers of a host share.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use hotmerge_meta::{PluginName, Trust};
use hotmerge_policy::Groups;
use hotmerge_sandbox::{Cgroups, Grant, Ids, Namespaces, Policy, SpawnError, check_filters};
use rustix::fs::{StatVfsMountFlags, fstat, fstatvfs};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use signal_hook::consts::SIGUSR1;

use crate::{
    rules::{grants, policies, text_file::TextFileError},
    settings::{Isolation, OnDegraded, Settings},
    worker::{
        error::{IsolationError, LaunchError, NoWorkers, NotStarted},
        held::HeldReplies,
        process::{self, Filters, MEMORY_TICK, Parts, Process},
    },
};

/// First of the users that workers of a root host run as; each has one of its own.
const FIRST_USER: u32 = 0x7000_0000;
/// How many there are before they are used again.
const USERS: u32 = 0x1_0000;

/// The name of the worker program.
const PROGRAM: &str = "hotmerge-worker";
/// Where the system has it.
const LIBEXEC: &str = "/usr/libexec/hotmerge";

/// The state that all workers of a host share.
#[derive(Debug)]
pub struct Workers {
    /// As they are now; what a worker was started with is its own.
    settings: RwLock<Arc<Settings>>,
    /// A copy of the setting, in milliseconds; 0 for none. Each call reads it.
    call_limit_ms: AtomicU64,
    /// The symbols that plugins may import.
    pub(crate) symbols: Result<Groups, TextFileError>,
    pub(super) program: Option<OwnedFd>,
    /// Replies that wait for their workers.
    pub(super) replies: HeldReplies,
    /// Where that is.
    path: Option<PathBuf>,
    /// Whether no plugin moves into the host for want of workers: others could have caused that, or it
    /// may pass.
    pub(super) never_in_host: bool,
    policy: Option<Policy>,
    filters: Mutex<BTreeMap<Vec<Grant>, Filters>>,
    pub(super) namespaces: bool,
    /// Whether each worker runs as a user of its own.
    pub(super) own_users: bool,
    users: AtomicU32,
    groups: Option<Arc<Cgroups>>,
    /// Why there are none, although one was delegated.
    no_cgroups: Option<String>,
    /// The missing parts of the sandbox, for people.
    pub(super) missing: Vec<String>,
    /// Whether SIGUSR1 has arrived since this was last checked.
    signalled: Arc<AtomicBool>,
    crash_signals: AtomicU64,
}

fn limit_ms(settings: &Settings) -> u64 {
    let limit = settings.call_limit;
    limit.map_or(0, |limit| {
        u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
    })
}

impl Workers {
    /// Finds the worker program and probes the sandbox.
    pub fn new(settings: Settings) -> Arc<Self> {
        let mut workers = Self::unprepared(settings);
        workers.open_groups();
        match workers.prepare() {
            Ok(()) => {
                workers.probe();
                workers.hide_memory();
            }
            Err(error) => workers.missing.push(error.to_string()),
        }
        Arc::new(workers)
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&settings)
    }

    /// The settings from now on. Program, policies and cgroup of workers stay the same.
    pub fn set_settings(&self, settings: Settings) {
        self.call_limit_ms
            .store(limit_ms(&settings), Ordering::Relaxed);
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// How long a call without a deadline may take.
    pub(super) fn call_limit(&self) -> Option<Duration> {
        match self.call_limit_ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        }
    }

    /// Without a program, so that no worker can be launched.
    fn unprepared(settings: Settings) -> Self {
        Self {
            program: None,
            replies: HeldReplies::default(),
            path: None,
            never_in_host: false,
            policy: None,
            filters: Mutex::default(),
            namespaces: true,
            own_users: rustix::process::geteuid().is_root(),
            users: AtomicU32::new(0),
            groups: None,
            no_cgroups: None,
            missing: Vec::new(),
            signalled: Arc::default(),
            crash_signals: AtomicU64::new(0),
            symbols: policies::symbols(&settings.policies),
            call_limit_ms: AtomicU64::new(limit_ms(&settings)),
            settings: RwLock::new(Arc::new(settings)),
        }
    }

    /// Where a worker may have the host's own user and sees its process, keeps the host's memory from it,
    /// before any plugin is loaded. Elsewhere that would keep an ordinary user's host from telling the
    /// kernel who its workers are.
    fn hide_memory(&mut self) {
        let is_root = rustix::process::geteuid().is_root();
        let is_apart = self.namespaces && (self.own_users || !is_root);
        if is_apart || self.program.is_none() {
            return;
        }
        if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            self.missing
                .push(format!("the host's memory cannot be hidden: {error}"));
        }
    }

    fn prepare(&mut self) -> Result<(), NoWorkers> {
        self.expect_signals().map_err(NoWorkers::Signal)?;
        let settings = self.settings();
        let found = Self::find_program(settings.worker.as_deref(), &settings.trust);
        self.never_in_host = matches!(found, Err(NoWorkers::Untrusted { .. }));
        let (path, program) = found?;
        self.policy = Some(policies::syscalls(&settings.policies)?);
        self.program = Some(program.into());
        self.path = Some(path);
        Ok(())
    }

    /// Workers send signals that kill a process without a handler for them: one announces a crash report,
    /// the other only ends a sleep.
    fn expect_signals(&self) -> io::Result<()> {
        signal_hook::flag::register(SIGUSR1, Arc::clone(&self.signalled))?;
        signal_hook::flag::register(MEMORY_TICK, Arc::default())?;
        Ok(())
    }

    /// Takes what was delegated to this host. Only a group that the configuration names is
    /// missed if it cannot be had.
    fn open_groups(&mut self) {
        let named = self.settings().cgroup.clone();
        let Some(path) = named.clone().or_else(Cgroups::delegated) else {
            return;
        };
        match Cgroups::open(&path) {
            Ok(groups) => self.groups = Some(groups),
            Err(error) => {
                let what = format!("the cgroup `{}`: {error}", path.display());
                if named.is_some() {
                    self.missing.push(what);
                } else {
                    self.no_cgroups = Some(what);
                }
            }
        }
    }

    /// Restores the cgroup after the last worker.
    pub fn close(&self) {
        if let Some(groups) = &self.groups {
            groups.close();
        }
    }

    /// Why workers have no cgroups of their own, although one was delegated.
    pub fn no_cgroups(&self) -> Option<&str> {
        self.no_cgroups.as_deref()
    }

    /// The plugins whose limit `cpus` is not enforced: no cgroup with that controller is delegated.
    pub fn without_cpu_limit(&self) -> Vec<PluginName> {
        let has_cpu = |groups: &Arc<Cgroups>| groups.has().contains(&"cpu");
        if self.groups.as_ref().is_some_and(has_cpu) {
            return Vec::new();
        }
        let settings = self.settings();
        let limited = settings.plugins.iter();
        let limited = limited.filter(|(_, own)| own.limits.cpus.is_some());
        limited.map(|(plugin, _)| plugin.clone()).collect()
    }

    /// What enforces the workers' limits, for people.
    pub fn limits(&self) -> String {
        let Some(groups) = &self.groups else {
            return "rlimits; no cgroup is delegated to this host".to_owned();
        };
        let path = groups.path().display();
        match groups.has() {
            [] => format!("rlimits; the cgroup `{path}` has no controllers"),
            has => format!("rlimits; {} by the cgroup `{path}`", has.join(", ")),
        }
    }

    /// Where the worker program is, and the program itself.
    ///
    /// # Errors
    /// If it is not where the configuration says, or in no place where it is looked for, or if
    /// somebody else could have written it.
    pub fn find_program(named: Option<&Path>, trust: &Trust) -> Result<(PathBuf, File), NoWorkers> {
        let path = Self::program_path(named)?;
        let program = match File::open(&path) {
            Ok(program) => program,
            Err(source) => return Err(NoWorkers::Open { path, source }),
        };
        match trust.check_way(&program, &path) {
            Ok(()) => Ok((path, program)),
            Err(source) => Err(NoWorkers::Untrusted { path, source }),
        }
    }

    fn program_path(named: Option<&Path>) -> Result<PathBuf, NoWorkers> {
        if let Some(path) = named {
            return Ok(path.to_owned());
        }
        let exe = std::env::current_exe().unwrap_or_default();
        let dir = exe.parent().unwrap_or(Path::new("/usr/bin"));
        let places = places(dir);
        let mut programs = places.iter().map(|place| place.join(PROGRAM));
        programs
            .find(|path| path.is_file())
            .ok_or(NoWorkers::NotFound {
                program: PROGRAM,
                places,
            })
    }

    /// How often SIGUSR1 has arrived. Read whenever a worker has reported a crash, so
    /// that several are one only if they came at once: the signal is a hint, and what it hints at
    /// is read from descriptors.
    pub fn crash_signals(&self) -> u64 {
        let has_come = self.signalled.swap(false, Ordering::Relaxed);
        let before = self
            .crash_signals
            .fetch_add(has_come.into(), Ordering::Relaxed);
        before + u64::from(has_come)
    }

    /// How many replies to workers were given up because too many waited.
    pub fn replies_given_up(&self) -> u64 {
        self.replies.given_up()
    }

    /// Whether plugins can be kept in processes of their own.
    pub fn available(&self) -> bool {
        self.program.is_some()
    }

    /// The missing parts of the sandbox.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// What a plugin may do beyond computing, in a process of its own.
    pub fn grants(&self, plugin: &str) -> Vec<Grant> {
        self.settings().of(plugin).allow.clone()
    }

    /// How a plugin is to be kept by the settings as they are now: in a process of its own, or in the
    /// host's.
    ///
    /// # Errors
    /// If it cannot be isolated as configured.
    pub fn isolation(&self, plugin: &str) -> Result<Isolation, IsolationError> {
        self.isolation_by(&self.settings(), plugin)
    }

    /// How a plugin is to be kept by these settings.
    pub(crate) fn isolation_by(
        &self,
        settings: &Settings,
        plugin: &str,
    ) -> Result<Isolation, IsolationError> {
        let wanted = settings.isolation_of(plugin).unwrap_or(Isolation::Auto);
        match wanted {
            Isolation::Host => Ok(Isolation::Host),
            _ if self.available() => {
                if settings.degraded == OnDegraded::Refuse && !self.missing.is_empty() {
                    return Err(IsolationError::Incomplete(self.missing.join("; ")));
                }
                Ok(Isolation::Process)
            }
            Isolation::Process => Err(IsolationError::NoProcess(self.missing.join("; "))),
            Isolation::Auto if self.never_in_host => {
                Err(IsolationError::NoProcess(self.missing.join("; ")))
            }
            Isolation::Auto if settings.degraded == OnDegraded::Refuse => {
                Err(IsolationError::DegradedRefused(self.missing.join("; ")))
            }
            Isolation::Auto => Ok(Isolation::Host),
        }
    }

    /// Starts a worker process on this thread, which must outlive it.
    pub(super) fn launch(&self, parts: Parts<'_>) -> Result<Process, LaunchError> {
        let program = self.program.as_ref().ok_or(LaunchError::NoProgram)?;
        let filters = self.filters(parts.grants)?;
        let judged = grants::check(parts.grants, parts.user, &self.settings().trust)?;
        let parts = Parts {
            judged: &judged,
            ..parts
        };
        let namespaces = if self.namespaces {
            Namespaces::Own {
                network: !parts.grants.contains(&Grant::Network),
            }
        } else {
            Namespaces::None
        };
        let ids = match parts.user {
            Some(user) if self.own_users => Ids::Other(user),
            Some(_) => {
                return Err(LaunchError::OtherUser);
            }
            None if self.own_users => {
                let user = self.users.fetch_add(1, Ordering::Relaxed) % USERS;
                Ids::Other(FIRST_USER + user)
            }
            None => Ids::Own,
        };
        let groups = self.groups.as_ref();
        tracing::trace!(
            target: "hotmerge::worker",
            ?namespaces,
            ?ids,
            grants = ?parts.grants,
            limits = ?parts.limits,
            cgroup = groups.is_some(),
            "launching a worker"
        );
        process::launch(program.as_fd(), &parts, &filters, namespaces, ids, groups)
            .map_err(|error| self.explain(error))
    }

    /// The system's error for a program that it does not run does not explain the reason.
    fn explain(&self, error: LaunchError) -> LaunchError {
        let LaunchError::Spawn(SpawnError::Run(source)) = &error else {
            return error;
        };
        let (Some(path), Some(program)) = (&self.path, &self.program) else {
            return error;
        };
        let is_denied = source.kind() == io::ErrorKind::PermissionDenied;
        let is_noexec =
            fstatvfs(program).is_ok_and(|disk| disk.f_flag.contains(StatVfsMountFlags::NOEXEC));
        let is_executable = fstat(program).is_ok_and(|stat| stat.st_mode & 0o111 != 0);
        let why = match (is_denied, is_noexec, is_executable) {
            (true, true, _) => {
                "its file system is mounted with `noexec`: mount it without, or set \
                                `worker` to a program elsewhere"
            }
            (true, false, false) => "it is not executable: run `chmod +x` on it",
            _ => return error,
        };
        LaunchError::NotRun {
            path: path.clone(),
            why,
        }
    }

    /// Checks that a worker has shut itself in.
    pub(super) fn check_filters(&self, grants: &[Grant], pid: i32) -> Result<(), NotStarted> {
        let (first, _) = &*self.filters(grants)?;
        Ok(check_filters(pid, first.len() + 1)?)
    }

    fn filters(&self, grants: &[Grant]) -> Result<Filters, LaunchError> {
        let mut known = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filters) = known.get(grants) {
            return Ok(Arc::clone(filters));
        }
        let policy = self.policy.as_ref().ok_or(LaunchError::NoPolicy)?;
        let filters = Arc::new(policy.compile(grants)?);
        known.insert(grants.to_vec(), Arc::clone(&filters));
        Ok(filters)
    }
}

/// Where the worker program of a program in `dir` is searched for: beside it, where its own prefix has
/// it, and where the system has it. Cargo puts examples and tests one directory below its programs.
fn places(dir: &Path) -> Vec<PathBuf> {
    let name = dir.file_name().unwrap_or_default();
    let cargos = (name == "examples" || name == "deps").then(|| dir.join(".."));
    let mut places = vec![dir.to_owned()];
    places.extend(cargos);
    places.extend([dir.join("../libexec/hotmerge"), LIBEXEC.into()]);
    places
}

#[cfg(test)]
mod tests;

//! Why there is no worker, or no plugin in it.

use std::{io, path::PathBuf};

use hotmerge_loader::{ConstructorsError, advice, suspicions};
use hotmerge_meta::Untrusted;
use hotmerge_sandbox::{PolicyError, SpawnError, Unfiltered};
use rustix::io::Errno;

use crate::{
    failure::Failure,
    rules::{grants::UntrustedGrant, text_file::TextFileError},
};

/// Why no worker process could be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The host has no worker program.
    #[error("there is no worker program")]
    NoProgram,
    /// The host has no policy of system calls.
    #[error("there is no system call policy")]
    NoPolicy,
    /// The operator wants another user for it.
    #[error(
        "`user` is set for it, and only a host that is root can start it as another user; run \
         the host as root, or remove `user`"
    )]
    OtherUser,
    /// Another user could redirect a granted path.
    #[error(transparent)]
    Grant(#[from] UntrustedGrant),
    /// The file would run something while it is loaded that nothing can keep it from: the plugin's
    /// fault.
    #[error(transparent)]
    Constructors(#[from] ConstructorsError),
    /// The file alone takes more memory than it may have: the plugin's fault, too.
    #[error(
        "it needs {needs_mib} MiB of memory as soon as it is loaded, and `limits.memory_mib` gives \
         it {limit_mib}"
    )]
    TooLarge {
        /// What it needs.
        needs_mib: u64,
        /// What it may have.
        limit_mib: u64,
    },
    /// The policy of system calls cannot be compiled for its grants.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The system does not run the worker program.
    #[error("failed to run the worker program `{}`: {why}", .path.display())]
    NotRun {
        /// Where it is.
        path: PathBuf,
        /// Why, and what to do about it.
        why: &'static str,
    },
    /// The process could not be made.
    #[error("{0}{advice}", advice = advice(.0.system()))]
    Spawn(#[from] SpawnError),
    /// A step before or after that failed.
    #[error("failed to {step}: {source}{}", advice(source))]
    Step {
        /// What was to be done.
        step: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl LaunchError {
    /// Whether it would be the same on any system.
    pub(super) fn is_the_plugins(&self) -> bool {
        matches!(self, Self::Constructors(_) | Self::TooLarge { .. })
    }

    /// Whether the host lacks what it may have at another time: descriptors, memory, processes.
    pub(super) fn is_shortage(&self) -> bool {
        let code = match self {
            Self::Spawn(error) => error.system().raw_os_error(),
            Self::Step { source, .. } => source.raw_os_error(),
            _ => None,
        };
        const SHORT: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN];
        code.is_some_and(|code| SHORT.map(Errno::raw_os_error).contains(&code))
    }

    /// Says which step it was that the system refused.
    pub(super) fn at<E: Into<io::Error>>(step: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::Step {
            step,
            source: source.into(),
        }
    }
}

/// Why a plugin did not start in its process.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotStarted {
    /// The worker or the plugin says why.
    #[error("{0}")]
    Refused(String),
    /// The filters that it should have installed are unknown.
    #[error(transparent)]
    Policy(#[from] LaunchError),
    /// It has not confined itself.
    #[error(transparent)]
    Unfiltered(#[from] Unfiltered),
    /// The process ended, or had to be ended.
    #[error("its worker {0}")]
    Ended(Failure),
    /// It took too long.
    #[error("it did not start within {limit_ms} ms; its worker was ended, while {step}")]
    TooSlow {
        /// How long it may take.
        limit_ms: u128,
        /// What it was doing.
        step: &'static str,
    },
    /// It did not take over the state of the process before it.
    #[error("it did not restore the last state: {0}")]
    State(Box<Self>),
    /// The host's thread panicked.
    #[error("a thread of the host panicked")]
    Panicked,
}

/// Why a worker has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum End {
    /// Somebody wanted it.
    #[error("it was ended")]
    Asked,
    /// The plugin did not start in its first process.
    #[error("{0}")]
    NotStarted(String),
    /// There was no process, which is no fault of the plugin's.
    #[error("{0}")]
    NotLaunched(String),
}

/// Why workers cannot be had at all.
#[derive(Debug, thiserror::Error)]
pub enum NoWorkers {
    /// Crash reports come with a signal that kills a process without a handler for it.
    #[error("failed to install the handlers for workers' signals: {0}")]
    Signal(io::Error),
    /// The worker program is not where the configuration says.
    #[error("failed to open the worker program `{}`: {source}", .path.display())]
    Open {
        /// Where it should be.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another user could have written the worker program.
    #[error("the worker program `{}`: {source}", .path.display())]
    Untrusted {
        /// Where it is.
        path: PathBuf,
        /// Who could, and what to do.
        source: Untrusted,
    },
    /// The worker program is in no place where it is looked for.
    #[error(
        "there is no `{program}` in {}; set `worker` in the configuration",
        list(.places)
    )]
    NotFound {
        /// Its name.
        program: &'static str,
        /// Where it was looked for.
        places: Vec<PathBuf>,
    },
    /// The operator's policy of system calls cannot be used.
    #[error(transparent)]
    Policy(#[from] TextFileError),
}

fn list(places: &[PathBuf]) -> String {
    let places = places.iter().map(|place| format!("`{}`", place.display()));
    places.collect::<Vec<_>>().join(", ")
}

/// Why a plugin cannot be isolated as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsolationError {
    /// The sandbox lacks parts.
    #[error("the sandbox is incomplete ({0}), and the configuration says `degraded = \"refuse\"`")]
    Incomplete(String),
    /// The operator wants a process, and there are none.
    #[error("it must run in its own process, which this host cannot provide: {0}")]
    NoProcess(String),
    /// There are no processes, and nothing less will do.
    #[error(
        "this host cannot give it its own process ({0}), and the configuration says \
         `degraded = \"refuse\"`"
    )]
    DegradedRefused(String),
}

/// What interrupted a probe of the sandbox.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    /// There was no process for it.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// It did not finish.
    #[error("the probe {end}: {said}{}", suspicions())]
    Ended {
        /// How it ended.
        end: String,
        /// What it said before.
        said: String,
    },
}

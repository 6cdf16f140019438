//! Whether a host would accept the packages of a directory, judged by their files alone.
//!
//! A host judges each package by these functions before it starts anything; `hotmerge verify` uses the
//! same functions without a host, so that the two cannot disagree.
//!
//! Absent on purpose: what a plugin does when it starts, and what only a running host knows: which versions
//! have run, what an operator chose, and what this system provides.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use hotmerge_instance::{
    Settings,
    rules::{
        admission::{Inadmissible, admit},
        grants::{self, UntrustedGrant},
        policies,
        symbols::Groups,
        text_file::TextFileError,
    },
    settings::{Grant, Isolation, PluginSettings, Symbols},
};
use hotmerge_loader::{LoadError, Verified};
use hotmerge_meta::{
    META_FILE, Meta, PluginMeta, Trust, Untrusted, control::SignedStatus, read_trusted,
};

use crate::{
    Config,
    config::NotJson,
    find::{
        requirements::{self, Candidate},
        scan::{Scanner, open_dir, open_package},
        signed,
        unverified::Unverified,
    },
};

/// Largest plugin file, in bytes.
const LIMIT_BYTES: u64 = 1 << 30;

/// The judgement on one plugin, or on a package that cannot be read as one.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The name of the package's directory.
    pub package: String,
    /// The plugin, if the package can be read.
    pub plugin: Option<PluginMeta>,
    /// Who signed it, if with an accepted key.
    pub signed: Option<SignedStatus>,
    /// Why a host would refuse it.
    pub problem: Option<String>,
}

/// Why a directory cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The directory cannot be read.
    #[error("failed to read `{}`: {source}", .dir.display())]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another user may write to the package or to a directory above it.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// The symbol policy cannot be used.
    #[error(transparent)]
    Policy(#[from] TextFileError),
}

/// Judges a package, or every package of a plugin directory or a staging directory, as a host that starts on
/// that directory. Without a configuration every plugin is granted what its `plugin.meta` asks for. What a
/// package alone requires of others is not judged.
///
/// # Errors
/// If the directory cannot be judged.
pub fn judge(dir: &Path, config: Option<&Config>) -> Result<Vec<Judgement>, JudgeError> {
    let failed = |source| JudgeError::Dir {
        dir: dir.to_owned(),
        source,
    };
    let settings = config.map_or_else(|| Config::default().settings(), Config::settings);
    let groups = policies::symbols(&settings.policies)?;
    // Without a configuration there is no rule about owners.
    let trust = config.map_or_else(Trust::anybody, Config::trust);
    let judge = Judge {
        config,
        settings,
        groups,
        trust,
    };
    dir.read_dir().map_err(failed)?;
    if !dir.join(META_FILE).exists() {
        let mut all = judge.all(dir);
        judge_requirements(&mut all);
        return Ok(all);
    }
    let open = File::open(dir).map_err(failed)?;
    judge.trust.check_way(&open, dir)?;
    let name = dir.canonicalize().map_err(failed)?;
    let name = name.file_name().unwrap_or_default().to_string_lossy();
    Ok(match Meta::read_trusted(&open, &judge.trust) {
        Ok(meta) => {
            let plugins = meta.plugin.iter();
            plugins
                .map(|meta| judge.plugin(&name, &open, meta))
                .collect()
        }
        Err(error) => vec![unreadable(&name, error.to_string())],
    })
}

/// Adds the unmet requirements between the plugins of a directory.
fn judge_requirements(all: &mut [Judgement]) {
    let candidate = |it: &Judgement| {
        Some(Candidate {
            package: it.package.parse().ok()?,
            meta: Arc::new(it.plugin.clone()?),
            problem: it.problem.clone(),
        })
    };
    let refused = requirements::refused(all.iter().filter_map(candidate).collect());
    for judgement in all.iter_mut().filter(|it| it.problem.is_none()) {
        let name = judgement.plugin.as_ref().map(|meta| &meta.name);
        judgement.problem = name.and_then(|name| refused.get(name).cloned());
    }
}

/// Why a host would refuse a verified plugin before it starts the plugin's code.
#[derive(Debug, thiserror::Error)]
enum NotAdmitted {
    #[error(transparent)]
    Config(#[from] NotJson),
    #[error(transparent)]
    Rules(#[from] Inadmissible),
    #[error(transparent)]
    Grant(#[from] UntrustedGrant),
}

struct Judge<'a> {
    config: Option<&'a Config>,
    settings: Settings,
    groups: Groups,
    trust: Trust,
}

impl Judge<'_> {
    /// Judges what a first scan of a plugin directory finds, without time to settle.
    fn all(&self, dir: &Path) -> Vec<Judgement> {
        let findings = Scanner::new(dir.to_owned(), Duration::ZERO)
            .trusting(self.trust.clone())
            .scan(Instant::now());
        let problems = findings.problems.into_iter();
        let mut all: Vec<_> = problems
            .map(|problem| unreadable(&problem.package, problem.reason))
            .collect();
        for found in &findings.changed {
            let name = found.package.as_str();
            let open = open_dir(dir, &self.trust)
                .map_err(Unverified::from)
                .and_then(|root| Ok(open_package(&root, &found.package, &self.trust)?));
            all.push(match open {
                Ok(open) => self.plugin(name, &open, &found.meta),
                Err(error) => unreadable(name, error.to_string()),
            });
        }
        let name = |it: &Judgement| it.plugin.as_ref().map(|meta| meta.name.clone());
        all.sort_by_key(|it| (it.package.clone(), name(it)));
        all
    }

    fn plugin(&self, package: &str, open: impl AsFd, meta: &PluginMeta) -> Judgement {
        let by_default = Config::default();
        let config = self.config.unwrap_or(&by_default);
        let signed = signed::check(&open, meta, config);
        let (signed, signature) = match signed {
            Ok(signed) => (signed.map(|it| it.status()), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let judged = is_for_this_target(meta)
            .and(signature)
            .and_then(|()| verify(&open, meta, &self.trust));
        let problem = match judged {
            Ok(verified) => self.admit(&verified, meta).err().map(|it| it.to_string()),
            Err(error) => Some(error.to_string()),
        };
        Judgement {
            package: package.to_owned(),
            plugin: Some(meta.clone()),
            signed,
            problem,
        }
    }

    /// What would be said before the plugin's own code runs.
    fn admit(&self, verified: &Verified, meta: &PluginMeta) -> Result<(), NotAdmitted> {
        let config = self
            .config
            .unwrap_or(&Config::default())
            .plugin_json(&meta.name);
        config?;
        let own = self.own(meta);
        let isolation = match self.settings.isolation_of(meta.name.as_str()) {
            Some(Isolation::Host) => Isolation::Host,
            // This system is taken for one that provides the sandbox.
            _ => Isolation::Process,
        };
        let policy = (self.settings.symbols == Symbols::Enforce).then_some(&self.groups);
        admit(meta, verified, &own, isolation, policy)?;
        if isolation == Isolation::Host {
            return Ok(());
        }
        grants::check(&own.allow, own.user, &self.trust)?;
        Ok(())
    }

    fn own(&self, meta: &PluginMeta) -> PluginSettings {
        let own = self.settings.of(meta.name.as_str()).clone();
        match self.config {
            Some(_) => own,
            None => PluginSettings {
                allow: asked(meta),
                ..own
            },
        }
    }
}

/// The requests of a plugin, as if they were granted.
fn asked(meta: &PluginMeta) -> Vec<Grant> {
    let files = meta.wants.fs.iter().map(|path| Grant::Files {
        path: path.into(),
        write: true,
    });
    let network = meta.wants.net.then_some(Grant::Network);
    files.chain(network).collect()
}

fn unreadable(package: &str, reason: String) -> Judgement {
    Judgement {
        package: package.to_owned(),
        plugin: None,
        signed: None,
        problem: Some(reason),
    }
}

/// Whether a plugin claims to be built for this program's target.
pub(crate) fn is_for_this_target(meta: &PluginMeta) -> Result<(), Unverified> {
    if meta.target == crate::TARGET {
        return Ok(());
    }
    Err(Unverified::Refused(format!(
        "it was built for {}, this host is {}; build it for this target",
        meta.target,
        crate::TARGET
    )))
}

/// Reads a plugin's file out of its package and compares it with its meta.
pub(crate) fn verify(
    package: impl AsFd,
    meta: &PluginMeta,
    trust: &Trust,
) -> Result<Verified, Unverified> {
    let file = read(package, meta, LIMIT_BYTES, trust)?;
    Verified::new(file, meta).map_err(|error| match error {
        // Until the package has settled, the file may be incomplete.
        LoadError::Promise(_) | LoadError::Image(_) => {
            Unverified::Differs(format!("file `{}`: {error}", meta.file))
        }
        LoadError::Seal { .. } => Unverified::NoRoom(error.to_string()),
        _ => Unverified::Refused(error.to_string()),
    })
}

/// Reads a plugin's file out of its package.
pub(crate) fn read(
    package: impl AsFd,
    meta: &PluginMeta,
    limit_bytes: u64,
    trust: &Trust,
) -> Result<Vec<u8>, Unverified> {
    Ok(read_trusted(package, meta.file.as_str(), limit_bytes, trust)?.0)
}

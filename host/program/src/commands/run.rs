//! `hotmerge run`: one call of a plugin that no host runs.
//!
//! A host lives in this process for as long as the call takes, with no socket and no state on disk. So
//! what is refused, sandboxed and limited is what a host refuses, sandboxes and limits.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use hotmerge_daemon::{
    Call, CallError, Config, Host, Media, PluginError, Reply, StartError, TARGET, Watch,
    config::Isolation, context,
};
use hotmerge_meta::{
    Abi, FileName, Image, META_FILE, Meta, PackageName, PluginMeta, PluginName, publish,
};
use hotmerge_observe::{log, sinks::Plan};
use tempfile::TempDir;

use super::{host::configuration, request::Request};
use crate::{
    exit::{self, CommandError},
    log_sinks::Log,
    output,
};

/// Call a plugin without a running host and write the reply to standard output.
///
/// The plugin starts in its sandbox if this system provides one, answers the call, and ends.
#[derive(Args, Debug)]
pub(super) struct Run {
    /// Plugin file, package, or plugin or staging directory
    #[arg(value_name = "FILE_OR_DIR")]
    place: PathBuf,
    /// Method name
    method: String,
    /// Plugin name, if there are several
    #[arg(long, value_name = "NAME")]
    plugin: Option<PluginName>,
    #[command(flatten)]
    request: Request,
    /// Configuration file (TOML) of a host: grants, limits and the plugin's own configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Seconds to wait for the reply
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// What to log: a level, or levels per target
    #[arg(long, value_name = "FILTER", default_value = "plugin=info,warn")]
    log: String,
}

/// A directory that a host can scan, and the plugin in it that is meant.
struct Place {
    dir: PathBuf,
    plugin: PluginName,
    /// Removed at the end.
    _scratch: Option<TempDir>,
}

impl Run {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let _log = Log::start(log::Format::Text, &self.log, None, Plan::default())
            .map_err(|error| CommandError::new(exit::USAGE, error))?;
        let mut config = configuration(self.config.as_deref())?;
        let place = self.place()?;
        config.plugin_dir = Some(place.dir.clone());
        config.state_dir = None;
        config.watch = Watch::Off;
        let host = start(config)?;
        let answered = self.call(&host, &place.plugin);
        host.stop();
        output::write(answered?.bytes());
        Ok(())
    }

    fn call(&self, host: &Host, name: &PluginName) -> Result<Reply, CommandError> {
        let bytes = self.request.read()?;
        let media = Media::new(&self.request.content_type, &self.request.accept)
            .map_err(|error| CommandError::new(exit::USAGE, error))?;
        let plugin = host
            .plugin(name.as_str())
            .ok_or_else(|| CommandError::text(exit::REFUSED, refusal(host, name)))?;
        let context = context(Some(Duration::from_secs(self.timeout)));
        let call = Call::new(&context, &self.method, &bytes).with_media(media);
        let mut reply = Reply::default();
        match plugin.call(&call, &mut reply) {
            Ok(_) => Ok(reply),
            Err(CallError::NotLoaded(_)) => {
                Err(CommandError::text(exit::REFUSED, refusal(host, name)))
            }
            Err(error) => Err(CommandError::new(code(&error), error)),
        }
    }

    fn place(&self) -> Result<Place, CommandError> {
        let kind = fs::metadata(&self.place)
            .with_context(|| format!("failed to read `{}`", self.place.display()))?;
        let wanted = self.plugin.as_ref();
        if kind.is_file() {
            return copied(self.place.parent(), |dir| of_file(&self.place, dir));
        }
        if self.place.join(META_FILE).exists() {
            return copied(Some(&self.place), |dir| {
                let meta = Meta::read_path(dir)?;
                let plugin = chosen(meta.plugin.iter().map(|plugin| &plugin.name), wanted)?;
                Ok((meta, plugin))
            });
        }
        let judged = hotmerge_daemon::judge(&self.place, None)?;
        let plugins: Vec<_> = judged.iter().filter_map(|it| it.plugin.as_ref()).collect();
        let names = plugins.iter().map(|plugin| &plugin.name);
        Ok(Place {
            plugin: chosen(names, wanted).with_context(|| format!("`{}`", self.place.display()))?,
            dir: self.place.clone(),
            _scratch: None,
        })
    }
}

fn start(mut config: Config) -> Result<Host, CommandError> {
    config.isolation.get_or_insert(Isolation::Auto);
    let host = Host::start(config).map_err(|error| {
        let code = match error {
            StartError::Thread(_) => exit::FAILURE,
            _ => exit::CONFIG,
        };
        CommandError::new(code, error)
    })?;
    host.settle();
    Ok(host)
}

/// Publishes a package, or one plugin of it, where nobody else writes.
fn copied(
    dir: Option<&Path>,
    choose: impl FnOnce(&Path) -> anyhow::Result<(Meta, PluginName)>,
) -> Result<Place, CommandError> {
    let dir = match dir {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let (meta, plugin) = choose(dir).map_err(|error| CommandError::new(exit::REFUSED, error))?;
    let scratch = TempDir::new().context("failed to make a temporary directory")?;
    let package: PackageName = "run".parse().context("a package's name")?;
    let paths: Vec<_> = meta
        .plugin
        .iter()
        .map(|plugin| (plugin.file.clone(), dir.join(plugin.file.as_str())))
        .collect();
    let files: Vec<_> = paths
        .iter()
        .map(|(name, path)| (name.clone(), path.as_path()))
        .collect();
    publish(scratch.path(), &package, &meta, &files)
        .map_err(|error| CommandError::new(exit::REFUSED, error))?;
    Ok(Place {
        dir: scratch.path().to_owned(),
        plugin,
        _scratch: Some(scratch),
    })
}

/// What the `plugin.meta` beside a file says of it; what the file itself says if there is none.
fn of_file(file: &Path, dir: &Path) -> anyhow::Result<(Meta, PluginName)> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let said = Meta::read_path(dir).ok();
    let said = said.and_then(|meta| meta.plugin.into_iter().find(|it| it.file.as_str() == name));
    let plugin = match said {
        Some(plugin) => plugin,
        None => bare(file, &name)?,
    };
    let called = plugin.name.clone();
    Ok((Meta::new(vec![plugin])?, called))
}

fn bare(file: &Path, name: &str) -> anyhow::Result<PluginMeta> {
    let bytes = fs::read(file).with_context(|| format!("failed to read `{}`", file.display()))?;
    let refused = || format!("`{}` is not a plugin", file.display());
    let image = Image::normalise(bytes).with_context(refused)?;
    let header = image.header().with_context(refused)?;
    let stem = name.strip_prefix("lib").unwrap_or(name);
    let stem = stem.split('.').next().unwrap_or_default();
    Ok(PluginMeta {
        name: stem.to_lowercase().parse()?,
        version: "0.0.0".parse()?,
        file: name.parse::<FileName>()?,
        hash: image.digest(),
        size: image.len() as u64,
        abi: Abi::from(&header),
        target: TARGET.to_owned(),
        handover: Default::default(),
        requires: Vec::new(),
        wants: Default::default(),
    })
}

/// The plugin that is meant.
fn chosen<'a>(
    names: impl Iterator<Item = &'a PluginName>,
    wanted: Option<&PluginName>,
) -> anyhow::Result<PluginName> {
    let names: Vec<_> = names.collect();
    match (wanted, &names[..]) {
        (None, [only]) => Ok((*only).clone()),
        (Some(wanted), _) if names.contains(&wanted) => Ok(wanted.clone()),
        _ => {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            let is = match wanted {
                Some(wanted) => format!("there is no plugin `{wanted}`"),
                None => "`--plugin` must say which plugin".to_owned(),
            };
            anyhow::bail!("{is}; there are `{}`", names.join("`, `"))
        }
    }
}

/// Why the host does not run a plugin.
fn refusal(host: &Host, name: &PluginName) -> String {
    let status = host.status();
    let refused = status
        .plugins
        .iter()
        .find(|plugin| plugin.name == name.as_str());
    let reason = refused
        .and_then(|plugin| plugin.refused.as_ref())
        .map(|refused| refused.reason.clone());
    let problems = status.problems.iter().map(|problem| problem.reason.clone());
    let reasons: Vec<_> = reason.into_iter().chain(problems).collect();
    match &reasons[..] {
        [] => format!("`{name}` does not run"),
        reasons => format!("`{name}` does not run: {}", reasons.join("; ")),
    }
}

fn code(error: &CallError) -> u8 {
    match error {
        CallError::Plugin(error) => match error {
            PluginError::NoMethod(_) => exit::NO_METHOD,
            PluginError::Deadline => exit::DEADLINE,
            PluginError::Panicked(_) => exit::PANICKED,
            PluginError::ReplyTooLarge => exit::TOO_LARGE,
            _ => exit::CALL_FAILED,
        },
        _ => exit::FAILURE,
    }
}

//! Hosts and the plugins they run.

use std::{
    collections::HashMap,
    ffi::{c_char, c_int},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use hotmerge_daemon::{Config, Host as Running};
use hotmerge_meta::{PluginName, control::ReloadParams};
use serde::Serialize;

use crate::{
    code::{Failure, HM_FAILED, HM_NOT_FOUND, HM_STOPPED},
    events::Dispatcher,
    exported::{self, Buffer},
    fork,
};

/// A host, running or stopped.
pub struct Host {
    running: RwLock<Option<Arc<Running>>>,
    /// One handle per plugin, as long as the host runs the plugin under it.
    plugins: Mutex<HashMap<PluginName, &'static Plugin>>,
    pub(crate) events: Dispatcher,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

/// A plugin of a host, whichever version of it runs.
#[derive(Debug)]
pub struct Plugin {
    pub(crate) host: &'static Host,
    pub(crate) plugin: Arc<hotmerge_daemon::Plugin>,
}

/// Handles that were given out, so that they stay reachable for tools that look for leaks.
static HANDLES: Mutex<(Vec<&'static Host>, Vec<&'static Plugin>)> =
    Mutex::new((Vec::new(), Vec::new()));

fn handles() -> MutexGuard<'static, (Vec<&'static Host>, Vec<&'static Plugin>)> {
    HANDLES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// The host, unless it was stopped.
    pub(crate) fn running(&self) -> Result<Arc<Running>, Failure> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        running.clone().ok_or_else(stopped)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.running().is_err()
    }

    pub(crate) fn plugin(&'static self, name: &PluginName) -> Result<&'static Plugin, Failure> {
        let running = self.running()?;
        let plugin = running.plugin(name.as_str()).ok_or_else(|| {
            let why = refusal(&running, name);
            Failure::new(
                HM_NOT_FOUND,
                format!("the host runs no plugin `{name}`{why}"),
            )
        })?;
        let mut known = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        // A plugin that was removed and came back is another one.
        let old = known
            .get(name)
            .filter(|it| Arc::ptr_eq(&it.plugin, &plugin));
        Ok(old.copied().unwrap_or_else(|| {
            let new: &'static Plugin = Box::leak(Box::new(Plugin { host: self, plugin }));
            handles().1.push(new);
            known.insert(name.clone(), new);
            new
        }))
    }
}

fn stopped() -> Failure {
    Failure::new(HM_STOPPED, "this host has been stopped")
}

/// Why the host does not run a plugin, if it has refused it.
fn refusal(host: &Running, name: &PluginName) -> String {
    let plugins = host.status().plugins;
    let plugin = plugins.iter().find(|plugin| plugin.name == name.as_str());
    let refused = plugin.and_then(|plugin| plugin.refused.as_ref());
    refused.map_or_else(String::new, |refused| format!(": {}", refused.reason))
}

pub(crate) fn name(text: &str) -> Result<PluginName, Failure> {
    text.parse()
        .map_err(|error| Failure::invalid(format!("`{text}` is not a plugin name: {error}")))
}

fn give(value: &impl Serialize, buffer: &mut Buffer<'_>) -> Result<(), Failure> {
    let json = serde_json::to_vec(value)
        .map_err(|error| Failure::new(HM_FAILED, format!("failed to write JSON: {error}")))?;
    buffer.fill(&json)
}

/// The version of this library, for example "0.1.0". The text belongs to the library and stays for ever.
#[unsafe(no_mangle)]
pub extern "C" fn hm_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Starts a host and waits until it has tried all plugins once.
///
/// `configuration` is the text of a configuration in TOML, as in `hotmerge.toml(5)`; it needs at least
/// `plugin_dir` and `isolation`. Plugins that cannot be started are not an error; `hm_status` has the reasons.
/// `*host` is set only if the host runs. A process may run several hosts.
///
/// # Safety
/// `configuration` is text that ends with NUL, `host` a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_start(configuration: *const c_char, host: *mut *const Host) -> c_int {
    exported::run(|| {
        // SAFETY: the caller's promise.
        let (text, host) = unsafe {
            (
                exported::text(configuration, "configuration")?,
                exported::place(host, "host")?,
            )
        };
        fork::watch();
        let config = Config::parse(text)
            .map_err(|error| Failure::invalid(format!("configuration: {error}")))?;
        if config.isolation.is_none() {
            return Err(Failure::invalid(
                "configuration: `isolation` is missing; set it to \"process\", which needs the \
                 program `hotmerge-worker`, or to \"host\" for plugins that are trusted like this program",
            ));
        }
        let running =
            Running::start(config).map_err(|error| Failure::new(HM_FAILED, error.to_string()))?;
        running.settle();
        let handle: &'static Host = Box::leak(Box::new(Host {
            running: RwLock::new(Some(Arc::new(running))),
            plugins: Mutex::default(),
            events: Dispatcher::default(),
        }));
        handles().0.push(handle);
        *host = handle;
        Ok(())
    })
}

/// Stops a host: calls under way are answered, plugins are torn down, callbacks of events end. A second
/// time is refused (`HM_STOPPED`), from however many threads.
///
/// `HM_FAILED` if plugins have not ended in time; the host is stopped anyway.
///
/// # Safety
/// `host` is null or comes from `hm_start`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_stop(host: *const Host) -> c_int {
    exported::run(|| {
        // SAFETY: the caller's promise; such handles are never freed.
        let host: &'static Host = unsafe { exported::reference(host, "host") }?;
        let running = host
            .running
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or_else(stopped)?;
        let left = running.stop();
        host.events.close();
        match left {
            0 => Ok(()),
            left => Err(Failure::new(
                HM_FAILED,
                format!("{left} plugins have not ended in time"),
            )),
        }
    })
}

/// A handle of a plugin, for all its versions. The same plugin has one handle; nobody frees it.
///
/// `HM_NOT_FOUND` if the host runs no such plugin; the sentence says why, if it was refused.
///
/// # Safety
/// `host` comes from `hm_start`, `name` is text that ends with NUL, `plugin` a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_plugin(
    host: *const Host,
    name: *const c_char,
    plugin: *mut *const Plugin,
) -> c_int {
    exported::run(|| {
        // SAFETY: the caller's promise; handles of hosts are never freed.
        let (host, text, plugin): (&'static Host, _, _) = unsafe {
            (
                exported::reference(host, "host")?,
                exported::text(name, "name")?,
                exported::place(plugin, "plugin")?,
            )
        };
        *plugin = host.plugin(&self::name(text)?)?;
        Ok(())
    })
}

/// Scans the plugin directory, waits until every change has an outcome, and writes a report in JSON: what
/// `hotmerge reload --json` prints. `plugin` limits the report to one plugin; null means all.
///
/// `HM_TOO_SMALL` leaves the buffer untouched; the scan is done. `buffer` may be null with a capacity
/// of 0 for those who want no report.
///
/// # Safety
/// `host` comes from `hm_start`, `plugin` is null or text that ends with NUL, `capacity` bytes at `buffer`
/// can be written, and so can `*length`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_reload(
    host: *const Host,
    plugin: *const c_char,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
) -> c_int {
    exported::run(|| {
        // SAFETY: the caller's promise.
        let (host, plugin, mut buffer) = unsafe {
            (
                exported::reference(host, "host")?,
                exported::optional_text(plugin, "plugin")?,
                Buffer::new(buffer, capacity, length)?,
            )
        };
        let mut params = ReloadParams::default();
        if let Some(plugin) = plugin {
            params.plugins = Some(vec![name(plugin)?]);
            params.only = true;
        }
        let report = host.running()?.reload(&params);
        give(&report, &mut buffer)
    })
}

/// Writes the status of the host in JSON: what `hotmerge status --json` prints.
///
/// # Safety
/// As `hm_reload`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_status(
    host: *const Host,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
) -> c_int {
    exported::run(|| {
        // SAFETY: the caller's promise.
        let (host, mut buffer) = unsafe {
            (
                exported::reference(host, "host")?,
                Buffer::new(buffer, capacity, length)?,
            )
        };
        give(&host.running()?.status(), &mut buffer)
    })
}

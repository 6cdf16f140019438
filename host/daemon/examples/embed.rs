//! A program with a host inside: no control socket, no pid file, no signals of its own.
//!
//! ```text
//! cargo build --package hotmerge-worker
//! cargo xtask build-plugins --staging staging --notify never
//! cargo run --package hotmerge-daemon --example embed -- staging counter add process
//! ```
//!
//! With `process` plugins run in sandboxed processes, for which the host needs the program
//! `hotmerge-worker`: the one that was just built, or the one that `HOTMERGE_WORKER` names. Without it
//! they run in this process, unsandboxed: for plugins that are trusted like this program.
//!
//! Calls the plugin once, then once for each line on standard input, with the line as the
//! request and after another scan of the plugin directory; prints which version answered.
//! Build the plugins again between two lines and the next answer is a new version's.
//! Ends with standard input.
//!
//! The scan before each call only makes the moment of a reload certain: the host watches the
//! directory by itself.

#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, BufRead as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use hotmerge_daemon::{Call, Config, Host, Reply, config::Isolation, context};

/// The largest reply that this program accepts, in bytes.
const REPLY_LIMIT: usize = 1 << 20;

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let (dir, plugin, method, isolation) = match &arguments[..] {
        [dir, plugin, method] => (dir, plugin, method, Isolation::Host),
        [dir, plugin, method, how] if how == "process" => (dir, plugin, method, Isolation::Process),
        _ => bail!("usage: embed PLUGIN_DIR PLUGIN METHOD [process]"),
    };
    // Log records of the host and its plugins go to the program's own subscriber.
    tracing_subscriber::fmt().with_writer(io::stderr).init();

    let mut config = Config::default();
    config.plugin_dir = Some(dir.into());
    // The embedding program chooses where plugins run: there is no default.
    config.isolation = Some(isolation);
    if isolation == Isolation::Process {
        // By default the host looks beside this program and in the places that `Config::worker` lists.
        config.worker = env::var_os("HOTMERGE_WORKER").map(PathBuf::from);
        if let Err(reason) = Host::worker_program(&config) {
            // Otherwise each plugin would be refused with this reason.
            bail!("plugins must run in worker processes: {reason}");
        }
    }
    let host = Host::start(config)?;
    host.settle();
    answer(&host, plugin, method, b"");

    for line in io::stdin().lock().lines() {
        let line = line.context("failed to read standard input")?;
        host.rescan();
        host.settle();
        answer(&host, plugin, method, line.as_bytes());
    }
    match host.stop() {
        0 => Ok(()),
        stuck => bail!("{stuck} plugins have not ended in time"),
    }
}

/// Calls the plugin and prints the outcome. A failed call affects nothing else.
fn answer(host: &Host, plugin: &str, method: &str, request: &[u8]) {
    // A handle lasts for every version: a program that calls often keeps it.
    let Some(handle) = host.plugin(plugin) else {
        println!("no plugin `{plugin}`{}", refusal(host, plugin));
        return;
    };
    let mut reply = Reply::with_limit(REPLY_LIMIT);
    match handle.call(&Call::new(&context(None), method, request), &mut reply) {
        Ok(answered) => println!(
            "generation {}: {}",
            answered.generation,
            String::from_utf8_lossy(reply.bytes())
        ),
        Err(error) => println!("{error}"),
    }
}

/// Why the host does not run a plugin, if it has refused it.
fn refusal(host: &Host, name: &str) -> String {
    let plugins = host.status().plugins;
    let plugin = plugins.iter().find(|plugin| plugin.name == name);
    let refused = plugin.and_then(|plugin| plugin.refused.as_ref());
    refused.map_or_else(String::new, |refused| format!(": {}", refused.reason))
}

//! A program with a host inside: no control socket, no pid file, no signals of its own.
//!
//! ```text
//! cargo xtask build-plugins --staging staging --notify never
//! cargo run --package hotmerge-daemon --example embed -- staging counter add
//! ```
//!
//! Calls the plugin once, then once for each line on standard input, with the line as the
//! request and after another look at the plugin directory; prints which version answered.
//! Build the plugins again between two lines and the next answer is a new version's.
//! Ends with standard input.
//!
//! The look before each call only makes the moment of a reload certain: the host watches the
//! directory by itself.

#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, BufRead as _},
};

use anyhow::{Context as _, Result, bail};
use hotmerge_daemon::{Call, Config, Host, Reply, context};

/// The largest reply that this program takes, in bytes.
const REPLY_LIMIT: usize = 1 << 20;

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [dir, plugin, method] = &arguments[..] else {
        bail!("usage: embed PLUGIN_DIR PLUGIN METHOD");
    };
    // What the host and its plugins have to say goes to the program's own subscriber.
    tracing_subscriber::fmt().with_writer(io::stderr).init();

    let mut config = Config::default();
    config.plugin_dir = Some(dir.into());
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

/// Calls the plugin and prints what came of it. A call that fails disturbs nothing else.
fn answer(host: &Host, plugin: &str, method: &str, request: &[u8]) {
    // A handle lasts for every version: a program that calls often keeps it.
    let Some(handle) = host.plugin(plugin) else {
        println!("no plugin `{plugin}`");
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

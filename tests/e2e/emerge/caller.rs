//! Calls plugins over and over until its input ends, then says what became of the calls.
//!
//! A program of its own, because it must run in a lab: a host tells who calls by process, and
//! sees none outside of its own name space.

#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, Write as _},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use hotmerge_meta::{
    PluginName, RuntimeDir,
    control::{CallParams, CallReply, Client, method},
};

/// Between two rounds; the machine has `emerge` to run as well.
const PAUSE: Duration = Duration::from_millis(2);

/// How long an answer may take before it counts as a failure.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let dir = RuntimeDir::new(arguments.next().context("usage: caller DIR PLUGIN...")?);
    let plugins = arguments
        .map(PluginName::new)
        .collect::<Result<Vec<_>, _>>()?;
    let mut client = Client::connect(&dir)?;
    let (end, ended) = channel::<()>();
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        drop(end);
    });

    let (mut answered, mut failed, mut greetings) = (0_u64, Vec::new(), Vec::new());
    while ended.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        for plugin in &plugins {
            match greet(&mut client, plugin) {
                Ok(greeting) => {
                    answered += 1;
                    if !greetings.contains(&greeting) {
                        greetings.push(greeting);
                    }
                }
                Err(error) => failed.push(format!("{plugin}: {error:#}")),
            }
        }
    }
    let tally = serde_json::json!({
        "answered": answered,
        "failed": failed,
        "greetings": greetings,
    });
    // Nobody may be left who wants to know.
    let _ = writeln!(io::stdout(), "{tally}");
    Ok(())
}

fn greet(client: &mut Client, plugin: &PluginName) -> Result<String> {
    let params = CallParams {
        plugin: plugin.clone(),
        method: "greet".into(),
        input_base64: b"Larry".to_vec().into(),
        deadline_ms: None,
        trace: None,
        content_type: String::new(),
        accept: String::new(),
    };
    let reply: CallReply = client.request(method::CALL, &params, PATIENCE)?;
    let text = String::from_utf8(reply.output_base64.0)?;
    let (greeting, name) = text.split_once(", ").context("a greeting and a name")?;
    ensure!(name == "Larry!", "the answer to another call: {text}");
    Ok(greeting.to_owned())
}

//! Calls that go on while packages come and go.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use hotmerge_meta::{
    PluginName,
    control::{CallParams, CallReply, Client, method},
};

use crate::lab::{Lab, PATIENCE};

/// Between two rounds of calls; the machine has `emerge` to run as well.
const PAUSE: Duration = Duration::from_millis(2);

/// Calls under way, to each of some plugins in turn, until they are counted.
pub(crate) struct Calls {
    stop: Sender<()>,
    caller: JoinHandle<Tally>,
}

/// What became of the calls.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub answered: u64,
    /// What went wrong, word by word.
    pub failed: Vec<String>,
    /// Every greeting that was seen, once, in the order of appearance.
    pub greetings: Vec<String>,
}

impl Calls {
    /// Starts calling.
    pub(crate) fn start(lab: &Lab, plugins: &[&str]) -> Result<Self> {
        let client = Client::connect(&lab.runtime_dir()?)?;
        let plugins = plugins
            .iter()
            .map(|name| PluginName::new(*name).map_err(Into::into))
            .collect::<Result<Vec<_>>>()?;
        let (stop, stopped) = channel();
        let caller = thread::spawn(move || call(client, &plugins, &stopped));
        Ok(Self { stop, caller })
    }

    /// Stops calling; an error unless there were calls and every one was answered.
    pub(crate) fn none_failed(self) -> Result<Tally> {
        let _ = self.stop.send(());
        let tally = self.caller.join().expect("the caller does not panic");
        ensure!(tally.failed.is_empty(), "calls failed: {:?}", tally.failed);
        ensure!(tally.answered > 0, "there were no calls");
        Ok(tally)
    }
}

fn call(mut client: Client, plugins: &[PluginName], stopped: &Receiver<()>) -> Tally {
    let mut tally = Tally::default();
    while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        for plugin in plugins {
            match greet(&mut client, plugin) {
                Ok(greeting) => {
                    tally.answered += 1;
                    if !tally.greetings.contains(&greeting) {
                        tally.greetings.push(greeting);
                    }
                }
                Err(error) => tally.failed.push(format!("{plugin}: {error:#}")),
            }
        }
    }
    tally
}

/// Calls `greet` once.
fn greet(client: &mut Client, plugin: &PluginName) -> Result<String> {
    let params = CallParams {
        plugin: plugin.clone(),
        method: "greet".into(),
        input_base64: b"Larry".to_vec().into(),
        deadline_ms: None,
        trace: None,
    };
    let reply: CallReply = client.request(method::CALL, &params, PATIENCE)?;
    let text = String::from_utf8(reply.output_base64.0)?;
    let (greeting, name) = text.split_once(", ").context("a greeting and a name")?;
    ensure!(name == "Larry!", "the answer to another call: {text}");
    Ok(greeting.to_owned())
}

/// What a plugin greets with now.
pub(crate) fn greeting(lab: &Lab, plugin: &str) -> Result<String> {
    let mut client = Client::connect(&lab.runtime_dir()?)?;
    greet(&mut client, &PluginName::new(plugin)?)
}

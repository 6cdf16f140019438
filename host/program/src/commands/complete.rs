//! What shells complete that only a running host knows: names of plugins and of their methods.
//!
//! A shell that completes runs the program again and waits, so everything is asked with little time,
//! and what goes wrong completes nothing.

use std::{
    ffi::{OsStr, OsString},
    time::Duration,
};

use clap::Command;
use clap_complete::{CompletionCandidate, engine::ArgValueCompleter, env::CompleteEnv};
use hotmerge_meta::{
    RuntimeDir,
    control::{Client, Description, PluginParams, Status, method},
};
use serde::{Serialize, de::DeserializeOwned};

/// Set by the scripts of `hotmerge completions`.
pub(super) const VARIABLE: &str = "HOTMERGE_COMPLETE";

/// How long a shell waits at most for each question.
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers a shell that completes; returns whether one did.
///
/// # Errors
/// What clap says, such as that the shell is unknown.
pub(super) fn answered(commands: impl Fn() -> Command) -> Result<bool, clap::Error> {
    let here = std::env::current_dir().ok();
    CompleteEnv::with_factory(commands)
        .var(VARIABLE)
        .try_complete(std::env::args_os(), here.as_deref())
}

/// Completes the name of a running plugin.
pub(super) fn plugins() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let status: Option<Status> = ask(method::STATUS, &());
        let plugins = status.map(|status| status.plugins).unwrap_or_default();
        let names = plugins
            .into_iter()
            .map(|plugin| (plugin.name, String::new()));
        candidates(names, current)
    })
}

/// Completes the name of a method of the plugin that stands before it in a command, if it describes
/// itself.
pub(super) fn methods(command: fn() -> Command) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| {
        let words: Vec<_> = std::env::args_os().collect();
        let plugin = plugin_in(&words, &command()).and_then(|name| name.parse().ok());
        let description: Option<Description> =
            plugin.and_then(|plugin| ask(method::DESCRIBE, &PluginParams { plugin }));
        let methods = description.map(|it| it.methods).unwrap_or_default();
        let names = methods
            .into_iter()
            .map(|method| (method.name, method.summary));
        candidates(names, current)
    })
}

fn candidates(
    all: impl Iterator<Item = (String, String)>,
    current: &OsStr,
) -> Vec<CompletionCandidate> {
    let begin = current.to_string_lossy();
    // A plugin's word could be anything, and a shell reads it.
    let is_plain = |text: &str| text.chars().all(|sign| !sign.is_control());
    all.filter(|(name, _)| name.starts_with(&*begin) && is_plain(name))
        .map(|(name, help)| {
            let help = (!help.is_empty() && is_plain(&help)).then(|| help.into());
            CompletionCandidate::new(name).help(help)
        })
        .collect()
}

/// The word after the command that is neither an option nor the value of one.
fn plugin_in<'a>(words: &'a [OsString], command: &Command) -> Option<&'a str> {
    let takes_value = |name: &str| {
        let mut options = command.get_arguments();
        let option = options.find(|option| option.get_long() == Some(name));
        option.is_some_and(|option| option.get_action().takes_values())
    };
    let mut words = words.iter().map(|word| word.to_str().unwrap_or_default());
    words.find(|word| *word == command.get_name())?;
    while let Some(word) = words.next() {
        match word.strip_prefix("--") {
            None => return Some(word),
            Some(option) if takes_value(option) => drop(words.next()),
            Some(_) => {}
        }
    }
    None
}

fn ask<R: DeserializeOwned>(method: &str, params: &impl Serialize) -> Option<R> {
    let words: Vec<_> = std::env::args_os().collect();
    let mut client = Client::connect(&runtime_dir(&words)).ok()?;
    client.request(method, params, PATIENCE).ok()
}

/// As the command that is being written would have it.
fn runtime_dir(words: &[OsString]) -> RuntimeDir {
    let mut words = words.iter().map(|word| word.to_str().unwrap_or_default());
    let written = words.find_map(|word| match word.strip_prefix("--runtime-dir")? {
        "" => Some(None),
        value => value.strip_prefix('=').map(Some),
    });
    let written = written.and_then(|value| value.map_or_else(|| words.next(), Some));
    let by_default = || std::env::var_os(RuntimeDir::VARIABLE).filter(|value| !value.is_empty());
    RuntimeDir::chosen(written.map(OsString::from).or_else(by_default))
}

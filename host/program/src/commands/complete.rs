//! What shells complete that only a running host knows: names of plugins and of their methods.
//!
//! A shell that completes runs the program again and waits, so everything is asked with little time,
//! and what goes wrong completes nothing.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    time::Duration,
};

use clap::Command;
use clap_complete::{
    CompletionCandidate,
    engine::ArgValueCompleter,
    env::{EnvCompleter, Shells},
};
use hotmerge_meta::{
    RuntimeDir,
    control::{Client, Description, PluginParams, Status, method},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{exit::CommandError, output};

/// Set by the scripts of `hotmerge completions`.
pub(super) const VARIABLE: &str = "HOTMERGE_COMPLETE";

/// How long a shell waits at most for each question.
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers a shell that completes; returns whether one did.
///
/// The same as clap's `CompleteEnv`, which takes output that cannot be written for wrong usage.
///
/// # Errors
/// If the shell is unknown.
pub(super) fn answered(commands: impl Fn() -> Command) -> Result<bool, CommandError> {
    let is_asked = |shell: &OsString| !shell.is_empty() && shell != "0";
    let Some(shell) = std::env::var_os(VARIABLE).filter(is_asked) else {
        return Ok(false);
    };
    let shell = completer(&shell)?;
    let mut command = commands();
    command.build();
    // Before the first `--` are the program's own words, behind it those to complete.
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    let words: Vec<_> = words.skip_while(|word| word != "--").skip(1).collect();
    let here = std::env::current_dir().ok();
    let mut answer = Vec::new();
    if words.is_empty() {
        let name = command.get_name();
        let program = again(&program, here.as_deref());
        shell.write_registration(VARIABLE, name, name, &program, &mut answer)?;
    } else {
        shell.write_complete(&mut command, words, here.as_deref(), &mut answer)?;
    }
    output::write(&answer);
    Ok(true)
}

/// The variable holds a shell's name, or its path.
fn completer(shell: &OsStr) -> Result<&'static dyn EnvCompleter, CommandError> {
    let name = Path::new(shell).file_stem().unwrap_or(shell);
    let shells: &'static Shells<'static> = &SHELLS;
    shells.completer(&name.to_string_lossy()).ok_or_else(|| {
        let known: Vec<_> = shells.names().collect();
        let unknown = name.display();
        CommandError::usage(format!(
            "error: `{VARIABLE}` names the unknown shell `{unknown}`; there are `{}`\n",
            known.join("`, `")
        ))
    })
}

const SHELLS: Shells<'static> = Shells::builtins();

/// How a shell in any directory starts the program that was started by this word.
fn again(program: &OsStr, here: Option<&Path>) -> String {
    let program = Path::new(program);
    let path = match here {
        Some(here) if program.components().count() > 1 => here.join(program),
        _ => program.to_owned(),
    };
    path.to_string_lossy().into_owned()
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

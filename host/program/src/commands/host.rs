//! What commands that talk to a host, or read its configuration, have in common.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use hotmerge_daemon::Config;
use hotmerge_meta::{
    PluginName, RuntimeDir,
    control::{Client, ClientError, ConnectError, PluginStatus, Status, code, method},
    plain,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::exit::{self, CommandError};

/// How long to wait for the status that names slow plugins.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// Which host is meant.
#[derive(Args, Debug)]
pub(super) struct HostArguments {
    /// Directory of the host's control socket and pid file [default: /run/hotmerge for root,
    /// otherwise $XDG_RUNTIME_DIR/hotmerge, otherwise /tmp/hotmerge-UID]
    #[arg(long, value_name = "DIR", env = RuntimeDir::VARIABLE)]
    runtime_dir: Option<PathBuf>,
}

impl HostArguments {
    pub(super) fn dir(&self) -> RuntimeDir {
        RuntimeDir::chosen(self.runtime_dir.as_ref())
    }

    /// Asks the host and waits up to `timeout` for its answer.
    pub(super) fn ask<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &impl Serialize,
        timeout: Duration,
    ) -> Result<R, CommandError> {
        Self::request(&mut self.connect()?, method, params, timeout)
    }

    /// Connects to the host.
    pub(super) fn connect(&self) -> Result<Client, CommandError> {
        Client::connect(&self.dir()).map_err(|error| {
            let code = match error {
                ConnectError::NotRunning { .. } => exit::NO_HOST,
                ConnectError::Denied { .. } | ConnectError::Stranger { .. } => exit::DENIED,
                _ => exit::FAILURE,
            };
            CommandError::new(code, error)
        })
    }

    /// Asks the host on an open connection and waits up to `timeout` for its answer.
    pub(super) fn request<R: DeserializeOwned>(
        client: &mut Client,
        method: &str,
        params: &impl Serialize,
        timeout: Duration,
    ) -> Result<R, CommandError> {
        client.request(method, params, timeout).map_err(|error| {
            let code = match &error {
                ClientError::Refused(refused) => refusal(refused.code()),
                ClientError::TimedOut(_) => exit::DEADLINE,
                ClientError::TooLong(_) => exit::TOO_LARGE,
                _ => exit::FAILURE,
            };
            CommandError::new(code, error)
        })
    }
}

/// The exit code for what a host refuses.
fn refusal(code: i32) -> u8 {
    match code {
        code::DENIED => exit::DENIED,
        code::NO_PLUGIN => exit::NO_PLUGIN,
        code::NO_PLUGIN_METHOD => exit::NO_METHOD,
        code::PLUGIN_FAILED
        | code::BAD_REQUEST
        | code::NOT_ACCEPTABLE
        | code::UNSUPPORTED_MEDIA => exit::CALL_FAILED,
        code::DEADLINE => exit::DEADLINE,
        code::PANICKED => exit::PANICKED,
        code::REPLY_TOO_LARGE => exit::TOO_LARGE,
        _ => exit::FAILURE,
    }
}

/// A host that is to change what it runs, and how to report the result.
#[derive(Args, Debug)]
pub(super) struct Change {
    #[command(flatten)]
    host: HostArguments,
    /// Seconds to wait for the host
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

impl Change {
    pub(super) fn ask<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &impl Serialize,
    ) -> Result<R, CommandError> {
        let timeout = Duration::from_secs(self.timeout);
        self.host.ask(method, params, timeout)
    }

    /// Names the plugins that made a request exceed its timeout: the host answers only once they
    /// are done. `asked` limits them; if it is empty, any plugin counts.
    pub(super) fn name_slow_plugins(
        &self,
        error: CommandError,
        asked: &[PluginName],
    ) -> CommandError {
        if error.code() != exit::DEADLINE {
            return error;
        }
        match self.host.ask::<Status>(method::STATUS, &(), STATUS_TIMEOUT) {
            Ok(status) => slow_plugins(&status.plugins, asked)
                .map(|slow| {
                    let limit = self.timeout;
                    let reason =
                        format!("not done after {limit} s: {slow}; running versions keep serving");
                    CommandError::text(exit::DEADLINE, reason)
                })
                .unwrap_or(error),
            // Then the host itself is what is slow.
            Err(_) => error,
        }
    }
}

/// The plugins that have a candidate, and its stage.
fn slow_plugins(plugins: &[PluginStatus], asked: &[PluginName]) -> Option<String> {
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|it| it.as_str() == name);
    let slow: Vec<_> = plugins
        .iter()
        .filter(|plugin| is_asked(&plugin.name))
        .filter_map(|plugin| Some(format!("`{}` ({})", plain(&plugin.name), plugin.stage?)))
        .collect();
    (!slow.is_empty()).then(|| slow.join(", "))
}

/// The configuration that a file has, or everything by default.
pub(super) fn configuration(path: Option<&Path>) -> Result<Config, CommandError> {
    path.map_or_else(|| Ok(Config::default()), Config::read)
        .map_err(|error| CommandError::new(exit::CONFIG, error))
}

//! Notifies the running host and waits for its result.
//!
//! A hint is enough to make a host rescan; the control socket also reports the result. Whatever
//! happens here, staged packages stay staged.

use std::time::Duration;

use hotmerge_meta::{
    PluginName, RuntimeDir,
    control::{Client, ConnectError, ReloadParams, ReloadReport, method},
    runtime::{Signalled, send_hup},
};

/// By default a host retires the old version of a plugin within 30 s, after starting the new
/// one: after twice that the host is stuck.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Whether to notify a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Notify {
    /// Notify the host if one runs
    #[default]
    Auto,
    /// Notify no host
    Never,
    /// Fail unless a host runs and answers
    Require,
}

/// The result of notifying the host.
#[derive(Debug)]
pub(crate) enum Notified {
    /// No notification was requested.
    Skipped,
    /// No host runs.
    NoHost(String),
    /// The host has rescanned; this is what it did.
    Report(ReloadReport),
    /// A host exists, but its result is unknown, and why.
    Unknown(String),
}

/// A connection to a host. It is opened before anything is staged: a host that watches its
/// directory may act before the request arrives, and then its history has the result.
pub(crate) struct Host {
    dir: RuntimeDir,
    connection: Result<(Client, Option<u64>), ConnectError>,
}

impl Host {
    /// Connects to the host of `dir`.
    pub(crate) fn find(dir: RuntimeDir) -> Self {
        let connection = Client::connect(&dir).map(|mut client| {
            // Without a position the request still covers everything from now on.
            let position = client.request(method::POSITION, &(), TIMEOUT).ok();
            (client, position)
        });
        Self { dir, connection }
    }

    /// Asks the host to rescan and to report on `plugins`.
    pub(crate) fn notify(self, plugins: Vec<PluginName>) -> Notified {
        match self.connection {
            Ok((client, since)) => ask(client, plugins, since),
            Err(refusal) => hint(&self.dir, &refusal),
        }
    }
}

fn ask(mut client: Client, plugins: Vec<PluginName>, since: Option<u64>) -> Notified {
    let params = ReloadParams {
        plugins: Some(plugins),
        since,
        ..ReloadParams::default()
    };
    match client.request(method::RELOAD, &params, TIMEOUT) {
        Ok(report) => Notified::Report(report),
        Err(error) => Notified::Unknown(error.to_string()),
    }
}

/// Falls back to a signal: the socket may be unreachable while the host is not.
fn hint(dir: &RuntimeDir, refusal: &ConnectError) -> Notified {
    match send_hup(dir) {
        Ok(Signalled::Sent(pid)) => Notified::Unknown(format!(
            "sent SIGHUP to the host with pid {} instead of a request: {refusal}",
            pid.as_raw_nonzero()
        )),
        Ok(Signalled::Starting) => {
            Notified::Unknown("a host is starting and will load the staged plugins".into())
        }
        Ok(Signalled::NotRunning) => Notified::NoHost(refusal.to_string()),
        Err(error) => Notified::Unknown(error.to_string()),
    }
}

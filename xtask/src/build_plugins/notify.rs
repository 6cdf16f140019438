//! Telling the running host, and waiting for what it says.
//!
//! A hint is enough for a host to look; the control socket also answers. Whatever happens
//! here, what was staged stays staged.

use std::time::Duration;

use hotmerge_meta::{
    PluginName, RuntimeDir,
    control::{Client, ConnectError, ReloadParams, ReloadReport, method},
    runtime::{Signalled, send_hup},
};

/// A host ends the old version of a plugin within 30 s by default, and starts the new one
/// before: twice that is a host that is stuck.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Whether a host is to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Notify {
    /// Tell the host if one runs
    #[default]
    Auto,
    /// Tell nobody
    Never,
    /// Fail unless a host runs and answers
    Require,
}

/// What came of telling the host.
#[derive(Debug)]
pub(crate) enum Told {
    /// Nobody was to be told.
    Nobody,
    /// Nobody runs.
    NoHost(String),
    /// The host has looked, and this is what it did.
    Answer(ReloadReport),
    /// There is a host, but what it did is not known, and why.
    Unknown(String),
}

/// The way to a host. It is opened before anything is staged: a host that watches its
/// directory may be faster than the request, and then its history says what it did.
pub(crate) struct Host {
    dir: RuntimeDir,
    connection: Result<(Client, Option<u64>), ConnectError>,
}

impl Host {
    /// Looks for the host of `dir`.
    pub(crate) fn find(dir: RuntimeDir) -> Self {
        let connection = Client::connect(&dir).map(|mut client| {
            // A host that cannot say is asked all the same, about what it does from then on.
            let position = client.request(method::POSITION, &(), TIMEOUT).ok();
            (client, position)
        });
        Self { dir, connection }
    }

    /// Asks the host to look at its packages, and to tell of `plugins`.
    pub(crate) fn tell(self, plugins: Vec<PluginName>) -> Told {
        match self.connection {
            Ok((client, since)) => ask(client, plugins, since),
            Err(refusal) => hint(&self.dir, &refusal),
        }
    }
}

fn ask(mut client: Client, plugins: Vec<PluginName>, since: Option<u64>) -> Told {
    let params = ReloadParams {
        plugins: Some(plugins),
        since,
        ..ReloadParams::default()
    };
    match client.request(method::RELOAD, &params, TIMEOUT) {
        Ok(report) => Told::Answer(report),
        Err(error) => Told::Unknown(error.to_string()),
    }
}

/// The socket may be out of reach while the host is not.
fn hint(dir: &RuntimeDir, refusal: &ConnectError) -> Told {
    match send_hup(dir) {
        Ok(Signalled::Sent(pid)) => Told::Unknown(format!(
            "sent SIGHUP to the host with pid {}, which cannot be asked: {}",
            pid.as_raw_nonzero(),
            match refusal {
                ConnectError::NotRunning { .. } => {
                    format!("nobody listens on `{}`", dir.control_socket().display())
                }
                refusal => refusal.to_string(),
            }
        )),
        Ok(Signalled::Starting) => {
            Told::Unknown("a host is starting; it will see by itself what is staged".into())
        }
        Ok(Signalled::NotRunning) => Told::NoHost(refusal.to_string()),
        Err(error) => Told::Unknown(error.to_string()),
    }
}

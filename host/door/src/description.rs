//! A plugin's description, requested from the live version.
//!
//! Absent on purpose: who may ask, and what becomes of it.

use std::time::Duration;

use hotmerge_daemon::{Answered, CallError, Plugin, PluginError, Reply, context};
use hotmerge_meta::control::{Description, DescriptionError};

/// How long a plugin may take to describe itself.
const LIMIT: Duration = Duration::from_secs(10);

/// The longest reply that is kept until it is judged, in bytes.
const REPLY_LIMIT: usize = 2 << 20;

/// Why there is no description.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undescribed {
    #[error("`{0}` does not describe itself")]
    Nothing(String),
    #[error("the description of `{0}` cannot be used: {1}")]
    Unusable(String, DescriptionError),
    #[error(transparent)]
    Failed(#[from] CallError),
}

/// Asks a plugin for its description.
pub(crate) fn of(plugin: &Plugin) -> Result<(Answered, Description), Undescribed> {
    let context = context(Some(LIMIT));
    let mut reply = Reply::with_limit(REPLY_LIMIT);
    let name = || plugin.name().to_string();
    let answered = match plugin.describe(&context, &mut reply) {
        Err(CallError::Plugin(PluginError::Unsupported)) => Err(Undescribed::Nothing(name())),
        Err(failed) => Err(failed.into()),
        Ok(answered) => Ok(answered),
    }?;
    let read = Description::read(reply.bytes());
    let description = read.map_err(|failed| Undescribed::Unusable(name(), failed))?;
    Ok((answered, description))
}

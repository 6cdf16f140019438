//! What each method of the control protocol does.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hotmerge_daemon::{Call, CallError, Cancel, Host, Media, PluginError, Reply, context};
use hotmerge_meta::control::{
    CallParams, CallReply, Description, ErrorObjectOwned, HistoryParams, MAX_FRAME_BYTES,
    PluginParams, ReloadParams, RollbackParams, code, method,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};

use crate::bounded::{cut, fit};

type Answer = Result<Box<RawValue>, ErrorObjectOwned>;

/// The longest answer, in bytes: a frame holds it and what is around it.
const ANSWER_LIMIT: usize = MAX_FRAME_BYTES - 4096;

/// Replies that are larger are encoded one at a time, in bytes.
const LARGE: usize = 256 * 1024;

/// The longest sentence of an error, in bytes.
const SENTENCE_LIMIT: usize = 64 * 1024;

/// How long a plugin may take to describe itself.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(10);

/// A reply travels as base64 inside one frame.
const REPLY_LIMIT: usize = MAX_FRAME_BYTES / 4 * 3 - 4096;

/// Told when somebody asks the host to stop.
pub trait AskToStop: Send + Sync + fmt::Debug {
    /// Must return at once.
    fn stop(&self);
}

/// What is behind the door.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) host: Arc<Host>,
    pub(crate) ask_to_stop: Box<dyn AskToStop>,
    /// Held while a large reply is encoded, which takes several times its size.
    pub(crate) encoding: Mutex<()>,
}

/// Whoever asks, and may go away before there is an answer.
pub(crate) trait Client {
    /// Runs a call, and cancels it if the client goes meanwhile.
    fn while_connected(&self, cancel: &Arc<Cancel>, run: &mut dyn FnMut()) -> io::Result<()>;
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// As long as a plugin likes.
    Call,
    /// Until everything has settled.
    Waiting,
    /// No time.
    Quick,
}

impl Weight {
    /// Of a request for this method.
    pub(crate) fn of(name: &str) -> Self {
        match name {
            method::CALL | method::DESCRIBE => Self::Call,
            method::RELOAD | method::ROLLBACK | method::PIN | method::UNPIN => Self::Waiting,
            _ => Self::Quick,
        }
    }
}

/// Answers one request.
pub(crate) fn answer(
    door: &Door,
    client: &dyn Client,
    name: &str,
    params: Option<&RawValue>,
) -> Answer {
    match name {
        method::STATUS => result(&door.host.status()),
        method::POSITION => result(&door.host.position()),
        method::RELOAD => {
            let params: Option<ReloadParams> = parse(params)?;
            result(&door.host.reload(&params.unwrap_or_default()))
        }
        method::ROLLBACK => {
            let params: RollbackParams = parse(params)?;
            possible(door.host.roll_back(
                &params.plugin,
                params.to.as_deref(),
                !params.without_state,
            ))
        }
        method::PIN => {
            let params: PluginParams = parse(params)?;
            possible(door.host.pin(&params.plugin))
        }
        method::UNPIN => {
            let params: PluginParams = parse(params)?;
            possible(door.host.unpin(&params.plugin))
        }
        method::HISTORY => {
            let params: Option<HistoryParams> = parse(params)?;
            let plugin = params.unwrap_or_default().plugin;
            possible(door.host.history(plugin.as_ref()))
        }
        method::DEBUG => {
            let params: PluginParams = parse(params)?;
            possible(door.host.debug(&params.plugin))
        }
        method::CALL => call(door, client, &parse(params)?),
        method::DESCRIBE => {
            let params: PluginParams = parse(params)?;
            describe(door, &params)
        }
        method::STOP => {
            door.ask_to_stop.stop();
            result(&())
        }
        _ => Err(error(
            code::NO_METHOD,
            format!("this host has no method `{name}`"),
        )),
    }
}

fn call(door: &Door, client: &dyn Client, params: &CallParams) -> Answer {
    let mut context = context(params.deadline_ms.map(Duration::from_millis));
    if let Some(trace) = params.trace {
        context.trace_id = trace.trace_id;
        context.trace_flags = trace.flags.into();
    }
    let plugin = door
        .host
        .plugin(params.plugin.as_str())
        .ok_or_else(|| refused(&CallError::NotLoaded(params.plugin.to_string())))?;
    let media = Media::new(&params.content_type, &params.accept)
        .map_err(|failed| error(code::INVALID_PARAMS, format!("bad parameters: {failed}")))?;
    let cancel = Arc::new(Cancel::default());
    let mut reply = Reply::with_limit(REPLY_LIMIT);
    let request = &params.input_base64.0;
    let mut outcome = None;
    let mut run = || {
        let call = Call::new(&context, &params.method, request)
            .with_media(media)
            .cancelled_by(&cancel);
        outcome = Some(plugin.call_and_identify(&call, &mut reply));
    };
    client
        .while_connected(&cancel, &mut run)
        .map_err(|failed| {
            error(
                code::INTERNAL,
                format!("failed to watch the client: {failed}"),
            )
        })?;
    let outcome = outcome.ok_or_else(|| error(code::INTERNAL, "the call was not made"))?;
    let (answered, hash) = outcome.map_err(|error| refused(&error))?;
    let reply = CallReply {
        content_type: reply.content_type().to_owned(),
        output_base64: reply.into_bytes().into(),
        generation: answered.generation,
        hash,
    };
    let _one_at_a_time = (reply.output_base64.0.len() > LARGE)
        .then(|| door.encoding.lock().unwrap_or_else(PoisonError::into_inner));
    // Bytes are whole or they are nothing.
    to_raw_value(&reply).map_err(|failed| error(code::INTERNAL, failed.to_string()))
}

fn describe(door: &Door, params: &PluginParams) -> Answer {
    let context = context(Some(DESCRIBE_LIMIT));
    let plugin = door
        .host
        .plugin(params.plugin.as_str())
        .ok_or_else(|| refused(&CallError::NotLoaded(params.plugin.to_string())))?;
    let mut reply = Reply::with_limit(REPLY_LIMIT);
    match plugin.call(&Call::describe(&context), &mut reply) {
        Err(CallError::Plugin(PluginError::Unsupported)) => Err(error(
            code::NOT_POSSIBLE,
            format!("`{}` does not describe itself", params.plugin),
        )),
        Err(failed) => Err(refused(&failed)),
        Ok(_) => possible(Description::read(reply.bytes()).map_err(|failed| {
            PluginError::Failed(format!(
                "the description of `{}` cannot be used: {failed}",
                params.plugin
            ))
        })),
    }
}

fn possible(done: Result<impl Serialize, impl std::error::Error>) -> Answer {
    let done = done.map_err(|failed| error(code::NOT_POSSIBLE, failed.to_string()))?;
    result(&done)
}

fn refused(failed: &CallError) -> ErrorObjectOwned {
    let code = match failed {
        CallError::NotLoaded(_) => code::NO_PLUGIN,
        CallError::TooDeep => code::INTERNAL,
        CallError::Plugin(failed) => match failed {
            PluginError::NoMethod(_) => code::NO_PLUGIN_METHOD,
            PluginError::BadRequest(_) => code::BAD_REQUEST,
            PluginError::Deadline => code::DEADLINE,
            PluginError::Panicked(_) => code::PANICKED,
            PluginError::ReplyTooLarge => code::REPLY_TOO_LARGE,
            PluginError::NotAcceptable(_) => code::NOT_ACCEPTABLE,
            PluginError::UnsupportedMedia(_) => code::UNSUPPORTED_MEDIA,
            _ => code::PLUGIN_FAILED,
        },
    };
    error(code, failed.to_string())
}

fn parse<T: DeserializeOwned>(params: Option<&RawValue>) -> Result<T, ErrorObjectOwned> {
    serde_json::from_str(params.map_or("null", RawValue::get))
        .map_err(|failed| error(code::INVALID_PARAMS, format!("bad parameters: {failed}")))
}

fn result(value: &impl Serialize) -> Answer {
    fit(value, ANSWER_LIMIT).map_err(|failed| error(code::INTERNAL, failed.to_string()))
}

fn error(code: i32, message: impl Into<String>) -> ErrorObjectOwned {
    let mut message = message.into();
    cut(&mut message, SENTENCE_LIMIT);
    ErrorObjectOwned::owned(code, message, None::<()>)
}

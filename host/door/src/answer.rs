//! What each method of the control protocol does, and which role it needs.
//!
//! Invariant: one table has every method, and no method runs before its role was checked.
//!
//! Absent on purpose: how a request arrived, and how the client was identified.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hotmerge_daemon::{Call, CallError, Cancel, Host, Media, Plugin, Reply, config::Role, context};
use hotmerge_meta::{
    PluginName,
    control::{
        CallParams, CallReply, ErrorObjectOwned, HistoryParams, LogsParams, MAX_FRAME_BYTES,
        PluginParams, ReloadParams, RollbackParams, Status, code, method,
    },
    cut,
};
use hotmerge_observe::records::Records;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    audit,
    bounded::fit,
    description::{self, Undescribed},
    roles::{Access, Denied, Identity},
    tally::Tally,
};

type Answer = Result<Box<RawValue>, ErrorObjectOwned>;

/// The longest result, in bytes: a frame holds it and its envelope.
const ANSWER_LIMIT: usize = MAX_FRAME_BYTES - 4096;

/// Replies larger than this, in bytes, are encoded one at a time.
const LARGE: usize = 256 * 1024;

/// The longest sentence of an error, in bytes.
const SENTENCE_LIMIT: usize = 64 * 1024;

/// A reply travels as base64 inside one frame.
const REPLY_LIMIT: usize = MAX_FRAME_BYTES / 4 * 3 - 4096;

/// Receives requests to stop the host.
pub trait AskToStop: Send + Sync + fmt::Debug {
    /// Must return at once.
    fn stop(&self);
}

/// A host as its clients see it, over every transport.
#[derive(Debug)]
pub struct Door {
    pub(crate) host: Arc<Host>,
    pub(crate) ask_to_stop: Box<dyn AskToStop>,
    /// Held while a large reply is encoded, which takes several times its size.
    pub(crate) encoding: Mutex<()>,
    /// Counts of connections and requests.
    pub(crate) tally: Tally,
    /// The last records of the log.
    records: Arc<Records>,
}

impl Door {
    /// The door of a host, through which its log can be read.
    pub fn new(
        host: Arc<Host>,
        ask_to_stop: Box<dyn AskToStop>,
        records: Arc<Records>,
    ) -> Arc<Self> {
        Arc::new(Self {
            host,
            ask_to_stop,
            encoding: Mutex::default(),
            tally: Tally::default(),
            records,
        })
    }

    /// The status, as this client may see it.
    pub(crate) fn status_for(&self, who: &Identity) -> Status {
        let mut status = self.host.status();
        status.host.door = Some(self.tally.status());
        let config = self.host.config();
        if !who.may(&config.door.allow, Access::Role(Role::Admin)) {
            // Addresses in the host's memory help attackers.
            for plugin in &mut status.plugins {
                plugin.address = None;
            }
        }
        status
    }

    /// Refuses and records a request for which the client lacks the role.
    pub(crate) fn authorize(
        &self,
        who: &Identity,
        access: Access<'_>,
        method: &str,
        what: impl FnOnce() -> String,
    ) -> Result<(), Denied> {
        let config = self.host.config();
        if who.may(&config.door.allow, access) {
            return Ok(());
        }
        let denied = who.denied(access, what());
        self.tally.denied();
        audit::denied(who, method, &denied);
        Err(denied)
    }
}

/// A client, which may disconnect before there is an answer.
pub(crate) trait Client {
    /// Runs a call, and cancels it if the client disconnects meanwhile.
    fn while_connected(&self, cancel: &Arc<Cancel>, run: &mut dyn FnMut()) -> io::Result<()>;
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// As long as the plugin takes.
    Call,
    /// Until everything has settled.
    Waiting,
    /// Until there is a record in the log.
    Following,
    /// No time.
    Quick,
}

/// A request and its client.
struct Asked<'a> {
    door: &'a Door,
    who: &'a Identity,
    client: &'a dyn Client,
    params: Option<&'a RawValue>,
}

/// A method of the control protocol.
pub(crate) struct Method {
    name: &'static str,
    /// The role that it needs.
    role: Role,
    weight: Weight,
    run: fn(&Asked<'_>) -> Answer,
}

/// Every method with the role that it needs; there are no others.
const METHODS: [Method; 12] = [
    Method::new(method::STATUS, Role::Read, Weight::Quick, |asked| {
        result(&asked.door.status_for(asked.who))
    }),
    Method::new(method::POSITION, Role::Read, Weight::Quick, |asked| {
        result(&asked.door.host.position())
    }),
    Method::new(method::HISTORY, Role::Read, Weight::Quick, |asked| {
        let params: Option<HistoryParams> = parse(asked.params)?;
        let plugin = params.unwrap_or_default().plugin;
        possible(asked.door.host.history(plugin.as_ref()))
    }),
    Method::new(method::DEBUG, Role::Read, Weight::Quick, |asked| {
        let params: PluginParams = parse(asked.params)?;
        possible(asked.door.host.debug(&params.plugin))
    }),
    Method::new(method::LOGS, Role::Read, Weight::Following, |asked| {
        let params: Option<LogsParams> = parse(asked.params)?;
        result(&asked.door.records.read(&params.unwrap_or_default()))
    }),
    Method::new(method::CALL, Role::Call, Weight::Call, call),
    // It runs the plugin's code.
    Method::new(method::DESCRIBE, Role::Call, Weight::Call, describe),
    Method::new(method::RELOAD, Role::Admin, Weight::Waiting, |asked| {
        let params: Option<ReloadParams> = parse(asked.params)?;
        result(&asked.door.host.reload(&params.unwrap_or_default()))
    }),
    Method::new(method::ROLLBACK, Role::Admin, Weight::Waiting, |asked| {
        let params: RollbackParams = parse(asked.params)?;
        let (to, takes_state) = (params.to.as_deref(), !params.without_state);
        possible(asked.door.host.roll_back(&params.plugin, to, takes_state))
    }),
    Method::new(method::PIN, Role::Admin, Weight::Waiting, |asked| {
        let params: PluginParams = parse(asked.params)?;
        possible(asked.door.host.pin(&params.plugin))
    }),
    Method::new(method::UNPIN, Role::Admin, Weight::Waiting, |asked| {
        let params: PluginParams = parse(asked.params)?;
        possible(asked.door.host.unpin(&params.plugin))
    }),
    Method::new(method::STOP, Role::Admin, Weight::Quick, |asked| {
        asked.door.ask_to_stop.stop();
        result(&())
    }),
];

impl Method {
    const fn new(
        name: &'static str,
        role: Role,
        weight: Weight,
        run: fn(&Asked<'_>) -> Answer,
    ) -> Self {
        Self {
            name,
            role,
            weight,
            run,
        }
    }

    /// The method of that name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        METHODS.iter().find(|method| method.name == name)
    }

    /// A request for it, if the client has the role.
    pub(crate) fn permit<'a>(
        &'static self,
        door: &'a Door,
        who: &'a Identity,
        params: Option<&'a RawValue>,
    ) -> Result<Permitted<'a>, ErrorObjectOwned> {
        let what = || format!("ask for `{}`", self.name);
        let authorized = door.authorize(who, Access::Role(self.role), self.name, what);
        authorized.map_err(|denied| error(code::DENIED, denied.to_string()))?;
        Ok(Permitted {
            method: self,
            door,
            who,
            params,
        })
    }
}

/// A request whose client has the role for it, and which has not begun.
pub(crate) struct Permitted<'a> {
    method: &'static Method,
    door: &'a Door,
    who: &'a Identity,
    params: Option<&'a RawValue>,
}

impl Permitted<'_> {
    /// How long its answer may take.
    pub(crate) fn weight(&self) -> Weight {
        self.method.weight
    }

    /// Answers it.
    pub(crate) fn answer(&self, client: &dyn Client) -> Answer {
        let answer = (self.method.run)(&Asked {
            door: self.door,
            who: self.who,
            client,
            params: self.params,
        });
        self.record(&answer);
        answer
    }

    /// Refuses it for lack of room.
    pub(crate) fn refuse_as_busy(&self) -> ErrorObjectOwned {
        self.door.tally.busy();
        let text = "too many requests of this kind are in progress; try again";
        let busy = error(code::BUSY, text);
        self.record(&Err(busy.clone()));
        busy
    }

    fn record(&self, answer: &Answer) {
        if self.method.role == Role::Admin {
            audit::done(self.who, self.method.name, self.params, answer);
        }
    }
}

impl Asked<'_> {
    /// Refuses a request for which the client lacks the role.
    fn authorize(
        &self,
        access: Access<'_>,
        method: &str,
        what: impl FnOnce() -> String,
    ) -> Result<(), ErrorObjectOwned> {
        let authorized = self.door.authorize(self.who, access, method, what);
        authorized.map_err(|denied| error(code::DENIED, denied.to_string()))
    }

    /// A plugin that takes calls, or did.
    fn plugin(&self, name: &PluginName) -> Result<Arc<Plugin>, ErrorObjectOwned> {
        let found = self.door.host.plugin(name.as_str());
        found.ok_or_else(|| refused(&CallError::NotLoaded(name.to_string())))
    }
}

/// The error for an unknown method.
pub(crate) fn unknown(name: &str) -> ErrorObjectOwned {
    error(code::NO_METHOD, format!("this host has no method `{name}`"))
}

fn call(asked: &Asked<'_>) -> Answer {
    let (door, client) = (asked.door, asked.client);
    let params: CallParams = parse(asked.params)?;
    let access = Access::Call {
        plugin: params.plugin.as_str(),
        method: &params.method,
    };
    asked.authorize(access, method::CALL, || "call it".to_owned())?;
    let mut context = context(params.deadline_ms.map(Duration::from_millis));
    if let Some(trace) = params.trace {
        context.trace_id = trace.trace_id;
        context.trace_flags = trace.flags.into();
    }
    let plugin = asked.plugin(&params.plugin)?;
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
    // A cut reply would be useless.
    to_raw_value(&reply).map_err(|failed| error(code::INTERNAL, failed.to_string()))
}

fn describe(asked: &Asked<'_>) -> Answer {
    let params: PluginParams = parse(asked.params)?;
    let plugin = asked.plugin(&params.plugin)?;
    match description::of(&plugin) {
        Ok((_, description)) => result(&description),
        Err(Undescribed::Failed(failed)) => Err(refused(&failed)),
        Err(none) => Err(error(code::NOT_POSSIBLE, none.to_string())),
    }
}

fn possible(done: Result<impl Serialize, impl std::error::Error>) -> Answer {
    let done = done.map_err(|failed| error(code::NOT_POSSIBLE, failed.to_string()))?;
    result(&done)
}

fn refused(failed: &CallError) -> ErrorObjectOwned {
    error(failed.code(), failed.to_string())
}

fn parse<T: DeserializeOwned>(params: Option<&RawValue>) -> Result<T, ErrorObjectOwned> {
    serde_json::from_str(params.map_or("null", RawValue::get))
        .map_err(|failed| error(code::INVALID_PARAMS, format!("bad parameters: {failed}")))
}

fn result(value: &impl Serialize) -> Answer {
    fit(value, ANSWER_LIMIT).map_err(|failed| error(code::INTERNAL, failed.to_string()))
}

pub(crate) fn error(code: i32, message: impl Into<String>) -> ErrorObjectOwned {
    let mut message = message.into();
    cut(&mut message, SENTENCE_LIMIT);
    ErrorObjectOwned::owned(code, message, None::<()>)
}

//! The host of a plugin in a test: it keeps what the plugin logs, and lets fakes answer its calls.
//!
//! Invariant: a fake's panic never unwinds through the plugin; it fails the test as soon as the plugin has
//! returned to it.

use std::{
    any::Any,
    collections::BTreeMap,
    ffi::c_void,
    ptr,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hotmerge_abi::{self as abi, Bytes, CallContext, HostTable, MediaTypes, Sink, Status};

use crate::{Call, Error, Level, Reply, panic};

/// How long a test waits for a record: long enough for any machine.
const SOON: Duration = Duration::from_secs(10);

type Fake = Box<dyn Fn(&Call<'_>, &mut Reply<'_>) -> Result<(), Error> + Send + Sync>;

/// A record that a plugin has logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// How important it is.
    pub level: Level,
    /// What it says.
    pub message: String,
    /// The call that it belongs to ([`Host::log_in`](crate::Host::log_in)), with its trace.
    pub call: Option<CallContext>,
}

pub(super) struct TestHost {
    pub(super) table: HostTable,
    pub(super) fakes: BTreeMap<String, Fake>,
    records: Mutex<Vec<Record>>,
    logged: Condvar,
    /// The first panic of a fake that has not failed the test yet.
    failure: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Default for TestHost {
    fn default() -> Self {
        Self {
            table: HostTable {
                abi_major: abi::ABI_MAJOR,
                abi_minor: abi::ABI_MINOR,
                size: size_of::<HostTable>() as u32,
                context: ptr::null_mut(),
                log,
                call,
                call_media,
            },
            fakes: BTreeMap::new(),
            records: Mutex::default(),
            logged: Condvar::new(),
            failure: Mutex::default(),
        }
    }
}

impl TestHost {
    /// Stays for ever: a thread that outlives its plugin by mistake may still log.
    pub(super) fn install(self) -> &'static Self {
        let host = Box::into_raw(Box::new(self));
        // SAFETY: the box was just made, is never freed, and only shared from here on.
        unsafe {
            (*host).table.context = host.cast();
            &*host
        }
    }

    pub(super) fn records(&self) -> Vec<Record> {
        locked(&self.records).clone()
    }

    pub(super) fn wait_for_record(&self, text: &str) -> Record {
        let has = |record: &&Record| record.message.contains(text);
        let (records, _) = self
            .logged
            .wait_timeout_while(locked(&self.records), SOON, |records| {
                !records.iter().any(|record| has(&record))
            })
            .unwrap_or_else(PoisonError::into_inner);
        let found = records.iter().find(has).cloned();
        found.unwrap_or_else(|| panic!("no record says `{text}`; logged was {records:#?}"))
    }

    /// Fails the test if a fake has panicked; its message has been printed already.
    pub(super) fn raise(&self) {
        let failure = locked(&self.failure).take();
        if let Some(payload) = failure {
            std::panic::resume_unwind(payload);
        }
    }

    fn answer(&self, plugin: &str, call: &Call<'_>, reply: &mut Reply<'_>) -> Status {
        let Some(fake) = self.fakes.get(plugin) else {
            reply.replace(&format!(
                "no other plugin runs in a test: give it one by `Instance::prepare(…).fake(\"{plugin}\", …)`"
            ));
            return abi::STATUS_NO_PLUGIN;
        };
        match panic::as_the_tests_own(|| fake(call, reply)) {
            Ok(Ok(())) => abi::STATUS_OK,
            Ok(Err(error)) => {
                reply.replace(&error.to_string());
                error.status()
            }
            Err(payload) => {
                locked(&self.failure).get_or_insert(payload);
                reply.replace(&format!("the fake of `{plugin}` panicked"));
                abi::STATUS_FAILED
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

unsafe extern "C" fn log(
    host: *mut c_void,
    level: u32,
    _: Bytes,
    message: Bytes,
    call: *const CallContext,
) {
    // SAFETY: the context is a host that is never freed, the plugin's message is valid for this call,
    // its call is null or valid.
    let (host, message, call) = unsafe {
        (
            &*host.cast::<TestHost>(),
            String::from_utf8_lossy(message.as_slice()).into_owned(),
            call.as_ref().copied(),
        )
    };
    let level = Level::from_code(level);
    eprintln!("{level:?}: {message}");
    locked(&host.records).push(Record {
        level,
        message,
        call,
    });
    host.logged.notify_all();
}

unsafe extern "C" fn call(
    host: *mut c_void,
    plugin: Bytes,
    method: Bytes,
    request: Bytes,
    call: *const CallContext,
    reply: *const Sink,
) -> Status {
    let none = MediaTypes {
        size: size_of::<MediaTypes>(),
        content_type: Bytes::EMPTY,
        accept: Bytes::EMPTY,
    };
    // SAFETY: the same arguments, for as long.
    unsafe { call_media(host, plugin, method, request, call, &raw const none, reply) }
}

unsafe extern "C" fn call_media(
    host: *mut c_void,
    plugin: Bytes,
    method: Bytes,
    request: Bytes,
    call: *const CallContext,
    media_types: *const MediaTypes,
    reply: *const Sink,
) -> Status {
    // SAFETY: the context is a host that is never freed; the call is null or valid, all else valid for
    // this call.
    let (host, plugin, method, request, context, content_type, accept, reply) = unsafe {
        (
            &*host.cast::<TestHost>(),
            plugin.as_slice(),
            method.as_slice(),
            request.as_slice(),
            call.as_ref().copied(),
            (*media_types).content_type.as_slice(),
            (*media_types).accept.as_slice(),
            &*reply,
        )
    };
    let mut reply = Reply::new(reply);
    let text = (
        str::from_utf8(plugin),
        str::from_utf8(method),
        str::from_utf8(content_type),
        str::from_utf8(accept),
    );
    let (Ok(plugin), Ok(method), Ok(content_type), Ok(accept)) = text else {
        reply.replace("names and media types are UTF-8");
        return abi::STATUS_BAD_REQUEST;
    };
    let context = context.unwrap_or_else(|| CallContext {
        size: size_of::<CallContext>() as u32,
        ..CallContext::default()
    });
    let call = Call::new(&context, method, request).with_media(content_type, accept);
    host.answer(plugin, &call, &mut reply)
}

//! Runs a plugin in a unit test the way a host does: through its exported table.
//!
//! ```
//! # use hotmerge_sdk::{Call, Error, Host, Plugin, Reply, testing::Instance};
//! # struct Echo;
//! # impl Plugin for Echo {
//! #     fn start(_: Host, _: &[u8]) -> Result<Self, Error> { Ok(Self) }
//! #     fn call(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error> {
//! #         reply.bytes(call.request())
//! #     }
//! # }
//! let plugin = Instance::<Echo>::start("{}").unwrap();
//! assert_eq!(plugin.call("any", b"hi").unwrap().bytes, b"hi");
//! ```

use std::{ffi::c_void, marker::PhantomData, ptr};

use hotmerge_abi::{
    self as abi, Bytes, CallContext, HostTable, MediaTypes, PluginTable, Sink, Status,
};

pub use crate::answer::Answer;
use crate::{Method, Plugin, table};

/// A refusal: the status and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// One of the contract's `STATUS_…`.
    pub status: Status,
    /// The plugin's reason.
    pub reason: String,
}

/// A started plugin; ended when dropped.
#[derive(Debug)]
pub struct Instance<P: Plugin> {
    table: PluginTable,
    instance: *mut c_void,
    plugin: PhantomData<P>,
}

impl<P: Plugin> Instance<P> {
    /// Starts the plugin with a JSON object as its configuration.
    ///
    /// # Errors
    /// The refusal of `start`.
    pub fn start(config: &str) -> Result<Self, Refused> {
        let table = table::<P>();
        let mut instance = ptr::null_mut();
        gather(|sink| {
            // SAFETY: the host table is a static, the rest lives for the call.
            unsafe {
                (table.create)(
                    &HOST,
                    Bytes::new(config.as_bytes()),
                    &raw mut instance,
                    sink,
                )
            }
        })?;
        Ok(Self {
            table,
            instance,
            plugin: PhantomData,
        })
    }

    /// Calls a method.
    ///
    /// # Errors
    /// The plugin's error.
    pub fn call(&self, method: &str, request: &[u8]) -> Result<Answer, Refused> {
        let context = context();
        gather(|sink| {
            // SAFETY: the instance is alive, the rest lives for the call.
            unsafe {
                (self.table.call)(
                    self.instance,
                    &raw const context,
                    Bytes::new(method.as_bytes()),
                    Bytes::new(request),
                    sink,
                )
            }
        })
    }

    /// As [`Instance::call`], with the request's media type and those that the caller accepts; either
    /// may be empty.
    ///
    /// # Errors
    /// The plugin's error.
    pub fn call_media(
        &self,
        method: &str,
        request: &[u8],
        content_type: &str,
        accept: &str,
    ) -> Result<Answer, Refused> {
        let (context, call) = (context(), self.table.call_media);
        let media_types = MediaTypes {
            size: size_of::<MediaTypes>(),
            content_type: Bytes::new(content_type.as_bytes()),
            accept: Bytes::new(accept.as_bytes()),
        };
        gather(|sink| match call {
            // SAFETY: the instance is alive, the rest lives for the call.
            Some(call) => unsafe {
                call(
                    self.instance,
                    &raw const context,
                    Bytes::new(method.as_bytes()),
                    Bytes::new(request),
                    &raw const media_types,
                    sink,
                )
            },
            None => abi::STATUS_UNSUPPORTED,
        })
    }

    /// The JSON document in which the plugin describes itself.
    ///
    /// # Errors
    /// The plugin's error, `STATUS_UNSUPPORTED` if it describes nothing.
    pub fn describe(&self) -> Result<String, Refused> {
        let answer = gather(|sink| match self.table.describe {
            // SAFETY: the instance is alive.
            Some(describe) => unsafe { describe(self.instance, sink) },
            None => abi::STATUS_UNSUPPORTED,
        })?;
        Ok(String::from_utf8_lossy(&answer.bytes).into_owned())
    }

    /// Checks the plugin's description against its answers: it has every method that it
    /// describes and none called `no-such-method`, each example succeeds, and the reply has one of the
    /// described media types, also where a caller accepts only that one.
    ///
    /// # Panics
    /// If something is not as described, and says all that is not.
    pub fn check_description(&self) {
        // SAFETY: `create` made the instance, which is alive.
        let plugin = unsafe { &*self.instance.cast::<P>() };
        let mut problems = Vec::new();
        if self
            .call("no-such-method", b"")
            .map_or_else(|refused| refused.status, |_| abi::STATUS_OK)
            != abi::STATUS_NO_METHOD
        {
            problems.push("it does not refuse a method that it does not have".to_owned());
        }
        for method in plugin.describe() {
            self.check_method(method, &mut problems);
        }
        assert!(
            problems.is_empty(),
            "the plugin is not as it describes itself:\n{}",
            problems.join("\n")
        );
    }

    fn check_method(&self, method: &Method, problems: &mut Vec<String>) {
        let name = method.name;
        let request = method.example.unwrap_or_default().as_bytes();
        let described = method.reply.content_types;
        let any = ("*/*", described);
        let each = described
            .iter()
            .map(|one| (*one, std::slice::from_ref(one)));
        for (accept, expected) in std::iter::once(any).chain(each) {
            match self.call_media(name, request, "", accept) {
                Err(refused) if refused.status == abi::STATUS_NO_METHOD => {
                    problems.push(format!("`{name}`: there is no such method"));
                    return;
                }
                Err(refused) if method.example.is_some() => problems.push(format!(
                    "`{name}`: the example fails with `Accept: {accept}`: {}",
                    refused.reason
                )),
                Ok(answer)
                    if !expected.is_empty()
                        && !expected.contains(&answer.content_type.as_str()) =>
                {
                    problems.push(format!(
                        "`{name}`: the reply is `{}`, described with `Accept: {accept}` is `{}`",
                        answer.content_type,
                        expected.join("`, `")
                    ));
                }
                _ => {}
            }
        }
    }

    /// Saves the state.
    ///
    /// # Errors
    /// The plugin's error.
    pub fn save(&self) -> Result<Vec<u8>, Refused> {
        // SAFETY: the instance is alive.
        gather(|sink| unsafe { (self.table.save)(self.instance, sink) }).map(|answer| answer.bytes)
    }

    /// Hands over the state that version `from` saved.
    ///
    /// # Errors
    /// The plugin's refusal.
    pub fn restore(&self, from: &str, state: &[u8]) -> Result<(), Refused> {
        gather(|sink| {
            // SAFETY: the instance is alive, the rest lives for the call.
            unsafe {
                (self.table.restore)(
                    self.instance,
                    Bytes::new(from.as_bytes()),
                    Bytes::new(state),
                    sink,
                )
            }
        })
        .map(drop)
    }
}

impl<P: Plugin> Drop for Instance<P> {
    fn drop(&mut self) {
        // SAFETY: the instance is alive, has no call under way, and is not used again.
        unsafe {
            let _ = gather(|sink| (self.table.teardown)(self.instance, 3_000_000_000, sink));
            (self.table.destroy)(self.instance);
        }
    }
}

static HOST: HostTable = HostTable {
    abi_major: abi::ABI_MAJOR,
    abi_minor: abi::ABI_MINOR,
    size: size_of::<HostTable>() as u32,
    context: ptr::null_mut(),
    log,
    call,
    call_media,
};

unsafe extern "C" fn log(
    _: *mut c_void,
    level: u32,
    _: Bytes,
    message: Bytes,
    _: *const CallContext,
) {
    // SAFETY: the plugin's message is valid for this call.
    let message = String::from_utf8_lossy(unsafe { message.as_slice() });
    eprintln!("log level {level}: {message}");
}

unsafe extern "C" fn call(
    _: *mut c_void,
    plugin: Bytes,
    _: Bytes,
    _: Bytes,
    _: *const CallContext,
    reply: *const Sink,
) -> Status {
    // SAFETY: name and sink are valid for this call.
    unsafe {
        let reason = format!(
            "no other plugin runs in a test: `{}`",
            String::from_utf8_lossy(plugin.as_slice())
        );
        ((*reply).write)((*reply).context, Bytes::new(reason.as_bytes()));
    }
    abi::STATUS_NO_PLUGIN
}

unsafe extern "C" fn call_media(
    context: *mut c_void,
    plugin: Bytes,
    method: Bytes,
    request: Bytes,
    own: *const CallContext,
    _: *const MediaTypes,
    reply: *const Sink,
) -> Status {
    // SAFETY: the same arguments, for as long.
    unsafe { call(context, plugin, method, request, own, reply) }
}

fn context() -> CallContext {
    CallContext {
        size: size_of::<CallContext>() as u32,
        ..CallContext::default()
    }
}

fn gather(body: impl FnOnce(&Sink) -> Status) -> Result<Answer, Refused> {
    match crate::answer::gather(body) {
        (abi::STATUS_OK, answer) => Ok(answer),
        (status, answer) => Err(Refused {
            status,
            reason: String::from_utf8_lossy(&answer.bytes).into_owned(),
        }),
    }
}

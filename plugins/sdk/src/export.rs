//! The functions behind the exported table: C on the outside, [`Plugin`] on the inside.

use std::{ffi::c_void, str, time::Duration};

use hotmerge_abi::{
    self as abi, Bytes, CallContext, HostTable, MediaTypes, PluginTable, Sink, Status, TableHeader,
};

use crate::{Call, Error, Host, Plugin, Reply, describe, panic};

/// Exports a type that implements [`Plugin`](crate::Plugin) as the plugin of this cdylib.
///
/// A crate that uses this macro is a plugin, and no other plugin can link it: both would export
/// the same symbol, and `build-plugins` refuses that. Put what plugins share into a crate
/// without this macro.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty) => {
        #[doc(hidden)]
        #[allow(non_upper_case_globals)]
        #[unsafe(no_mangle)]
        pub static hotmerge_plugin: $crate::abi::PluginTable = $crate::table::<$plugin>();
    };
}

/// The table of a plugin type, for [`export_plugin!`](crate::export_plugin).
pub const fn table<P: Plugin>() -> PluginTable {
    PluginTable {
        header: TableHeader::CURRENT,
        create: create::<P>,
        self_check: self_check::<P>,
        call: call::<P>,
        save: save::<P>,
        restore: restore::<P>,
        teardown: teardown::<P>,
        destroy: destroy::<P>,
        call_media: Some(call_media::<P>),
        describe: Some(describe::<P>),
    }
}

/// Runs one function of the plugin: an error or a panic becomes a status and its reason
/// replaces whatever was written to `reply`.
fn run(reply: &Sink, body: impl FnOnce(&mut Reply<'_>) -> Result<(), Error>) -> Status {
    panic::guard(
        || {
            let mut reply = Reply::new(reply);
            match body(&mut reply) {
                Ok(()) => abi::STATUS_OK,
                Err(error) => {
                    reply.replace(&error.to_string());
                    error.status()
                }
            }
        },
        |message| Reply::new(reply).replace(message),
    )
}

fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    str::from_utf8(bytes).map_err(Error::bad_request)
}

unsafe extern "C" fn create<P: Plugin>(
    host: *const HostTable,
    config: Bytes,
    instance: *mut *mut c_void,
    error: *const Sink,
) -> Status {
    // SAFETY: the host keeps its table valid until `destroy` has returned, config and sink
    // for this call.
    let (host, config, error) = unsafe { (Host::new(host), config.as_slice(), &*error) };
    panic::install(host);
    let status = run(error, |_| {
        let plugin = Box::new(P::start(host, config)?);
        // SAFETY: the host passes a place for one pointer.
        unsafe { *instance = Box::into_raw(plugin).cast() };
        Ok(())
    });
    if status != abi::STATUS_OK {
        panic::uninstall();
    }
    status
}

unsafe extern "C" fn self_check<P: Plugin>(instance: *mut c_void, error: *const Sink) -> Status {
    // SAFETY: `instance` comes from `create` and is not destroyed yet; the sink is valid for
    // this call.
    let (plugin, error) = unsafe { (&*instance.cast::<P>(), &*error) };
    run(error, |_| plugin.self_check())
}

unsafe extern "C" fn call<P: Plugin>(
    instance: *mut c_void,
    context: *const CallContext,
    method: Bytes,
    request: Bytes,
    reply: *const Sink,
) -> Status {
    // SAFETY: as in `self_check`; context, method and request are valid for this call.
    let (plugin, context, method, request, reply) = unsafe {
        (
            &*instance.cast::<P>(),
            &*context,
            method.as_slice(),
            request.as_slice(),
            &*reply,
        )
    };
    run(reply, |reply| {
        plugin.call(&Call::new(context, utf8(method)?, request), reply)
    })
}

unsafe extern "C" fn call_media<P: Plugin>(
    instance: *mut c_void,
    context: *const CallContext,
    method: Bytes,
    request: Bytes,
    media_types: *const MediaTypes,
    reply: *const Sink,
) -> Status {
    // SAFETY: as in `call`; the media types are valid for this call, too.
    let (plugin, context, method, request, content_type, accept, reply) = unsafe {
        (
            &*instance.cast::<P>(),
            &*context,
            method.as_slice(),
            request.as_slice(),
            (*media_types).content_type.as_slice(),
            (*media_types).accept.as_slice(),
            &*reply,
        )
    };
    run(reply, |reply| {
        let (content_type, accept) = (utf8(content_type)?, utf8(accept)?);
        let call = Call::new(context, utf8(method)?, request).with_media(content_type, accept);
        plugin.call(&call, reply)
    })
}

unsafe extern "C" fn describe<P: Plugin>(instance: *mut c_void, reply: *const Sink) -> Status {
    // SAFETY: as in `self_check`.
    let (plugin, reply) = unsafe { (&*instance.cast::<P>(), &*reply) };
    run(reply, |reply| describe::write(plugin.describe(), reply))
}

unsafe extern "C" fn save<P: Plugin>(instance: *mut c_void, state: *const Sink) -> Status {
    // SAFETY: as in `self_check`.
    let (plugin, state) = unsafe { (&*instance.cast::<P>(), &*state) };
    run(state, |state| plugin.save(state))
}

unsafe extern "C" fn restore<P: Plugin>(
    instance: *mut c_void,
    from: Bytes,
    state: Bytes,
    error: *const Sink,
) -> Status {
    // SAFETY: as in `self_check`; version and state are valid for this call.
    let (plugin, from, state, error) = unsafe {
        (
            &*instance.cast::<P>(),
            from.as_slice(),
            state.as_slice(),
            &*error,
        )
    };
    run(error, |_| plugin.restore(utf8(from)?, state))
}

unsafe extern "C" fn teardown<P: Plugin>(
    instance: *mut c_void,
    limit_ns: u64,
    error: *const Sink,
) -> Status {
    // SAFETY: as in `self_check`.
    let (plugin, error) = unsafe { (&*instance.cast::<P>(), &*error) };
    run(error, |_| plugin.teardown(Duration::from_nanos(limit_ns)))
}

unsafe extern "C" fn destroy<P: Plugin>(instance: *mut c_void) {
    panic::guard(
        || {
            // SAFETY: `create` made it by `Box::into_raw`, and the host destroys it once.
            drop(unsafe { Box::from_raw(instance.cast::<P>()) });
            abi::STATUS_OK
        },
        |_| {},
    );
    panic::uninstall();
}

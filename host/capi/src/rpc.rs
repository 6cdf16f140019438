//! The simplest form: one buffer, in which a JSON-RPC request is replaced by its reply.

use std::{borrow::Cow, ffi::c_int};

use hotmerge_daemon::{Call, Media, Reply, context};
use hotmerge_meta::control::{ErrorObjectOwned, Id, Request, Response, ResponsePayload, code};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    code::{Failure, HM_FAILED},
    exported::{self, Buffer},
    host::{self, Host},
};

/// Replaces a JSON-RPC 2.0 request by its reply.
///
/// The method is `PLUGIN.METHOD`. The parameters are given to the plugin as JSON; without any, its request is
/// empty. A reply in JSON is the result; one in other text is the result as a string. Whatever goes
/// wrong with the call is an error object, and this function succeeds. `length` is the length of the request
/// in `buffer`, then that of the reply.
///
/// If the reply is longer than `capacity` (`HM_TOO_SMALL`), the request stays in the buffer, `*length` is the
/// needed length, and `hm_take_reply` gets the reply.
///
/// # Safety
/// `host` comes from `hm_start`; `capacity` bytes at `buffer` can be read and written, and nobody else uses
/// them meanwhile; so can `*length`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_rpc(
    host: *const Host,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
) -> c_int {
    exported::run(|| {
        // SAFETY: the caller's promise; handles of hosts are never freed.
        let (host, request): (&'static Host, _) = unsafe {
            let length = *exported::place(length, "length")?;
            if length > capacity {
                let text = format!("`*length` is {length}, more than the buffer of {capacity}");
                return Err(Failure::invalid(text));
            }
            // A copy: the reply is written over it.
            let request = exported::bytes(buffer, length, "buffer")?.to_vec();
            (exported::reference(host, "host")?, request)
        };
        host.running()?;
        let reply = answer(host, &request)?;
        // SAFETY: the caller's promise.
        let mut buffer = unsafe { Buffer::new(buffer, capacity, length) }?;
        crate::calls::give(reply, &mut buffer)
    })
}

fn answer(host: &'static Host, request: &[u8]) -> Result<Vec<u8>, Failure> {
    let request: Result<Request<'_>, _> = serde_json::from_slice(request);
    let (id, outcome) = match request {
        Ok(request) => {
            let params = request.params.as_deref();
            (request.id.into_owned(), call(host, &request.method, params))
        }
        Err(failed) => {
            let text = format!("this is not a JSON-RPC 2.0 request: {failed}");
            (Id::Null, Err(error(code::INVALID_REQUEST, text)))
        }
    };
    let payload = match outcome {
        Ok(result) => ResponsePayload::success(result),
        Err(error) => ResponsePayload::error(error),
    };
    serde_json::to_vec(&Response::new(payload, id))
        .map_err(|failed| Failure::new(HM_FAILED, format!("failed to write JSON: {failed}")))
}

fn call(
    host: &'static Host,
    method: &str,
    params: Option<&RawValue>,
) -> Result<Box<RawValue>, ErrorObjectOwned> {
    let named = method.split_once('.').and_then(|(plugin, method)| {
        let plugin = host::name(plugin).ok()?;
        Some((plugin, method))
    });
    let (plugin, method) = named.ok_or_else(|| {
        let text = format!("`{method}` is not of the form `PLUGIN.METHOD`");
        error(code::NO_METHOD, text)
    })?;
    let plugin = host
        .plugin(&plugin)
        .map_err(|failure| error(code::NO_METHOD, failure.text))?;
    let (content_type, request) = match params {
        Some(params) => ("application/json", params.get().as_bytes()),
        None => ("", &[][..]),
    };
    let media = Media::new(content_type, "application/json, text/*;q=0.9, */*;q=0.1")
        .map_err(|failed| error(code::INTERNAL, failed.to_string()))?;
    let mut reply = Reply::with_limit(Reply::DEFAULT_LIMIT);
    let context = context(None);
    let call = Call::new(&context, method, request).with_media(media);
    plugin
        .plugin
        .call(&call, &mut reply)
        .map_err(|failed| error(failed.code(), failed.to_string()))?;
    result(&reply)
}

/// A reply as JSON.
fn result(reply: &Reply) -> Result<Box<RawValue>, ErrorObjectOwned> {
    let text = str::from_utf8(reply.bytes()).map_err(|_| {
        let media_type = reply.content_type();
        let text = format!("the reply, `{media_type}`, is not text; use `hm_call`");
        error(code::INTERNAL, text)
    })?;
    let json = serde_json::from_str::<&RawValue>(text).ok();
    match json {
        Some(json) => Ok(json.to_owned()),
        None => to_raw_value(text).map_err(|failed| error(code::INTERNAL, failed.to_string())),
    }
}

fn error(code: i32, text: impl Into<Cow<'static, str>>) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(code, text.into(), None::<()>)
}

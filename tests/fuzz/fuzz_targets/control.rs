//! A peer on the control socket: frames in pieces of any size, requests, parameters and
//! answers of any content; no panic, and frames do not depend on the pieces.

#![no_main]

use hotmerge_meta::{
    control::{
        CallParams, CallReply, HistoryParams, PluginParams, ReloadParams, ReloadReport, Request,
        Response, RollbackParams, Status,
    },
    frame::Frames,
};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let (mut frames, mut found) = (Frames::new(), Vec::new());
    for piece in pieces {
        frames.push(piece);
        while let Ok(Some(frame)) = frames.next_frame() {
            found.push(frame);
        }
    }
    found
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, stream)) = bytes.split_first() else {
        return;
    };
    let pieces = frames(stream.chunks(usize::from(*first).max(1)));
    assert_eq!(pieces, frames(std::iter::once(stream)));
    for frame in &pieces {
        if let Ok(request) = serde_json::from_slice::<Request<'_>>(frame)
            && let Some(params) = request.params
        {
            let _ = serde_json::from_str::<ReloadParams>(params.get());
            let _ = serde_json::from_str::<HistoryParams>(params.get());
            let _ = serde_json::from_str::<PluginParams>(params.get());
            let _ = serde_json::from_str::<RollbackParams>(params.get());
            if let Ok(call) = serde_json::from_str::<CallParams>(params.get()) {
                let text = serde_json::to_string(&call).expect("parameters have a JSON form");
                let again: CallParams = serde_json::from_str(&text).expect("it is read back");
                assert_eq!(again, call);
            }
        }
        let _ = serde_json::from_slice::<Response<'_, Box<RawValue>>>(frame);
        let _ = serde_json::from_slice::<ReloadReport>(frame);
        let _ = serde_json::from_slice::<Status>(frame);
        let _ = serde_json::from_slice::<CallReply>(frame);
    }
});

//! Calls that a plugin in a worker makes to the plugins that it requires.
//!
//! They are carried by threads of the host that sleep while the worker calls nobody and end with
//! it. What the worker wrote is copied before anybody looks at it, and a worker that breaks the
//! rules is ended. How many calls it may have in flight bounds the threads and the memory that
//! it can cost. They end with it, take no longer than any call may, and hold no more than a share of
//! what the other plugin has.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread,
};

use hotmerge_loader::{CallError, OutgoingCall, Reply};
use hotmerge_wire::{Ended, Geometry, Server, Taken, after_ns, op};

use super::{calls::Cell, cells::told, process::Line};

/// Calls of one worker that may be in flight, and threads that carry them.
const MOST: u32 = 8;

/// Largest request and reply in bytes.
const LARGEST: u64 = 16 << 20;

/// Of the shared memory for these calls.
pub(super) fn geometry() -> Geometry {
    Geometry {
        slots: MOST,
        area_bytes: LARGEST,
        ..Geometry::default()
    }
}

impl Cell {
    /// Begins to carry the calls of a worker, if its plugin may make any.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub(super) fn carry_calls(self: &Arc<Self>, line: &Arc<Line>) -> Result<(), String> {
        match &line.others {
            Some(_) => self.add_carrier(line).map_err(told("start a thread")),
            None => Ok(()),
        }
    }

    fn add_carrier(self: &Arc<Self>, line: &Arc<Line>) -> std::io::Result<()> {
        let (cell, of_thread) = (Arc::clone(self), Arc::clone(line));
        self.carriers.fetch_add(1, Ordering::Relaxed);
        line.carriers.fetch_add(1, Ordering::Relaxed);
        let spawned = thread::Builder::new().name("calls".into()).spawn(move || {
            if let Some(others) = &of_thread.others {
                cell.carry(&of_thread, others);
            }
            cell.carriers.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            self.carriers.fetch_sub(1, Ordering::Relaxed);
            line.carriers.fetch_sub(1, Ordering::Relaxed);
        }
        spawned.map(drop)
    }

    fn carry(self: &Arc<Self>, line: &Arc<Line>, others: &Server) {
        loop {
            let taken = match others.next() {
                Ok(taken) => taken,
                Err(Ended::HungUp) => return,
                Err(Ended::Broken(what)) => {
                    return self.condemn(line, format!("broke the protocol: {what}"));
                }
            };
            let is_short = others.under_way() >= line.carriers.load(Ordering::Relaxed);
            // Those that still wait for an answer to a worker that has died count as well.
            if is_short && self.carriers.load(Ordering::Relaxed) < MOST {
                // Without another one, calls wait for this one.
                let _ = self.add_carrier(line);
            }
            self.answer(line, taken);
        }
    }

    fn answer(&self, line: &Line, taken: Taken<'_>) {
        let mut reply = Reply::with_limit(LARGEST as usize);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.forward(line, &taken, &mut reply)))
            .unwrap_or_else(|_| Err(CallError::Failed("the host could not carry it".into())));
        let mut writer = taken.writer();
        let status = match outcome {
            Ok(()) => {
                writer.media_type(reply.content_type().as_bytes());
                writer.write(reply.bytes())
            }
            Err(error) => {
                let (status, reason) = error.status();
                writer.write(reason.as_bytes());
                status
            }
        };
        taken.finish(status, &writer);
    }

    fn forward(&self, line: &Line, taken: &Taken<'_>, reply: &mut Reply) -> Result<(), CallError> {
        let (name, request) = taken.copy_request();
        let name = String::from_utf8_lossy(&name);
        let (op::CALL_OTHER, Some((plugin, method))) = (taken.op(), name.split_once(' ')) else {
            return Err(CallError::Unsupported);
        };
        let mut context = taken.context();
        // The other plugin's slots are no plugin's to keep for longer than the host permits.
        if let Some(limit) = self.cells.call_limit().filter(|_| context.deadline_ns != 0) {
            context.deadline_ns = context.deadline_ns.min(after_ns(limit));
        }
        let call = OutgoingCall {
            plugin,
            method,
            request: &request,
            // One that is made for no call has none.
            context: (context.size != 0).then_some(&context),
        };
        self.services.call_until(&line.calls, call, reply)
    }
}

//! Calls that a plugin in a worker makes to the plugins that it requires.
//!
//! Threads of the host forward them; these sleep while the worker makes no call, and end with it. The
//! host copies what the worker wrote before it reads it, and ends a worker that breaks the protocol. The
//! number of calls in flight bounds the threads that a worker can cost, and `held` the memory. The calls end
//! with the worker, keep to the limit of all calls, and hold no more than a share of the other plugin's
//! slots.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use hotmerge_loader::{CallError, Media, OutgoingCall, Reply};
use hotmerge_wire::{Ended, Server, Taken, after_ns, op};

use crate::worker::{
    calls::Worker,
    error::LaunchError,
    process::{LARGEST_OUTGOING, Link, MOST_OUTGOING},
};

/// How long a reply is kept for a worker that makes no room for it, where calls have no limit. Its other
/// calls may have taken all the room.
const TAKES_REPLY: Duration = Duration::from_secs(60);

impl Worker {
    /// Starts to forward the calls of a worker, if its plugin may make any.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub(super) fn forward_calls(self: &Arc<Self>, link: &Arc<Link>) -> Result<(), LaunchError> {
        match &link.outgoing {
            Some(_) => self
                .add_forwarder(link)
                .map_err(LaunchError::at("start a thread")),
            None => Ok(()),
        }
    }

    fn add_forwarder(self: &Arc<Self>, link: &Arc<Link>) -> std::io::Result<()> {
        let (worker, of_thread) = (Arc::clone(self), Arc::clone(link));
        self.forwarders.fetch_add(1, Ordering::Relaxed);
        link.forwarders.fetch_add(1, Ordering::Relaxed);
        let spawned = thread::Builder::new().name("calls".into()).spawn(move || {
            if let Some(outgoing) = &of_thread.outgoing {
                worker.forward_loop(&of_thread, outgoing);
            }
            worker.forwarders.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            self.forwarders.fetch_sub(1, Ordering::Relaxed);
            link.forwarders.fetch_sub(1, Ordering::Relaxed);
        }
        spawned.map(drop)
    }

    fn forward_loop(self: &Arc<Self>, link: &Arc<Link>, outgoing: &Server) {
        loop {
            let taken = match outgoing.next() {
                Ok(taken) => taken,
                Err(Ended::HungUp) => return,
                Err(Ended::Broken(what)) => {
                    return self.order_kill(link, format!("broke the protocol: {what}"));
                }
            };
            let is_short = outgoing.under_way() >= link.forwarders.load(Ordering::Relaxed);
            // Those that still wait for an answer to a worker that has died count as well.
            if is_short && self.forwarders.load(Ordering::Relaxed) < MOST_OUTGOING {
                // Without another one, calls wait for this one.
                let _ = self.add_forwarder(link);
            }
            self.answer(link, taken);
        }
    }

    fn answer(&self, link: &Link, taken: Taken<'_>) {
        let mut reply = Reply::with_limit(LARGEST_OUTGOING as usize);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.forward(link, &taken, &mut reply)))
            .unwrap_or_else(|_| {
                Err(CallError::Failed(
                    "the host failed to forward the call".into(),
                ))
            });
        let limit = self.workers.call_limit().unwrap_or(TAKES_REPLY);
        let replies = &self.workers.replies;
        let held = replies.hold(&self.meta.name, &self.upward, reply.bytes().len());
        let mut writer = taken.writer().giving_up_at(after_ns(limit));
        if let Some(held) = &held {
            writer = writer.giving_up_if(held.is_given_up());
        }
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

    fn forward(&self, link: &Link, taken: &Taken<'_>, reply: &mut Reply) -> Result<(), CallError> {
        let (head, request) = taken.copy_request();
        let (name, said) = Media::split(&head);
        // The worker's word: judged as a caller's.
        let media = Media::new(said.content_type(), said.accept())
            .map_err(|error| CallError::BadRequest(error.to_string()))?;
        let name = String::from_utf8_lossy(name);
        let (op::CALL_OTHER, Some((plugin, method))) = (taken.op(), name.split_once(' ')) else {
            return Err(CallError::Unsupported);
        };
        let mut context = taken.context();
        // The other plugin's slots are no plugin's to keep for longer than the host permits.
        if let Some(limit) = self
            .workers
            .call_limit()
            .filter(|_| context.deadline_ns != 0)
        {
            context.deadline_ns = context.deadline_ns.min(after_ns(limit));
        }
        let call = OutgoingCall {
            plugin,
            method,
            request: &request,
            media,
            // One that is made for no call has none.
            context: (context.size != 0).then_some(&context),
        };
        self.upward.call_until(&link.calls, call, reply)
    }
}

#[cfg(test)]
mod tests;

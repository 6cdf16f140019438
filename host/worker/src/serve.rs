//! Answers what the host asks.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use hotmerge_abi::{self as abi, Status};
use hotmerge_loader::{CallError, Constructed, Instance, Media};
use hotmerge_sandbox::{Entered, Plan};
use hotmerge_wire::{Server, Taken, Writer, op};

use crate::{crash, error::StartError, services::Services, sink, start};

/// Everything that the serving threads share.
struct Worker {
    server: &'static Server,
    instance: OnceLock<Instance>,
    threads: AtomicU32,
    /// Most threads that serve: one per slot, and less if the plugin's limit is tight.
    most: u32,
}

/// Starts the plugin when the host asks for it, then serves until the end of the process.
pub(crate) fn run(
    server: &'static Server,
    services: Arc<Services>,
    plan: &Plan,
    entered: io::Result<Entered>,
) -> ! {
    let most = (plan.geometry[0]).min(plan.limits.threads / 2).max(1);
    let worker: &'static Worker = Box::leak(Box::new(Worker {
        server,
        instance: OnceLock::new(),
        threads: AtomicU32::new(1),
        most: most as u32,
    }));
    let loaded = worker.conclude(op::LOAD, |_| {
        let entered = entered?;
        let loaded = start::load(plan, entered.plugin)?;
        Ok((loaded, entered.missing.join("\n")))
    });
    let constructed = loaded.and_then(|loaded| {
        worker.conclude(op::CONSTRUCT, |_| Ok((loaded.construct()?, String::new())))
    });
    let started = constructed.and_then(|constructed| {
        worker.conclude(op::START, |taken| {
            Ok((begin(constructed, services, taken)?, String::new()))
        })
    });
    let checked = started.and_then(|instance| {
        worker.conclude(op::SELF_CHECK, |_| Ok((check(instance)?, String::new())))
    });
    match checked {
        Some(instance) => {
            worker.instance.get_or_init(|| instance);
            // While the host gets to its first call, so that the one after it finds somebody who waits.
            worker.add_thread();
            worker.serve();
        }
        None => {
            // The host ends this process; it may still want to hear of the end.
            worker.serve_end();
        }
    }
}

fn begin(
    constructed: Constructed,
    services: Arc<Services>,
    taken: &Taken<'_>,
) -> Result<Instance, StartError> {
    // SAFETY: the host leaves a request alone until it is answered.
    let (_, config) = unsafe { taken.request() };
    let config = str::from_utf8(config).map_err(|_| StartError::Configuration)?;
    Ok(constructed.start(config, services)?)
}

fn check(instance: Instance) -> Result<Instance, StartError> {
    instance.self_check().map_err(StartError::SelfCheck)?;
    if !crash::can_report() {
        // The host sees the end of its pipe later than this answer if another worker is just
        // being made, which holds all that the host holds until it is another program.
        return Err(StartError::Descriptors);
    }
    Ok(instance)
}

impl Worker {
    /// Takes the host's next request, which must be `op`, and answers it.
    fn conclude<R>(
        &self,
        op: u32,
        body: impl FnOnce(&Taken<'_>) -> Result<(R, String), StartError>,
    ) -> Option<R> {
        let taken = self.next();
        let mut writer = taken.writer();
        crash::enter(&taken);
        let outcome = match taken.op() == op {
            true => body(&taken),
            false => Err(StartError::Order),
        };
        let (status, result, said) = match outcome {
            Ok((result, said)) => (abi::STATUS_OK, Some(result), said),
            Err(error) => (abi::STATUS_FAILED, None, error.to_string()),
        };
        crash::tell_survived(b"", &[0; 16]);
        crash::leave();
        writer.write(said.as_bytes());
        taken.finish(status, &writer);
        result
    }

    fn add_thread(&'static self) {
        if self.threads.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.threads.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let spawned = thread::Builder::new()
            .name("serve".into())
            .spawn(|| self.serve());
        if spawned.is_err() {
            // The plugin's threads leave no room. Those that are there go on serving.
            self.threads.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The next call. Ends the process if the host breaks the protocol.
    fn next(&self) -> Taken<'_> {
        self.server.next().unwrap_or_else(|_| std::process::abort())
    }

    fn serve(&'static self) -> ! {
        loop {
            let taken = self.next();
            if self.server.under_way() >= self.threads.load(Ordering::Relaxed) {
                self.add_thread();
            }
            self.answer(taken);
        }
    }

    /// Refuses everything until the host says to end.
    fn serve_end(&self) -> ! {
        loop {
            let taken = self.next();
            let writer = taken.writer();
            let is_end = taken.op() == op::EXIT;
            taken.finish(abi::STATUS_FAILED, &writer);
            if is_end {
                // Without destructors: they are the plugin's.
                // SAFETY: ends the process.
                unsafe { libc::_exit(0) };
            }
        }
    }

    fn answer(&self, taken: Taken<'_>) {
        let mut writer = taken.writer();
        if taken.op() == op::EXIT {
            taken.finish(abi::STATUS_OK, &writer);
            // Without destructors: they are the plugin's, and it has been torn down.
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) };
        }
        if taken.is_cancelled() {
            taken.finish(abi::STATUS_DEADLINE, &writer);
            return;
        }
        crash::enter(&taken);
        let status = match self.instance.get() {
            Some(instance) => run_op(instance, &taken, &mut writer),
            None => abi::STATUS_FAILED,
        };
        // SAFETY: as in `run_op`.
        let (method, _) = unsafe { taken.request() };
        let method = match taken.op() {
            op::CALL | op::CALL_MEDIA => Media::split(method).0,
            _ => b"",
        };
        // Before the answer, so that the host has it before anything that the next call does.
        crash::tell_survived(method, &taken.context().trace_id);
        if status == abi::STATUS_PANIC {
            crash::panicked(method, &taken.context().trace_id, &writer.written());
        }
        crash::leave();
        taken.finish(status, &writer);
    }
}

fn run_op(instance: &Instance, taken: &Taken<'_>, writer: &mut Writer<'_>) -> Status {
    // SAFETY: the host leaves a request alone until it is answered.
    let (method, request) = unsafe { taken.request() };
    match taken.op() {
        op::CALL => {
            let sink = sink::over(writer);
            // SAFETY: the sink is over this call's writer, which outlives it.
            unsafe { instance.call_raw(&taken.context(), method, request, Media::default(), &sink) }
        }
        op::CALL_MEDIA => {
            let sink = sink::over(writer);
            let (method, media) = Media::split(method);
            // SAFETY: as above.
            unsafe { instance.call_raw(&taken.context(), method, request, media, &sink) }
        }
        op::DESCRIBE => {
            let sink = sink::over(writer);
            // SAFETY: as above.
            unsafe { instance.describe_raw(&sink) }
        }
        op::SAVE => {
            let sink = sink::over(writer);
            // SAFETY: as above.
            unsafe { instance.save_raw(&sink) }
        }
        op::RESTORE => {
            let from = String::from_utf8_lossy(method);
            conclude(instance.restore(&from, request), writer)
        }
        op::TEARDOWN => {
            let limit = request.try_into().map_or(0, u64::from_le_bytes);
            conclude(
                instance.teardown(std::time::Duration::from_nanos(limit)),
                writer,
            )
        }
        _ => abi::STATUS_UNSUPPORTED,
    }
}

fn conclude(result: Result<(), Box<CallError>>, writer: &mut Writer<'_>) -> Status {
    match result {
        Ok(()) => abi::STATUS_OK,
        Err(error) => {
            let (status, reason) = error.status();
            writer.clear();
            writer.write(reason.as_bytes());
            status
        }
    }
}

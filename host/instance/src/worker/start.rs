//! How the next process of a worker comes up: launched, then asked to start the plugin.

use hotmerge_abi::CallContext;
use hotmerge_loader::Reply;
use hotmerge_wire::{NoAnswer, Request, after_ns, op};

use crate::rules::admission::loadable;
use crate::worker::{
    calls::Worker,
    error::{LaunchError, NotStarted},
    exchange::{REASON_LIMIT, Unanswered, doing, exchange},
    process::{Link, Parts, Process},
};

impl Worker {
    /// Launches a process, with nothing of the plugin in it yet.
    pub(super) fn launch(&self) -> Result<Process, LaunchError> {
        let header = self.image.header();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&header.magic);
        bytes[8..10].copy_from_slice(&header.abi_major.to_ne_bytes());
        bytes[10..12].copy_from_slice(&header.abi_minor.to_ne_bytes());
        bytes[12..].copy_from_slice(&header.size.to_ne_bytes());
        let constructors = loadable(&self.image, &self.settings.limits)?;
        self.workers.launch(Parts {
            image: Some(self.image.memory()),
            plugin: self.log.plugin().as_str(),
            libraries: &self.libraries,
            header: bytes,
            constructors,
            grants: &self.settings.allow,
            judged: &[],
            limits: self.settings.limits.into(),
            calls_others: !self.meta.requires.is_empty(),
            user: self.settings.user,
        })
    }

    /// Asks a process to start the plugin, and to take over the last state that is known.
    pub(super) fn start_plugin(&self, link: &Link) -> Result<Vec<String>, NotStarted> {
        let limit = self.workers.settings().start_limit;
        let until_ns = after_ns(limit);
        let missing = self.demand(link, op::LOAD, "", &[], until_ns)?;
        // Nothing of the plugin has run so far that could make it look so.
        self.workers.check_filters(&self.settings.allow, link.pid)?;
        self.demand(link, op::CONSTRUCT, "", &[], until_ns)?;
        self.demand(link, op::START, "", self.config.as_bytes(), until_ns)?;
        self.demand(link, op::SELF_CHECK, "", &[], until_ns)?;
        if let Some(saved) = self.checkpoint.last()
            && let Err(error) = self.demand(
                link,
                op::RESTORE,
                &saved.from,
                &saved.bytes,
                after_ns(limit),
            )
        {
            // An instance that did not take it over must not take calls, and the next one is
            // not tried with it again.
            self.checkpoint.forget();
            return Err(NotStarted::State(Box::new(error)));
        }
        tracing::trace!(
            target: "hotmerge::worker",
            pid = link.pid,
            state_age = ?self.checkpoint.age(),
            "started, with the last state if there is one"
        );
        Ok(missing.lines().map(str::to_owned).collect())
    }

    fn demand(
        &self,
        link: &Link,
        op: u32,
        method: &str,
        bytes: &[u8],
        until_ns: u64,
    ) -> Result<String, NotStarted> {
        let context = CallContext::default();
        let limit = self.workers.settings().start_limit;
        let step = doing(op).unwrap_or("it started");
        let request = Request {
            op,
            context: &context,
            method,
            bytes,
            reply_limit: REASON_LIMIT,
            give_up_ns: until_ns,
            cancel: None,
            on_behalf_of: None,
        };
        let mut reply = Reply::with_limit(REASON_LIMIT);
        match exchange(link, &request, &mut reply) {
            Ok(()) => Ok(String::from_utf8_lossy(reply.bytes()).into_owned()),
            Err(Unanswered::Refused(error)) => Err(NotStarted::Refused(error.to_string())),
            Err(Unanswered::Failed(NoAnswer::Gone { .. })) => {
                let end = link.failure().unwrap_or_else(|| "has ended".into());
                Err(NotStarted::Ended(end.or_during(Some(step.to_owned()))))
            }
            Err(Unanswered::Failed(NoAnswer::Deadline)) => Err(NotStarted::TooSlow {
                limit_ms: limit.as_millis(),
                step,
            }),
            Err(Unanswered::Failed(failure)) => Err(NotStarted::Refused(failure.to_string())),
        }
    }
}

//! What of the sandbox this system gives: tried from the best to the least, and believed only
//! after a stub has failed to break out.

use std::{collections::BTreeSet, os::unix::process::ExitStatusExt as _};

use hotmerge_loader::Constructors;
use hotmerge_sandbox::Limits;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
};
use signal_hook::consts::SIGSYS;

use crate::worker::{
    error::ProbeError,
    process::{Parts, Process},
    report::{self, Report},
    shared::Workers,
};

impl Workers {
    /// Lets a stub try what a hostile plugin would, in the best sandbox that this system gives.
    /// Only what was seen to fail is believed.
    pub(super) fn probe(&mut self) {
        let users = if self.own_users {
            &[true, false][..]
        } else {
            &[false]
        };
        let mut reasons = Vec::new();
        for (namespaces, own_users) in [true, false]
            .into_iter()
            .flat_map(|namespaces| users.iter().map(move |own| (namespaces, *own)))
        {
            (self.namespaces, self.own_users) = (namespaces, own_users);
            match self.probe_once() {
                Ok(parts) => {
                    self.missing.extend(self.lacks(users.len(), &reasons));
                    self.missing.extend(parts);
                    return;
                }
                Err(error) => reasons.push(error.to_string()),
            }
        }
        // The best way comes first; what kept the others from working may be something else.
        let mut known = BTreeSet::new();
        reasons.retain(|reason| known.insert(reason.clone()));
        self.missing
            .push(format!("workers: {}", reasons.join("; ")));
        self.program = None;
    }

    /// What the way that works lacks, and why the ways before it failed; each namespace choice
    /// has as many ways as there are choices of users.
    fn lacks(&self, users: usize, reasons: &[String]) -> Vec<String> {
        let mut missing = Vec::new();
        if !self.namespaces {
            missing.push(format!("namespaces: {}", reasons[0]));
        }
        if users > 1 && !self.own_users {
            let last = reasons.last().map_or("", String::as_str);
            missing.push(format!(
                "users of their own, so that workers are root: {last}"
            ));
        }
        missing
    }

    fn probe_once(&self) -> Result<Vec<String>, ProbeError> {
        let process = self.launch(Parts {
            plugin: "",
            libraries: &[],
            image: None,
            header: [0; 16],
            constructors: &Constructors::default(),
            grants: &[],
            limits: Limits::default(),
            calls_others: false,
            user: None,
        })?;
        result(process)
    }
}

/// What a probe found to be missing.
fn result(mut process: Process) -> Result<Vec<String>, ProbeError> {
    let mut missing = Vec::new();
    let mut tried = false;
    let limit = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    let mut ends = [PollFd::new(&process.pidfd, PollFlags::IN)];
    // A service manager's signals may come as early as this.
    let ended = retry_on_intr(|| poll(&mut ends, Some(&limit))).is_ok_and(|ready| ready > 0);
    if !ended {
        process.kill();
    }
    let end = process.reap(true);
    while let Some(report) = process.report() {
        let Report::Text(text) = report else { continue };
        match (text.strip_prefix("missing "), &*text) {
            (Some(part), _) => missing.push(part.to_owned()),
            (None, "tried") => tried = true,
            (None, attempt) => missing.push(format!("a hostile stub could {attempt}")),
        }
    }
    if !ended || !tried {
        for pipe in process.printed.iter().filter_map(|it| it.pipe.as_ref()) {
            let mut bytes = [0; 512];
            let len = rustix::io::read(pipe, &mut bytes).unwrap_or(0);
            let said = String::from_utf8_lossy(&bytes[..len]);
            if !said.trim_end().is_empty() {
                missing.push(said.trim_end().to_owned());
            }
        }
        let end = end.map_or_else(
            || "did not end".to_owned(),
            |end| report::ended(&end, &process.limits),
        );
        let said = missing.join("; ");
        return Err(ProbeError::Ended { end, said });
    }
    let by_filter = end.and_then(|end| end.status.signal()) == Some(SIGSYS);
    if !by_filter {
        missing.push("a hostile stub could run another program".to_owned());
    }
    Ok(missing)
}

//! Which sandbox this system provides: tried from the strongest to the weakest, and trusted only
//! after a stub has failed to break out.

use std::{collections::BTreeSet, os::unix::process::ExitStatusExt as _};

use hotmerge_loader::Constructors;
use hotmerge_sandbox::{Ended, Limits};
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
    /// Lets a stub attempt what a hostile plugin would, in the strongest sandbox that works here.
    /// An attempt counts as prevented only if it was seen to fail.
    pub(super) fn probe(&mut self) {
        let can_have_users = self.own_users;
        let mut reasons = Vec::new();
        for way in ways(can_have_users) {
            (self.namespaces, self.own_users) = way;
            match self.probe_once() {
                Ok(parts) => {
                    self.missing.extend(lacks(way, can_have_users, &reasons));
                    self.missing.extend(parts);
                    return;
                }
                Err(error) => {
                    self.never_in_host |=
                        matches!(&error, ProbeError::Launch(error) if error.is_shortage());
                    reasons.push(error.to_string());
                }
            }
        }
        // The strongest comes first; the weaker ones may have failed for other reasons.
        let mut known = BTreeSet::new();
        reasons.retain(|reason| known.insert(reason.clone()));
        self.missing
            .push(format!("workers: {}", reasons.join("; ")));
        self.program = None;
    }

    fn probe_once(&self) -> Result<Vec<String>, ProbeError> {
        let process = self.launch(Parts {
            plugin: "",
            libraries: &[],
            image: None,
            header: [0; 16],
            constructors: &Constructors::default(),
            grants: &[],
            judged: &[],
            limits: Limits::default(),
            calls_others: false,
            user: None,
        })?;
        result(process)
    }
}

/// Whether in namespaces and whether with users of their own, from the strongest sandbox to the
/// weakest. Only a root host can set other users.
fn ways(can_have_users: bool) -> impl Iterator<Item = (bool, bool)> {
    let users = if can_have_users {
        &[true, false][..]
    } else {
        &[false]
    };
    let namespaces = [true, false].into_iter();
    namespaces.flat_map(|namespaces| users.iter().map(move |own| (namespaces, *own)))
}

/// What the sandbox that works lacks, and why the stronger ones failed.
fn lacks(
    (namespaces, own_users): (bool, bool),
    can_have_users: bool,
    reasons: &[String],
) -> Vec<String> {
    let mut missing = Vec::new();
    if !namespaces {
        let first = reasons.first().map_or("", String::as_str);
        missing.push(format!("namespaces: {first}"));
    }
    if can_have_users && !own_users {
        let last = reasons.last().map_or("", String::as_str);
        missing.push(format!("separate users, so workers run as root: {last}"));
    }
    missing
}

/// Waits for a stub's end, and judges what it left behind.
fn result(mut process: Process) -> Result<Vec<String>, ProbeError> {
    let limit = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    let mut ends = [PollFd::new(&process.pidfd, PollFlags::IN)];
    // A service manager's signals may come as early as this.
    let in_time = retry_on_intr(|| poll(&mut ends, Some(&limit))).is_ok_and(|ready| ready > 0);
    if !in_time {
        process.kill();
    }
    let ended = process.reap(true).filter(|_| in_time);
    let mut traces = Traces::default();
    while let Some(report) = process.report() {
        if let Report::Text(text) = report {
            traces.reported.push(text);
        }
    }
    for pipe in process.printed.iter().filter_map(|it| it.pipe.as_ref()) {
        let mut bytes = [0; 512];
        let len = rustix::io::read(pipe, &mut bytes).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..len]);
        traces.printed.push(text.trim_end().to_owned());
    }
    traces.judge(ended.as_ref(), &process.limits)
}

/// What a stub left behind.
#[derive(Debug, Default)]
struct Traces {
    reported: Vec<String>,
    printed: Vec<String>,
}

impl Traces {
    /// The parts of the sandbox that are missing; an error if the stub did not get as far as its
    /// attempts. `ended` is `None` if it did not end by itself.
    fn judge(self, ended: Option<&Ended>, limits: &Limits) -> Result<Vec<String>, ProbeError> {
        let mut missing = Vec::new();
        let mut tried = false;
        for text in &self.reported {
            match (text.strip_prefix("missing "), &**text) {
                (Some(part), _) => missing.push(part.to_owned()),
                (None, "tried") => tried = true,
                (None, attempt) => missing.push(format!("a hostile stub could {attempt}")),
            }
        }
        let (Some(ended), true) = (ended, tried) else {
            missing.extend(self.printed.into_iter().filter(|text| !text.is_empty()));
            return Err(ProbeError::Ended {
                end: ended.map_or_else(
                    || "did not end".to_owned(),
                    |ended| report::ended(ended, limits),
                ),
                said: missing.join("; "),
            });
        };
        if ended.status.signal() != Some(SIGSYS) {
            missing.push("a hostile stub could run another program".to_owned());
        }
        Ok(missing)
    }
}

#[cfg(test)]
mod tests {
    use std::{process::ExitStatus, time::Duration};

    use super::*;

    /// The wait status of a process that this signal killed.
    fn killed(signal: i32) -> Ended {
        Ended {
            status: ExitStatus::from_raw(signal),
            cpu: Duration::ZERO,
        }
    }

    fn judge(reported: &[&str], ended: Option<Ended>) -> Result<Vec<String>, String> {
        let traces = Traces {
            reported: reported.iter().map(ToString::to_string).collect(),
            printed: vec![String::new(), "no memory".to_owned()],
        };
        let judged = traces.judge(ended.as_ref(), &Limits::default());
        judged.map_err(|error| error.to_string())
    }

    #[test]
    fn a_stub_that_achieved_nothing_proves_the_sandbox() {
        assert_eq!(judge(&["tried"], Some(killed(SIGSYS))), Ok(Vec::new()));
    }

    #[test]
    fn every_successful_attempt_is_a_missing_part() {
        let reported = [
            "missing Landlock: no",
            "socket",
            "tried",
            "go on after exec",
        ];
        let missing = judge(&reported, Some(killed(SIGSYS))).unwrap();
        let expected = [
            "Landlock: no",
            "a hostile stub could socket",
            "a hostile stub could go on after exec",
        ];
        assert_eq!(missing, expected);
        let exited = Ended {
            status: ExitStatus::from_raw(0),
            ..killed(0)
        };
        let missing = judge(&["tried"], Some(exited)).unwrap();
        assert_eq!(missing, ["a hostile stub could run another program"]);
    }

    #[test]
    fn a_stub_that_tried_nothing_proves_nothing() {
        let refused = judge(&[], Some(killed(SIGSYS))).unwrap_err();
        assert!(
            refused.contains("SIGSYS") && refused.contains("no memory"),
            "{refused}"
        );
        let refused = judge(&["tried"], None).unwrap_err();
        assert!(refused.contains("did not end"), "{refused}");
    }

    #[test]
    fn the_strongest_sandbox_is_tried_first() {
        let all = [(true, true), (true, false), (false, true), (false, false)];
        assert!(ways(true).eq(all));
        assert!(ways(false).eq([(true, false), (false, false)]));
    }

    #[test]
    fn each_weaker_part_names_its_reason() {
        let reasons = ["first".to_owned(), "second".to_owned(), "third".to_owned()];
        let lacks = |way, own_users| lacks(way, own_users, &reasons);
        assert_eq!(lacks((true, true), true), [""; 0]);
        assert_eq!(lacks((true, false), false), [""; 0]);
        assert_eq!(lacks((false, true), true), ["namespaces: first"]);
        let both = lacks((false, false), true);
        assert_eq!(both.len(), 2);
        assert!(
            both[1].ends_with("so workers run as root: third"),
            "{both:?}"
        );
    }
}

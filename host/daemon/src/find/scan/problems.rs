//! Reports after every scan what cannot be used.

use std::time::Instant;

use hotmerge_meta::control::Problem;

use super::{Findings, Scanner, look_again};

impl Scanner {
    /// Notes that the plugin directory itself cannot be read.
    pub(super) fn root_is_unreadable(
        &mut self,
        reason: String,
        now: Instant,
        findings: &mut Findings,
    ) {
        let since = *self.root_unsettled.get_or_insert(now);
        self.unsettled_or_problem(now, since, String::new(), reason, findings);
    }

    pub(super) fn tell_problems(&self, now: Instant, findings: &mut Findings) {
        for (name, reason) in &self.strays {
            findings
                .problems
                .push(problem(name.clone(), reason.clone()));
        }
        for package in self
            .restless
            .iter()
            .filter_map(|name| self.packages.get(name))
        {
            if let Some((since, reason)) = &package.unsettled {
                let name = package.name.to_string();
                self.unsettled_or_problem(now, *since, name, reason.clone(), findings);
            }
            for plugin in &package.conflicts {
                match self.owners.get(plugin) {
                    Some(owner) => findings.problems.push(problem(
                        package.name.to_string(),
                        format!(
                            "plugin `{plugin}` is also in package `{owner}`, which provides it; remove \
                             one of the two"
                        ),
                    )),
                    // The other package contained it until this scan.
                    None => look_again(now, now, findings),
                }
            }
        }
        findings
            .problems
            .sort_by(|a, b| (&a.package, &a.reason).cmp(&(&b.package, &b.reason)));
    }

    fn unsettled_or_problem(
        &self,
        now: Instant,
        since: Instant,
        package: String,
        reason: String,
        findings: &mut Findings,
    ) {
        if now < since + self.settle {
            look_again(now, since + self.settle, findings);
        } else {
            findings.problems.push(problem(package, reason));
        }
    }
}

fn problem(package: String, reason: String) -> Problem {
    Problem { package, reason }
}

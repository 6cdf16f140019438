//! Retiring versions: each drains, is torn down, and ends.
//!
//! Invariant: a version that went live or took a share of the calls passes through here before
//! it ends, and leaves only by its `Ended` event.

use std::sync::Arc;

use hotmerge_meta::PluginMeta;

use crate::{
    Action, Ending, Later, Leave, Note, Now, Outcome, PluginState, Refused, Stage, Ticket,
    slot::{GONE, Old, STOPPED, Slot},
};

impl Slot {
    /// Takes the live version out of service: for good, or because of a plugin it requires.
    pub(super) fn withdraw(&mut self, why: Leave, out: &mut Vec<Action>) {
        if self.stage() == Some(Stage::HandingOver) {
            return;
        }
        self.abandon(out);
        let Some(live) = self.live.take() else {
            return;
        };
        let outcome = match why {
            Leave::Unmet(reason) => {
                self.because(reason.clone());
                let refused = Refused {
                    meta: Arc::clone(&live.meta),
                    reason,
                    lasting: false,
                };
                self.refused = Some(refused.clone());
                self.blocked = true;
                Outcome::Refused(refused)
            }
            Leave::Gone => {
                self.because(GONE);
                self.clear_refusal();
                Outcome::Removed(live.meta.hash)
            }
            Leave::Stopped => {
                self.because(STOPPED);
                self.clear_refusal();
                Outcome::Stopped(live.meta.hash)
            }
        };
        let ticket = live.ticket;
        out.push(Now::Withdraw.into());
        self.drain(live.ticket, live.meta, out);
        out.push(Now::Report(ticket, outcome).into());
    }

    pub(super) fn drained(&mut self, ticket: Ticket, out: &mut Vec<Action>) {
        self.advance_old(ticket, out, |ending| match ending {
            Ending::Draining | Ending::Overdue => Ending::TearingDown,
            other => other,
        });
    }

    pub(super) fn late(&mut self, ticket: Ticket, out: &mut Vec<Action>) {
        self.advance_old(ticket, out, |ending| match ending {
            Ending::Draining | Ending::Overdue => Ending::Overdue,
            Ending::TearingDown | Ending::Stuck => Ending::Stuck,
        });
    }

    pub(super) fn ended(&mut self, ticket: Ticket, out: &mut Vec<Action>) {
        if let Some(index) = self.retiring.iter().position(|old| old.ticket == ticket) {
            let old = self.retiring.remove(index);
            out.push(
                Now::Note(Note::Old {
                    hash: old.meta.hash,
                    from: Some(old.ending),
                    to: None,
                })
                .into(),
            );
            if self.retiring.is_empty() && self.state() == PluginState::Idle {
                self.because("the last old version has ended");
            }
        }
    }

    pub(super) fn drain(&mut self, ticket: Ticket, meta: Arc<PluginMeta>, out: &mut Vec<Action>) {
        out.push(Later::Drain(ticket).into());
        out.push(
            Now::Note(Note::Old {
                hash: meta.hash,
                from: None,
                to: Some(Ending::Draining),
            })
            .into(),
        );
        self.retiring.push(Old {
            ticket,
            meta,
            ending: Ending::Draining,
        });
    }

    fn advance_old(
        &mut self,
        ticket: Ticket,
        out: &mut Vec<Action>,
        next: impl FnOnce(Ending) -> Ending,
    ) {
        let Some(old) = self.retiring.iter_mut().find(|old| old.ticket == ticket) else {
            return;
        };
        let from = old.ending;
        old.ending = next(from);
        if old.ending != from {
            out.push(
                Now::Note(Note::Old {
                    hash: old.meta.hash,
                    from: Some(from),
                    to: Some(old.ending),
                })
                .into(),
            );
            if old.ending == Ending::TearingDown {
                out.push(Later::End(ticket).into());
            }
        }
    }
}

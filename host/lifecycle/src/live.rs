//! A plugin's live version: what makes it start anew, and crashes.
//!
//! Invariant: a restart waits until no other attempt is under way, and of several reasons a crash is the
//! one that stays.
//!
//! Absent on purpose: the attempt that a restart is, which `candidate` carries out.

use std::sync::Arc;

use hotmerge_meta::{OnReplace, PluginMeta, PluginName};

use crate::{
    Action, Note, Now, Reconfigured, Stage, Ticket, Why,
    slot::{Live, Slot},
};

impl Slot {
    /// A plugin that this one may require was replaced.
    pub(super) fn outdate(&mut self, replaced: &PluginName) {
        let keeps = |meta: &PluginMeta| {
            let mut requires = meta.requires.iter();
            requires.any(|it| it.name == *replaced && it.on_replace == OnReplace::Reload)
        };
        if self.live.as_ref().is_some_and(|live| keeps(&live.meta)) {
            self.request_restart(Why::Replaced);
        }
        if let Some(candidate) = &mut self.candidate {
            // Those that have not started yet will start with the new one.
            let has_started = candidate.stage > Stage::Waiting;
            if has_started && keeps(&candidate.attempt.target.meta) {
                candidate.stale = Some(Why::Replaced);
            }
        }
    }

    /// Other settings are in force. Returns whether the directory's version, if it is not the live
    /// one, is to be tried again.
    pub(super) fn reconfigured(&mut self, what: Reconfigured) -> bool {
        if let Some(candidate) = &mut self.candidate
            && candidate.stage > Stage::Waiting
        {
            candidate.stale = match candidate.stale {
                Some(Why::Replaced) => candidate.stale,
                Some(
                    Why::Changed
                    | Why::Asked
                    | Why::AskedWithoutState
                    | Why::WithoutState
                    | Why::Chosen
                    | Why::Unpinned
                    | Why::Unblocked
                    | Why::Fallback
                    | Why::Crashed
                    | Why::Reconfigured,
                )
                | None => what.candidate.then_some(Why::Reconfigured),
            };
        }
        self.outdated = what.live;
        if what.live && what.changed {
            self.request_restart(Why::Reconfigured);
        } else if !what.live && self.restart == Some(Why::Reconfigured) {
            self.restart = None;
        }
        let live = self.live.as_ref().map(|live| live.meta.hash);
        let Some(refused) = self.refused.as_ref().map(|refused| refused.meta.hash) else {
            return false;
        };
        if live != Some(refused) {
            return what.changed && self.candidate.is_none();
        }
        if !what.live {
            // It was refused with settings that are gone, maybe in place of another refusal.
            self.clear_refusal();
        }
        !what.live && self.candidate.is_none()
    }

    /// Whether the live version runs with other settings than those in force.
    pub fn is_outdated(&self) -> bool {
        self.outdated && self.live.is_some()
    }

    /// The live version and the reason, if it must restart and nothing precedes that.
    pub(super) fn take_restart(&mut self) -> Option<(Arc<PluginMeta>, Why)> {
        let live = self.live.as_ref()?;
        if self.candidate.is_some() || self.deferred.is_some() {
            return None;
        }
        let why = self.restart.take()?;
        Some((Arc::clone(&live.meta), why))
    }

    /// Requests a restart of the live version. A crash is the stronger reason: a crashed version
    /// cannot wait for the directory.
    pub(super) fn request_restart(&mut self, why: Why) {
        if self.restart != Some(Why::Crashed) {
            self.restart = Some(why);
        }
    }

    fn live_at(&mut self, ticket: Ticket) -> Option<&mut Live> {
        self.live.as_mut().filter(|live| live.ticket == ticket)
    }

    /// The live version crashed, or a panic of it was caught.
    pub(super) fn crashed(&mut self, ticket: Ticket, what: String, out: &mut Vec<Action>) {
        if self.live_at(ticket).is_some() {
            let at = (self.state(), self.stage());
            out.push(Now::Note(Note::Crash { at, what }).into());
        }
    }

    /// A new instance must replace the live one.
    pub(super) fn replace(&mut self, ticket: Ticket) {
        if self.live_at(ticket).is_some() {
            self.request_restart(Why::Crashed);
        }
    }

    /// The live version crashed too often.
    pub(super) fn give_up(&mut self, ticket: Ticket, reason: String) {
        if let Some(live) = self.live_at(ticket) {
            live.given_up = true;
            self.restart = None;
            self.because(reason);
        }
    }

    /// The live version is tried again by hand.
    pub(super) fn revive(&mut self, ticket: Ticket) {
        if let Some(live) = self.live_at(ticket)
            && live.given_up
        {
            live.given_up = false;
            self.because("an operator asked to try it again");
        }
    }
}

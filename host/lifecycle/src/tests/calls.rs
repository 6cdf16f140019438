//! Calls of the plugins of the model: each begins on what is current, and ends when the test
//! says so, whatever has become of that version meanwhile.

use std::collections::BTreeSet;

use hotmerge_meta::PluginName;

use super::*;

/// The calls that have begun and not ended yet.
#[derive(Default)]
pub(super) struct Calls {
    /// On which version.
    running: Vec<Ticket>,
    /// Calls that came while state changes hands: whose.
    waiting: Vec<PluginName>,
}

impl Calls {
    pub(super) fn run_on(&self, ticket: Ticket) -> bool {
        self.running.contains(&ticket)
    }

    /// Whose calls wait.
    pub(super) fn wait_for(&self) -> BTreeSet<&PluginName> {
        self.waiting.iter().collect()
    }

    pub(super) fn are_none(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }
}

impl Model {
    /// Somebody calls a plugin: the live version, or the one that is tried (`shared`).
    pub(super) fn begin_call(&mut self, plugin: &PluginName, shared: bool) {
        if self.paused.contains(plugin) {
            self.calls.waiting.push(plugin.clone());
            return;
        }
        let slot = self.machine.slot(plugin.as_str());
        let tried = self.at(plugin, Place::Trying).filter(|_| shared);
        let live = self.at(plugin, Place::Live);
        if let Some(tried) = tried {
            let candidate = slot.and_then(Slot::candidate).map(|(ticket, _)| ticket);
            assert_eq!(candidate, Some(tried), "a call of what is not tried");
            assert_eq!(slot.and_then(Slot::stage), Some(Stage::Trying));
        } else if let Some(live) = live {
            let current = slot.and_then(Slot::live).map(|live| live.ticket);
            assert_eq!(current, Some(live), "a call of what is not current");
        }
        self.calls.running.extend(tried.or(live));
    }

    /// One of the calls returns.
    pub(super) fn end_call(&mut self, which: usize) {
        if self.calls.running.is_empty() {
            return;
        }
        let index = which % self.calls.running.len();
        let ticket = self.calls.running.swap_remove(index);
        let place = self.place(ticket);
        assert_ne!(place, Place::Ended, "a call's version is no more");
    }

    /// All calls return.
    pub(super) fn end_calls(&mut self) {
        while !self.calls.running.is_empty() {
            self.end_call(0);
        }
    }

    /// Calls that waited go on where the pause is over.
    pub(super) fn let_calls_go_on(&mut self) {
        for plugin in std::mem::take(&mut self.calls.waiting) {
            self.begin_call(&plugin, false);
        }
    }
}

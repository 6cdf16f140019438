//! The operator's choices, which override the plugin directory: rollbacks, pins, and their fate
//! when the directory changes.
//!
//! Invariant: a pin applies until it is removed; a rolled-back version stays out for as long as
//! the directory has it.

use std::sync::Arc;

use hotmerge_meta::{Digest, PluginMeta, PluginName};

use crate::{
    Choice, Later, Now, Outcome, Refused, Stage, Step, Target, Why,
    machine::{Machine, push},
    slot::{Attempt, Slot},
};

/// Why an operator's choice was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// No version of the plugin runs.
    #[error("no version of plugin `{0}` is loaded; see `hotmerge status`")]
    NotLive(PluginName),
    /// A pin prevents it.
    #[error("plugin `{0}` is pinned; run `hotmerge unpin {0}` first")]
    Pinned(PluginName),
    /// There is no pin to remove.
    #[error("plugin `{0}` is not pinned")]
    NotPinned(PluginName),
    /// A version is currently taking over its state.
    #[error("plugin `{0}` is currently being replaced; try again")]
    Busy(PluginName),
    /// The version runs already.
    #[error("plugin `{0}` runs {1} already")]
    Runs(PluginName, Digest),
}

impl Machine {
    /// The operator's choice, which overrides the directory.
    pub fn choice(&self, name: &PluginName) -> Option<&Choice> {
        match self.slots.get(name) {
            Some(slot) => slot.choice(),
            None => self.choices.get(name),
        }
    }

    /// Switches to a stored version that an operator chose over the one in the directory, until
    /// the directory changes. Without `takes_state` it starts fresh.
    ///
    /// # Errors
    /// See [`ChoiceError`].
    pub fn roll_back(
        &mut self,
        name: &PluginName,
        to: Arc<PluginMeta>,
        takes_state: bool,
    ) -> Result<Vec<Step>, ChoiceError> {
        let slot = self.slots.get(name);
        if !self.directory.contains_key(name) {
            return Err(ChoiceError::NotLive(name.clone()));
        }
        if slot
            .and_then(Slot::live)
            .is_some_and(|live| live.meta.hash == to.hash)
        {
            return Err(ChoiceError::Runs(name.clone(), to.hash));
        }
        if self.choice(name).is_some_and(|choice| choice.pinned) {
            return Err(ChoiceError::Pinned(name.clone()));
        }
        let found = self.directory.get(name).cloned();
        let attempt = match found {
            Some(target) if target.meta.hash == to.hash => Attempt {
                target: Target {
                    takes_state,
                    is_ordered: true,
                    ..target
                },
                why: Why::Chosen,
                choice: None,
            },
            found => Attempt {
                target: Target {
                    takes_state,
                    is_ordered: true,
                    ..Target::kept(Arc::clone(&to))
                },
                why: Why::Chosen,
                choice: Some(Choice {
                    meta: to,
                    pinned: false,
                    instead_of: found.map(|target| target.meta.hash),
                }),
            },
        };
        let mut steps = Vec::new();
        self.attempt(name, attempt, &mut steps);
        self.settle(&mut steps);
        Ok(steps)
    }

    /// Keeps the running version, regardless of the directory.
    ///
    /// # Errors
    /// See [`ChoiceError`].
    pub fn pin(&mut self, name: &PluginName) -> Result<Vec<Step>, ChoiceError> {
        let meta = self.live_meta(name)?;
        if self.choice(name).is_some_and(|choice| choice.pinned) {
            return Err(ChoiceError::Pinned(name.clone()));
        }
        if self.slots.get(name).and_then(Slot::stage) == Some(Stage::HandingOver) {
            return Err(ChoiceError::Busy(name.clone()));
        }
        let instead_of = self.choice(name).and_then(|choice| choice.instead_of);
        let hash = meta.hash;
        let choice = Choice {
            meta,
            pinned: true,
            instead_of,
        };
        self.choose(name, Some(choice.clone()));
        let mut steps = Vec::new();
        push(&mut steps, name, Later::Persist.into());
        if let Some(slot) = self.slots.get_mut(name) {
            slot.deferred = None;
            // If it may continue, it must not restore the earlier choice.
            if let Some(candidate) = &mut slot.candidate {
                candidate.attempt.choice = Some(choice);
            }
        }
        // A candidate in progress must not replace the pinned version, unless it has the same hash.
        if let Some((ticket, target)) = self.slots.get(name).and_then(Slot::candidate)
            && target.meta.hash != hash
        {
            let refused = Refused {
                meta: Arc::clone(&target.meta),
                reason: "the running version was pinned".to_owned(),
                lasting: false,
            };
            self.change(name, &mut steps, |slot, out| {
                slot.failed(ticket, refused, out);
            });
        }
        self.settle(&mut steps);
        Ok(steps)
    }

    /// Lets the directory decide again.
    ///
    /// # Errors
    /// See [`ChoiceError`].
    pub fn unpin(&mut self, name: &PluginName) -> Result<Vec<Step>, ChoiceError> {
        let Some(choice) = self.choice(name).filter(|choice| choice.pinned).cloned() else {
            return Err(ChoiceError::NotPinned(name.clone()));
        };
        let rolled_back = choice.instead_of.is_some();
        let choice = Choice {
            pinned: false,
            ..choice
        };
        self.choose(name, rolled_back.then_some(choice));
        let mut steps = Vec::new();
        push(&mut steps, name, Later::Persist.into());
        self.offer(name, Why::Unpinned, &mut steps);
        self.settle(&mut steps);
        Ok(steps)
    }

    fn live_meta(&self, name: &PluginName) -> Result<Arc<PluginMeta>, ChoiceError> {
        let live = self.slots.get(name).and_then(Slot::live);
        live.map(|live| Arc::clone(&live.meta))
            .ok_or_else(|| ChoiceError::NotLive(name.clone()))
    }

    pub(super) fn choose(&mut self, name: &PluginName, choice: Option<Choice>) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.choice.clone_from(&choice);
        }
        match choice {
            Some(choice) => self.choices.insert(name.clone(), choice),
            None => self.choices.remove(name),
        };
    }

    /// The directory has a version to try; a choice may override it.
    pub(super) fn offer(&mut self, name: &PluginName, why: Why, steps: &mut Vec<Step>) {
        let Some(found) = self.directory.get(name).cloned() else {
            return;
        };
        let hash = found.meta.hash;
        let mut choice = self.choice(name).cloned();
        if let Some(Choice {
            pinned,
            instead_of: instead_of @ Some(_),
            ..
        }) = &mut choice
            && *instead_of != Some(hash)
        {
            // The directory no longer has the rolled-back version.
            *instead_of = None;
            let pinned = *pinned;
            choice = choice.filter(|_| pinned);
            self.choose(name, choice.clone());
            push(steps, name, Later::Persist.into());
        }
        match choice {
            Some(choice) if choice.stands_against(&hash) => {
                self.hold(name, &found, &choice, why, steps);
            }
            choice => {
                let choice = choice.filter(|choice| choice.pinned);
                let attempt = Attempt {
                    target: found,
                    why,
                    choice,
                };
                self.attempt(name, attempt, steps);
            }
        }
    }

    /// The directory's version must not run: reports that and makes sure that the chosen one runs.
    fn hold(
        &mut self,
        name: &PluginName,
        found: &Target,
        choice: &Choice,
        why: Why,
        steps: &mut Vec<Step>,
    ) {
        let slot = self.slots.get(name);
        let live = slot.and_then(Slot::live);
        if let Some(live) = live
            && live.meta.hash == choice.meta.hash
        {
            let reason = choice.reason(name, &found.meta.hash);
            let refused = Refused {
                meta: Arc::clone(&found.meta),
                reason,
                lasting: true,
            };
            // Removing a pin offers no version that could be refused.
            let outcome = match why {
                Why::Unpinned => Outcome::StaysOut(refused),
                Why::Changed
                | Why::Asked
                | Why::AskedWithoutState
                | Why::WithoutState
                | Why::Chosen
                | Why::Replaced
                | Why::Unblocked
                | Why::Fallback
                | Why::Crashed
                | Why::Reconfigured => Outcome::Refused(refused),
            };
            push(steps, name, Now::Report(live.ticket, outcome).into());
            // A candidate in progress comes from the directory's earlier contents.
            if slot.and_then(Slot::candidate).is_none() {
                // It may have been leaving when it was due to restart.
                return self.restart_live(name, steps);
            }
        }
        let attempt = Attempt {
            target: Target::kept(Arc::clone(&choice.meta)),
            why,
            choice: Some(choice.clone()),
        };
        self.attempt(name, attempt, steps);
    }
}

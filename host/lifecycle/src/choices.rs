//! What an operator chooses over the plugin directory: to roll back, to pin, and what becomes
//! of a choice when the directory changes.
//!
//! Invariant: a pin stands until it is taken out; a version that was rolled back stays away for
//! as long as the directory has it.

use std::sync::Arc;

use hotmerge_meta::{Digest, PluginMeta, PluginName};

use crate::{
    Choice, Later, Now, Outcome, Refused, Stage, Step, Target, Why,
    machine::{Machine, push},
    slot::{Attempt, Slot},
};

/// Why an operator's choice was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// Nothing of the plugin runs.
    #[error("no version of plugin `{0}` is loaded; see `hotmerge status`")]
    NotLive(PluginName),
    /// A pin stands against it.
    #[error("plugin `{0}` is pinned; `hotmerge unpin {0}` first")]
    Pinned(PluginName),
    /// There is no pin to take out.
    #[error("plugin `{0}` is not pinned")]
    NotPinned(PluginName),
    /// A version is taking over its state at this moment.
    #[error("plugin `{0}` is being replaced at this moment; try again")]
    Busy(PluginName),
    /// The version runs already.
    #[error("plugin `{0}` runs {1} already")]
    Runs(PluginName, Digest),
}

impl Machine {
    /// What an operator chose over the directory.
    pub fn choice(&self, name: &PluginName) -> Option<&Choice> {
        match self.slots.get(name) {
            Some(slot) => slot.choice(),
            None => self.choices.get(name),
        }
    }

    /// Goes to a version that an operator chose (which the store has) instead of the one in
    /// the directory, until that changes. Without `takes_state` it starts as new.
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

    /// Keeps what runs, whatever the directory says.
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
        self.choose(name, Some(choice));
        let mut steps = Vec::new();
        push(&mut steps, name, Later::Persist.into());
        // A candidate that is under way must not replace what was pinned, unless by the same.
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

    /// The directory has something that is worth a look; a choice may stand against it.
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
            // The directory has moved on from what was rolled back.
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

    /// What the directory has is not to run: says so, and sees that the chosen version runs.
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
            let hash = found.meta.hash.short();
            let reason = if choice.pinned {
                format!("{} is pinned; `hotmerge unpin {name}`", choice.meta.version)
            } else {
                format!(
                    "{hash} was rolled back; stage another version, or `hotmerge rollback {name} \
                     --to {hash}`"
                )
            };
            let refused = Refused {
                meta: Arc::clone(&found.meta),
                reason,
                lasting: true,
            };
            // Who takes a pin out has offered nothing that could be refused.
            let outcome = match why {
                Why::Unpinned => Outcome::StaysOut(refused),
                _ => Outcome::Refused(refused),
            };
            push(steps, name, Now::Report(live.ticket, outcome).into());
            // A candidate that is under way comes from what the directory had before.
            if slot.and_then(Slot::candidate).is_none() {
                // It may have been on its way out when it was to be started anew.
                return self.renew(name, steps);
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

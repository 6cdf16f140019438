//! Whether plugins whose files are good would start beside each other.
//!
//! The life cycle's own machine decides, as it would for a host that starts on the same directory and whose
//! plugins all start.
//!
//! Absent on purpose: versions that run already, and an operator's choices.

use std::{collections::BTreeMap, sync::Arc};

use hotmerge_lifecycle::{
    Action, Event, Later, Machine, Next, Origin, Refused, Target, Ticket, Why,
};
use hotmerge_meta::{PackageName, PluginMeta, PluginName};

/// A plugin of a directory, and what its files are refused for.
pub(crate) struct Candidate {
    pub(crate) package: PackageName,
    pub(crate) meta: Arc<PluginMeta>,
    pub(crate) problem: Option<String>,
}

impl Candidate {
    fn target(&self) -> Target {
        Target {
            meta: Arc::clone(&self.meta),
            origin: Origin::Package(self.package.clone()),
            takes_state: true,
            is_ordered: false,
        }
    }

    fn verified(&self, ticket: Ticket) -> Event {
        match &self.problem {
            None => Event::Verified { ticket },
            Some(reason) => Event::Failed {
                ticket,
                refused: Refused {
                    meta: Arc::clone(&self.meta),
                    reason: reason.clone(),
                    lasting: true,
                },
            },
        }
    }
}

/// Lets all plugins of a directory come up, and returns why which do not.
pub(crate) fn refused(plugins: Vec<Candidate>) -> BTreeMap<PluginName, String> {
    let targets = plugins.iter().map(|it| (it.target(), Why::Changed));
    let mut machine = Machine::default();
    let mut steps = machine.scanned(targets.collect(), &[]);
    let named = plugins.iter().map(|it| (&it.meta.name, it));
    let named: BTreeMap<_, _> = named.collect();
    while let Some(step) = steps.pop() {
        let event = match step.action {
            Action::Later(Later::Verify(ticket)) => {
                named.get(&step.plugin).map(|it| it.verified(ticket))
            }
            Action::Later(Later::Start(ticket)) => {
                let next = Next::Switch;
                Some(Event::Started { ticket, next })
            }
            _ => None,
        };
        if let Some(event) = event {
            steps.extend(machine.apply(&step.plugin, event));
        }
    }
    let slots = machine.slots().iter();
    slots
        .filter_map(|(name, slot)| Some((name.clone(), slot.refused()?.reason.clone())))
        .collect()
}

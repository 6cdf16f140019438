//! Single sequences of events, written as sentences.

use super::*;

mod choices;
mod requirements;
mod restarts;
mod switching;

/// A machine, and nobody who does what it says but the test.
#[derive(Default)]
struct Bench {
    machine: Machine,
}

fn name(plugin: &PluginMeta) -> &PluginName {
    &plugin.name
}

fn plugin(name: &str, version: &str, requires: &[(&str, &str, OnReplace)]) -> Arc<PluginMeta> {
    let requires = requires.iter().map(|(name, version, on_replace)| Requires {
        name: name.parse().unwrap(),
        version: version.parse().unwrap(),
        on_replace: *on_replace,
    });
    Arc::new(meta(name, version, requires.collect()))
}

impl Bench {
    fn scanned(&mut self, metas: &[&Arc<PluginMeta>]) -> Vec<Step> {
        let changed = metas.iter().map(|meta| (staged(meta), Why::Changed));
        self.machine.scanned(changed.collect(), &[])
    }

    fn slot(&self, meta: &PluginMeta) -> &Slot {
        self.machine.slot(meta.name.as_str()).expect("it is known")
    }

    fn ticket(&self, meta: &PluginMeta) -> Ticket {
        self.slot(meta).candidate().expect("it has a candidate").0
    }

    fn verified(&mut self, meta: &PluginMeta) -> Vec<Step> {
        let ticket = self.ticket(meta);
        self.machine.apply(name(meta), Event::Verified { ticket })
    }

    fn started(&mut self, meta: &PluginMeta, next: Next) -> Vec<Step> {
        let ticket = self.ticket(meta);
        self.machine
            .apply(name(meta), Event::Started { ticket, next })
    }

    fn failed(&mut self, meta: &Arc<PluginMeta>, lasting: bool) -> Vec<Step> {
        let ticket = self.ticket(meta);
        let refused = Refused {
            meta: Arc::clone(meta),
            reason: "no good".to_owned(),
            lasting,
        };
        self.machine
            .apply(name(meta), Event::Failed { ticket, refused })
    }

    /// Brings a version up to the switch.
    fn live(&mut self, meta: &Arc<PluginMeta>) -> Ticket {
        drop(self.scanned(&[meta]));
        drop(self.verified(meta));
        let ticket = self.ticket(meta);
        drop(self.started(meta, Next::Switch));
        ticket
    }

    fn ended(&mut self, meta: &PluginMeta, ticket: Ticket) -> Vec<Step> {
        drop(self.machine.apply(name(meta), Event::Drained { ticket }));
        self.machine.apply(name(meta), Event::Ended { ticket })
    }

    fn refusal(&self, meta: &PluginMeta) -> &str {
        &self.slot(meta).refused().expect("it was refused").reason
    }
}

/// What is to be done, without what is only told.
fn done(steps: Vec<Step>) -> Vec<Action> {
    let told = |action: &Action| {
        matches!(
            action,
            Action::Now(Now::Note(_) | Now::Report(..)) | Action::Later(Later::Persist)
        )
    };
    let actions = steps.into_iter().map(|step| step.action);
    actions.filter(|action| !told(action)).collect()
}

//! Requirements: whether a version may start, and in which order plugins stop.
//!
//! Read-only: nothing here changes a slot.

use std::collections::{BTreeMap, BTreeSet};

use hotmerge_meta::{PluginMeta, PluginName, Requires};

use crate::{Target, Verdict, machine::Machine, slot::Slot};

impl Machine {
    /// Whether `meta` may start now.
    pub(super) fn verdict(&self, meta: &PluginMeta) -> Verdict {
        if let Some(path) = self.circle(meta) {
            return Verdict::No(format!(
                "it requires itself: {}; remove one of these requirements",
                path_text(&path)
            ));
        }
        if let Some(reason) = self.disturbed_by(meta) {
            return Verdict::No(reason);
        }
        // A leaving plugin no longer satisfies requirements.
        let leaving = if self.leaving {
            self.leaving()
        } else {
            BTreeMap::new()
        };
        let mut verdict = Verdict::Go;
        for required in &meta.requires {
            let slot = self.slots.get(&required.name);
            if slot.is_some_and(Slot::is_busy) {
                verdict = Verdict::Wait;
            } else if leaving.contains_key(&required.name)
                || !slot.is_some_and(|slot| provides(slot, required))
            {
                let mut path = vec![&meta.name];
                return Verdict::No(self.explain(required, &mut path));
            }
        }
        verdict
    }

    /// The cycle of requirements that contains `meta`.
    fn circle<'a>(&'a self, meta: &'a PluginMeta) -> Option<Vec<&'a PluginName>> {
        if meta.requires.is_empty() {
            return None;
        }
        let mut seen = BTreeSet::new();
        let mut path = vec![&meta.name];
        self.leads_to(&meta.name, meta, &mut path, &mut seen)
            .then_some(path)
    }

    fn leads_to<'a>(
        &'a self,
        goal: &PluginName,
        meta: &'a PluginMeta,
        path: &mut Vec<&'a PluginName>,
        seen: &mut BTreeSet<&'a PluginName>,
    ) -> bool {
        for required in &meta.requires {
            path.push(&required.name);
            if required.name == *goal {
                return true;
            }
            if seen.insert(&required.name)
                && let Some(next) = self.coming(&required.name)
                && self.leads_to(goal, next, path, seen)
            {
                return true;
            }
            path.pop();
        }
        false
    }

    /// Why `meta` may not replace the running version: a running plugin requires another
    /// version.
    fn disturbed_by(&self, meta: &PluginMeta) -> Option<String> {
        self.slots.get(&meta.name)?.live()?;
        self.demanding.iter().find_map(|name| {
            self.slots.get(name)?.live()?;
            let dependant = self.wanted(name)?;
            let required = dependant
                .requires
                .iter()
                .find(|required| required.name == meta.name)?;
            (!required.version.matches(&meta.version)).then(|| {
                format!(
                    "`{name}` {} requires `{}` {}, but this is {}: {}; replace `{name}` as well",
                    dependant.version,
                    meta.name,
                    required.version,
                    meta.version,
                    path_text(&[name, &meta.name])
                )
            })
        })
    }

    /// Why a requirement is not met: the first cause, and the path to it.
    fn explain<'a>(&'a self, required: &'a Requires, path: &mut Vec<&'a PluginName>) -> String {
        let name = &required.name;
        path.push(name);
        let by = path[path.len() - 2];
        let needs = format!("`{by}` requires `{name}` {}", required.version);
        let Some(wanted) = self.wanted(name) else {
            return format!(
                "{needs}, which is not in the plugin directory: {}; install it",
                path_text(path)
            );
        };
        let slot = self.slots.get(name);
        let found = slot
            .and_then(Slot::live)
            .map_or(wanted, |live| live.meta.as_ref());
        if !required.version.matches(&found.version) {
            return format!(
                "{needs}, but found {}: {}; install a matching version",
                found.version,
                path_text(path)
            );
        }
        // The cause may be further down.
        if path.len() <= self.slots.len() {
            for next in &wanted.requires {
                let met = self
                    .slots
                    .get(&next.name)
                    .is_some_and(|slot| provides(slot, next));
                if !met {
                    return self.explain(next, path);
                }
            }
        }
        let why = slot.and_then(Slot::refused).map_or("", |it| &*it.reason);
        format!("{needs}, which is not running: {}: {why}", path_text(path))
    }

    /// The plugins whose live versions must leave, each with the lost requirement, if any:
    /// plugins missing from the directory, and plugins that require one of those.
    pub(super) fn leaving(&self) -> BTreeMap<PluginName, Option<Requires>> {
        let mut leaving: BTreeMap<_, _> = self
            .live()
            .filter(|(name, _)| !self.directory.contains_key(*name))
            .map(|(name, _)| (name.clone(), None))
            .collect();
        loop {
            let dependants: Vec<_> = self
                .live()
                .filter(|(name, _)| !leaving.contains_key(*name))
                .filter_map(|(name, meta)| {
                    let lost = meta.requires.iter().find(|required| {
                        leaving.contains_key(&required.name)
                            || !self.directory.contains_key(&required.name)
                    })?;
                    Some((name.clone(), Some(lost.clone())))
                })
                .collect();
            if dependants.is_empty() {
                return leaving;
            }
            leaving.extend(dependants);
        }
    }

    /// Whether a version that requires `name` still runs and is not overdue.
    pub(super) fn is_held(&self, name: &PluginName) -> bool {
        self.slots
            .iter()
            .filter(|(other, _)| *other != name)
            .any(|(_, slot)| {
                let live = slot.live().map(|live| &live.meta);
                let retiring = slot.retiring().iter().filter(|old| old.is_in_time());
                live.into_iter()
                    .chain(retiring.map(|old| &old.meta))
                    .any(|meta| meta.requires.iter().any(|it| it.name == *name))
            })
    }

    fn live(&self) -> impl Iterator<Item = (&PluginName, &PluginMeta)> {
        self.slots
            .iter()
            .filter_map(|(name, slot)| Some((name, slot.live()?.meta.as_ref())))
    }

    /// A plugin's candidate, or else its wanted version: candidates that wait for each other
    /// would wait forever, whatever the directory has by then.
    fn coming(&self, name: &PluginName) -> Option<&PluginMeta> {
        let candidate = self.slots.get(name).and_then(Slot::candidate);
        candidate.map_or_else(
            || self.wanted(name),
            |(_, target)| Some(target.meta.as_ref()),
        )
    }

    /// A plugin's wanted version: the operator's choice, or else the directory's.
    pub(super) fn wanted(&self, name: &PluginName) -> Option<&PluginMeta> {
        let Target { meta, .. } = self.directory.get(name)?;
        Some(match self.choice(name) {
            Some(choice) if choice.stands_against(&meta.hash) => &choice.meta,
            Some(_) | None => meta,
        })
    }
}

fn provides(slot: &Slot, required: &Requires) -> bool {
    slot.live()
        .is_some_and(|live| required.version.matches(&live.meta.version))
}

fn path_text(path: &[&PluginName]) -> String {
    let names: Vec<_> = path.iter().map(|name| name.as_str()).collect();
    names.join(" → ")
}

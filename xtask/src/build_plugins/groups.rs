//! Which plugins one cargo invocation may build without changing their bytes.
//!
//! Cargo unites the features of the dependencies of all packages that it builds together, so
//! the same plugin differs with its neighbours. Built one by one they do not; but each
//! invocation costs some 40 ms even if nothing is to do. So plugins are built one by one
//! once, and what cargo compiled for each ([`Units`]) is compared: plugins that share
//! dependencies only in the very same form are built together from then on.
//!
//! Invariant: plugins are built together only if that compiles exactly what compiling them one
//! by one did. A grouping holds for one resolution of dependencies ([`Grouping::inputs`]), and
//! what a common build compiled is compared with what was expected.

use std::{collections::BTreeMap, fs, io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use cargo_metadata::Artifact;
use hotmerge_meta::Digest;
use serde::{Deserialize, Serialize};

/// What cargo compiled: for each part of a package its forms. The name of a library's file
/// holds cargo's own hash over features, flags, profile and dependencies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Units(BTreeMap<String, Vec<String>>);

impl Units {
    pub(super) fn add(&mut self, artifact: &Artifact) {
        let target = &artifact.target;
        let part = format!("{} {} {:?}", artifact.package_id, target.name, target.kind);
        let form = format!("{:?} {:?}", artifact.features, artifact.filenames);
        self.insert(part, form);
    }

    fn insert(&mut self, part: String, form: String) {
        let forms = self.0.entry(part).or_default();
        if let Err(place) = forms.binary_search(&form) {
            forms.insert(place, form);
        }
    }

    /// Whether what both have, they have in the same forms.
    fn agrees_with(&self, other: &Self) -> bool {
        self.0
            .iter()
            .all(|(part, forms)| other.0.get(part).is_none_or(|others| others == forms))
    }

    fn extend(&mut self, other: &Self) {
        for (part, forms) in &other.0 {
            for form in forms {
                self.insert(part.clone(), form.clone());
            }
        }
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::of(format!("{:?}", self.0).as_bytes())
    }
}

/// Plugins that may be built together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// Package ids, in the order in which they were given.
    pub packages: Vec<String>,
    /// [`Units::digest`] of what building them must compile.
    pub units: Digest,
}

/// How all plugins of a workspace are built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grouping {
    /// Hash of everything that decides about features.
    inputs: Digest,
    pub groups: Vec<Group>,
}

impl Grouping {
    /// Groups plugins by what building each alone compiled.
    pub(super) fn new(inputs: Digest, alone: Vec<(String, Units)>) -> Self {
        let mut groups: Vec<(Vec<String>, Units)> = Vec::new();
        for (package, units) in alone {
            match groups.iter_mut().find(|(_, all)| all.agrees_with(&units)) {
                Some((packages, all)) => {
                    packages.push(package);
                    all.extend(&units);
                }
                None => groups.push((vec![package], units)),
            }
        }
        let groups = groups.into_iter().map(|(packages, all)| Group {
            packages,
            units: all.digest(),
        });
        Self {
            inputs,
            groups: groups.collect(),
        }
    }

    /// The grouping kept at `path`, if it was made for the same inputs. A file that cannot be
    /// used is no error: it costs a slower build.
    pub(super) fn load(path: &Path, inputs: &Digest) -> Option<Self> {
        let grouping: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (grouping.inputs == *inputs).then_some(grouping)
    }

    /// Keeps the grouping at `path`, whose directory exists.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let directory = path.parent().context("a file lies in a directory")?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.persist(path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(parts: &[(&str, &str)]) -> Units {
        let mut units = Units::default();
        for (part, form) in parts {
            units.insert((*part).into(), (*form).into());
        }
        units
    }

    fn packages(grouping: &Grouping) -> Vec<Vec<&str>> {
        let groups = grouping.groups.iter();
        groups
            .map(|group| group.packages.iter().map(String::as_str).collect())
            .collect()
    }

    #[test]
    fn plugins_that_share_nothing_or_the_same_are_built_together() {
        let grouping = Grouping::new(
            Digest::of(b""),
            vec![
                ("a".into(), units(&[("sdk", "1"), ("serde", "std")])),
                ("b".into(), units(&[("sdk", "1")])),
                ("c".into(), units(&[("sdk", "1"), ("serde", "alloc")])),
                ("d".into(), units(&[("sdk", "1"), ("serde", "alloc")])),
            ],
        );
        assert_eq!(packages(&grouping), [vec!["a", "b"], vec!["c", "d"]]);
        let all = units(&[("serde", "std"), ("sdk", "1")]);
        assert_eq!(grouping.groups[0].units, all.digest());
    }

    #[test]
    fn a_further_form_of_a_shared_dependency_separates() {
        let grouping = Grouping::new(
            Digest::of(b""),
            vec![
                ("a".into(), units(&[("serde", "std"), ("serde", "alloc")])),
                ("b".into(), units(&[("serde", "std")])),
            ],
        );
        assert_eq!(packages(&grouping), [["a"], ["b"]]);
    }

    #[test]
    fn a_grouping_holds_for_its_own_inputs_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("groups.json");
        let grouping = Grouping::new(Digest::of(b"one"), vec![("a".into(), Units::default())]);
        assert_eq!(Grouping::load(&path, &Digest::of(b"one")), None);
        grouping.save(&path).unwrap();
        assert_eq!(Grouping::load(&path, &Digest::of(b"one")), Some(grouping));
        assert_eq!(Grouping::load(&path, &Digest::of(b"two")), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(Grouping::load(&path, &Digest::of(b"one")), None);
    }
}

//! Which plugins one cargo invocation may build without changing their bytes.
//!
//! Cargo unites the features of the dependencies of all packages that it builds together, so
//! the same plugin depends on its neighbours. Built one by one plugins do not; but each
//! invocation costs about 40 ms even with nothing to do. So the first time plugins are built
//! one by one and the driver compares what cargo compiled for each ([`Units`]): plugins that
//! share dependencies only in identical forms are built together from then on.
//!
//! Invariant: plugins are built together only if that compiles exactly what compiling them one
//! by one did. A grouping holds as long as nothing changes that decides about features
//! ([`Inputs`]), and what a common build compiled is compared with what was expected.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use cargo_metadata::Artifact;
use hotmerge_meta::Digest;
use serde::{Deserialize, Serialize};

use super::inputs::Inputs;

/// What cargo compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Units {
    /// The forms of each part of a package. The name of a library's file holds cargo's own
    /// hash over features, flags, profile and dependencies.
    forms: BTreeMap<String, BTreeSet<String>>,
    /// Manifests of packages that can change without Cargo.lock changing.
    manifests: BTreeSet<PathBuf>,
}

impl Units {
    pub(super) fn add(&mut self, artifact: &Artifact) {
        let target = &artifact.target;
        let part = format!("{} {} {:?}", artifact.package_id, target.name, target.kind);
        let form = format!("{:?} {:?}", artifact.features, artifact.filenames);
        self.forms.entry(part).or_default().insert(form);
        if artifact.package_id.repr.starts_with("path+") {
            self.manifests.insert(artifact.manifest_path.clone().into());
        }
    }

    /// Whether shared parts have identical forms.
    fn agrees_with(&self, other: &Self) -> bool {
        self.forms
            .iter()
            .all(|(part, forms)| other.forms.get(part).is_none_or(|others| others == forms))
    }

    fn extend(&mut self, other: Self) {
        for (part, forms) in other.forms {
            self.forms.entry(part).or_default().extend(forms);
        }
        self.manifests.extend(other.manifests);
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::of(format!("{:?}", self.forms).as_bytes())
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
    /// [`Inputs::digest`] over `manifests`.
    inputs: Digest,
    manifests: BTreeSet<PathBuf>,
    pub groups: Vec<Group>,
}

impl Grouping {
    /// Groups plugins by what building each alone compiled.
    pub(super) fn new(inputs: &Inputs<'_>, alone: Vec<(String, Units)>) -> Self {
        let mut groups: Vec<(Vec<String>, Units)> = Vec::new();
        for (package, units) in alone {
            match groups.iter_mut().find(|(_, all)| all.agrees_with(&units)) {
                Some((packages, all)) => {
                    packages.push(package);
                    all.extend(units);
                }
                None => groups.push((vec![package], units)),
            }
        }
        let manifests = groups
            .iter()
            .flat_map(|(_, all)| &all.manifests)
            .cloned()
            .collect();
        let groups = groups.into_iter().map(|(packages, all)| Group {
            packages,
            units: all.digest(),
        });
        Self {
            inputs: inputs.digest(&manifests),
            groups: groups.collect(),
            manifests,
        }
    }

    /// The grouping kept at `path`, if it still holds for `packages`. An unusable
    /// file is not an error; the build is only slower.
    pub(super) fn load(path: &Path, inputs: &Inputs<'_>, packages: &[String]) -> Option<Self> {
        let grouping: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let grouped: BTreeSet<_> = grouping
            .groups
            .iter()
            .flat_map(|group| &group.packages)
            .collect();
        let is_same = grouped == packages.iter().collect()
            && grouping.inputs == inputs.digest(&grouping.manifests);
        is_same.then_some(grouping)
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

    fn units(forms: &[(&str, &str)]) -> Units {
        let mut units = Units::default();
        for (part, form) in forms {
            units
                .forms
                .entry((*part).into())
                .or_default()
                .insert((*form).into());
        }
        units
    }

    fn group(alone: &[(&str, &[(&str, &str)])]) -> Grouping {
        let alone = alone
            .iter()
            .map(|(package, forms)| ((*package).to_owned(), units(forms)));
        Grouping::new(
            &Inputs::new(Path::new("/nowhere"), String::new()),
            alone.collect(),
        )
    }

    fn packages(grouping: &Grouping) -> Vec<Vec<&str>> {
        let groups = grouping.groups.iter();
        groups
            .map(|group| group.packages.iter().map(String::as_str).collect())
            .collect()
    }

    #[test]
    fn plugins_with_agreeing_dependencies_build_together() {
        let grouping = group(&[
            ("a", &[("sdk", "1"), ("serde", "std")]),
            ("b", &[("sdk", "1")]),
            ("c", &[("sdk", "1"), ("serde", "alloc")]),
            ("d", &[("sdk", "1"), ("serde", "alloc")]),
        ]);
        assert_eq!(packages(&grouping), [["a", "b"], ["c", "d"]]);
        let all = units(&[("serde", "std"), ("sdk", "1")]);
        assert_eq!(grouping.groups[0].units, all.digest());
    }

    #[test]
    fn diverging_features_split_the_group() {
        let grouping = group(&[
            ("a", &[("serde", "std"), ("serde", "alloc")]),
            ("b", &[("serde", "std")]),
        ]);
        assert_eq!(packages(&grouping), [["a"], ["b"]]);
    }

    #[test]
    fn a_grouping_is_reused_until_its_inputs_change() {
        let dir = tempfile::tempdir().unwrap();
        let (path, manifest) = (
            dir.path().join("groups.json"),
            dir.path().join("Cargo.toml"),
        );
        fs::write(&manifest, "one").unwrap();
        let release = Inputs::new(dir.path(), "release".into());
        let alone = Units {
            manifests: BTreeSet::from([manifest.clone()]),
            ..Units::default()
        };
        let packages = ["a".to_owned()];
        assert_eq!(Grouping::load(&path, &release, &packages), None);

        let grouping = Grouping::new(&release, vec![(packages[0].clone(), alone)]);
        grouping.save(&path).unwrap();
        assert_eq!(Grouping::load(&path, &release, &packages), Some(grouping));
        assert_eq!(Grouping::load(&path, &release, &[]), None);
        assert_eq!(
            Grouping::load(&path, &Inputs::new(dir.path(), "dev".into()), &packages),
            None
        );
        fs::write(&manifest, "two").unwrap();
        assert_eq!(Grouping::load(&path, &release, &packages), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(Grouping::load(&path, &release, &packages), None);
    }
}

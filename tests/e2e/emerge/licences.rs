//! What the ebuilds say of licences is what the crates say, so that it cannot drift.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use hotmerge_tests::repository;
use spdx::{
    Expression, ParseMode,
    expression::{ExprNode, Operator},
};

use crate::lab::printed;

/// The names that the main Gentoo repository has for those of SPDX, as its
/// `metadata/license-mapping.conf` lists them.
const NAMES: &[(&str, &str)] = &[
    ("Apache-2.0", "Apache-2.0"),
    (
        "Apache-2.0 WITH LLVM-exception",
        "Apache-2.0-with-LLVM-exceptions",
    ),
    ("BSD-2-Clause", "BSD-2"),
    ("BSD-3-Clause", "BSD"),
    ("BSL-1.0", "Boost-1.0"),
    ("CC0-1.0", "CC0-1.0"),
    ("ISC", "ISC"),
    ("LGPL-2.1-or-later", "LGPL-2.1+"),
    ("MIT", "MIT"),
    ("MPL-2.0", "MPL-2.0"),
    ("Unicode-3.0", "Unicode-3.0"),
    ("Unlicense", "Unlicense"),
    ("Zlib", "ZLIB"),
];

/// One of these must be accepted.
type Choice = BTreeSet<String>;

/// Each of these must be.
type Terms = BTreeSet<Choice>;

#[test]
fn ebuilds_name_the_licences_of_linked_crates() -> Result<()> {
    for (ebuild, packages) in [
        (
            "hotmerge/hotmerge-0.1.0",
            &["hotmerge", "hotmerge-worker", "cargo-hotmerge"][..],
        ),
        (
            "hotmerge-announce/hotmerge-announce-0.1.0",
            &["hotmerge-announce"],
        ),
        (
            "hotmerge-announce-cli/hotmerge-announce-cli-0.1.0",
            &["hotmerge-announcement"],
        ),
    ] {
        let linked = terms_of_crates(&linked_licences(packages)?)?;
        let file = repository().join(format!("ebuilds/app-admin/{ebuild}.ebuild"));
        let told = simplified(terms_of_ebuild(&fs::read_to_string(file)?)?);
        ensure!(
            told == linked,
            "`{ebuild}` says {told:?}, its crates {linked:?}"
        );
    }
    Ok(())
}

/// A crate that only a build for another system needs may be linked tomorrow.
#[test]
fn every_licence_in_the_lock_is_known() -> Result<()> {
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--format-version=1", "--locked", "--offline"]);
    let output = metadata.current_dir(repository()).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let licences: Vec<_> = packages
        .iter()
        .map(|package| package["license"].as_str().unwrap_or("").to_owned())
        .collect();
    terms_of_crates(&licences)?;
    Ok(())
}

#[test]
fn terms_are_simplified_as_pycargoebuild_does() -> Result<()> {
    let terms = |licences: &[&str]| {
        let licences: Vec<_> = licences.iter().map(|text| (*text).to_owned()).collect();
        terms_of_crates(&licences)
    };
    ensure!(
        terms(&["MIT/Apache-2.0", "MIT", "Apache-2.0 OR BSD-3-Clause"])?
            == terms_of_ebuild("LICENSE=\"MIT\"\nLICENSE+=\" || ( Apache-2.0 BSD )\"\n")?
    );
    ensure!(
        terms(&["(MIT OR Apache-2.0) AND Unicode-3.0"])?
            == terms_of_ebuild("LICENSE=\"|| ( MIT Apache-2.0 ) Unicode-3.0\"\n")?
    );
    ensure!(terms(&["Beerware"]).is_err());
    Ok(())
}

/// What the crates are licensed under that these programs or plugins are linked from, on every
/// machine that the packages are for.
fn linked_licences(packages: &[&str]) -> Result<Vec<String>> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args([
        "tree",
        "--locked",
        "--offline",
        "--edges=normal",
        "--all-features",
    ]);
    tree.args(["--prefix=none", "--no-dedupe", "--format={l}"]);
    for machine in ["x86_64", "aarch64"] {
        tree.arg(format!("--target={machine}-unknown-linux-gnu"));
    }
    for package in packages {
        tree.arg(format!("--package={}", crate_of(package)?));
    }
    let listed = printed(tree.current_dir(repository()))?;
    let licences: BTreeSet<_> = listed.lines().filter(|line| !line.is_empty()).collect();
    Ok(licences.into_iter().map(ToOwned::to_owned).collect())
}

/// The crate that a program of this name is in, or a crate itself.
fn crate_of(program: &str) -> Result<String> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(repository().join("Cargo.toml"))
        .no_deps()
        .exec()?;
    let is_it = |package: &&cargo_metadata::Package| {
        package.name.as_str() == program
            || package
                .targets
                .iter()
                .any(|target| target.is_bin() && target.name == program)
    };
    let package = metadata.packages.iter().find(is_it);
    let package = package.with_context(|| format!("there is no program `{program}`"))?;
    Ok(package.name.to_string())
}

/// The terms of several crates together, none twice and none that another implies.
fn terms_of_crates(licences: &[String]) -> Result<Terms> {
    let mut all = Terms::new();
    for licence in licences {
        all.extend(terms_of_crate(licence).with_context(|| format!("a crate is `{licence}`"))?);
    }
    Ok(simplified(all))
}

fn terms_of_crate(licence: &str) -> Result<Terms> {
    let names: BTreeMap<_, _> = NAMES.iter().copied().collect();
    let expression = Expression::parse_mode(licence, ParseMode::LAX)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut stack: Vec<Terms> = Vec::new();
    // Each operator comes after what it joins.
    for node in expression.iter() {
        let terms = match node {
            ExprNode::Req(licence) => {
                let spdx = licence.req.to_string();
                let name = names.get(&*spdx);
                let name = name.with_context(|| format!("`{spdx}` has no name here"))?;
                Terms::from([Choice::from([(*name).to_owned()])])
            }
            ExprNode::Op(operator) => {
                let (right, left) = (stack.pop(), stack.pop());
                let (Some(left), Some(right)) = (left, right) else {
                    bail!("an operator without operands");
                };
                match operator {
                    Operator::And => left.union(&right).cloned().collect(),
                    Operator::Or => either(&left, &right),
                }
            }
        };
        stack.push(terms);
    }
    stack.pop().context("an empty expression")
}

fn either(left: &Terms, right: &Terms) -> Terms {
    let pairs = left
        .iter()
        .flat_map(|one| right.iter().map(move |other| (one, other)));
    pairs
        .map(|(one, other)| one.union(other).cloned().collect())
        .collect()
}

/// Without choices of which a part must be accepted anyway.
fn simplified(terms: Terms) -> Terms {
    let is_implied = |choice: &Choice| {
        terms
            .iter()
            .any(|other| other != choice && other.is_subset(choice))
    };
    let kept = terms.iter().filter(|choice| !is_implied(choice));
    kept.cloned().collect()
}

/// What an ebuild's LICENSE says: names, and groups of which one is enough.
fn terms_of_ebuild(text: &str) -> Result<Terms> {
    let lines = text.lines().filter_map(|line| {
        let value = line.strip_prefix("LICENSE")?;
        let value = value.strip_prefix('+').unwrap_or(value);
        value.strip_prefix("=\"")?.strip_suffix('"')
    });
    let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
    let mut terms = Terms::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let choice: Choice = match word {
            "||" => {
                ensure!(words.next() == Some("("), "a choice has no list");
                let group = words.by_ref().take_while(|word| *word != ")");
                group.map(ToOwned::to_owned).collect()
            }
            _ => Choice::from([word.to_owned()]),
        };
        terms.insert(choice);
    }
    Ok(terms)
}

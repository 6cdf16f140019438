//! Who may know whom, and who may do what: the arrows of ARCHITECTURE.md, as data.

use std::{fs, path::Path, sync::LazyLock};

use cargo_metadata::{Metadata, MetadataCommand, Package, TargetKind};
use hotmerge_tests::repository;

/// From each crate to the crates of this workspace that it may depend on, for whatever
/// purpose. Plugins are not listed: they may depend on the SDK alone.
const ARROWS: &[(&str, &[&str])] = &[
    ("hotmerge-abi", &[]),
    ("hotmerge-meta", &["hotmerge-abi"]),
    ("hotmerge-sdk", &["hotmerge-abi"]),
    ("hotmerge-xtask", &["hotmerge-meta"]),
    ("hotmerge-swap", &[]),
    ("hotmerge-lifecycle", &["hotmerge-meta"]),
    (
        "hotmerge-instance",
        &[
            "hotmerge-abi",
            "hotmerge-loader",
            "hotmerge-meta",
            "hotmerge-policy",
            "hotmerge-sandbox",
            "hotmerge-wire",
        ],
    ),
    ("hotmerge-policy", &[]),
    ("hotmerge-sandbox", &[]),
    ("hotmerge-wire", &["hotmerge-abi"]),
    ("hotmerge-loader", &["hotmerge-abi", "hotmerge-meta"]),
    (
        "hotmerge-worker",
        &[
            "hotmerge-abi",
            "hotmerge-loader",
            "hotmerge-sandbox",
            "hotmerge-wire",
        ],
    ),
    (
        "hotmerge-daemon",
        &[
            "hotmerge-abi",
            "hotmerge-instance",
            "hotmerge-lifecycle",
            "hotmerge-loader",
            "hotmerge-meta",
            "hotmerge-policy",
            "hotmerge-sandbox",
            "hotmerge-swap",
            "hotmerge-wire",
        ],
    ),
];

const PLUGINS_MAY_KNOW: &[&str] = &["hotmerge-sdk"];

/// Nobody may depend on these, and they on anything.
const TESTS: &[&str] = &["hotmerge-tests", "hotmerge-bench"];

/// Crates with a reason for unsafe code: what crosses the C border, what loads, the switch
/// under running calls, what asks the kernel for a sandbox, and memory that two processes
/// share. The bench compares them with the bare dynamic loader.
const UNSAFE: &[&str] = &[
    "hotmerge-abi",
    "hotmerge-sdk",
    "hotmerge-loader",
    "hotmerge-sandbox",
    "hotmerge-swap",
    "hotmerge-wire",
    "hotmerge-worker",
    "hotmerge-bench",
];

/// Crates that are linked into every plugin: a feature that a neighbour switches on would
/// change a plugin's bytes.
const LINKED_IN: &[&str] = &["hotmerge-abi", "hotmerge-sdk"];

static WORKSPACE: LazyLock<Metadata> = LazyLock::new(|| {
    let mut command = MetadataCommand::new();
    command
        .manifest_path(repository().join("Cargo.toml"))
        .no_deps();
    command.exec().expect("cargo describes the workspace")
});

fn is_plugin(package: &Package) -> bool {
    package.metadata.get("hotmerge").is_some()
}

/// What a crate may depend on; `None` for anything.
fn may_know(package: &Package) -> Option<&'static [&'static str]> {
    let name = package.name.as_str();
    if is_plugin(package) {
        return Some(PLUGINS_MAY_KNOW);
    }
    if TESTS.contains(&name) {
        return None;
    }
    let arrow = ARROWS.iter().find(|(from, _)| *from == name);
    let (_, to) =
        arrow.unwrap_or_else(|| panic!("`{name}` is new: say in this test what it may depend on"));
    Some(to)
}

#[test]
fn every_dependency_follows_an_arrow() {
    let members: Vec<_> = WORKSPACE.workspace_packages();
    let is_member = |name: &str| members.iter().any(|member| member.name.as_str() == name);
    let mut wrong = Vec::new();
    for package in &members {
        for dependency in package
            .dependencies
            .iter()
            .filter(|other| is_member(&other.name))
        {
            let allowed = match may_know(package) {
                Some(allowed) => allowed.contains(&&*dependency.name),
                None => true,
            };
            if !allowed {
                wrong.push(format!(
                    "{} -> {} ({} dependency)",
                    package.name, dependency.name, dependency.kind
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "no arrow allows: {}", wrong.join(", "));
}

#[test]
fn nothing_is_said_of_crates_that_do_not_exist() {
    let names: Vec<_> = WORKSPACE
        .workspace_packages()
        .iter()
        .map(|member| member.name.to_string())
        .collect();
    let listed = ARROWS.iter().map(|(name, _)| name);
    for name in listed.chain(LINKED_IN) {
        assert!(names.iter().any(|other| other == name), "`{name}` is gone");
    }
}

#[test]
fn what_needs_no_unsafe_code_forbids_it() {
    let mut missing = Vec::new();
    for package in WORKSPACE.workspace_packages() {
        if UNSAFE.contains(&package.name.as_str()) {
            continue;
        }
        for target in &package.targets {
            let is_tried = target.kind.iter().any(|kind| {
                matches!(
                    kind,
                    TargetKind::Test
                        | TargetKind::Bench
                        | TargetKind::Example
                        | TargetKind::CustomBuild
                )
            });
            let source = fs::read_to_string(&target.src_path).expect("cargo names files");
            if !is_tried && !source.contains("#![forbid(unsafe_code)]") {
                missing.push(target.src_path.to_string());
            }
        }
    }
    assert!(
        missing.is_empty(),
        "no `#![forbid(unsafe_code)]` in: {}",
        missing.join(", ")
    );
}

#[test]
fn what_is_linked_into_plugins_has_no_features_and_next_to_no_dependencies() {
    for package in WORKSPACE.workspace_packages() {
        if LINKED_IN.contains(&package.name.as_str()) {
            assert!(
                package.features.is_empty(),
                "`{}` has features",
                package.name
            );
            let foreign: Vec<_> = package
                .dependencies
                .iter()
                .filter(|other| !LINKED_IN.contains(&&*other.name))
                .map(|other| other.name.as_str())
                .collect();
            assert!(foreign.is_empty(), "`{}` carries {foreign:?}", package.name);
        }
    }
}

#[test]
fn a_crate_is_named_after_its_folder() {
    for package in WORKSPACE.workspace_packages() {
        let folder = package
            .manifest_path
            .parent()
            .and_then(|folder| folder.file_name());
        let name = package.name.strip_prefix("hotmerge-");
        assert_eq!(name, folder, "`{}`", package.manifest_path);
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut silent = Vec::new();
    for package in WORKSPACE.workspace_packages() {
        let folder = package.manifest_path.parent().expect("it lies in a folder");
        look(folder.as_std_path(), &mut silent);
    }
    silent.sort();
    silent.dedup();
    assert!(
        silent.is_empty(),
        "these do not begin with `//!`: {silent:#?}"
    );
}

fn look(folder: &Path, silent: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("the repository can be read") {
        let path = entry.expect("the repository can be read").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                look(&path, silent);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("sources are text");
            if !text.starts_with("//!") {
                silent.push(path.display().to_string());
            }
        }
    }
}

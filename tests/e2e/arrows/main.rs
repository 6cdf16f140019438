//! Which crate may depend on which, and which may do what: the arrows of ARCHITECTURE.md, as data.

mod circles;
mod names;
mod targets;

use std::{collections::BTreeSet, fs, path::Path, sync::LazyLock};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, TargetKind};
use hotmerge_tests::repository;

/// From each crate to the crates of this workspace that it may depend on, for whatever
/// purpose. Plugins are not listed: they may depend on the SDK, and on the library of announcements.
const ARROWS: &[(&str, &[&str])] = &[
    ("hotmerge-abi", &[]),
    ("hotmerge-announcement", &[]),
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
    ("hotmerge-fanotify", &[]),
    ("hotmerge-policy", &["hotmerge-abi"]),
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
            "hotmerge-fanotify",
            "hotmerge-instance",
            "hotmerge-lifecycle",
            "hotmerge-loader",
            "hotmerge-meta",
            "hotmerge-swap",
        ],
    ),
    ("hotmerge-observe", &["hotmerge-abi", "hotmerge-meta"]),
    (
        "hotmerge-door",
        &[
            "hotmerge-abi",
            "hotmerge-daemon",
            "hotmerge-meta",
            "hotmerge-observe",
            "hotmerge-sandbox",
        ],
    ),
    (
        "hotmerge-program",
        &[
            "hotmerge-daemon",
            "hotmerge-door",
            "hotmerge-instance",
            "hotmerge-meta",
            "hotmerge-observe",
            "hotmerge-policy",
            "hotmerge-sandbox",
        ],
    ),
    ("hotmerge-capi", &["hotmerge-daemon", "hotmerge-meta"]),
];

const PLUGINS_MAY_KNOW: &[&str] = &["hotmerge-announcement", "hotmerge-sdk"];

/// Nobody may depend on these, and they on anything.
const TESTS: &[&str] = &["hotmerge-tests", "hotmerge-bench"];

/// Crates with a reason for unsafe code: what crosses the C border, what loads, the switch
/// under running calls, what asks the kernel for a sandbox or to watch file systems, and memory
/// that two processes share. The bench compares them with the bare dynamic loader.
const UNSAFE: &[&str] = &[
    "hotmerge-abi",
    "hotmerge-sdk",
    "hotmerge-capi",
    "hotmerge-fanotify",
    "hotmerge-loader",
    "hotmerge-sandbox",
    "hotmerge-swap",
    "hotmerge-wire",
    "hotmerge-worker",
    "hotmerge-bench",
];

/// What a program that embeds a host has no use for: command lines, tables, service managers,
/// where records go.
const NOT_EMBEDDED: &[&str] = &[
    "anstream",
    "clap",
    "clap_complete",
    "clap_mangen",
    "comfy-table",
    "sd-notify",
    "syslog_fmt",
    "tracing-subscriber",
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
fn every_arrow_names_an_existing_crate() {
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
fn crates_without_unsafe_code_forbid_it() {
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
fn crates_linked_into_plugins_stay_small() {
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

/// Crates that a package is built from, itself included.
fn built_from(name: &str) -> BTreeSet<String> {
    let mut command = MetadataCommand::new();
    let platform = ["--filter-platform", hotmerge_daemon::TARGET];
    command
        .manifest_path(repository().join("Cargo.toml"))
        .other_options(platform.map(str::to_owned));
    let metadata = command.exec().expect("cargo resolves the workspace");
    let nodes = metadata.resolve.expect("it does").nodes;
    let names: std::collections::HashMap<_, _> = metadata
        .packages
        .iter()
        .map(|package| (&package.id, package.name.to_string()))
        .collect();
    let root = nodes.iter().find(|node| names[&node.id] == name);
    let mut open = vec![root.expect("it is a member")];
    let mut found = BTreeSet::new();
    while let Some(node) = open.pop() {
        if !found.insert(names[&node.id].clone()) {
            continue;
        }
        let needed = node.deps.iter().filter(|dependency| {
            let mut kinds = dependency.dep_kinds.iter();
            kinds.any(|kind| kind.kind == DependencyKind::Normal)
        });
        open.extend(needed.filter_map(|it| nodes.iter().find(|node| node.id == it.pkg)));
    }
    found
}

#[test]
fn embedders_compile_no_code_of_the_program() {
    let embedded = built_from("hotmerge-daemon");
    assert!(embedded.contains("hotmerge-instance"), "{embedded:?}");
    let program = built_from("hotmerge-program");
    for name in NOT_EMBEDDED {
        assert!(program.contains(*name), "`{name}` is used nowhere");
        assert!(!embedded.contains(*name), "an embedder compiles `{name}`");
    }
}

#[test]
fn no_files_of_the_host_import_in_cycles() {
    let mut wrong = Vec::new();
    let mut arrows = 0;
    for package in WORKSPACE.workspace_packages() {
        let is_linked_in = LINKED_IN.contains(&package.name.as_str());
        if !is_linked_in && !package.manifest_path.as_str().contains("/host/") {
            continue;
        }
        for target in &package.targets {
            let is_part = |kind: &TargetKind| matches!(kind, TargetKind::Lib | TargetKind::Bin);
            if target.kind.iter().any(is_part) {
                let graph = circles::graph(target.src_path.as_std_path());
                arrows += graph.values().map(BTreeSet::len).sum::<usize>();
                wrong.extend(circles::circles(&graph));
            }
        }
    }
    assert!(arrows > 100, "only {arrows} arrows were found");
    assert!(wrong.is_empty(), "files know each other: {wrong:#?}");
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
fn every_file_states_its_purpose() {
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

/// The sources of a crate in a directory of their own.
fn sources(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
        fs::write(path, text).expect("it can be written");
    }
    dir
}

#[test]
fn a_cycle_through_a_re_export_is_found() {
    let dir = sources(&[
        ("lib.rs", "mod a; mod b; mod c; pub use b::B; use c::C;"),
        ("a.rs", "use crate::B; pub struct A;"),
        ("b.rs", "pub struct B; pub fn f(_: crate::a::A) {}"),
        ("c.rs", "mod d; pub struct C; pub use d::D;"),
        (
            "c/d.rs",
            "use super::C; #[cfg(test)] mod tests { use crate::a::A; } pub struct D;",
        ),
    ]);
    let graph = circles::graph(&dir.path().join("lib.rs"));
    let found = circles::circles(&graph);
    let expected = BTreeSet::from(["a.rs", "b.rs"].map(|name| dir.path().join(name)));
    assert_eq!(found, [expected]);
    let arrows: usize = graph.values().map(BTreeSet::len).sum();
    assert_eq!(arrows, 4, "{graph:#?}");
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let child = "use super::X; pub struct Y; pub fn g() {}";
    for parent in [
        "mod b; pub struct X; fn f() { b::g() }",
        "mod b; pub struct X { y: b::Y }",
        "mod b; pub struct X; pub use b::Y; fn f(_: Y) {}",
        "mod b; pub struct X; fn f() { use b::Y; }",
        "mod b; pub struct X; fn f() { assert!([b::Y].len() == 1) }",
        "mod b; pub struct X; macro_rules! m { () => { $crate::b::g() } }",
    ] {
        let dir = sources(&[("lib.rs", parent), ("b.rs", child)]);
        let graph = circles::graph(&dir.path().join("lib.rs"));
        let expected = BTreeSet::from(["lib.rs", "b.rs"].map(|name| dir.path().join(name)));
        assert_eq!(circles::circles(&graph), [expected], "{parent}");
    }
}

#[test]
fn an_apparent_circle_is_not_one() {
    let child = "use super::X; pub struct Y; pub fn g() {}";
    for parent in [
        "mod b; pub struct X; pub use b::Y;",
        "mod b; pub struct X; fn f(b: u8) -> u8 { b }",
        "mod b; pub struct X; fn f(b: u8) { assert!(b == 1) }",
        "mod b; pub struct X; impl X { #[cfg(test)] fn f() { b::g() } }",
        "mod b; pub struct X; pub(in crate::b) fn f() {}",
    ] {
        let dir = sources(&[("lib.rs", parent), ("b.rs", child)]);
        let graph = circles::graph(&dir.path().join("lib.rs"));
        assert_eq!(circles::circles(&graph), [], "{parent}");
    }
}

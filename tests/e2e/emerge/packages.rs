//! Packages of plugins, made for a test from the example's source tree.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use hotmerge_tests::repository;

use crate::{
    artifacts,
    lab::{Lab, said},
};

/// A version of a plugin that greets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Greeter {
    /// Name of the package and of the plugin.
    pub name: &'static str,
    pub version: &'static str,
    /// What its greetings begin with.
    pub greeting: &'static str,
    /// Why it does not start, if it does not.
    pub refuses: Option<&'static str>,
    /// The file that it reads as it starts, if it does.
    pub reads: Option<&'static str>,
    /// The major version of the contract that its SDK speaks, if it is not this tree's.
    pub speaks: Option<u16>,
}

impl Greeter {
    /// A version that starts.
    pub(crate) const fn new(
        name: &'static str,
        version: &'static str,
        greeting: &'static str,
    ) -> Self {
        Self {
            name,
            version,
            greeting,
            refuses: None,
            reads: None,
            speaks: None,
        }
    }

    /// The same, but it refuses to start.
    pub(crate) const fn refusing(self, reason: &'static str) -> Self {
        Self {
            refuses: Some(reason),
            ..self
        }
    }

    /// The same, but it has started only when it has read a file to its end.
    pub(crate) const fn reading(self, file: &'static str) -> Self {
        Self {
            reads: Some(file),
            ..self
        }
    }

    /// The same, but with an SDK of another contract.
    pub(crate) const fn speaking(self, major: u16) -> Self {
        Self {
            speaks: Some(major),
            ..self
        }
    }

    /// Adds the tarball and the ebuilds of this version and of a revision of it with the same
    /// sources to the lab.
    pub(crate) fn add_to(&self, lab: &Lab) -> Result<()> {
        let Self { name, version, .. } = self;
        self.release_to(lab)?;
        let package = lab.path("repos/made/app-misc").join(name);
        fs::create_dir_all(&package)?;
        for revision in ["", "-r1"] {
            let ebuild = format!("{name}-{version}{revision}.ebuild");
            fs::write(package.join(ebuild), self.ebuild())?;
        }
        lab.manifest(&format!("made/app-misc/{name}/{name}-{version}.ebuild"))
    }

    /// Adds only the tarball to the lab.
    pub(crate) fn release_to(&self, lab: &Lab) -> Result<()> {
        let tree = lab
            .path("made/sources")
            .join(format!("{}-{}", self.name, self.version));
        self.write_tree(&tree)?;
        lock(&tree)?;
        pack(&tree, &lab.path("distfiles"))
    }

    /// Its ebuild; what the SDK speaks is changed where the package manager has unpacked it.
    fn ebuild(&self) -> String {
        let Some(major) = self.speaks else {
            return EBUILD.to_owned();
        };
        let ours = hotmerge_abi::ABI_MAJOR;
        let claim = format!("HOTMERGE_ABI={ours}\n");
        let contract = "\"${ECARGO_VENDOR}\"/hotmerge-abi-0.1.0";
        EBUILD.replace(&claim, &format!("HOTMERGE_ABI={major}\n")) + &speaking(major, contract)
    }

    fn write_tree(&self, tree: &Path) -> Result<()> {
        copy_example(tree)?;
        edit(&tree.join("Cargo.toml"), |text| {
            text.replace("\"hotmerge-example\"", &format!("\"{}\"", self.name))
                .replace("name = \"example\"", &format!("name = \"{}\"", self.name))
                .replace(
                    "version = \"1.0.0\"",
                    &format!("version = \"{}\"", self.version),
                )
        })?;
        edit(&tree.join("src/lib.rs"), |text| {
            let mut text = text.replace("= \"Hello\"", &format!("= \"{}\"", self.greeting));
            if let Some(file) = self.reads {
                let read = format!(
                    "std::fs::read({file:?}).map(|_| Self).map_err(|error| Error::Failed(error.to_string()))"
                );
                text = text.replacen("Ok(Self)", &read, 1);
            }
            match self.refuses {
                Some(reason) => text.replacen(
                    "Ok(Self)",
                    &format!("Err(Error::Failed({reason:?}.into()))"),
                    1,
                ),
                None => text,
            }
        })
    }
}

/// What makes a source tree speak another contract; `contract` is shell, the contract's crate.
pub(crate) fn speaking(major: u16, contract: &str) -> String {
    let ours = hotmerge_abi::ABI_MAJOR;
    format!(
        r"
src_prepare() {{
	sed -i 's/\(ABI_MAJOR: u16 =\) {ours};/\1 {major};/' {contract}/src/lib.rs || die
	grep -q 'ABI_MAJOR: u16 = {major};' {contract}/src/lib.rs || die
	default
}}
"
    )
}

const EBUILD: &str = r#"# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

HOTMERGE_ABI=1
CRATES="
	hotmerge-abi@0.1.0
	hotmerge-sdk@0.1.0
"

inherit hotmerge-plugin

DESCRIPTION="Greets"
HOMEPAGE="https://example.org/"
SRC_URI="
	https://example.org/${P}.tar.xz
	${CARGO_CRATE_URIS}
"

LICENSE="MIT"
SLOT="0"
KEYWORDS="~amd64 ~arm64"
"#;

/// Copies the example's source tree, which every plugin here is made from.
pub(crate) fn copy_example(tree: &Path) -> Result<()> {
    let example = repository().join("tests/gentoo/sources/hotmerge-example");
    fs::create_dir_all(tree.parent().context("a tree lies somewhere")?)?;
    said(Command::new("cp").arg("-a").arg(example).arg(tree))?;
    Ok(())
}

/// Writes the lock file, as if the crates of this tree were on crates.io already.
pub(crate) fn lock(tree: &Path) -> Result<()> {
    let vendor = tree.with_extension("vendor");
    let crates = artifacts::release()?;
    for name in ["hotmerge-abi-0.1.0", "hotmerge-sdk-0.1.0"] {
        let file = crates.path().join(format!("{name}.crate"));
        fs::create_dir_all(&vendor)?;
        said(
            Command::new("tar")
                .arg("-xf")
                .arg(&file)
                .arg("-C")
                .arg(&vendor),
        )?;
        let sum = said(Command::new("sha256sum").arg(&file))?;
        fs::write(
            vendor.join(name).join(".cargo-checksum.json"),
            format!("{{\"package\":\"{}\",\"files\":{{}}}}", &sum[..64]),
        )?;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["generate-lockfile", "--offline", "--quiet"])
        .current_dir(tree);
    cargo.args(["--config", "source.crates-io.replace-with='made'"]);
    cargo
        .arg("--config")
        .arg(format!("source.made.directory='{}'", vendor.display()));
    said(&mut cargo)?;
    Ok(())
}

/// Packs a source tree as a tarball of its name.
pub(crate) fn pack(tree: &Path, into: &Path) -> Result<()> {
    let name = tree
        .file_name()
        .and_then(|name| name.to_str())
        .context("a tree has a name")?;
    let parent = tree.parent().context("a tree lies somewhere")?;
    let mut tar = Command::new("tar");
    tar.arg("-cJf").arg(into.join(format!("{name}.tar.xz")));
    tar.arg("-C").arg(parent).arg(name);
    said(&mut tar)?;
    Ok(())
}

fn edit(file: &Path, change: impl FnOnce(String) -> String) -> Result<()> {
    let text = fs::read_to_string(file)?;
    fs::write(file, change(text))?;
    Ok(())
}

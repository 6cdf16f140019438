//! What takes long and is the same for every lab: the release's tarballs, and the host's
//! binary packages. Kept in the cache, by the hash of what they are made from.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use hotmerge_tests::repository;

use crate::{
    lab::{Lab, Mode, cache, said, script},
    packages,
};

/// A directory whose files a lab gets.
#[derive(Clone, Debug)]
pub(crate) struct Artifacts(PathBuf);

impl Artifacts {
    /// What lies in a directory.
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Puts the files into a directory of a lab; they are never written to, so a link will do.
    pub(crate) fn copy_to(&self, dir: &Path) -> Result<()> {
        said(
            Command::new("cp")
                .arg("-alf")
                .arg(self.0.join("."))
                .arg(dir),
        )?;
        Ok(())
    }
}

/// The host is large, and no test here waits for its code.
pub(crate) const QUICKLY: &str = "CARGO_PROFILE_RELEASE_OPT_LEVEL=0";

/// One of a kind is made at a time, and once.
static RELEASE: Mutex<Option<Artifacts>> = Mutex::new(None);
static HOST: Mutex<Option<Artifacts>> = Mutex::new(None);
static NEXT_HOST: Mutex<Option<Artifacts>> = Mutex::new(None);

/// The tarballs and crates that a release of this tree consists of.
pub(crate) fn release() -> Result<Artifacts> {
    once(&RELEASE, || {
        forget_old()?;
        let made = tempfile::tempdir_in(cache()?)?;
        let mut make = script("release-tarballs");
        make.arg(made.path()).arg("--crates-cache").arg(cache()?);
        said(&mut make)?;
        let sums = said(
            Command::new("bash")
                .args(["-ec", "cat * | sha256sum"])
                .current_dir(&made),
        )?;
        let kept = cache()?.join(format!("release-{}", &sums[..16]));
        if !kept.exists() {
            fs::set_permissions(made.path(), fs::Permissions::from_mode(0o755))?;
            // If somebody else was faster, theirs is the same.
            let _ = fs::rename(made.path(), &kept);
        }
        Ok(Artifacts(kept))
    })
}

/// Removes what no recent tree was tested with.
fn forget_old() -> Result<()> {
    let mut find = Command::new("find");
    find.arg(cache()?)
        .args(["-mindepth", "1", "-maxdepth", "1", "-mtime", "+7"]);
    find.args([
        "(",
        "-name",
        "release-*",
        "-o",
        "-name",
        "host-*",
        "-o",
        "-name",
        "next-*",
        "-o",
        "-name",
        "prefix-*",
    ]);
    find.args([
        "-o", "-name", "crates-*", ")", "-exec", "rm", "-rf", "{}", "+",
    ]);
    said(&mut find)?;
    Ok(())
}

/// The host's packages, built by `emerge` from a release of this tree.
pub(crate) fn host_packages() -> Result<Artifacts> {
    once(&HOST, || {
        let packages = cache()?.join(format!("host-{}", what_makes_the_host()?));
        if !packages.join("Packages").exists() {
            build_host(&packages)?;
        }
        Ok(Artifacts(packages))
    })
}

/// The same, and as revision 2 a host of this tree that speaks another contract.
pub(crate) fn next_host_packages(major: u16) -> Result<Artifacts> {
    once(&NEXT_HOST, || {
        let packages = cache()?.join(format!("next-{}", what_makes_the_host()?));
        if !packages.join("Packages").exists() {
            build_next_host(&packages, major)?;
        }
        Ok(Artifacts(packages))
    })
}

/// Installs the host in the prefix; from source if need be.
pub(crate) fn install_in_prefix(lab: &Lab) -> Result<()> {
    let packages = cache()?.join(format!("prefix-{}", what_makes_the_host()?));
    let wanted = ["app-admin/hotmerge", "dev-lang/rust-bin"];
    if packages.exists() {
        Artifacts(packages).copy_to(&lab.path("pkgs"))?;
        lab.emerge(&[&["--usepkgonly"], &wanted[..]].concat())?;
        return Ok(());
    }
    lab.manifest("hotmerge/app-admin/hotmerge/hotmerge-0.1.0.ebuild")?;
    lab.emerge_with(&[QUICKLY], &[&["--buildpkg"], &wanted[..]].concat())?;
    fs::rename(lab.path("pkgs"), packages)?;
    Ok(())
}

fn once(
    made: &Mutex<Option<Artifacts>>,
    make: impl FnOnce() -> Result<Artifacts>,
) -> Result<Artifacts> {
    let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(made) = &*made {
        return Ok(made.clone());
    }
    Ok(made.insert(make()?).clone())
}

fn build_host(packages: &Path) -> Result<()> {
    let lab = Lab::bare(Mode::Root)?;
    lab.manifest("hotmerge/app-admin/hotmerge/hotmerge-0.1.0.ebuild")?;
    lab.emerge_with(
        &[QUICKLY],
        &["--buildpkg", "app-admin/hotmerge", "dev-lang/rust-bin"],
    )?;
    fs::rename(lab.path("pkgs"), packages)
        .with_context(|| format!("failed to keep `{}`", packages.display()))
}

fn build_next_host(kept: &Path, major: u16) -> Result<()> {
    let lab = Lab::with_stopped_host()?;
    let host = lab.path("repos/hotmerge/app-admin/hotmerge");
    let ebuild = fs::read_to_string(host.join("hotmerge-0.1.0.ebuild"))?;
    let slot = |major| format!("SLOT=\"0/{major}\"");
    let ebuild = ebuild.replace(&slot(hotmerge_abi::ABI_MAJOR), &slot(major));
    let next = host.join("hotmerge-0.1.0-r2.ebuild");
    fs::write(next, ebuild + &packages::speaking(major, "plugins/abi"))?;
    lab.manifest("hotmerge/app-admin/hotmerge/hotmerge-0.1.0-r2.ebuild")?;
    lab.emerge_with(&[QUICKLY], &["--buildpkg", "=app-admin/hotmerge-0.1.0-r2"])?;
    fs::rename(lab.path("pkgs"), kept)
        .with_context(|| format!("failed to keep `{}`", kept.display()))
}

/// A hash of everything that the host's package is made from.
fn what_makes_the_host() -> Result<String> {
    let list = "tar --sort=name --mtime=@0 --owner=0 --group=0 --create \
        Cargo.toml Cargo.lock host plugins/abi plugins/meta xtask scripts/services \
        ebuilds/app-admin/hotmerge/*.ebuild ebuilds/eclass/*.eclass ebuilds/acct-user ebuilds/acct-group tests/gentoo/repo | sha256sum";
    let sum = said(
        Command::new("bash")
            .args(["-ec", list])
            .current_dir(repository()),
    )?;
    Ok(sum.chars().take(16).collect())
}

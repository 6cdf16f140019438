//! Signed binary packages: one machine builds and signs, another one accepts nothing else.

use anyhow::{Context as _, Result, ensure};

use crate::{
    artifacts::Artifacts,
    calls::greeting,
    lab::{Lab, is_root},
    packages::Greeter,
};

const ALPHA_1: Greeter = Greeter::new("alpha", "1.0.0", "Hello");
const ALPHA_2: Greeter = Greeter::new("alpha", "2.0.0", "Good day");
const ALPHA_3: Greeter = Greeter::new("alpha", "3.0.0", "Moin");

#[test]
fn a_host_accepts_only_packages_of_its_key() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let builder = Lab::with_stopped_host()?;
    for name in ["release", "stranger"] {
        builder.shell(&format!(
            "cargo-hotmerge hotmerge sign --no-password --new-key /srv/{name}.key"
        ))?;
    }
    for (version, key) in [
        (ALPHA_1, Some("release")),
        (ALPHA_2, Some("stranger")),
        (ALPHA_3, None),
    ] {
        version.add_to(&builder)?;
        let key = key.map(|key| format!("HOTMERGE_SIGN_KEY=/srv/{key}.key"));
        let settings: Vec<_> = key.as_deref().into_iter().collect();
        let package = format!("=app-misc/alpha-{}", version.version);
        builder.emerge_with(&settings, &["--buildpkg", &package])?;
        let signature = "/usr/lib64/hotmerge/plugins/alpha/plugin.meta.minisig";
        let is_signed = key.is_some();
        builder
            .shell(&format!(
                "[[ -e {signature} ]] && is=true || is=false; test $is = {is_signed}"
            ))
            .with_context(|| format!("{package} is signed: {is_signed}?"))?;
    }
    let key = builder.shell("cat /srv/release.key.pub")?;

    let target = Lab::with_stopped_host()?;
    Artifacts::at(builder.path("pkgs")).copy_to(&target.path("pkgs"))?;
    target.shell(&format!(
        "mkdir -p /etc/hotmerge/keys.d
        cat > /etc/hotmerge/keys.d/release.pub <<'END'\n{key}\nEND
        sed -i '1i require_signature = true' /etc/hotmerge/hotmerge.toml"
    ))?;
    target.start_host()?;
    let log = target.emerge(&["--usepkgonly", "=app-misc/alpha-1.0.0"])?;
    ensure!(log.contains("alpha 1.0.0: loaded"), "{log}");
    ensure!(greeting(&target, "alpha")? == "Hello");

    for (version, reason) in [
        ("2.0.0", "which is not in `/etc/hotmerge/keys.d`"),
        ("3.0.0", "it is not signed"),
    ] {
        let package = format!("=app-misc/alpha-{version}");
        let log = target.emerge(&["--usepkgonly", &package])?;
        ensure!(
            log.contains(&format!("alpha {version}: refused: ")) || log.contains("package alpha: "),
            "the merge names no refusal:\n{log}"
        );
        ensure!(log.contains(reason), "no `{reason}`:\n{log}");
        ensure!(greeting(&target, "alpha")? == "Hello", "it goes on");
    }
    Ok(())
}

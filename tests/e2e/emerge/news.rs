//! News items as Portage's own reader counts them, with what is really installed.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use hotmerge_announcement::{Format, Request, Templates, generate, news};
use hotmerge_tests::repository;

use crate::lab::{cache, said, script};

/// A package of no content, for those whom the overlay's item is for.
const STUB: &str =
    "EAPI=8\nDESCRIPTION=\"Nothing\"\nSLOT=\"0\"\nKEYWORDS=\"amd64 arm64\"\nS=${WORKDIR}\n";

/// For everybody, though its body says otherwise.
const ITEM: &str = r#"{
    "title": "For everybody", "published": "2026-11-27", "authors": ["Ada <ada@example.org>"],
    "body": "Display-If-Installed: app-misc/none\n\nDisplay-If-Keyword: none\n",
    "news": { "name": "for-everybody" }
}"#;

#[test]
fn news_reach_their_whole_audience_alone() -> Result<()> {
    let base = tempfile::tempdir()?;
    let (lab, made) = (base.path().join("lab"), base.path().join("made"));
    fs::create_dir(&lab)?;
    make_overlay(&made)?;
    let mut setup = script("portage-lab");
    setup.arg("setup").arg(&lab).arg("--cache").arg(cache()?);
    setup.arg("--overlay").arg(repository().join("ebuilds"));
    setup.arg("--overlay").arg(&made);
    said(&mut setup)?;
    let emerge = |arguments: &[&str]| {
        let mut command = script("portage-lab");
        command
            .arg("run")
            .arg(&lab)
            .args(["FEATURES=news", "emerge"]);
        said(command.args(arguments))
    };
    let is_for = |told: &str, repository: &str| {
        told.contains(&format!(
            "1 news items need reading for repository '{repository}'"
        ))
    };
    let before = emerge(&["--check-news"])?;
    ensure!(
        is_for(&before, "made") && !is_for(&before, "hotmerge"),
        "{before}"
    );
    emerge(&["--oneshot", "--nodeps", "=app-admin/hotmerge-0.0.1"])?;
    let after = emerge(&["--check-news"])?;
    ensure!(
        is_for(&after, "made") && is_for(&after, "hotmerge"),
        "{after}"
    );
    Ok(())
}

fn make_overlay(dir: &Path) -> Result<()> {
    let write = |name: &str, bytes: &[u8]| -> Result<()> {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        Ok(fs::write(path, bytes)?)
    };
    write(
        "metadata/layout.conf",
        b"masters = gentoo\nthin-manifests = true\nsign-manifests = false\n",
    )?;
    write("profiles/repo_name", b"made\n")?;
    write("profiles/categories", b"app-admin\n")?;
    write("app-admin/hotmerge/hotmerge-0.0.1.ebuild", STUB.as_bytes())?;
    let templates = Templates::default();
    let announcement = Request::read(ITEM.as_bytes(), None, &templates)?.announcement;
    let item = generate(&announcement, Format::News, &templates)?;
    let (id, file) = (news::id(&announcement)?, news::file_name(&announcement)?);
    write(&format!("metadata/news/{id}/{file}"), &item)
}

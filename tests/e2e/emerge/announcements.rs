//! The program for maintainers as a package: without a host, it writes all that announces a release from
//! one file, also the news item of an overlay.

use std::fs;

use anyhow::{Result, ensure};
use hotmerge_tests::repository;

use crate::{
    artifacts::QUICKLY,
    lab::{Lab, Mode, is_root},
};

#[test]
fn a_release_is_announced_from_one_file() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let lab = Lab::bare(Mode::Root)?;
    lab.manifest("hotmerge/app-admin/hotmerge-announce-cli/hotmerge-announce-cli-0.1.0.ebuild")?;
    lab.emerge_with(&[QUICKLY], &["app-admin/hotmerge-announce-cli"])?;
    lab.shell(
        "cd /usr/share
        test -s man/man1/hotmerge-announce.1 -a -s man/man1/hotmerge-announce-release.1
        test -s bash-completion/completions/hotmerge-announce -a -s zsh/site-functions/_hotmerge-announce
        test -s fish/vendor_completions.d/hotmerge-announce.fish
        test ! -e /usr/bin/hotmerge",
    )?;

    let source = repository().join("ebuilds/ANNOUNCEMENT.toml");
    fs::copy(source, lab.path("repos/made/ANNOUNCEMENT.toml"))?;
    let overlay = lab.path("repos/made");
    let item = lab.shell(&format!(
        "cd {} && hotmerge-announce release ANNOUNCEMENT.toml --overlay . > /dev/null
        hotmerge-announce check ANNOUNCEMENT.md feed-entry.xml metadata/news/*/*.txt
        cat metadata/news/*/*.txt",
        overlay.display()
    ))?;
    ensure!(item.starts_with("Title: Restart hotmerge"), "{item}");
    Ok(())
}

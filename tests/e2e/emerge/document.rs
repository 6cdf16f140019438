//! What ebuilds/README.md tells packagers to do works, word by word.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use hotmerge_tests::repository;
use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Parser, Tag, TagEnd};

use crate::{
    lab::{Lab, is_root, said},
    packages,
};

const SECTION: &str = "Package a plugin in ten lines";

#[test]
fn the_documented_ten_line_ebuild_works() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let text = fs::read_to_string(repository().join("ebuilds/README.md"))?;
    let blocks = blocks_of(&text, SECTION);
    let block = |kind| {
        blocks
            .iter()
            .find(|(is, _)| is == kind)
            .map(|(_, text)| text)
    };
    let ebuild = block("ebuild").context("the section shows no ebuild")?;
    let commands = block("sh").context("the section shows no commands")?;
    let lines = ebuild
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    ensure!(
        lines.count() <= 10,
        "these are more than ten lines:\n{ebuild}"
    );

    let lab = Lab::with_host()?;
    let greeter = packages::Greeter::new("greeter", "1.0.0", "Hello");
    greeter.release_to(&lab)?;
    let package = lab.path("repos/made/app-misc/greeter");
    fs::create_dir_all(&package)?;
    fs::write(package.join("greeter-1.0.0.ebuild"), ebuild)?;
    let answer = lab.shell(&format!("cd {}\n{commands}", package.display()))?;
    ensure!(
        answer.ends_with("Hello, Larry!"),
        "the plugin does not answer:\n{answer}"
    );

    let config = lab.path("portage");
    let config = config.to_str().context("a path is UTF-8")?;
    let scan = [
        "pkgcheck", "--config", config, "scan", "--repo", "made", "--exit", "error",
    ];
    // What every package needs, and has nothing to do with plugins.
    let without = ["--keywords=-PkgMissingMetadataXml,-CatMissingMetadataXml"];
    said(&mut lab.command(&[&scan[..], &without].concat()))?;
    Ok(())
}

/// The code blocks below a heading of the second level: what they are, and their text.
fn blocks_of(text: &str, heading: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut here = String::new();
    let mut in_heading = false;
    let mut block: Option<(String, String)> = None;
    for event in Parser::new(text) {
        match event {
            Event::Start(Tag::Heading {
                level: HeadingLevel::H2,
                ..
            }) => {
                in_heading = true;
                here.clear();
            }
            Event::End(TagEnd::Heading(_)) => in_heading = false,
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(kind))) => {
                block = Some((kind.to_string(), String::new()));
            }
            Event::End(TagEnd::CodeBlock) if here == heading => blocks.extend(block.take()),
            Event::Text(text) if in_heading => here.push_str(&text),
            Event::Text(text) => {
                if let Some((_, code)) = &mut block {
                    code.push_str(&text);
                }
            }
            _ => {}
        }
    }
    blocks
}

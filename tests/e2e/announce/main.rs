//! The output of `announce`, checked by third-party parsers: Python's `json` and `tomllib`, Google's
//! Protobuf, a CommonMark parser, `html.parser`, a feed parser, and Portage's own news reader.
//!
//! Deterministic: the same announcements every time, and the same versions of the parsers.

mod output;
mod plugin;
mod texts;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use hotmerge_announcement::{Error, Format, Request, Templates, generate};
use hotmerge_tests::{repository, skipped};
use serde_json::{Value, json};

const PACKAGES: &[&str] = &[
    "feedparser==6.0.14",
    "markdown-it-py==4.3.0",
    "portage==3.0.83",
    "protobuf==7.36.2",
];

/// How many announcements are judged.
const MANY: usize = 300;

/// What comes up in titles, bodies and tags.
const PIECES: &[&str] = &[
    "word ",
    "two words ",
    "Display-If-Installed: a/b",
    "Display-If-Keyword: none\n",
    "\n",
    "\n\n",
    "## Heading\n\n",
    "- item\n",
    "> quote\n",
    "1. one\n",
    "`code` ",
    "\n```sh\ntrue\n```\n\n",
    "<b>bold</b> ",
    "<script>x</script>",
    "<!-- no -->",
    "&amp; ",
    "& ",
    "]]> ",
    "\" ",
    "' ",
    "\\ ",
    "[a](https://example.org/a_b) ",
    "[x](javascript:alert(1)) ",
    "![i](https://example.org/i.png) ",
    "\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n",
    "\u{202e}rtl\u{202c} ",
    "عربى ",
    "עברית ",
    "中文文本，很长。",
    "e\u{301} ",
    "👩‍👩‍👧 ",
    "*em* ",
    "__strong__ ",
    "\u{200b}",
    "\u{2028}",
    "\u{a0}",
    "{{ x }} ",
    "{% x %} ",
    "https://example.org/a-b/c?d=e&f=g ",
    "Title: x\n",
];

#[test]
fn foreign_parsers_agree_on_every_format() {
    let Some(python) = python() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let made = write_announcements(dir.path());
    assert!(made > MANY * 7, "only {made} documents were made");
    let script = repository().join("tests/e2e/announce/foreign.py");
    let ran = Command::new(python)
        .arg(script)
        .arg(dir.path())
        .output()
        .unwrap();
    let (said, told) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert!(ran.status.success() && said.is_empty(), "{said}{told}");
    // All but the JSON, which the others are compared with.
    assert!(told.contains(&format!("judged {}", made - MANY)), "{told}");
}

/// Writes announcements in every format; returns the number of files.
fn write_announcements(dir: &Path) -> usize {
    let mut compiler =
        protox::Compiler::new([repository().join("plugins/announcement/proto")]).unwrap();
    compiler
        .include_imports(true)
        .open_file("announcement.proto")
        .unwrap();
    fs::write(
        dir.join("announcement.desc"),
        compiler.encode_file_descriptor_set(),
    )
    .unwrap();
    let (mut random, mut made) = (fastrand::Rng::with_seed(42), 0);
    for number in 0..MANY {
        let request = announcement(&mut random);
        for format in Format::all() {
            match generate(&request.announcement, format, &Templates::default()) {
                Ok(bytes) => {
                    fs::write(dir.join(format!("{number}.{}", format.name())), bytes).unwrap();
                    made += 1;
                }
                // A line of code that is too wide, for one.
                Err(Error::BadRequest(_)) if format == Format::News => {}
                Err(error) => panic!("{format:?}: {error}: {request:?}"),
            }
        }
    }
    made
}

/// The next announcement of random pieces that is not refused.
fn announcement(random: &mut fastrand::Rng) -> Request {
    let mut text = |most: usize| -> String {
        let pieces = (0..random.usize(1..most)).map(|_| *random.choice(PIECES).unwrap());
        pieces.collect()
    };
    loop {
        let input = json!({
            "title": text(4).chars().take(48).collect::<String>(), "body": text(40), "tags": [text(3), text(3)],
            "published": "2026-11-27T09:00:00Z", "url": "https://example.org/a?b=c&d=e", "language": "en",
            "authors": ["Ada <ada@example.org>"],
            "news": { "name": "name", "display_if_installed": ["app-admin/hotmerge"] },
        });
        let read = Request::read(input.to_string().as_bytes(), None, &Templates::default());
        if let Ok(request) = read {
            return request;
        }
    }
}

/// Python with the parsers, made once; `None` where there is none to be had.
fn python() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign-parsers");
    let (python, done) = (dir.join("bin/python"), dir.join("complete"));
    if done.exists() {
        return Some(python);
    }
    let _ = fs::remove_dir_all(&dir);
    let succeeds = |command: &mut Command| command.output().is_ok_and(|ran| ran.status.success());
    let made = succeeds(Command::new("python3").args(["-m", "venv"]).arg(&dir));
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:"]);
    if !made || !succeeds(pip.args(PACKAGES)) {
        skipped("the parsers of other makes cannot be installed");
        return None;
    }
    fs::write(done, "").unwrap();
    Some(python)
}

#[test]
fn the_overlays_news_item_keeps_all_rules() {
    let news = repository().join("ebuilds/metadata/news");
    let mut items = 0;
    for item in fs::read_dir(news).unwrap() {
        for file in fs::read_dir(item.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let bytes = fs::read(&path).unwrap();
            let report = hotmerge_announcement::check::Report::of_news(&bytes, Some(name));
            assert!(report.ok, "{name}\n{report}");
            items += 1;
        }
    }
    assert!(items > 0, "the overlay ships no news");
}

/// The item in the overlay is what the announcement beside it gives today.
#[test]
fn the_overlays_news_item_is_generated() {
    let source = repository().join("ebuilds/ANNOUNCEMENT.toml");
    let input = fs::read(source).unwrap();
    let templates = Templates::default();
    let request = Request::read(&input, Some("application/toml"), &templates).unwrap();
    let announcement = request.announcement;
    let made = generate(&announcement, Format::News, &templates).unwrap();
    let (id, file) = (
        hotmerge_announcement::news::id(&announcement).unwrap(),
        hotmerge_announcement::news::file_name(&announcement).unwrap(),
    );
    let path = repository()
        .join("ebuilds/metadata/news")
        .join(id)
        .join(file);
    assert_eq!(
        fs::read_to_string(path).unwrap(),
        String::from_utf8(made).unwrap()
    );
    let _: Value =
        serde_json::from_slice(&generate(&announcement, Format::Json, &templates).unwrap())
            .unwrap();
}

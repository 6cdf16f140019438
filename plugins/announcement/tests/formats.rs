//! Every format: as it is shown in `snapshots`, there and back, and with any text.

use hotmerge_announcement::{
    Announcement, Choice, Error, Format, Request, Templates, check::Report, generate, news,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const SAMPLE: &str = include_str!("../samples/announcement.json");
const SPECIFICATION: &str = include_str!("../samples/go.toml");

fn read(input: &[u8], content_type: &str) -> Result<Request, Error> {
    Request::read(input, Some(content_type), &Templates::default())
}

fn sample() -> Announcement {
    let request = read(SAMPLE.as_bytes(), "application/json").unwrap();
    request.announcement
}

fn made(announcement: &Announcement, format: Format) -> Vec<u8> {
    generate(announcement, format, &Templates::default()).unwrap()
}

fn violations(document: &[u8], format: Format) -> String {
    let content_type = Choice::of(format).content_type;
    Report::of_type(document, Some(content_type))
        .unwrap()
        .to_string()
}

#[test]
fn every_format_is_as_shown() {
    let announcement = sample();
    for format in Format::all() {
        let bytes = made(&announcement, format);
        assert_eq!(violations(&bytes, format), "", "{format:?}");
        let shown = match String::from_utf8(bytes) {
            Ok(text) if format != Format::Protobuf => text,
            Ok(text) => hex(text.as_bytes()),
            Err(error) => hex(error.as_bytes()),
        };
        insta::assert_snapshot!(format.name(), shown);
    }
    let name = news::file_name(&announcement).unwrap();
    assert_eq!(name, "2026-11-27-hotmerge-0.2.0.en.txt");
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| {
        let digits: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_specifications_announcement_keeps_all_rules() {
    for language in ["en", "zh"] {
        let input =
            SPECIFICATION.replace("language = \"en\"", &format!("language = \"{language}\""));
        let request = read(input.as_bytes(), "application/toml").unwrap();
        let markdown = made(&request.announcement, Format::Markdown);
        assert_eq!(violations(&markdown, Format::Markdown), "");
        let markdown = String::from_utf8(markdown).unwrap();
        insta::assert_snapshot!(format!("specification.{language}"), markdown);
    }
}

#[test]
fn encodings_convert_into_each_other() {
    let announcement = sample();
    let encodings = [Format::Json, Format::Toml, Format::Protobuf];
    let mut bytes = SAMPLE.as_bytes().to_vec();
    let mut from = Format::Json;
    for to in encodings.into_iter().cycle().skip(1).take(6) {
        let content_type = Choice::of(from).content_type;
        let request = read(&bytes, content_type).unwrap();
        assert_eq!(request.announcement, announcement, "{from:?}");
        bytes = made(&request.announcement, to);
        from = to;
    }
}

#[test]
fn a_changelogs_section_is_announced() {
    let changelog =
        "# Changelog\n\n## [Unreleased]\n\n- x\n\n## [1.2.0] - 2026-11-22\n\n### Added\n\n- a\n";
    let content_type = "text/markdown; section=1.2.0; name=tool";
    let request = read(changelog.as_bytes(), content_type).unwrap();
    let markdown = made(&request.announcement, Format::Markdown);
    assert_eq!(
        String::from_utf8(markdown).unwrap(),
        "# tool 1.2.0\n\n2026-11-22\n\n### Added\n\n- a\n"
    );
    let Err(Error::BadRequest(reason)) = read(changelog.as_bytes(), "text/markdown; section=9.9.9")
    else {
        panic!("there is no such section")
    };
    assert!(reason.contains("`Unreleased`, `1.2.0`"), "{reason}");
}

#[test]
fn lines_like_headers_restrict_nobody() {
    let mut input: Value = serde_json::from_str(SAMPLE).unwrap();
    input["body"] = json!(format!(
        "Display-If-Installed: dev-lang/none\n\n{}Display-If-Keyword: none\n\n- Display-If-Profile: x\n\n\
         ```\nNews-Item-Format: 9\n```\n\nTitle: x\n",
        "wrap ".repeat(14)
    ));
    let request = read(input.to_string().as_bytes(), "application/json").unwrap();
    let item = String::from_utf8(made(&request.announcement, Format::News)).unwrap();
    assert_eq!(violations(item.as_bytes(), Format::News), "");
    let restrictions: Vec<_> = item
        .lines()
        .filter(|line| line.starts_with("Display-If"))
        .collect();
    assert_eq!(
        restrictions,
        ["Display-If-Installed: app-admin/hotmerge-announce"]
    );
    assert!(
        item.contains("\n Display-If-Installed: dev-lang/none\n"),
        "{item}"
    );
    assert!(item.contains("\n Title: x\n"), "{item}");
}

#[test]
fn nothing_in_a_page_runs() {
    let mut input: Value = serde_json::from_str(SAMPLE).unwrap();
    input["title"] = json!("<script>alert(1)</script> & \"quotes\"");
    input["tags"] = json!(["<img src=x onerror=alert(1)>"]);
    input["body"] = json!(
        "<script>alert(1)</script>\n\n[a](javascript:alert(1)) [b](JavaScript:alert%281%29) \
         [c](data:text/html,x) <b onclick=\"x\">d</b>\n"
    );
    let request = read(input.to_string().as_bytes(), "application/json").unwrap();
    let page = String::from_utf8(made(&request.announcement, Format::Html)).unwrap();
    for bad in [
        "<script",
        "javascript:",
        "JavaScript:",
        "data:",
        "<b ",
        "<img",
    ] {
        assert!(!page.contains(bad), "{bad}: {page}");
    }
}

#[test]
fn fields_that_a_format_lacks_are_named() {
    let input = json!({ "title": "版本发布", "body": "x", "published": "2026-11-27" });
    let request = read(input.to_string().as_bytes(), "application/json").unwrap();
    let lacks = |format| {
        let made = generate(&request.announcement, format, &Templates::default());
        made.unwrap_err().to_string()
    };
    let atom = lacks(Format::Atom);
    assert!(
        atom.contains("`id` is missing") && atom.contains("`authors` is missing"),
        "{atom}"
    );
    assert!(lacks(Format::News).contains("`news.name` is missing"));
    let mut input: Value = serde_json::from_str(SAMPLE).unwrap();
    input["title"] = json!("t".repeat(51));
    input["authors"] = json!([]);
    input["body"] = json!(format!("```\n{}\n```\n", "code ".repeat(20)));
    let request = read(input.to_string().as_bytes(), "application/json").unwrap();
    let refused = generate(&request.announcement, Format::News, &Templates::default());
    let refused = refused.unwrap_err().to_string();
    for rule in ["1: news-title:", "`Author` is missing", "7: news-columns:"] {
        assert!(refused.contains(rule), "{rule}: {refused}");
    }
}

#[test]
fn a_body_of_a_megabyte_is_generated() {
    let line = "A line \u{202e}with\u{202c} ümläuts, 中文 and `code`. ";
    let body = line.repeat((1 << 20) / line.len() - 1);
    let mut input: Value = serde_json::from_str(SAMPLE).unwrap();
    input["body"] = json!(body);
    let request = read(input.to_string().as_bytes(), "application/json").unwrap();
    for format in Format::all() {
        let bytes = made(&request.announcement, format);
        assert!(bytes.len() > 1_000_000, "{format:?}");
        assert_eq!(violations(&bytes, format), "", "{format:?}");
    }
}

/// Text in which much comes up that formats have to escape.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "word ",
            "Display-If-Installed: a/b",
            "\n",
            "\n\n",
            "# ",
            "- ",
            "> ",
            "1. ",
            "`",
            "```\n",
            "~~~\n",
            "<b>",
            "<!--",
            "&amp;",
            "&",
            "]]>",
            "\"",
            "'",
            "\\",
            "[a](b)",
            "![a](https://b)",
            "| a | b |\n|---|---|\n",
            "[^1]: x\n",
            "\t",
            "    ",
            "\u{202e}",
            "\u{200b}",
            "\u{2028}",
            "\u{feff}",
            "\u{a0}",
            "中文",
            "e\u{301}",
            "عربى",
            "👩‍👩‍👧",
            "*",
            "_",
            "===\n",
            "---\n",
            "{{",
            "{%",
            "https://example.org/a-b/c",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
        "[a-z]{1,90} ",
    ];
    proptest::collection::vec(piece, 1..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_refused_or_well_formed(
        title in text(),
        body in text(),
        tag in text(),
        seconds in -62_135_596_800_i64..253_402_300_799,
    ) {
        let mut input: Value = serde_json::from_str(SAMPLE).unwrap();
        input["title"] = json!(title);
        input["body"] = json!(body);
        input["tags"] = json!([tag]);
        // What is refused for one field shall not hide the others.
        for field in ["title", "body", "tags"] {
            let mut one: Value = serde_json::from_str(SAMPLE).unwrap();
            one[field] = input[field].clone();
            if read(one.to_string().as_bytes(), "application/json").is_err() {
                input[field] = serde_json::from_str::<Value>(SAMPLE).unwrap()[field].clone();
            }
        }
        let published = proptest_time(seconds);
        input["published"] = json!(published);
        let announcement = read(input.to_string().as_bytes(), "application/json").unwrap().announcement;
        for format in Format::all() {
            let bytes = match generate(&announcement, format, &Templates::default()) {
                Ok(bytes) => bytes,
                Err(Error::BadRequest(reason)) => {
                    prop_assert!(matches!(format, Format::News | Format::Markdown), "{format:?} {reason}");
                    continue;
                }
                Err(other) => return Err(TestCaseError::fail(format!("{format:?} {other}"))),
            };
            prop_assert_eq!(violations(&bytes, format), "", "{:?}", format);
            if matches!(format, Format::Json | Format::Toml | Format::Protobuf) {
                let again = read(&bytes, Choice::of(format).content_type).unwrap();
                prop_assert_eq!(&again.announcement, &announcement);
            }
        }
    }

    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..4_usize) {
        let types = ["application/json", "application/toml", "application/protobuf", "text/markdown"];
        let _ = read(&bytes, types[kind]);
        for format in Format::all() {
            let _ = violations(&bytes, format);
        }
    }
}

/// RFC 3339 of a time, by the library that judges it.
fn proptest_time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap().to_string()
}

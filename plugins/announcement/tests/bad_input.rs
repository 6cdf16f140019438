//! Bad input: every violation at once, with its field or its line and rule.

use hotmerge_announcement::{Error, Request, Templates, check::Report};
use serde_json::{Value, json};

const SAMPLE: &str = include_str!("../samples/announcement.json");

fn refused(input: &[u8], content_type: &str) -> String {
    match Request::read(input, Some(content_type), &Templates::default()) {
        Err(Error::BadRequest(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_field_is_named_at_once() {
    let input = json!({
        "title": 7, "body": "", "published": "2026-02-30", "tags": ["", 3], "id": "no address",
        "url": "ftp://example.org", "authors": ["Ada"], "language": "e", "tilte": "x",
        "news": {
            "name": "Not Good", "title": [], "revision": 0, "translators": "x", "extra": 1,
            "display_if_installed": [">=a/b"], "display_if_keyword": ["~amd64"],
            "display_if_profile": ["/x"],
        },
    });
    let reason = refused(input.to_string().as_bytes(), "application/json");
    let begins = [
        "`published` must be a time",
        "`title` must be a string",
        "`body` is empty",
        "`tags[0]` is empty",
        "`tags[1]` must be a string",
        "`id` must be an address",
        "`url` must begin with",
        "`authors[0]` must be `Name",
        "`language` must be a language",
        "`news.revision` must be a number",
        "`news.extra` is unknown",
        "`news.name` must be 1 to 20",
        "`news.title` must be a string",
        "`news.translators` must be a list",
        "`news.display_if_installed[0]` has an operator",
        "`news.display_if_keyword[0]` must be an architecture",
        "`news.display_if_profile[0]` must be a profile",
        "`tilte` is unknown",
    ];
    let lines: Vec<_> = reason.lines().collect();
    assert_eq!(lines.len(), begins.len(), "{reason}");
    for begin in begins {
        assert!(
            lines.iter().any(|line| line.starts_with(begin)),
            "{begin}: {reason}"
        );
    }
}

#[test]
fn each_required_field_is_missed() {
    for field in ["title", "body", "published"] {
        let mut input: Value = serde_json::from_str(SAMPLE).unwrap();
        input.as_object_mut().unwrap().remove(field);
        let reason = refused(input.to_string().as_bytes(), "application/json");
        assert_eq!(reason, format!("`{field}` is missing"));
    }
    // What is empty is missing in Protobuf.
    let reason = refused(b"", "application/protobuf");
    assert_eq!(
        reason,
        "`published` is missing\n`title` is missing\n`body` is missing"
    );
}

#[test]
fn texts_that_are_too_long_are_refused() {
    for (field, value, part) in [
        (
            "title",
            json!("t".repeat(201)),
            "has 201 characters, the limit is 200",
        ),
        (
            "body",
            json!("b ".repeat(1 << 19) + "b"),
            "has 1048577 bytes, the limit is 1048576",
        ),
        (
            "tags",
            json!(["t".repeat(65)]),
            "has 65 characters, the limit is 64",
        ),
        (
            "tags",
            json!(vec!["t"; 65]),
            "has 65 entries, the limit is 64",
        ),
        (
            "url",
            json!(format!("https://{}", "u".repeat(2041))),
            "has 2049 characters",
        ),
    ] {
        let mut input: Value = serde_json::from_str(SAMPLE).unwrap();
        input[field] = value;
        let reason = refused(input.to_string().as_bytes(), "application/json");
        assert!(
            reason.starts_with(&format!("`{field}")) && reason.contains(part),
            "{reason}"
        );
    }
    let reason = refused(&vec![b' '; (4 << 20) + 1], "application/json");
    assert!(
        reason.contains("4194305 bytes, the limit is 4194304"),
        "{reason}"
    );
}

#[test]
fn a_bodys_violations_have_lines_and_rules() {
    let body = "Version: v1.2.3\n\n#### deep\n\n    code\n\n<h4>x</h4>\n\n> Deep\n> ====\n\nbell \u{7}\n\n```\nopen";
    let mut input: Value = serde_json::from_str(SAMPLE).unwrap();
    input["body"] = json!(body);
    input["title"] = json!("tool 1.2");
    let reason = refused(input.to_string().as_bytes(), "application/json");
    for begin in [
        "`title` breaks the rule `version`",
        "`body` line 1: version: ",
        "`body` line 3: heading-depth: ",
        "`body` line 5: unfenced-code: ",
        "`body` line 7: heading-depth: ",
        "`body` line 12: control: ",
        "`body` line 14: unclosed-fence: ",
    ] {
        assert!(
            reason.lines().any(|line| line.starts_with(begin)),
            "{begin}: {reason}"
        );
    }
}

#[test]
fn broken_encodings_name_the_line() {
    for (input, content_type, part) in [
        (
            &b"{\n\"title\": }"[..],
            "application/json",
            "line 2 column 10",
        ),
        (
            b"{\"title\": 1, \"title\": 2}",
            "application/json",
            "duplicate",
        ),
        (b"[]", "application/json", "invalid type"),
        (b"\xEF\xBB\xBF{}", "application/json", "bom"),
        (b"{\n\"\xff\"}", "application/json", "line 2: utf-8"),
        (b"a = 1\nb = =", "application/toml", "line 2"),
        (b"a = 1\na = 2", "application/toml", "line 2"),
        (b"\n\xff", "application/toml", "line 2: utf-8"),
        (
            b"\x0a\xff",
            "application/protobuf",
            "the message cannot be read",
        ),
        (
            b"\x0a\x01\xff",
            "application/protobuf",
            "the message cannot be read",
        ),
    ] {
        let reason = refused(input, content_type);
        assert!(reason.contains(part), "{part}: {reason}");
    }
    for unknown in [
        "text/html",
        "image/png",
        "json",
        "application/json; charset=latin1",
    ] {
        let read = Request::read(b"{}", Some(unknown), &Templates::default());
        let Err(Error::UnsupportedMedia(reason)) = read else {
            panic!("{unknown}: {read:?}")
        };
        assert!(reason.contains("`application/toml`"), "{reason}");
    }
}

#[test]
fn a_release_gives_title_and_body() {
    let release: Value = serde_json::from_str(include_str!("../samples/release.json")).unwrap();
    let input = json!({ "release": release, "title": "x" });
    let reason = refused(input.to_string().as_bytes(), "application/json");
    assert!(
        reason.contains("must not stand beside `release`"),
        "{reason}"
    );
    let input = json!({ "release": release, "template": "nothing" });
    let reason = refused(input.to_string().as_bytes(), "application/json");
    assert!(reason.contains("there are `go.en`, `go.zh`"), "{reason}");
    let input = json!({ "template": "go", "title": "x" });
    let reason = refused(input.to_string().as_bytes(), "application/json");
    assert!(
        reason.contains("`template` applies to `release` only"),
        "{reason}"
    );
    let input = json!({ "release": { "name": "x" }, "published": "2026-11-27" });
    let reason = refused(input.to_string().as_bytes(), "application/json");
    assert!(reason.contains("`version` is missing"), "{reason}");
}

/// A news item with everything wrong, a line each.
#[test]
fn a_news_items_violations_have_lines_and_rules() {
    let item = "Author: Ada\nTitle: a title that is longer than fifty characters, as it is\nTitle: twice\n\
        Content-Type: text/plain\nPosted: 2026-02-30\nRevision: 0\nNews-Item-Format: 1.0\n\
        Display-If-Keyword: ~amd64\nDisplay-If-Installed: !a/b\nX-Mine: x\nno header\nDisplay-If-Profile:  x \n\n\
        a line that is much longer than all the seventy-two columns that a news item may have\n\ttab\n\
        Display-If-Installed: a/b\n";
    let report = Report::of_news(item.as_bytes(), Some("2026-13-01-Bad Name.e.txt"));
    let found = report.to_string();
    for begin in [
        "1: news-name: the name begins with",
        "1: news-name: the name behind the date",
        "1: news-name: `e` is not a language tag",
        "1: news-header: `Author` must be `Name",
        "2: news-header: `Title` must stand before `Author`",
        "2: news-title: ",
        "3: news-header: `Title` occurs twice",
        "4: news-header: `Content-Type` is of format 1.0 only",
        "5: news-header: `Posted`",
        "6: news-header: `Revision`",
        "7: news-header: `News-Item-Format`",
        "8: news-display: ",
        "9: news-display: ",
        "9: news-header: `Display-If-Installed` must stand before",
        "10: news-header: `X-Mine` is not a header",
        "11: news-header: this is not a header",
        "12: news-header: the value of `Display-If-Profile`",
        "14: news-columns: ",
        "15: news-body: a tab",
        "16: news-body: readers of news",
    ] {
        assert!(
            found.lines().any(|line| line.starts_with(begin)),
            "{begin}: {found}"
        );
    }
    let report = Report::of_news(b"Title: x\n", None).to_string();
    for missing in ["Author", "Posted", "Revision", "News-Item-Format"] {
        assert!(
            report.contains(&format!("`{missing}` is missing")),
            "{report}"
        );
    }
    assert!(report.contains("news-body: there is no text"), "{report}");
}

#[test]
fn a_broken_feed_entry_is_reported() {
    let entry = "application/atom+xml";
    for (document, part) in [
        (
            "<entry><id/><title/><updated/>",
            "not all elements are closed",
        ),
        (
            "<entry>\n<id></title></entry>",
            "2: atom-entry: it is not XML",
        ),
        ("<feed/>", "must be `entry`"),
        ("<entry><id/></entry>", "there must be one `updated`"),
        ("", "must be `entry`"),
    ] {
        let report = Report::of_type(document.as_bytes(), Some(entry)).unwrap();
        assert!(report.to_string().contains(part), "{part}: {report}");
    }
}

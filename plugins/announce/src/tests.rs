//! The plugin through its exported table, as a host runs it.

use std::fs;

use hotmerge_announcement::Format;
use hotmerge_sdk::{
    abi,
    testing::{Instance, Refused},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Announce, REQUEST_LIMIT};

const SAMPLE: &str = include_str!("../../announcement/samples/release.json");

fn plugin() -> Instance<Announce> {
    Instance::start("{}").unwrap()
}

fn start(config: &Value) -> Result<Instance<Announce>, Refused> {
    Instance::start(&config.to_string())
}

fn text(plugin: &Instance<Announce>, method: &str, request: &[u8]) -> String {
    String::from_utf8(plugin.call(method, request).unwrap().bytes).unwrap()
}

#[test]
fn the_sample_renders_as_it_is_shown() {
    let answer = plugin().call("render", SAMPLE.as_bytes()).unwrap();
    assert_eq!(answer.content_type, "text/markdown; charset=utf-8");
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../announcement/samples/release.md"
    );
    let shown = fs::read_to_string(path).unwrap();
    assert_eq!(String::from_utf8(answer.bytes).unwrap(), shown);
    assert_eq!(text(&plugin(), "check", shown.as_bytes()), "ok\n");
}

#[test]
fn it_is_as_it_describes_itself() {
    plugin().check_description();
}

#[test]
fn formats_are_described() {
    let formats: Vec<_> = Format::all()
        .flat_map(|format| format.content_types())
        .collect();
    assert!(formats.into_iter().eq(crate::methods::FORMATS));
    let described: Value = serde_json::from_str(&plugin().describe().unwrap()).unwrap();
    for method in described["methods"].as_array().unwrap() {
        for payload in ["request", "reply"] {
            if let Some(schema) = method[payload]["schema"].as_str() {
                serde_json::from_str::<Value>(schema).unwrap();
            }
        }
    }
}

#[test]
fn the_caller_chooses_the_format() {
    let sample = include_bytes!("../../announcement/samples/announcement.json");
    let plugin = plugin();
    let made = |accept| plugin.call_media("generate", sample, "", accept);
    assert_eq!(
        made("").unwrap().content_type,
        "text/markdown; charset=utf-8"
    );
    let page = made("text/html, */*;q=0.1").unwrap();
    assert_eq!(page.content_type, "text/html; charset=utf-8");
    let refused = made("image/png").unwrap_err();
    assert_eq!(refused.status, abi::STATUS_NOT_ACCEPTABLE);
    assert!(
        refused.reason.contains("`application/toml`"),
        "{}",
        refused.reason
    );
    let refused = plugin
        .call_media("generate", sample, "image/png", "")
        .unwrap_err();
    assert_eq!(refused.status, abi::STATUS_UNSUPPORTED_MEDIA);
    // The author's word counts more than what a program accepts by habit.
    let mut input: Value = serde_json::from_slice(sample).unwrap();
    input["format"] = json!("atom");
    let entry = plugin.call_media("generate", input.to_string().as_bytes(), "", "text/html");
    assert_eq!(
        entry.unwrap().content_type,
        "application/atom+xml; type=entry; charset=utf-8"
    );
    let report = plugin
        .call_media("check", b"# tool 1.2\n", "", "application/json")
        .unwrap();
    assert_eq!(report.content_type, "application/json");
    let refused = plugin
        .call_media("check", b"", "", "text/html")
        .unwrap_err();
    assert_eq!(refused.status, abi::STATUS_NOT_ACCEPTABLE);
}

#[test]
fn listed_templates_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let files = ["release.de.md", "markdown.md"].map(|name| folder.path().join(name));
    let config = json!({ "templates": files });
    write("release.de.md", "# {{ name }} {{ version }} ist da\n");
    write(
        "markdown.md",
        "# {{ title }}\n\n{{ body }}\n\nEnde {{ date }}\n",
    );
    let plugin = start(&config).unwrap();
    let mut input = json!({ "language": "de-AT", "published": "2026-11-27" });
    input["release"] = serde_json::from_str(SAMPLE).unwrap();
    let made = |input: &Value| text(&plugin, "generate", input.to_string().as_bytes());
    // The template gives no body, and an announcement has one.
    let refused = plugin
        .call("generate", input.to_string().as_bytes())
        .unwrap_err();
    assert_eq!(refused.reason, "`body` is empty");
    write(
        "release.de.md",
        "# {{ name }} {{ version }} ist da\n\nJa.\n",
    );
    let plugin = start(&config).unwrap();
    assert_eq!(
        text(&plugin, "generate", input.to_string().as_bytes()),
        "# hotmerge 0.1.0 ist da\n\nJa.\n\nEnde 2026-11-27\n"
    );
    input["language"] = json!("en");
    assert!(
        made(&input).starts_with("# hotmerge 0.1.0\n"),
        "{}",
        made(&input)
    );
    // Every violation is reported at once, with file and line.
    write("release.de.md", "# {{ name }}\n{% if %}\n");
    write("markdown.md", "# {{ title }}\n\n#### {{ body }}\n");
    let refused = start(&config).unwrap_err();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for part in [
        format!("{}:2: ", path("release.de.md")),
        format!("{}: what it renders", path("markdown.md")),
    ] {
        assert!(refused.reason.contains(&part), "{part}: {}", refused.reason);
    }
    assert!(
        refused.reason.contains("\n3: heading-depth: "),
        "{}",
        refused.reason
    );
}

#[test]
fn templates_have_one_name_each() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("release.md");
    fs::write(&path, "# {{ name }}\n").unwrap();
    let refused = start(&json!({ "templates": [path, path] })).unwrap_err();
    assert!(
        refused.reason.contains("another template `release`"),
        "{}",
        refused.reason
    );
    let refused = start(&json!({ "templates": [folder.path()] })).unwrap_err();
    assert!(
        refused.reason.contains("does not end in `.md`"),
        "{}",
        refused.reason
    );
}

#[test]
fn a_minimal_release_renders() {
    let request = json!({
        "name": "tool", "version": "1.0.0", "date": "2026-11-22", "minimum_version": "0.9.0",
        "features": [], "known_issues": [],
    });
    assert_eq!(
        text(&plugin(), "render", request.to_string().as_bytes()),
        "# tool 1.0.0\n\n- Released: 2026-11-22\n- Minimum version: 0.9.0\n\n\
         ## Known issues\n\nNone known.\n"
    );
}

#[test]
fn commands_stand_in_the_fence_alone() {
    let mut request: Value = serde_json::from_str(SAMPLE).unwrap();
    request["upgrade_notes"] = Value::Null;
    request["upgrade_commands"] = json!("cat <<'END'\n```\n#### x\nEND");
    let markdown = text(&plugin(), "render", request.to_string().as_bytes());
    assert!(
        markdown.ends_with("\n\n## Upgrading\n\n````sh\ncat <<'END'\n```\n#### x\nEND\n````\n"),
        "{markdown}"
    );
}

#[test]
fn the_projects_own_changelog_is_well_formed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../CHANGELOG.md");
    let changelog = fs::read(path).unwrap();
    assert_eq!(text(&plugin(), "check", &changelog), "ok\n");
}

#[test]
fn check_replies_as_text_and_as_json() {
    let document = b"# tool v1.2\n\n    code\n";
    let people = plugin().call("check", document).unwrap();
    assert_eq!(people.content_type, "text/plain; charset=utf-8");
    let people = String::from_utf8(people.bytes).unwrap();
    let programs = plugin().call("check-json", document).unwrap();
    assert_eq!(programs.content_type, "application/json");
    let report: Value = serde_json::from_slice(&programs.bytes).unwrap();
    assert_eq!(report["ok"], json!(false));
    let lines: Vec<_> = report["violations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| {
            format!(
                "{}: {}: {}\n",
                v["line"],
                v["rule"].as_str().unwrap(),
                v["message"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(lines.concat(), people);
    assert_eq!(report["violations"][1]["rule"], json!("unfenced-code"));

    let clean = text(&plugin(), "check-json", b"# tool 1.2.3\n");
    assert_eq!(clean, "{\"ok\":true,\"violations\":[]}\n");
}

#[test]
fn an_oversized_request_is_refused_with_the_limit() {
    let document = vec![b'#'; REQUEST_LIMIT + 1];
    for method in ["check", "check-json", "render"] {
        let refused = plugin().call(method, &document).unwrap_err();
        assert_eq!(refused.status, abi::STATUS_BAD_REQUEST);
        assert!(
            refused
                .reason
                .contains("1048577 bytes, the limit is 1048576"),
            "{}",
            refused.reason
        );
    }
    plugin().call("check", &document[1..]).unwrap();
}

#[test]
fn an_unknown_method_is_not_a_bad_request() {
    assert_eq!(
        plugin().call("publish", b"").unwrap_err().status,
        abi::STATUS_NO_METHOD
    );
    assert_eq!(
        plugin().call("render", b"").unwrap_err().status,
        abi::STATUS_BAD_REQUEST
    );
}

#[test]
fn a_custom_template_renders() {
    let template = "# {{ name }} {{ version }} – {{ date }}\n{% for text in features %}\n* {{ text }}{% endfor %}\n";
    let inline = start(&json!({ "template": template })).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), template).unwrap();
    let from_file = start(&json!({ "template_file": file.path() })).unwrap();
    let markdown = text(&inline, "render", SAMPLE.as_bytes());
    assert!(
        markdown.starts_with("# hotmerge 0.1.0 – 2026-11-22\n\n* `cargo xtask"),
        "{markdown}"
    );
    assert_eq!(text(&from_file, "render", SAMPLE.as_bytes()), markdown);
}

#[test]
fn a_bad_template_refuses_the_start() {
    for (template, parts) in [
        (
            "# {{ name }}\n{% if summary %}\n",
            &["refused: template:2:", "invalid syntax"][..],
        ),
        // The engine alone would say line 4 here.
        (
            "# ÜÜÜÜÜÜÜÜÜÜ\nÜÜÜÜÜÜÜÜÜÜ\n{{ verison }}\nx\nx\n",
            &["template:3:", "not found"],
        ),
        (
            "# ok\n{% if fixes %}{{ fixess }}{% endif %}\n",
            &["template:2:", "not found"],
        ),
        ("# ok\n{{ features }}\n", &["template:2:", "list"]),
        ("no title\n", &["breaks the format", "1: title: "]),
        (
            "# {{ name }}\n\n{{ summary }}\n\n    {{ version }}\n",
            &["5: unfenced-code: "],
        ),
        (
            "# {{ name }}\n\n{% if fixes %}#### Fixes{% endif %}\n",
            &["3: heading-depth: "],
        ),
        ("\u{feff}# {{ name }}\n", &["1: bom: "]),
        ("", &["1: title: "]),
    ] {
        let refused = start(&json!({ "template": template })).unwrap_err();
        assert_eq!(refused.status, abi::STATUS_FAILED);
        for part in parts {
            assert!(
                refused.reason.contains(part),
                "{template}: {}",
                refused.reason
            );
        }
    }
}

#[test]
fn a_template_that_fails_one_release_says_where() {
    // Three features are more than the releases have that it was tried out with.
    let template = "# {{ name }}\n\n{% if features?.2 %}#### Many{% endif %}\n";
    let plugin = start(&json!({ "template": template })).unwrap();
    let refused = plugin.call("render", SAMPLE.as_bytes()).unwrap_err();
    assert_eq!(refused.status, abi::STATUS_FAILED);
    assert!(
        refused.reason.contains("\n3: heading-depth: "),
        "{}",
        refused.reason
    );
}

#[test]
fn an_unusable_template_file_refuses_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.md");
    fs::write(&bad, "# {{ name }}\n\n{{ name | shout }}\n").unwrap();
    let latin = folder.path().join("latin.md");
    fs::write(&latin, b"# T\n\xFC\n").unwrap();
    let large = folder.path().join("large.md");
    fs::write(&large, vec![b' '; 64 * 1024 + 1]).unwrap();
    for (path, part) in [
        (folder.path().join("none.md"), "No such file"),
        (folder.path().to_owned(), "not a regular file"),
        ("relative.md".into(), "absolute path"),
        (bad.clone(), ":3: "),
        (latin, "line 2 is not UTF-8"),
        (large, "more than 65536 bytes"),
    ] {
        let refused = start(&json!({ "template_file": path })).unwrap_err();
        assert!(
            refused.reason.contains(path.to_str().unwrap()),
            "{}",
            refused.reason
        );
        assert!(refused.reason.contains(part), "{}", refused.reason);
    }
}

#[test]
fn a_bad_configuration_refuses_the_start() {
    for (config, part) in [
        ("{\"tempalte\": \"\"}", "unknown field `tempalte`"),
        ("{\"template\": 7}", "expected a string"),
        (
            "{\"template\": \"# x\", \"template_file\": \"/x\"}",
            "keep one",
        ),
        ("template", "configuration is refused"),
    ] {
        let refused = Instance::<Announce>::start(config).unwrap_err();
        assert!(refused.reason.contains(part), "{}", refused.reason);
    }
}

/// Bytes in which much of what Markdown knows comes up.
fn document() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "# ",
            "#### ",
            "> ",
            "- ",
            "1. ",
            "    ",
            "\t",
            "```",
            "~~~",
            "\n",
            "\r\n",
            "\n\n",
            "<h4>",
            "<!--",
            "-->",
            "<pre>",
            "===",
            "---",
            "[^a]: ",
            "[a]: b",
            "|",
            "`",
            "*",
            "Version: ",
            "v1.2",
            "1.2.3",
            "Minimum version",
            "\u{feff}",
            "\\",
            "&#35;",
            "x",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        any::<u8>().prop_map(|byte| vec![byte]),
        any::<char>().prop_map(|c| c.to_string().into_bytes()),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        document().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        document().prop_map(|bytes| {
            // Control characters are refused early; without them more of the rest is met.
            String::from_utf8_lossy(&bytes).replace(char::is_control, " ")
        }),
    ]
}

proptest! {
    #[test]
    fn a_check_never_panics_and_lines_exist(document in document()) {
        let lines = 1 + document.iter().filter(|byte| **byte == b'\n').count();
        let report = hotmerge_announcement::check::Report::of(&document);
        prop_assert!(report.violations.is_sorted());
        prop_assert!(report.violations.iter().all(|v| (1..=lines).contains(&v.line)));
    }

    /// What is in a fence is found open exactly if a paragraph below it would be swallowed.
    #[test]
    fn an_open_fence_swallows_what_follows(body in proptest::collection::vec(
        proptest::sample::select(vec!["```", "````", "~~~", "~~~~ ", "``` x", "x", "", "> x", "- x"]), 0..8,
    )) {
        use pulldown_cmark::{Event, Parser, Tag, TagEnd};
        let document = format!("# T\n\n{}\n", body.join("\n"));
        let (mut fenced, mut swallowed) = (false, false);
        for event in Parser::new(&format!("{document}\n\nSENTINEL\n")) {
            match event {
                Event::Start(Tag::CodeBlock(_)) => fenced = true,
                Event::End(TagEnd::CodeBlock) => fenced = false,
                Event::Text(text) if text.contains("SENTINEL") => swallowed = fenced,
                _ => {}
            }
        }
        let open = hotmerge_announcement::check::Report::of(document.as_bytes()).violations.iter()
            .any(|v| v.rule == hotmerge_announcement::check::Rule::UnclosedFence);
        prop_assert_eq!(open, swallowed);
    }

    #[test]
    fn rendered_announcements_pass_the_check(
        texts in proptest::collection::vec(field(), 6),
        name in field(),
    ) {
        let request = json!({
            "name": name, "version": "1.2.3", "date": "2026-11-22", "minimum_version": "1.0.0",
            "summary": texts[0], "features": [texts[1], texts[2]], "fixes": [texts[3]],
            "known_issues": [texts[4]], "upgrade_notes": [texts[1]], "upgrade_commands": texts[5],
        });
        let plugin = plugin();
        match plugin.call("render", request.to_string().as_bytes()) {
            Ok(answer) => {
                let markdown = String::from_utf8(answer.bytes).unwrap();
                prop_assert_eq!(text(&plugin, "check", markdown.as_bytes()), "ok\n");
            }
            Err(refused) => {
                prop_assert_eq!(refused.status, abi::STATUS_BAD_REQUEST);
                for line in refused.reason.lines() {
                    prop_assert!(line.starts_with('`'), "{}", line);
                }
            }
        }
    }

    #[test]
    fn any_template_starts_or_is_refused_in_words(pieces in proptest::collection::vec(
        proptest::sample::select(vec![
            "{{", "}}", "{{-", "-}}", "{%", "%}", "{%-", "-%}", "{#", "#}", "if", "else", "endif",
            "for", "in", "endfor", "x", "name", "features", " ", "\n", "# ", "Ü", ".", "?.", "|", ":",
            "\"", "[", "]", "{", "}", "1", "-", "not", "with", "as", "endwith", "include", "loop.first",
        ]), 0..24,
    )) {
        match start(&json!({ "template": pieces.concat() })) {
            Ok(plugin) => {
                prop_assert!(plugin.call("render", SAMPLE.as_bytes()).is_ok());
            }
            Err(refused) => {
                prop_assert_eq!(refused.status, abi::STATUS_FAILED);
                prop_assert!(refused.reason.starts_with("the template is refused: template:"));
            }
        }
    }

    /// Unless a value is refused, the headings and list items are the template's own.
    #[test]
    fn values_add_no_structure(value in field()) {
        use pulldown_cmark::{Event, Parser, Tag};
        let shape = |feature: &str| {
            let request = json!({
                "name": "tool", "version": "1.2.3", "date": "2026-11-22",
                "minimum_version": "1.0.0", "features": [feature], "known_issues": [],
            });
            plugin().call("render", request.to_string().as_bytes()).ok().map(|answer| {
                let markdown = String::from_utf8(answer.bytes).unwrap();
                Parser::new(&markdown).filter_map(|event| match event {
                    Event::Start(Tag::Heading { level, .. }) => Some(format!("{level}")),
                    Event::Start(tag @ (Tag::Item | Tag::List(_) | Tag::CodeBlock(_) | Tag::BlockQuote(_) | Tag::HtmlBlock)) => Some(format!("{tag:?}")),
                    Event::InlineHtml(_) | Event::Html(_) | Event::Rule => Some("other".to_owned()),
                    _ => None,
                }).collect::<Vec<_>>()
            })
        };
        if let Some(found) = shape(&value) {
            prop_assert_eq!(Some(found), shape("plain"));
        }
    }
}

//! Documents and what is wrong with them: line and rule, in order.

use super::{Report, Rule, Rule::*};

/// What the case is about, the document, and its violations.
type Case = (&'static str, &'static [u8], &'static [(usize, Rule)]);

/// The document has a title wherever its absence would be a second violation.
const CASES: &[Case] = &[
    ("a title is enough", b"# hotmerge 1.2.3\n", &[]),
    ("no line feed at the end", b"# hotmerge 1.2.3", &[]),
    (
        "all that is allowed",
        b"# Changelog\n\nText with `code`.\n\n## [0.1.0] - 2026-11-22\n\n### Added\n\n- one\n\n~~~\n    x\n~~~\n\n1. a\n\n   ```sh\n   y\n   ```\n",
        &[],
    ),
    // Encoding.
    ("UTF-8 beyond ASCII", "# Übersicht 1.2.3 – 日本\n".as_bytes(), &[]),
    ("a byte that is not UTF-8", b"# T\n\nok\nb\xFFd\n", &[(4, Utf8)]),
    (
        "the rest is still checked",
        b"# T\n\xC3(\n\n#### deep\n\xE2\x82\n",
        &[(2, Utf8), (4, HeadingDepth), (5, Utf8)],
    ),
    ("Latin-1 in the title", b"# \xDCbersicht\n", &[(1, Utf8)]),
    ("an encoded surrogate", b"# T\n\xED\xA0\x80\n", &[(2, Utf8)]),
    ("UTF-16", b"\xFF\xFE#\0 \0T\0\n\0", &[(1, Utf8)]),
    ("UTF-16, big end first", b"\xFE\xFF\0#\0 \0T\0\n", &[(1, Utf8)]),
    ("a byte order mark", b"\xEF\xBB\xBF# T\n\n#### deep\n", &[(1, Bom), (3, HeadingDepth)]),
    ("only a byte order mark", b"\xEF\xBB\xBF", &[(1, Title), (1, Bom)]),
    // Control characters.
    ("CRLF", b"# T\r\n\r\n```\r\ncode\r\n```\r\n\r\n#### d\r\n", &[(7, HeadingDepth)]),
    ("a tab", b"# T\n\na\tb\n", &[]),
    ("NUL", b"# T\n\na\0b\n", &[(3, Control)]),
    ("an escape sequence in code", b"# T\n\n```\n\x1B[1m\n```\n", &[(4, Control)]),
    ("a lone carriage return", b"# T\n\na\rb\n", &[(3, Control)]),
    ("DEL and C1", b"# T\n\x7F\n\xC2\x85\n", &[(2, Control), (3, Control)]),
    // The title.
    ("empty", b"", &[(1, Title)]),
    ("text only", b"hello\n", &[(1, Title)]),
    ("starts deeper", b"## Second\n\n# First\n", &[(1, Title)]),
    ("starts deeper, below text", b"text\n\n### Third\n", &[(3, Title)]),
    ("an empty title", b"#\n", &[(1, Title)]),
    ("a title of code", b"# `hotmerge`\n", &[]),
    ("a title of a picture", b"# ![](logo.svg)\n", &[]),
    ("text before the title", b"![badge](b.svg)\n\n# T\n", &[]),
    ("an underlined title", b"hotmerge\n========\n", &[]),
    ("an underlined title of level 2", b"hotmerge\n--------\n", &[(1, Title)]),
    ("an HTML title", b"<h1>hotmerge</h1>\n", &[]),
    ("an HTML heading first", b"<h2 align=\"center\">x</h2>\n\n# T\n", &[(1, Title)]),
    ("a title in a fence is none", b"```\n# T\n```\n", &[(1, Title)]),
    ("a title in a comment is none", b"<!--\n# T\n<h1>T</h1>\n-->\n", &[(1, Title)]),
    ("no space, no heading", b"#T\n", &[(1, Title)]),
    // Depth.
    ("three levels", b"# 1\n## 2\n### 3\n", &[]),
    ("a level may be left out", b"# 1\n### 3\n", &[]),
    ("several of level 1", b"# 1\n\n# 2\n", &[]),
    ("four, five and six", b"# 1\n#### 4\n##### 5\n###### 6\n", &[(2, HeadingDepth), (3, HeadingDepth), (4, HeadingDepth)]),
    ("seven are none", b"# 1\n####### 7\n", &[]),
    ("four without a space are none", b"# 1\n####x\n", &[]),
    ("an escaped one is none", b"# 1\n\\#### x\n", &[]),
    ("closed at the end", b"# 1\n#### 4 ####\n", &[(2, HeadingDepth)]),
    ("indented by three", b"# 1\n   #### 4\n", &[(2, HeadingDepth)]),
    ("in a quote", b"# 1\n\n> #### 4\n", &[(3, HeadingDepth)]),
    ("in a list", b"# 1\n\n- #### 4\n", &[(3, HeadingDepth)]),
    ("deep in a list", b"# 1\n\n- a\n\n  > text\n  > #### 4\n", &[(6, HeadingDepth)]),
    ("in a footnote", b"# 1[^a]\n\n[^a]: text\n\n    #### 4\n", &[(5, HeadingDepth)]),
    ("in HTML", b"# 1\n\n<H4\n class=x>4</H4>\n", &[(3, HeadingDepth)]),
    ("in HTML below other HTML", b"# 1\n\n<div>\n<p>\n<h5>5</h5>\n</div>\n", &[(5, HeadingDepth)]),
    ("in HTML within a line", b"# 1\n\ntext <h6>6</h6>\n", &[(3, HeadingDepth)]),
    ("other HTML", b"# 1\n\n<header>x</header> <hr> <h7>\n", &[]),
    ("in code within a line", b"# 1\n\nwrite `<h4>` or `#### x`\n", &[]),
    ("in a fence", b"# 1\n\n```md\n#### 4\n<h4>\n```\n", &[]),
    ("in a fence of tildes", b"# 1\n\n~~~\n#### 4\n```\n~~~\n", &[]),
    // Code.
    ("indented code", b"# 1\n\ntext\n\n    code\n", &[(5, UnfencedCode)]),
    ("indented by a tab", b"# 1\n\n\tcode\n", &[(3, UnfencedCode)]),
    ("indented right below the title", b"# 1\n    code\n", &[(2, UnfencedCode)]),
    ("two blocks", b"# 1\n\n    a\n\nb\n\n    c\n", &[(3, UnfencedCode), (7, UnfencedCode)]),
    ("one block with a gap", b"# 1\n\n    a\n\n    c\n", &[(3, UnfencedCode)]),
    ("indented in a list", b"# 1\n\n- a\n\n      code\n", &[(5, UnfencedCode)]),
    ("indented in a quote", b"# 1\n\n>     code\n", &[(3, UnfencedCode)]),
    ("a paragraph of a list item", b"# 1\n\n1.  a\n\n    b\n", &[]),
    ("a paragraph of a footnote", b"# 1[^a]\n\n[^a]: a\n\n    b\n", &[]),
    ("a wrapped line", b"# 1\n\na\n        b\n", &[]),
    ("`pre`", b"# 1\n\n<pre>\ncode\n</pre>\n", &[(3, UnfencedCode)]),
    // Fences.
    ("an open fence", b"# 1\n\n```\ncode\n", &[(3, UnclosedFence)]),
    ("an open fence at the very end", b"# 1\n\n```", &[(3, UnclosedFence)]),
    ("an open fence with a language", b"# 1\n\n```sh ~~~\n", &[(3, UnclosedFence)]),
    ("an open fence and blank lines", b"# 1\n\n```\n\n\n", &[(3, UnclosedFence)]),
    ("an open fence of tildes", b"# 1\n\n~~~\n```\n", &[(3, UnclosedFence)]),
    ("a fence closed by a shorter one", b"# 1\n\n````\n```\n", &[(3, UnclosedFence)]),
    ("a fence closed by one with text", b"# 1\n\n```\n``` sh\n", &[(3, UnclosedFence)]),
    ("a fence closed by a longer one", b"# 1\n\n```\ncode\n`````  \n", &[]),
    ("an empty fence", b"# 1\n\n```\n```\n", &[]),
    ("an empty fence without a line feed", b"# 1\n\n```\n```", &[]),
    ("a fence that is left open by its quote", b"# 1\n\n> ```\n> code\n\ntext\n", &[(3, UnclosedFence)]),
    ("a quote's fence that looks closed", b"# 1\n\n> ```\n> > ```\n", &[(3, UnclosedFence)]),
    ("a fence that its quote closes", b"# 1\n\n> ~~~\n> code\n> ~~~\n", &[]),
    ("a fence that is left open by its item", b"# 1\n\n- ```\n  code\n- next\n", &[(3, UnclosedFence)]),
    ("a fence that its item closes", b"# 1\n\n- ```\n  code\n  ```\n- next\n", &[]),
    ("a fence closed outside of its item", b"# 1\n\n- ```\n  code\n```\n", &[(3, UnclosedFence), (5, UnclosedFence)]),
    ("an open fence hides what follows", b"# 1\n\n```\n\n#### 4\n", &[(3, UnclosedFence)]),
    ("code in a line is not a fence", b"# 1\n\n``` code ```\n", &[]),
    // Versions.
    ("a leading v", b"# hotmerge v1.2.3\n", &[(1, Version)]),
    ("a leading zero", b"# hotmerge 01.2.3\n", &[(1, Version)]),
    ("two numbers", b"# hotmerge 1.2\n", &[(1, Version)]),
    ("stressed", b"# hotmerge **v1.2.3**\n", &[(1, Version)]),
    ("underlined", b"hotmerge\nv1.2.3\n===\n", &[(1, Version)]),
    ("a stressed HTML title's", b"<h1>hotmerge <b>v1.2.3</b></h1>\n", &[(1, Version)]),
    ("a plain HTML title's", b"<h1>hotmerge v1.2.3</h1>\n", &[(1, Version)]),
    ("a changelog's", b"# Changelog\n\n## [1.2] - 2026-11-22\n\n## v1.1.0\n\n## Unreleased\n", &[(3, Version), (5, Version)]),
    ("a changelog's with links", b"# Changelog\n\n## [1.2]\n\n[1.2]: https://example.org/1.2\n", &[(3, Version)]),
    ("somebody else's", b"# 1.2.3\n\n## Works with Rust 1.95\n\nNeeds Linux 6.1.\n", &[]),
    ("labelled", b"# T\n\n- Minimum version: 1.2\n- *Version*: `v1.0.0`\n", &[(3, Version), (4, Version)]),
    ("labelled in a paragraph", b"# T\n\nReleased: 2026-11-22\nMinimum version: 1.2\n", &[(4, Version)]),
    ("labelled in a table", b"# T\n\n| a | b |\n| - | - |\n| Minimum version | 1.2 |\n", &[(5, Version)]),
    ("under its heading", b"# T\n\n## Minimum version\n\n1.2\n\n1.3\n", &[(5, Version)]),
    ("labelled and right", b"# T\n\n- Minimum version: 1.2.3\n\n### Version\n\n1.2.3\n", &[]),
    ("labelled in a fence", b"# T\n\n```\nVersion: 1.2\n```\n", &[]),
];

#[test]
fn documents_have_exactly_the_expected_violations() {
    for (name, document, expected) in CASES {
        let report = Report::of(document);
        let mut found: Vec<_> = report
            .violations
            .iter()
            .map(|violation| (violation.line, violation.rule))
            .collect();
        let mut expected = expected.to_vec();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{name}: {report}");
        assert_eq!(report.ok, expected.is_empty(), "{name}");
    }
}

#[test]
fn an_open_fence_is_reported_with_its_close() {
    for (document, mark) in [
        ("# T\n\n~~~~ sh\n~~~\n", "~~~~"),
        ("# T\n\n> ```~x\n", "```"),
    ] {
        let report = Report::of(document.as_bytes());
        assert_eq!(
            report.violations[0].message,
            format!("nothing closes this fence: add a line {mark}")
        );
    }
}

#[test]
fn crlf_does_not_change_line_numbers() {
    for (name, document, expected) in CASES {
        // A lone carriage return becomes part of a line end's neighbour there.
        if document.contains(&b'\r')
            || document.starts_with(b"\xFF\xFE")
            || document.starts_with(b"\xFE\xFF")
        {
            continue;
        }
        let crlf: Vec<u8> = document
            .split(|byte| *byte == b'\n')
            .collect::<Vec<_>>()
            .join(&b"\r\n"[..]);
        let found: Vec<_> = Report::of(&crlf)
            .violations
            .iter()
            .map(|violation| violation.line)
            .collect();
        let expected: Vec<_> = expected.iter().map(|(line, _)| *line).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn violations_are_sorted_and_name_the_expectation() {
    let report = Report::of(b"\xEF\xBB\xBF## tool v2\n\n#### deep\n\xFF\n");
    assert_eq!(
        report.to_string(),
        "1: bom: the document starts with a byte order mark: remove its 3 bytes\n\
         1: title: the first heading must be the title, of level 1 (`#`), but is of level 2\n\
         3: heading-depth: a heading of level 4: the deepest is 3 (`###`)\n\
         4: utf-8: byte 1 of the line, 0xFF, is not UTF-8\n"
    );
}

//! The plugin's description of its methods.

use hotmerge_sdk::Method;

/// What `generate` replies, in the order of preference; `formats_are_described` holds it to the
/// library.
pub const FORMATS: &[&str] = &[
    "text/markdown; charset=utf-8",
    "application/json",
    "application/toml",
    "application/protobuf",
    "application/x-protobuf",
    "application/vnd.google.protobuf",
    "text/html; charset=utf-8",
    "text/plain; charset=utf-8",
    "application/atom+xml; type=entry; charset=utf-8",
    "text/x-gentoo-news; charset=utf-8",
];

const REPORTS: &[&str] = &["text/plain; charset=utf-8", "application/json"];

/// All methods.
pub const METHODS: &[Method] = &[
    Method::new(
        "generate",
        "Generates an announcement in the format that the caller accepts",
    )
    .takes(&[
        "application/json",
        "application/toml",
        "application/protobuf",
        "text/markdown; charset=utf-8",
    ])
    .request_schema(include_str!("../schemas/announcement.json"))
    .replies(FORMATS)
    .reply_schema(include_str!("../schemas/announcement.json"))
    .example(include_str!("../../announcement/samples/announcement.json")),
    Method::new("render", "Renders a release by the template for releases")
        .takes(&["application/json"])
        .request_schema(include_str!("../schemas/release.json"))
        .replies(&["text/markdown; charset=utf-8"])
        .example(include_str!("../../announcement/samples/release.json")),
    Method::new(
        "check",
        "Checks an announcement by the rules of its format and names every violation",
    )
    .takes(FORMATS)
    .replies(REPORTS)
    .reply_schema(include_str!("../schemas/report.json"))
    .example("# tool 1.2.3\n"),
    Method::new("check-json", "Does what `check` does and replies in JSON")
        .takes(FORMATS)
        .replies(&["application/json"])
        .reply_schema(include_str!("../schemas/report.json"))
        .example("# tool 1.2.3\n"),
];

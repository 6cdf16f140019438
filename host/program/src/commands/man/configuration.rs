//! The manual page of the configuration, generated from the commented file that services start with.
//!
//! Invariant: the page has every line of that file, and so every key of the configuration
//! (`documented_keys_match_configuration_keys` compares the file with those).
//!
//! Absent on purpose: texts of its own about a key.

use clap_mangen::roff::{Roff, bold, roman};

/// The file, with names in place of directories.
const FILE: &str = include_str!("../../../../../scripts/services/hotmerge.toml.in");

/// The default directories for the names.
const DIRECTORIES: [(&str, &str); 4] = [
    ("@libdir@", "/usr/lib64"),
    ("@sysconfdir@", "/etc"),
    ("@statedir@", "/var/lib"),
    ("@logdir@", "/var/log"),
];

/// The name of the page's file.
pub(super) const PAGE: &str = "hotmerge.toml.5";

/// The page, as `man` takes it.
pub(super) fn page() -> String {
    let file = DIRECTORIES
        .iter()
        .fold(FILE.to_owned(), |text, (name, dir)| text.replace(name, dir));
    let mut page = Roff::new();
    let version = format!("hotmerge {}", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["hotmerge.toml", "5", "", version.as_str()]);
    page.control("SH", ["NAME"]);
    page.text([roman("hotmerge.toml - configuration of the hotmerge host")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([
        roman("The host reads this TOML file at its start ("),
        bold("hotmerge serve --config FILE"),
        roman("), and again at "),
        bold("hotmerge reload --config"),
        roman(
            " or SIGHUP: it applies all of the file or nothing, and names the keys that wait for a restart. \
             A root host accepts only a file that root alone may write. The following is the file that services \
             start with.",
        ),
    ]);
    page.control("SH", ["KEYS"]);
    for paragraph in file.split("\n\n") {
        tell(&mut page, paragraph);
    }
    page.control("SH", ["FILES"]);
    for (path, what) in [
        (
            "/etc/hotmerge/hotmerge.toml",
            "the configuration of the service",
        ),
        (
            "/etc/hotmerge/keys.d",
            "public keys whose signatures the host accepts",
        ),
    ] {
        page.control("TP", []);
        page.text([bold(path)]);
        page.text([roman(what)]);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([
        bold("hotmerge"),
        roman("(1), "),
        bold("hotmerge-serve"),
        roman("(1), "),
        bold("hotmerge-reload"),
        roman("(1)"),
    ]);
    page.render()
}

/// Writes one paragraph: sentences as text, lines of configuration as they are.
fn tell(page: &mut Roff, paragraph: &str) {
    page.control("PP", []);
    let mut is_example = false;
    for line in paragraph.lines() {
        let sentence = line.strip_prefix("# ");
        if is_example != sentence.is_none() {
            is_example = sentence.is_none();
            match is_example {
                true => page.control("RS", ["4"]).control("nf", []),
                false => page.control("fi", []).control("RE", []),
            };
        }
        page.text([roman(sentence.unwrap_or(line))]);
    }
    if is_example {
        page.control("fi", []).control("RE", []);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_file_is_shown() {
        // As the page has them, apostrophes and backslashes are words of their own.
        let page = page().replace(r"\*(Aq", "'").replace('\\', "");
        assert!(!page.contains('@'), "a directory has no name");
        for line in FILE.lines().filter(|line| !line.contains('@')) {
            let text = line.strip_prefix("# ").unwrap_or(line);
            assert!(page.contains(text), "no `{text}`");
        }
    }

    #[test]
    fn examples_are_kept_as_they_are() {
        let page = page();
        let begun = page.matches("\n.nf\n").count();
        assert!(begun > 20, "{begun}");
        assert_eq!(page.matches("\n.fi\n").count(), begun);
    }
}

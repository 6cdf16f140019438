//! The values of a news item's headers, and other short texts with their own grammar.
//!
//! A package dependency specification is judged as PMS (EAPI 5) writes it, without USE
//! dependencies and blockers, which mean nothing to a reader of news.

/// Judges `[operator]category/package[-version][:slot]`.
pub(crate) fn judge(atom: &str) -> Result<(), String> {
    let refuse = |why: &str| Err(format!("{why}, found `{atom}`"));
    if atom.contains(|c: char| c.is_whitespace()) || atom.contains("||") {
        return refuse("must be one package dependency such as `>=dev-lang/go-1.26.0`");
    }
    if atom.starts_with('!') {
        return refuse("must not be a blocker");
    }
    if atom.contains('[') {
        return refuse("must not have USE dependencies");
    }
    let operators = [">=", "<=", ">", "<", "=", "~"];
    let operator = operators
        .iter()
        .find(|operator| atom.starts_with(**operator));
    let rest = &atom[operator.map_or(0, |operator| operator.len())..];
    let (name, slot) = match rest.split_once(':') {
        Some((name, slot)) => (name, Some(slot)),
        None => (rest, None),
    };
    let Some((category, package)) = name.split_once('/') else {
        return refuse("must name category and package, as in `app-misc/tool`");
    };
    let word = |text: &str, more: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "+_-".contains(c) || more.contains(c);
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && text.chars().all(fits)
    };
    let (package, version) = match operator {
        Some(operator) => match with_version(package, *operator == "=") {
            Some((package, version)) => (package, Some(version)),
            None => return refuse("has an operator and no version"),
        },
        None => (package, None),
    };
    if version.is_none() && with_version(package, false).is_some() {
        return refuse("has a version and no operator such as `>=`");
    }
    if !word(category, ".") || !word(package, "") {
        return refuse("has a name that no package can have");
    }
    if slot.is_some_and(|slot| {
        !slot.split('/').all(|part| word(part, ".")) || slot.matches('/').count() > 1
    }) {
        return refuse("has an invalid slot");
    }
    Ok(())
}

/// Takes the version off a package's name: digits and dots, a letter, suffixes, a revision.
fn with_version(text: &str, may_end_in_star: bool) -> Option<(&str, &str)> {
    let text = text
        .strip_suffix('*')
        .filter(|_| may_end_in_star)
        .unwrap_or(text);
    let is_version = |(at, _): &(usize, &str)| is_version(&text[at + 1..]);
    text.match_indices('-')
        .find(is_version)
        .map(|(at, _)| (&text[..at], &text[at + 1..]))
}

fn is_version(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (text, revision) = text.split_once("-r").unwrap_or((text, "0"));
    let mut parts = text.split('_');
    let numbers = parts.next().unwrap_or_default();
    let numbers = numbers
        .strip_suffix(|c: char| c.is_ascii_lowercase())
        .unwrap_or(numbers);
    let is_suffix = |part: &str| {
        ["alpha", "beta", "pre", "rc", "p"]
            .iter()
            .any(|name| part.strip_prefix(name).is_some_and(digits))
    };
    let is_number = |part: &str| !part.is_empty() && digits(part);
    is_number(revision) && numbers.split('.').all(is_number) && parts.all(is_suffix)
}

/// Judges an architecture, which Portage compares with `ARCH`.
pub(crate) fn judge_keyword(text: &str) -> Result<(), String> {
    if text.starts_with(['~', '-']) {
        return Err(format!(
            "must be an architecture such as `amd64`, which `{text}` never equals"
        ));
    }
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    if text.is_empty() || !text.chars().all(fits) {
        return Err(format!(
            "must be an architecture such as `amd64`, found `{text}`"
        ));
    }
    Ok(())
}

/// Judges a profile's path below `profiles`; `/*` at its end means all below it.
pub(crate) fn judge_profile(text: &str) -> Result<(), String> {
    let path = text.strip_suffix("/*").unwrap_or(text);
    let fits = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
    let is_part =
        |part: &str| !part.is_empty() && part != ".." && part != "." && part.chars().all(fits);
    if path.split('/').all(is_part) {
        Ok(())
    } else {
        Err(format!(
            "must be a profile such as `default/linux/amd64/23.0` or `default/linux/*`, found `{text}`"
        ))
    }
}

/// Checks the part of a news item's name after the date.
pub(crate) fn judge_short_name(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-._".contains(c);
    if !(1..=20).contains(&text.len()) || !text.chars().all(fits) {
        return Err(format!(
            "must be 1 to 20 of the characters a-z, 0-9, `+`, `-`, `.` and `_`, found {text:?}"
        ));
    }
    Ok(())
}

/// Whether a text is `Name <mail address>`.
pub(crate) fn is_person(text: &str) -> bool {
    let Some((name, rest)) = text.split_once(" <") else {
        return false;
    };
    let address = rest.strip_suffix('>').unwrap_or_default();
    let (user, domain) = address.split_once('@').unwrap_or_default();
    let fits = |part: &str| {
        !part.is_empty()
            && !part.contains(|c: char| c.is_whitespace() || c.is_control() || "<>@,".contains(c))
    };
    !name.trim().is_empty()
        && name.trim() == name
        && !name.contains(['<', '>'])
        && fits(user)
        && fits(domain)
}

/// Whether a text has the form of a language tag of BCP 47.
pub(crate) fn is_language(text: &str) -> bool {
    let mut parts = text.split(['-', '_']);
    let word = |part: &str, range: std::ops::RangeInclusive<usize>| {
        range.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let first = parts.next().unwrap_or_default();
    word(first, 2..=8)
        && first.bytes().all(|byte| byte.is_ascii_alphabetic())
        && parts.all(|part| word(part, 1..=8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_dependencies_are_judged() {
        for good in [
            "app-admin/hotmerge",
            ">=dev-lang/go-1.26.0",
            "=x11-libs/gtk+-3.24*",
            "~sys-apps/portage-3.0.83_rc1",
            "<dev-lang/python-3.14.0_alpha1-r2:3.14",
            "virtual/rust:0/llvm",
            "dev-libs/libfoo-bar",
        ] {
            assert_eq!(judge(good), Ok(()), "{good}");
        }
        for (bad, part) in [
            ("hotmerge", "category and package"),
            (">=app-admin/hotmerge", "no version"),
            ("app-admin/hotmerge-1.0", "no operator"),
            ("!app-admin/hotmerge", "blocker"),
            ("app-admin/hotmerge[ssl]", "USE"),
            ("a/b c/d", "one package"),
            ("app-admin/-x", "name"),
            ("a/b:", "slot"),
            ("a/b:1/2/3", "slot"),
            ("", "category and package"),
        ] {
            assert!(
                judge(bad).unwrap_err().contains(part),
                "{bad}: {:?}",
                judge(bad)
            );
        }
    }

    #[test]
    fn other_headers_are_judged() {
        assert!(judge_keyword("amd64").is_ok() && judge_keyword("x64-macos").is_ok());
        assert!(
            judge_keyword("~amd64")
                .unwrap_err()
                .contains("never equals")
        );
        assert!(judge_keyword("").is_err() && judge_keyword("amd64 x86").is_err());
        assert!(judge_profile("default/linux/amd64/23.0").is_ok());
        assert!(judge_profile("default/linux/*").is_ok());
        for bad in ["", "/default", "a/../b", "a//b", "*", "a b"] {
            assert!(judge_profile(bad).is_err(), "{bad}");
        }
        assert!(judge_short_name("hotmerge-0.2").is_ok());
        for bad in ["", "Hotmerge", "a b", "twenty-one-characters"] {
            assert!(judge_short_name(bad).is_err(), "{bad}");
        }
        assert!(is_person("Ada Lovelace <ada@example.org>"));
        for bad in [
            "Ada",
            "<ada@example.org>",
            "Ada <ada>",
            "Ada <a@b> x",
            "A <a@b>, B <c@d>",
        ] {
            assert!(!is_person(bad), "{bad}");
        }
        assert!(is_language("en") && is_language("zh-Hans-CN") && is_language("pt_BR"));
        assert!(!is_language("e") && !is_language("en-") && !is_language("../x"));
    }
}

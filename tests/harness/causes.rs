//! A host's messages about failures, for comparison word by word.

/// Leaves out the parts that vary: traces, long addresses, lines of code and sizes.
pub fn cause(text: &str) -> String {
    let text = match text.split_once(" (trace ") {
        Some((text, rest)) => text.to_owned() + rest.split_once(')').map_or("", |(_, rest)| rest),
        None => text.to_owned(),
    };
    let is_digit = |sign: char| sign.is_ascii_digit();
    let text = left_out(&text, "0x", |sign| sign.is_ascii_hexdigit(), 2);
    let text = left_out(&text, ".rs:", |sign| is_digit(sign) || sign == ':', 1);
    let text = left_out(&text, "used ", is_digit, 1);
    left_out(&text, "gives it ", is_digit, 1)
}

/// Puts an ellipsis in the place of such signs behind a mark, if they are so many.
fn left_out(text: &str, mark: &str, is_such: impl Fn(char) -> bool, least: usize) -> String {
    let mut parts = text.split(mark);
    let mut left = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(&is_such);
        let signs = &part[..part.len() - rest.len()];
        left.push_str(mark);
        left.push_str(if signs.len() < least { signs } else { "…" });
        left.push_str(rest);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varying_parts_are_left_out() {
        let trace = "ab".repeat(16);
        for (text, expected) in [
            (
                "was killed by SIGSEGV at 0x8 in `segv`",
                "was killed by SIGSEGV at 0x8 in `segv`",
            ),
            (
                "was killed by SIGILL at 0x7f12ab in `x`",
                "was killed by SIGILL at 0x… in `x`",
            ),
            ("panicked at src/a.rs:12:3: no", "panicked at src/a.rs:… no"),
            (
                "used 312 MiB of memory, and `limits.memory_mib` gives it 256, while `x` ran",
                "used … MiB of memory, and `limits.memory_mib` gives it …, while `x` ran",
            ),
        ] {
            assert_eq!(cause(text), expected);
        }
        let traced = format!("aborted in `x` (trace {trace}), and more");
        assert_eq!(cause(&traced), "aborted in `x`, and more");
    }
}

//! Texts of others on their way to a terminal.
//!
//! Plugins, packages and hosts say what they like: neither orders to terminals nor lines that look
//! like somebody else's.

/// The text on one line, for use inside a sentence: blanks instead of control characters.
pub fn on_one_line(text: &str) -> String {
    let shown = |sign: char| if sign.is_control() { ' ' } else { sign };
    text.chars().map(shown).collect()
}

/// One line that a terminal shows as it is.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for sign in text.chars() {
        let turns_text = matches!(
            sign,
            '\u{061c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        );
        if sign.is_control() || turns_text {
            plain.extend(sign.escape_default());
        } else {
            plain.push(sign);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_one_line() {
        assert_eq!(on_one_line("left\n right\u{1b}\t"), "left  right  ");
    }

    #[test]
    fn nothing_moves_the_cursor_or_turns_the_text() {
        assert_eq!(
            plain("a\u{1b}[2J\n\u{202e}b\u{61c}"),
            "a\\u{1b}[2J\\n\\u{202e}b\\u{61c}"
        );
        assert_eq!(plain("ä `b` \"c\" \\ 日本"), "ä `b` \"c\" \\ 日本");
    }
}

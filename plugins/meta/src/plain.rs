//! Makes text from plugins and packages safe to show on terminals.
//!
//! Such text can contain anything. What is shown has no escape sequences and no line breaks that could
//! forge other lines, and is bounded in length.

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

/// Cuts a text to at most `to` bytes, and notes that.
pub fn cut(text: &mut String, to: usize) {
    if text.len() > to {
        let all = text.len();
        text.truncate(text.floor_char_boundary(to));
        text.push_str(&format!(" … (cut; {all} bytes)"));
        text.shrink_to_fit();
    }
}

/// A number and what it counts, whose plural ends in `s`.
pub fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_kind_is_singular() {
        let counted = [0, 1, 2].map(|number| count(number, "objection"));
        assert_eq!(counted, ["0 objections", "1 objection", "2 objections"]);
    }

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

    #[test]
    fn a_cut_is_noted_and_splits_no_character() {
        let after_cut = |text: &str, to| {
            let mut text = text.to_owned();
            cut(&mut text, to);
            text
        };
        assert_eq!(after_cut("ääää", 8), "ääää");
        assert_eq!(after_cut("ääää", 5), "ää … (cut; 8 bytes)");
        assert_eq!(after_cut("ä", 0), " … (cut; 2 bytes)");
    }
}

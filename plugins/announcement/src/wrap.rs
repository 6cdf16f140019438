//! Text in lines of a width, in any script.

use unicode_linebreak::linebreaks;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Breaks `text` into lines of at most `columns`; a word that is wider stands alone.
///
/// Unicode's rules say where a line may be broken; of these, blanks and the neighbourhood of wide
/// characters are used, so that an address is never broken.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let (mut lines, mut line, mut begin) = (Vec::new(), String::new(), 0);
    for (end, _) in linebreaks(text) {
        if !may_break(text, end) {
            continue;
        }
        let word = &text[begin..end];
        begin = end;
        if !line.is_empty() && line.width() + word.trim_end().width() > columns {
            lines.push(line.trim_end().to_owned());
            line.clear();
        }
        line.push_str(if line.is_empty() {
            word.trim_start()
        } else {
            word
        });
    }
    lines.push(line.trim_end().to_owned());
    lines
}

fn may_break(text: &str, at: usize) -> bool {
    let (before, after) = (text[..at].chars().next_back(), text[at..].chars().next());
    let is_wide = |sign: char| sign.width() == Some(2);
    before.is_some_and(|sign| sign == ' ' || is_wide(sign)) || after.is_none_or(is_wide)
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn lines_are_broken_where_readers_expect_it() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(
            wrap("see https://example.org/a-b/c?d=e now", 8),
            ["see", "https://example.org/a-b/c?d=e", "now"]
        );
        assert_eq!(wrap("热重载插件。完成", 8), ["热重载插", "件。完成"]);
        assert_eq!(wrap("", 8), [""]);
    }
}

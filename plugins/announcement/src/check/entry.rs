//! An entry of an Atom feed (RFC 4287): well-formed, and with all that every entry must have.

use quick_xml::{Reader, events::Event};

use super::{Rule, Violation};

const NEEDED: &[&str] = &["id", "title", "updated"];

/// Adds the violations of an entry.
pub(super) fn check(text: &str, violations: &mut Vec<Violation>) {
    let mut reader = Reader::from_str(text);
    let (mut depth, mut children, mut root) = (0_usize, Vec::new(), None);
    let mut add = |at: u64, message: String| {
        let at = usize::try_from(at).map_or(text.len(), |at| at.min(text.len()));
        let line = 1 + text.as_bytes()[..at]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        violations.push(Violation {
            line,
            rule: Rule::Entry,
            message,
        });
    };
    loop {
        let event = reader.read_event();
        let (name, opens) = match &event {
            Ok(Event::Start(tag)) => (tag.name().as_ref().to_owned(), true),
            Ok(Event::Empty(tag)) => (tag.name().as_ref().to_owned(), false),
            Ok(Event::End(_)) => {
                depth -= 1;
                continue;
            }
            Ok(Event::Eof) => break,
            Ok(_) => continue,
            Err(error) => return add(reader.error_position(), format!("it is not XML: {error}")),
        };
        match depth {
            0 => root = Some(name),
            1 => children.push(name),
            _ => {}
        }
        depth += usize::from(opens);
    }
    if depth > 0 {
        add(
            text.len() as u64,
            "it is not XML: not all elements are closed".to_owned(),
        );
    }
    if root.as_deref() != Some("entry") {
        add(0, "the element must be `entry`".to_owned());
    }
    for name in NEEDED {
        if children.iter().filter(|child| child == name).count() != 1 {
            add(0, format!("there must be one `{name}`"));
        }
    }
}

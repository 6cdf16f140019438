//! Text from plugins, packages and clients, as the page shows it.

use crate::bounded::plain_within;

/// The longest such text, in bytes.
const LONGEST: usize = 512;

/// Such a text: on one line, and bounded.
pub(super) fn text(of: &str) -> String {
    plain_within(of, LONGEST)
}

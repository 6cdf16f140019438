//! Text of others, as the page shows it.

use crate::bounded::plain_within;

/// The longest text of others, in bytes.
const LONGEST: usize = 512;

/// A text of others: on one line, and bounded.
pub(super) fn text(of: &str) -> String {
    plain_within(of, LONGEST)
}

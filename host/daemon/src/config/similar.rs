//! Which known name somebody may have meant.
//!
//! Absent on purpose: where names come from.

/// How similar two names must be for a suggestion, from 0 to 1.
const ALIKE: f64 = 0.8;

/// The known name that is most similar to an unknown one, if any is similar.
pub(super) fn similar<'a>(
    unknown: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let likeness = |known: &&str| strsim::jaro_winkler(unknown, known);
    let near = known.into_iter().filter(|known| likeness(known) >= ALIKE);
    near.max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
}

//! What is there: one `stat` pass over the plugin directory finds what changed, and watchers hint
//! at when to make one.

pub(crate) mod hints;
pub mod judge;
pub(crate) mod keys;
pub mod scan;
pub(crate) mod signed;
pub(crate) mod unverified;
mod way;

//! What is there: one `stat` pass over the plugin directory finds what changed, and watchers hint
//! at when to make one.

pub(crate) mod errors;
pub(crate) mod hints;
pub mod judge;
pub mod scan;
mod way;

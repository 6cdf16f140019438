//! Discovery: a scan of the plugin directory finds what changed, and watchers hint at when to scan and
//! at which packages.

pub(crate) mod choice;
pub(crate) mod dirty;
pub(crate) mod errors;
mod fanotify;
mod inotify;
pub mod judge;
pub(crate) mod keys;
mod kind;
mod path_watch;
mod place;
pub(crate) mod requirements;
pub mod scan;
pub(crate) mod signed;
pub(crate) mod tell;
pub(crate) mod unverified;
pub(crate) mod watch;

#[cfg(test)]
pub(crate) use fanotify::PAUSE;

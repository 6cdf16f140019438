//! Bad plugins: each is refused with one sentence, `status` shows the reason, and running plugins
//! continue undisturbed.

mod after;
mod bench;
mod file;
mod meta;
mod packages;
mod places;
mod plugins;

//! Bad plugins: each is refused with one sentence, everybody can see why, and what runs goes
//! on as if nothing had been.

mod after;
mod bench;
mod file;
mod meta;
mod packages;
mod places;
mod plugins;

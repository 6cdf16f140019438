//! Main processes in other languages, with a host inside.

mod header;
mod library;
mod programs;

//! Main processes in other languages with a host inside, and plugins in other languages.

mod header;
mod library;
mod plugins_c;
mod plugins_go;
mod programs;
mod sample;

//! What a plugin's file may request, under which rules, and which requests are not granted.

pub mod admission;
pub mod grants;
pub mod policies;
pub mod symbols;
pub mod text_file;
pub mod wants;

//! What a plugin's file may ask for, by whose rules, and what it asks for in vain.

pub mod admission;
pub mod grants;
pub mod policies;
pub mod symbols;
pub mod text_file;
pub mod wants;

#[cfg(test)]
mod agreement;

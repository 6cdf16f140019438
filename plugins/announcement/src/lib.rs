//! Announcements: written once, checked, and generated in every encoding that readers and programs
//! want.
//!
//! Invariant: what is generated passes the check of its own format. An input is judged whole: an
//! error names everything that is wrong, with field, line and rule.
//!
//! Absent on purpose: plugins and hosts (`announce` is the plugin around this), publishing, threads,
//! clocks, and dependencies with thread-locals that have destructors, so that a plugin that links
//! this can be unloaded.

#![forbid(unsafe_code)]

mod announcement;
mod atom;
mod changelog;
pub mod check;
mod format;
mod html;
mod inline;
mod input;
mod markdown;
pub mod news;
mod plain;
mod problems;
mod proto;
mod release;
mod template;
mod templates;
mod wrap;

pub use announcement::{Announcement, News};
pub use format::{Choice, Format};
pub use input::Request;
pub use release::Release;
pub use templates::{Templates, read_file};

/// The largest input, in bytes.
pub const INPUT_LIMIT: usize = 4 << 20;

/// The largest body of an announcement, in bytes.
pub const BODY_LIMIT: usize = 1 << 20;

/// Why there is no announcement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input cannot be used: a line for each reason.
    #[error("{0}")]
    BadRequest(String),
    /// None of the formats is acceptable; lists the existing ones.
    #[error("{0}")]
    NotAcceptable(String),
    /// The input is in an unknown encoding; lists the known ones.
    #[error("{0}")]
    UnsupportedMedia(String),
    /// A template failed.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    pub(crate) fn bad_request(reason: impl std::fmt::Display) -> Self {
        Self::BadRequest(reason.to_string())
    }
}

/// An announcement in a format.
///
/// # Errors
/// What the announcement lacks for this format, or that a template fails.
pub fn generate(
    announcement: &Announcement,
    format: Format,
    templates: &Templates,
) -> Result<Vec<u8>, Error> {
    let text = match format {
        Format::Markdown => templates.markdown(announcement)?,
        Format::Json => announcement.to_json(),
        Format::Toml => announcement.to_toml()?,
        Format::Protobuf => return Ok(proto::encode(announcement)),
        Format::Html => html::document(announcement),
        Format::Text => plain::document(announcement),
        Format::Atom => atom::entry(announcement)?,
        Format::News => news::item(announcement)?,
    };
    Ok(text.into_bytes())
}

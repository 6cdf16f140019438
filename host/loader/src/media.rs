//! What a caller says of the media types of a call.
//!
//! Absent on purpose: what the types mean. The plugin chooses among them.

use hotmerge_abi::{self as abi, ACCEPT_LIMIT, Bytes, CONTENT_TYPE_LIMIT};

/// The request's media type, and those that the caller accepts; both empty by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Media<'a> {
    content_type: &'a str,
    accept: &'a str,
}

/// Media types that the contract does not permit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// It is too long.
    #[error("`{what}` has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// Which of the two.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The contract's limit.
        limit: usize,
    },
    /// It has a control character.
    #[error("`{what}` has a control character")]
    Control {
        /// Which of the two.
        what: &'static str,
    },
}

impl<'a> Media<'a> {
    /// Takes what a caller says; empty where it says nothing.
    ///
    /// # Errors
    /// What is too long or has a control character.
    pub fn new(content_type: &'a str, accept: &'a str) -> Result<Self, MediaError> {
        permitted("content type", content_type, CONTENT_TYPE_LIMIT)?;
        permitted("accept", accept, ACCEPT_LIMIT)?;
        Ok(Self {
            content_type,
            accept,
        })
    }

    /// The request's media type; empty if the caller says nothing of it.
    pub fn content_type(&self) -> &'a str {
        self.content_type
    }

    /// What the caller accepts; empty if it says nothing of it.
    pub fn accept(&self) -> &'a str {
        self.accept
    }

    /// Whether the caller says nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.content_type.is_empty() && self.accept.is_empty()
    }

    /// A method's name with the media types behind it, to be taken apart by [`Media::split`].
    pub fn join(&self, method: &str) -> String {
        format!("{method}\0{}\0{}", self.content_type, self.accept)
    }

    /// What [`Media::join`] made. Anything that is not text counts as absent.
    pub fn split(head: &'a [u8]) -> (&'a [u8], Self) {
        let mut parts = head.splitn(3, |byte| *byte == 0);
        let method = parts.next().unwrap_or_default();
        let mut text = || str::from_utf8(parts.next().unwrap_or_default()).unwrap_or_default();
        let (content_type, accept) = (text(), text());
        let media = Self {
            content_type,
            accept,
        };
        (method, media)
    }

    pub(crate) fn raw(&self) -> abi::MediaTypes {
        abi::MediaTypes {
            size: size_of::<abi::MediaTypes>(),
            content_type: Bytes::new(self.content_type.as_bytes()),
            accept: Bytes::new(self.accept.as_bytes()),
        }
    }
}

fn permitted(what: &'static str, text: &str, limit: usize) -> Result<(), MediaError> {
    if text.len() > limit {
        let bytes = text.len();
        return Err(MediaError::TooLong { what, bytes, limit });
    }
    if text.chars().any(|sign| sign.is_control() && sign != '\t') {
        return Err(MediaError::Control { what });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_text_is_split_again() {
        let media = Media::new("text/plain", "application/json, */*;q=0.1").unwrap();
        let head = media.join("go");
        assert_eq!(Media::split(head.as_bytes()), (&b"go"[..], media));
        let nothing = Media::default();
        assert_eq!(Media::split(b"go"), (&b"go"[..], nothing));
        assert_eq!(Media::split(b"go\0\xff"), (&b"go"[..], nothing));
    }

    #[test]
    fn long_and_broken_types_are_refused() {
        let long = "a".repeat(CONTENT_TYPE_LIMIT + 1);
        let refused = Media::new(&long, "").unwrap_err().to_string();
        assert_eq!(refused, "`content type` has 256 bytes, the limit is 255");
        let refused = Media::new("", "a\0b").unwrap_err().to_string();
        assert_eq!(refused, "`accept` has a control character");
        let long = "a".repeat(ACCEPT_LIMIT);
        assert!(Media::new("a\tb", &long).is_ok());
    }
}

//! A detached signature of a `plugin.meta`, and the keys that make one, in the format of minisign.
//!
//! The bytes of `plugin.meta` are what is signed: they hold each plugin's name, version, interface
//! and hash, and the hash covers what a host loads. So is the signature's trusted comment, which
//! says when it was made. Signatures of the old kind, not made of a hash, are refused.
//!
//! All bytes here come from strangers: no input causes a panic, and every refusal is one sentence.
//!
//! Absent on purpose: which keys count, and making a signature.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minisign_verify as minisign;

/// The name of the file beside `plugin.meta`.
pub const SIGNATURE_FILE: &str = "plugin.meta.minisig";

/// Real ones, and real keys, have some three hundred bytes.
pub const MAX_SIGNATURE_BYTES: u64 = 4096;

/// What precedes the seconds since 1970 in a trusted comment, as minisign itself writes it.
const TIME: &str = "timestamp:";

/// Where a key's number is in what is encoded, after two bytes for the algorithm.
const KEY_ID: std::ops::Range<usize> = 2..10;

/// The number of a key, as its owner and its signatures name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(u64);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

/// Why bytes are not a key or a signature, or not the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Not a file of this kind.
    #[error("it is not a minisign {0}")]
    Malformed(&'static str),
    /// Not made of a hash.
    #[error("it is a legacy minisign signature; sign it again")]
    Legacy,
    /// Made by this key, but of other bytes or with another comment.
    #[error("it is a signature of other contents")]
    Other,
}

/// The public half of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    key: minisign::PublicKey,
}

impl PublicKey {
    /// Parses a key's file: a comment and a line, or the line alone.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        let malformed = SignatureError::Malformed("public key");
        let text = str::from_utf8(bytes).map_err(|_| malformed)?;
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let line = lines.next_back().unwrap_or_default().trim();
        Ok(Self {
            id: key_id(line).ok_or(malformed)?,
            key: minisign::PublicKey::from_base64(line).map_err(|_| malformed)?,
        })
    }

    /// Its number.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Checks that `signature` is this key's, of these bytes and with its comment.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self, bytes: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        let verified = self.key.verify(bytes, &signature.signature, false);
        verified.map_err(|error| match error {
            minisign::Error::UnexpectedAlgorithm => SignatureError::Legacy,
            _ => SignatureError::Other,
        })
    }
}

/// A signature that has not been verified.
#[derive(Clone)]
pub struct Signature {
    id: KeyId,
    signature: minisign::Signature,
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature")
            .field("id", &self.id)
            .field("comment", &self.comment())
            .finish()
    }
}

impl Signature {
    /// Parses a signature's file.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        let malformed = SignatureError::Malformed("signature");
        let text = str::from_utf8(bytes).map_err(|_| malformed)?;
        // An unfinished file must not be taken for a whole one.
        if text.lines().count() != 4 || !text.ends_with('\n') {
            return Err(malformed);
        }
        let line = text.lines().nth(1).unwrap_or_default();
        let signature = Self {
            id: key_id(line).ok_or(malformed)?,
            signature: minisign::Signature::decode(text).map_err(|_| malformed)?,
        };
        let is_plain = |sign: char| sign == '\t' || !sign.is_control();
        match signature.comment().chars().all(is_plain) {
            true => Ok(signature),
            false => Err(malformed),
        }
    }

    /// The key that it says it was made by.
    pub fn key(&self) -> KeyId {
        self.id
    }

    /// What its maker says of it. Signed, so that it is true once the signature is verified.
    pub fn comment(&self) -> &str {
        self.signature.trusted_comment()
    }

    /// When it was made, in seconds since 1970, if its comment says so.
    pub fn time(&self) -> Option<u64> {
        let mut parts = self.comment().split('\t');
        parts.find_map(|part| part.strip_prefix(TIME))?.parse().ok()
    }
}

/// The comment of a signature that is made now, of something of this name.
pub fn comment(seconds: u64, subject: &str) -> String {
    format!("{TIME}{seconds}\tfile:{subject}")
}

fn key_id(line: &str) -> Option<KeyId> {
    let bytes = STANDARD.decode(line.trim()).ok()?;
    let id = bytes.get(KEY_ID)?.try_into().ok()?;
    Some(KeyId(u64::from_le_bytes(id)))
}

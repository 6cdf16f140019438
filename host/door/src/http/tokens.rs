//! Bearer tokens, which identify clients.
//!
//! Invariant: comparing takes equally long for any token, and only digests are kept.
//!
//! Absent on purpose: what a token's holder may do; entries of `[[door.allow]]` say that.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Shortest permitted token, in characters: shorter ones can be guessed.
const SHORTEST: usize = 16;

/// Longest permitted file, in bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// Names and digests of tokens.
#[derive(Debug, Default)]
pub(super) struct Tokens(Vec<(String, [u8; 32])>);

/// Why tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The file cannot be read.
    #[error("failed to read the token file `{}`: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Others can read or write it.
    #[error(
        "other users can read or write the token \
         file `{0}` (mode {mode:04o}); run `chmod 600 {0}`", .path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Its contents are invalid.
    #[error("token file `{}`: {source}", .path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: WrongTokens,
    },
}

/// What is wrong with the contents of a token file.
#[derive(Debug, thiserror::Error)]
pub enum WrongTokens {
    /// It is not a TOML table of texts.
    #[error("{}", .0.to_string().trim_end())]
    NotToml(#[from] toml::de::Error),
    /// A secret could be guessed.
    #[error("`{name}` is shorter than {SHORTEST} characters")]
    Short {
        /// The name of the token.
        name: String,
    },
}

impl Tokens {
    /// Reads `NAME = "SECRET"` lines.
    pub(super) fn read(path: &Path) -> Result<Self, TokensError> {
        let failed = |source| TokensError::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
        // The group may be the host's own.
        if mode & 0o037 != 0 {
            return Err(TokensError::Open {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = String::new();
        file.by_ref()
            .take(FILE_LIMIT)
            .read_to_string(&mut text)
            .map_err(failed)?;
        Self::parse(&text).map_err(|source| TokensError::Wrong {
            path: path.to_owned(),
            source,
        })
    }

    fn parse(text: &str) -> Result<Self, WrongTokens> {
        let secrets: BTreeMap<String, String> = toml::from_str(text)?;
        let digest = |(name, secret): (String, String)| {
            if secret.len() < SHORTEST {
                return Err(WrongTokens::Short { name });
            }
            Ok((name, Sha256::digest(secret).into()))
        };
        secrets
            .into_iter()
            .map(digest)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The name of the token's holder.
    pub(super) fn holder(&self, shown: &[u8]) -> Option<&str> {
        let shown: [u8; 32] = Sha256::digest(shown).into();
        let mut holder = None;
        for (name, digest) in &self.0 {
            if bool::from(digest.ct_eq(&shown)) {
                holder = Some(name.as_str());
            }
        }
        holder
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    const TEXT: &str = "ci = \"0123456789abcdef\"\nops = \"fedcba9876543210\"\n";

    #[test]
    fn a_token_names_its_holder() {
        let tokens = Tokens::parse(TEXT).unwrap();
        assert_eq!(tokens.holder(b"0123456789abcdef"), Some("ci"));
        assert_eq!(tokens.holder(b"fedcba9876543210"), Some("ops"));
        assert_eq!(tokens.holder(b"0123456789abcdeF"), None);
        assert_eq!(tokens.holder(b""), None);
    }

    #[test]
    fn a_short_token_is_refused() {
        let refused = Tokens::parse("ci = \"secret\"").unwrap_err().to_string();
        assert!(refused.contains("shorter than 16"), "{refused}");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(&path, TEXT).unwrap();
        for (mode, good) in [(0o600, true), (0o640, true), (0o644, false), (0o660, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Tokens::read(&path).is_ok(), good, "{mode:o}");
        }
    }
}

//! The accepted keys: a directory with one public key per file.
//!
//! `NAME.pub` is a key in minisign's format. `NAME.toml` beside it may say until when the key is accepted
//! (`expires`), or that it no longer is, and why (`revoked`).
//!
//! Invariant: a file that cannot be read is not a key. A key whose terms cannot be read is not accepted, and
//! a key that is there twice is accepted only by both terms.
//!
//! Absent on purpose: which plugins require a signature.

use std::{
    collections::BTreeSet,
    fmt,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use hotmerge_meta::{
    ReadError, Trust, Untrusted, read_trusted,
    signature::{KeyId, MAX_SIGNATURE_BYTES, PublicKey, Signature, SignatureError},
};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use rustix::{
    fs::{CWD, Dir, Mode, OFlags, openat},
    io::Errno,
};
use serde::Deserialize;

/// The keys of a directory.
#[derive(Debug)]
pub struct Keys {
    dir: PathBuf,
    keys: Vec<Key>,
    unusable: Vec<Unusable>,
}

#[derive(Debug)]
struct Key {
    name: String,
    public: PublicKey,
    terms: Terms,
}

/// The terms in the file beside a key.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Terms {
    /// When it expires.
    expires: Option<toml::value::Datetime>,
    /// Why it is revoked, if it is.
    revoked: Option<String>,
}

/// A file of the directory that is not a key, and why.
#[derive(Debug, thiserror::Error)]
#[error("`{file}`{source}")]
struct Unusable {
    file: String,
    source: KeyError,
}

/// Why a file of the directory is not a key.
#[derive(Debug, thiserror::Error)]
enum KeyError {
    #[error(": {0}")]
    Read(#[from] ReadError),
    #[error(": {0}")]
    Malformed(#[from] SignatureError),
    #[error(": `{file}` is not valid: {source}")]
    Terms { file: String, source: TermsError },
    #[error(" describes the key `{0}`, which does not exist")]
    NoKey(String),
}

/// What is wrong with the terms of a key.
#[derive(Debug, thiserror::Error)]
enum TermsError {
    #[error("{}", .0.message())]
    NotToml(#[from] toml::de::Error),
    #[error("`expires` is {0}, but must be a date, or a time with its offset from UTC")]
    Expires(String),
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The name of the key's file.
    pub name: String,
    /// The key's id.
    pub id: KeyId,
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (key {})", self.name, self.id)
    }
}

/// Why the keys cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The directory cannot be read.
    #[error("the directory of keys `{}` cannot be read: {source}", .dir.display())]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// What the system says.
        source: Errno,
    },
    /// Another user could put keys into it.
    #[error("the directory of keys: {0}")]
    Untrusted(#[from] Untrusted),
}

/// Why a signature is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum NotSigned {
    /// The key is not in the directory.
    #[error(
        "it is signed by the key {key}, which is not in `{}` ({}); add it, or sign with another \
         key", .dir.display(), known(.keys)
    )]
    UnknownKey {
        /// The key.
        key: KeyId,
        /// The directory.
        dir: PathBuf,
        /// The keys in it.
        keys: Vec<String>,
    },
    /// The key was revoked.
    #[error("it is signed by {signer}, which is revoked: {reason}; sign it with another key")]
    Revoked {
        /// The key.
        signer: Signer,
        /// The operator's reason.
        reason: String,
    },
    /// The key has expired.
    #[error("it is signed by {signer}, which expired on {expired}; sign it with another key")]
    Expired {
        /// The key.
        signer: Signer,
        /// When it expired.
        expired: String,
    },
    /// The signature is not valid for these bytes.
    #[error("its signature by {signer} is not valid: {source}; sign it again")]
    Invalid {
        /// The key.
        signer: Signer,
        /// What is wrong.
        source: SignatureError,
    },
}

fn known(keys: &[String]) -> String {
    match keys {
        [] => "there are no keys".to_owned(),
        keys => format!("there are: {}", keys.join(", ")),
    }
}

impl Keys {
    /// Reads the keys of a directory, which need not be there.
    ///
    /// # Errors
    /// If it cannot be read, or another user could write to it.
    pub fn read(dir: &Path, trust: &Trust) -> Result<Self, KeysError> {
        let mut keys = Self {
            dir: dir.to_owned(),
            keys: Vec::new(),
            unusable: Vec::new(),
        };
        let failed = |source| KeysError::Dir {
            dir: dir.to_owned(),
            source,
        };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let open = match openat(CWD, dir, flags, Mode::empty()) {
            Ok(open) => open,
            Err(Errno::NOENT) => return Ok(keys),
            Err(error) => return Err(failed(error)),
        };
        trust.check_way(&open, dir)?;
        let mut names = BTreeSet::new();
        for entry in Dir::read_from(&open).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
        for file in &names {
            let is_terms = |stem: &str| !names.contains(&format!("{stem}.pub"));
            match (file.strip_suffix(".pub"), file.strip_suffix(".toml")) {
                (Some(name), _) => match Key::read(&open, name, trust) {
                    Ok(key) => keys.keys.push(key),
                    Err(source) => keys.unusable.push(Unusable {
                        file: file.clone(),
                        source,
                    }),
                },
                // An operator who misspelt its name believes that a key is revoked.
                (None, Some(stem)) if is_terms(stem) => {
                    keys.unusable.push(Unusable {
                        file: file.clone(),
                        source: KeyError::NoKey(format!("{stem}.pub")),
                    });
                }
                _ => {}
            }
        }
        Ok(keys)
    }

    /// What is unusable in the directory, in sentences.
    pub fn problems(&self) -> Vec<String> {
        let dir = self.dir.display();
        if self.keys.is_empty() && self.unusable.is_empty() {
            return vec![format!("there is no key in `{dir}`")];
        }
        let unusable = self.unusable.iter();
        unusable
            .map(|reason| format!("in `{dir}` {reason}"))
            .collect()
    }

    /// Who signed these bytes.
    ///
    /// # Errors
    /// Why the signature is not accepted.
    pub fn judge(
        &self,
        bytes: &[u8],
        signature: &Signature,
        now: Timestamp,
    ) -> Result<Signer, NotSigned> {
        let mut own = self
            .keys
            .iter()
            .filter(|key| key.public.id() == signature.key());
        let Some(first) = own.clone().next() else {
            let names = self.keys.iter().map(|key| key.signer().to_string());
            return Err(NotSigned::UnknownKey {
                key: signature.key(),
                dir: self.dir.clone(),
                keys: names
                    .chain(self.unusable.iter().map(ToString::to_string))
                    .collect(),
            });
        };
        let verified = |key: &&Key| key.public.verify(bytes, signature).is_ok();
        let Some(key) = own.clone().find(verified) else {
            let result = first.public.verify(bytes, signature);
            return Err(NotSigned::Invalid {
                signer: first.signer(),
                source: result.err().unwrap_or(SignatureError::Other),
            });
        };
        // The same key under another name.
        own.try_for_each(|other| match other.public == key.public {
            true => other.may_sign(now),
            false => Ok(()),
        })?;
        Ok(key.signer())
    }
}

impl Key {
    fn read(dir: &OwnedFd, name: &str, trust: &Trust) -> Result<Self, KeyError> {
        let read = |file: &str| read_trusted(dir, file, MAX_SIGNATURE_BYTES, trust);
        let (bytes, _) = read(&format!("{name}.pub"))?;
        let public = PublicKey::parse(&bytes)?;
        let terms = match read(&format!("{name}.toml")) {
            Err(ReadError::Missing(_)) => Terms::default(),
            Err(error) => return Err(error.into()),
            Ok((bytes, _)) => Terms::parse(&bytes).map_err(|source| KeyError::Terms {
                file: format!("{name}.toml"),
                source,
            })?,
        };
        Ok(Self {
            name: name.to_owned(),
            public,
            terms,
        })
    }

    fn signer(&self) -> Signer {
        Signer {
            name: self.name.clone(),
            id: self.public.id(),
        }
    }

    fn may_sign(&self, now: Timestamp) -> Result<(), NotSigned> {
        let signer = self.signer();
        if let Some(reason) = self.terms.revoked.clone() {
            return Err(NotSigned::Revoked { signer, reason });
        }
        match self.terms.end() {
            Ok(Some(end)) if end <= now => Err(NotSigned::Expired {
                signer,
                expired: format!("{end:.0}"),
            }),
            _ => Ok(()),
        }
    }
}

impl Terms {
    fn parse(bytes: &[u8]) -> Result<Self, TermsError> {
        let terms: Self = toml::from_slice(bytes)?;
        terms.end()?;
        Ok(terms)
    }

    /// When the key expires.
    fn end(&self) -> Result<Option<Timestamp>, TermsError> {
        let Some(expires) = &self.expires else {
            return Ok(None);
        };
        let text = expires.to_string();
        let end = text.parse::<Timestamp>().or_else(|_| {
            let date: Date = match expires.time {
                None => text.parse()?,
                Some(_) => return text.parse::<Timestamp>(),
            };
            Ok(date.to_zoned(TimeZone::UTC)?.timestamp())
        });
        end.map(Some).map_err(|_| TermsError::Expires(text))
    }
}

#[cfg(test)]
mod tests;

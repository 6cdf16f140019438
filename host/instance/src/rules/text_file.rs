//! A small text file of the operator's: the configuration, a policy.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use hotmerge_meta::{Trust, Untrusted};

/// Largest such file, in bytes.
const LIMIT_BYTES: u64 = 1 << 20;

/// Why a file of the operator's cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TextFileError {
    /// The file cannot be read.
    #[error("{what} `{}` cannot be read: {source}", .path.display())]
    Read {
        /// What it is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another user could have written it.
    #[error("{what} `{}`: {source}", .path.display())]
    Untrusted {
        /// What it is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Who could, and what to do.
        source: Untrusted,
    },
    /// The file is far too large to be one.
    #[error("{what} `{}` is larger than 1 MiB", .path.display())]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The file's contents are not valid.
    #[error("{what} `{}` is not valid: {reason}", .path.display())]
    Wrong {
        /// What it is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
}

/// Reads such a file, but no more than the limit: an endless file has no length.
///
/// # Errors
/// If it cannot be read, is too large, or could have been written by somebody else.
pub fn read(what: &'static str, path: &Path, trust: &Trust) -> Result<String, TextFileError> {
    let failed = |source| {
        let path = path.to_owned();
        TextFileError::Read { what, path, source }
    };
    let file = File::open(path).map_err(failed)?;
    trust
        .check_way(&file, path)
        .map_err(|source| TextFileError::Untrusted {
            what,
            path: path.to_owned(),
            source,
        })?;
    let mut text = String::new();
    match file.take(LIMIT_BYTES + 1).read_to_string(&mut text) {
        Ok(len) if len as u64 > LIMIT_BYTES => {
            let path = path.to_owned();
            Err(TextFileError::TooLarge { what, path })
        }
        Ok(_) => Ok(text),
        Err(source) => Err(failed(source)),
    }
}

/// The error for contents that are not valid.
pub fn wrong(what: &'static str, path: &Path, error: &dyn std::error::Error) -> TextFileError {
    TextFileError::Wrong {
        what,
        path: path.to_owned(),
        reason: error.to_string().trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_read_beyond_its_limit() {
        let anybody = Trust::anybody();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let most = "x".repeat(usize::try_from(LIMIT_BYTES).unwrap());
        std::fs::write(&path, &most).unwrap();
        assert_eq!(read("it", &path, &anybody).unwrap().len(), most.len());
        std::fs::write(&path, most + "x").unwrap();
        // It claims to be empty.
        for path in [&*path, Path::new("/dev/zero")] {
            let refused = read("it", path, &anybody).unwrap_err().to_string();
            let expected = format!("it `{}` is larger than 1 MiB", path.display());
            assert_eq!(refused, expected);
        }
        let absent = read("it", &dir.path().join("y"), &anybody)
            .unwrap_err()
            .to_string();
        assert!(absent.contains("cannot be read: No such file"), "{absent}");
    }
}

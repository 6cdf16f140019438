//! Publishes a package into a directory that a host may be watching.
//!
//! Invariant: at every moment a reader finds the old package, or the new files with the old
//! `plugin.meta` (which settles), or the new package. To get there:
//!
//! 1. everything that differs is written under temporary names and reaches the disk;
//! 2. what was written is checked against the meta;
//! 3. plugins are renamed into place; a signature of another `plugin.meta` is removed; then
//!    `plugin.meta` is renamed, last;
//! 4. plugins that the new meta no longer names are removed; directories stay.
//!
//! A failure in 1 or 2, such as a full disk, changes nothing that a host reads.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags},
    io::Errno,
};

use crate::{
    FileName, Image, Meta, MetaError, PackageName, PromiseError,
    package::{MAX_META_BYTES, META_FILE},
    read::{ReadError, read_regular},
    signature::{MAX_SIGNATURE_BYTES, SIGNATURE_FILE},
};

/// Hosts skip names that start with a dot. The number is that of the file within the run: one
/// publisher at a time holds the directory's lock, so these names are its own.
const TEMPORARY: &str = ".hotmerge-new-";

/// The result of [`publish`]. Names are sorted; `plugin.meta` is in neither of the lists of plugins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The package directory.
    pub dir: PathBuf,
    /// Plugin files that were new or differed.
    pub written: Vec<FileName>,
    /// Plugin files that already had these bytes; not touched.
    pub unchanged: Vec<FileName>,
    /// Plugin files that the new meta does not name.
    pub removed: Vec<FileName>,
    /// Whether `plugin.meta` was new or differed.
    pub meta_written: bool,
}

impl Published {
    /// Whether anything in the directory is different now.
    pub fn changed(&self) -> bool {
        self.meta_written || !self.written.is_empty() || !self.removed.is_empty()
    }
}

/// Why a package was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The meta names a file that was not given, or the other way round.
    #[error("`{0}` is either in `{META_FILE}` or among the files, but must be in both")]
    Unpaired(FileName),
    /// The meta would be refused by the host.
    #[error("the package cannot be published: {0}")]
    Meta(#[from] MetaError),
    /// A source does not match the meta.
    #[error("`{}` cannot be published: {source}", .path.display())]
    Promise {
        /// The source.
        path: PathBuf,
        /// What is wrong with it.
        source: PromiseError,
    },
    /// The system refused a step.
    #[error("failed to {step} `{}`: {source}", .path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Publishes a package as `staging_dir/package`.
///
/// `files` are the plugin files and where their contents come from; exactly those that `meta`
/// names. Waits while another process publishes the same package.
///
/// # Errors
/// See [`PublishError`]. Unless renaming itself failed, the directory is as it was.
pub fn publish(
    staging_dir: &Path,
    package: &PackageName,
    meta: &Meta,
    files: &[(FileName, &Path)],
) -> Result<Published, PublishError> {
    check_pairs(meta, files)?;
    meta.check()?;
    let text = meta.to_toml();
    // Whatever was written here must be readable there: names, values, size.
    Meta::parse(&text)?;
    let dir = Dir::lock(staging_dir.join(package.as_str()))?;
    dir.remove_temporaries()?;
    let result = dir.publish(meta, &text, files);
    if result.is_err() {
        // Report the first error.
        let _ = dir.remove_temporaries();
    }
    result
}

/// Signs the package directory `dir`: `sign` makes the signature of the bytes of its
/// `plugin.meta`, or takes the one that is there, and it is published beside that. Returns whether it
/// differs from what was there.
///
/// # Errors
/// What `sign` says, or if the package cannot be read or written.
pub fn publish_signature<E: From<PublishError>>(
    dir: &Path,
    sign: impl FnOnce(&[u8], Option<Vec<u8>>) -> Result<Vec<u8>, E>,
) -> Result<bool, E> {
    let package = Dir::open(dir.to_owned())?;
    let (meta, _) = read_regular(&package.fd, META_FILE, MAX_META_BYTES)
        .map_err(|error| PublishError::from(MetaError::from(error)))?;
    Meta::from_bytes(&meta).map_err(PublishError::from)?;
    let old = read_regular(&package.fd, SIGNATURE_FILE, MAX_SIGNATURE_BYTES);
    let signature = sign(&meta, old.ok().map(|(bytes, _)| bytes))?;
    if package.holds(SIGNATURE_FILE, &signature)? {
        return Ok(false);
    }
    package.remove_temporaries()?;
    let written = package.write(0, SIGNATURE_FILE, &signature);
    let published = written.and_then(|file| {
        package.rename(&file)?;
        rustix::fs::fsync(&package.fd).map_err(|error| package.error("sync", "", error))
    });
    if published.is_err() {
        // Report the first error.
        let _ = package.remove_temporaries();
    }
    Ok(published.map(|()| true)?)
}

fn check_pairs(meta: &Meta, files: &[(FileName, &Path)]) -> Result<(), PublishError> {
    let named: BTreeSet<_> = meta.plugin.iter().map(|plugin| &plugin.file).collect();
    let given: BTreeSet<_> = files.iter().map(|(name, _)| name).collect();
    match named.symmetric_difference(&given).next() {
        Some(name) => Err(PublishError::Unpaired((*name).clone())),
        None => Ok(()),
    }
}

/// One file that waits under its temporary name.
struct Pending<'a> {
    temporary: String,
    name: &'a str,
}

/// A package directory, locked against other publishers.
struct Dir {
    path: PathBuf,
    fd: OwnedFd,
}

impl Dir {
    fn lock(path: PathBuf) -> Result<Self, PublishError> {
        let fail = |step| {
            let path = path.clone();
            move |source: io::Error| PublishError::Io { step, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&path)
            .map_err(fail("create"))?;
        Self::open(path)
    }

    /// One that is there, locked.
    fn open(path: PathBuf) -> Result<Self, PublishError> {
        let fail = |step| {
            let path = path.clone();
            move |source: io::Error| PublishError::Io { step, path, source }
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, &path, flags, Mode::empty())
            .map_err(io::Error::from)
            .map_err(fail("open"))?;
        rustix::fs::flock(&fd, FlockOperation::LockExclusive)
            .map_err(io::Error::from)
            .map_err(fail("lock"))?;
        Ok(Self { path, fd })
    }

    fn publish(
        &self,
        meta: &Meta,
        text: &str,
        files: &[(FileName, &Path)],
    ) -> Result<Published, PublishError> {
        let mut published = Published {
            dir: self.path.clone(),
            ..Published::default()
        };
        let mut pending = Vec::new();
        for (name, source) in files {
            let bytes = fs::read(source).map_err(|error| io_error("read", source, error))?;
            if self.holds(name.as_str(), &bytes)? {
                published.unchanged.push(name.clone());
            } else {
                pending.push(self.write(pending.len(), name.as_str(), &bytes)?);
                published.written.push(name.clone());
            }
            check_promise(meta, name, source, bytes)?;
        }
        if !self.holds(META_FILE, text.as_bytes())? {
            pending.push(self.write(pending.len(), META_FILE, text.as_bytes())?);
            published.meta_written = true;
        }
        for file in &pending {
            if file.name == META_FILE {
                self.remove_if_there(SIGNATURE_FILE)?;
            }
            self.rename(file)?;
        }
        published.removed = self.remove_unnamed(meta)?;
        if published.changed() {
            rustix::fs::fsync(&self.fd).map_err(|error| self.error("sync", "", error))?;
        }
        published.written.sort();
        published.unchanged.sort();
        Ok(published)
    }

    /// Whether the file is a regular one with exactly these bytes.
    fn holds(&self, name: &str, bytes: &[u8]) -> Result<bool, PublishError> {
        match read_regular(&self.fd, name, bytes.len() as u64) {
            Ok((old, _)) => Ok(old == bytes),
            // A rename replaces all of these, except for a directory.
            Err(ReadError::NotRegular {
                kind: "a directory",
                ..
            }) => Err(self.error("replace", name, Errno::ISDIR)),
            Err(_) => Ok(false),
        }
    }

    fn write<'a>(
        &self,
        index: usize,
        name: &'a str,
        bytes: &[u8],
    ) -> Result<Pending<'a>, PublishError> {
        let temporary = format!("{TEMPORARY}{index}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, &temporary, flags, Mode::from_raw_mode(0o644))
            .map_err(|error| self.error("create a temporary file for", name, error))?;
        let mut file = File::from(fd);
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|error| io_error("write", &self.path.join(name), error))?;
        Ok(Pending { temporary, name })
    }

    fn rename(&self, file: &Pending<'_>) -> Result<(), PublishError> {
        rustix::fs::renameat(&self.fd, &file.temporary, &self.fd, file.name)
            .map_err(|error| self.error("replace", file.name, error))
    }

    fn remove_unnamed(&self, meta: &Meta) -> Result<Vec<FileName>, PublishError> {
        let mut removed = Vec::new();
        for name in self.names()? {
            let Ok(name) = FileName::new(name) else {
                continue;
            };
            let is_named = meta.plugin.iter().any(|plugin| plugin.file == name);
            // The driver publishes no directories, so this one is foreign.
            if is_named || self.is_directory(name.as_str())? {
                continue;
            }
            self.remove(name.as_str())?;
            removed.push(name);
        }
        removed.sort();
        Ok(removed)
    }

    fn is_directory(&self, name: &str) -> Result<bool, PublishError> {
        let found = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.error("stat", name, error))?;
        Ok(FileType::from_raw_mode(found.st_mode).is_dir())
    }

    fn remove_temporaries(&self) -> Result<(), PublishError> {
        for name in self.names()? {
            if name.starts_with(TEMPORARY) {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), PublishError> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())
            .map_err(|error| self.error("remove", name, error))
    }

    fn remove_if_there(&self, name: &str) -> Result<(), PublishError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.error("remove", name, error)),
        }
    }

    /// Names that are UTF-8; ours all are.
    fn names(&self) -> Result<Vec<String>, PublishError> {
        let fail = |error| self.error("list", "", error);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(self.fd.as_fd()).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            names.extend(entry.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    fn error(&self, step: &'static str, name: &str, error: Errno) -> PublishError {
        io_error(step, &self.path.join(name), error.into())
    }
}

/// The check that the host makes before it loads, made before the host can see the file.
fn check_promise(
    meta: &Meta,
    name: &FileName,
    source: &Path,
    bytes: Vec<u8>,
) -> Result<(), PublishError> {
    let promised = meta.plugin.iter().find(|plugin| plugin.file == *name);
    let kept = match promised {
        Some(plugin) => Image::normalise(bytes)
            .map_err(PromiseError::from)
            .and_then(|image| plugin.check(&image)),
        None => return Err(PublishError::Unpaired(name.clone())),
    };
    kept.map_err(|error| PublishError::Promise {
        path: source.to_owned(),
        source: error,
    })
}

fn io_error(step: &'static str, path: &Path, source: io::Error) -> PublishError {
    PublishError::Io {
        step,
        path: path.to_owned(),
        source,
    }
}

//! A file of JSON lines, rotated by its size or by another program that renames it.
//!
//! Invariants: the file holds whole lines only. What a full disk or the death of a host has left of a line is
//! cut off before the next one is written. Rotation renames, so that no line is lost by it, and only ever the
//! file that was written. One process writes a file at a time.
//!
//! A FIFO or a device takes lines as well, and is neither cut nor rotated.
//!
//! Absent on purpose: which records it gets.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use hotmerge_meta::count;
use rustix::{
    fs::{
        AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, fcntl_setfl, flock, fstat, openat,
        renameat, statat,
    },
    io::Errno,
};

use super::{
    delivery::{Attempt, Deliver, SinkError},
    queue::{Body, Item},
    settings::FileSettings,
};

/// Only the host's user and group may read what plugins log.
const MODE: Mode = Mode::from_raw_mode(0o640);
/// How much is written at once, about.
const CHUNK: usize = 64 << 10;
/// How an own line begins, by which the remains of one are known.
const BEGIN: &[u8] = b"{\"time\":\"";
/// The longest line that is searched for at the end of a file.
const LONGEST_LINE: u64 = 1 << 20;
/// How long after a rotation that failed the next one is tried.
const ROTATION_PAUSE: Duration = Duration::from_secs(60);

/// Writes records to a file.
pub(super) struct File {
    settings: FileSettings,
    open: Option<Open>,
    no_rotation_before: Option<Instant>,
}

struct Open {
    dir: OwnedFd,
    file: fs::File,
    /// Its size, of a regular file.
    bytes: Option<u64>,
}

impl File {
    pub(super) fn new(settings: FileSettings) -> Self {
        Self {
            settings,
            open: None,
            no_rotation_before: None,
        }
    }

    fn error(&self, what: &str, source: impl Into<io::Error>) -> SinkError {
        SinkError {
            what: format!("failed to {what} `{}`", self.settings.path.display()),
            source: source.into(),
        }
    }

    fn name(&self) -> Result<&OsStr, Errno> {
        self.settings.path.file_name().ok_or(Errno::ISDIR)
    }

    /// The file, which is opened if it is not.
    fn opened(&mut self) -> Result<&mut Open, SinkError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self
                .open_it()
                .map_err(|source| self.error("open", source))?,
        };
        Ok(self.open.insert(open))
    }

    fn open_it(&self) -> io::Result<Open> {
        let path = &self.settings.path;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let way = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, parent, way, Mode::empty())?;
        let checked = self.settings.trust.check_way(&dir, parent);
        checked.map_err(io::Error::other)?;
        // A FIFO without a reader must not hang here, where it would look like a slow disk.
        let flags = OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NOCTTY
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let file = openat(&dir, self.name()?, flags, MODE).map_err(explained)?;
        fcntl_setfl(&file, OFlags::APPEND)?;
        let stat = fstat(&file)?;
        let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let mut open = Open {
            dir,
            file: fs::File::from(file),
            bytes: None,
        };
        if is_regular {
            flock(&open.file, FlockOperation::NonBlockingLockExclusive).map_err(
                |error| match error {
                    Errno::WOULDBLOCK => io::Error::other("another process writes it"),
                    other => other.into(),
                },
            )?;
            open.bytes = Some(u64::try_from(stat.st_size).unwrap_or_default());
            let cut = open.repair(self.name()?)?;
            if cut > 0 {
                let path = path.display().to_string();
                let cut = count(cut, "byte");
                tracing::warn!(
                    target: "hotmerge::host", path,
                    "cut off {cut} of a log record that was not written to its end"
                );
            }
        }
        Ok(open)
    }

    /// Writes lines. Returns how many of them are in the file.
    fn write(&mut self, lines: &Lines) -> Result<usize, (usize, SinkError)> {
        let open = self.opened().map_err(|error| (0, error))?;
        match open.write(&lines.bytes) {
            Ok(()) => Ok(lines.ends.len()),
            Err((written, source)) => {
                let whole = lines.ends.partition_point(|end| *end <= written);
                let end = whole.checked_sub(1).map_or(0, |last| lines.ends[last]);
                if open.cut((written - end) as u64).is_err() {
                    // If it cannot be cut off now, the next opening does so.
                    self.open = None;
                }
                if matches!(source.kind(), io::ErrorKind::BrokenPipe) {
                    self.open = None;
                }
                Err((whole, self.error("write to", source)))
            }
        }
    }

    /// How large the file is, if it is one that is rotated.
    fn rotated_size(&self) -> Option<u64> {
        let may_rotate = self
            .no_rotation_before
            .is_none_or(|it| it <= Instant::now());
        let size = self.open.as_ref().and_then(|open| open.bytes);
        size.filter(|_| self.settings.max_bytes > 0 && may_rotate)
    }

    /// Renames the file, and those that were renamed before, and begins a new one.
    fn rotate(&mut self) {
        let Some(open) = self.open.take() else { return };
        if let Err(source) = self.rename(&open) {
            let error = self.error("rotate", source);
            tracing::warn!(target: "hotmerge::host", "{error}; the file keeps growing");
            self.no_rotation_before = Some(Instant::now() + ROTATION_PAUSE);
            self.open = Some(open);
        }
    }

    fn rename(&self, open: &Open) -> Result<(), Errno> {
        let name = self.name()?;
        let own = fstat(&open.file)?;
        match statat(&open.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino) => {}
            // Another program has rotated it.
            Ok(_) | Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
        for number in (1..self.settings.keep).rev() {
            let (from, to) = (numbered(name, number), numbered(name, number + 1));
            match renameat(&open.dir, from, &open.dir, to) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        renameat(&open.dir, name, &open.dir, numbered(name, 1))
    }
}

/// Explains what an error means here.
fn explained(error: Errno) -> io::Error {
    match error {
        Errno::LOOP => io::Error::other("it is a symbolic link; name the file itself"),
        Errno::NXIO => io::Error::other("nobody reads from it"),
        other => other.into(),
    }
}

fn numbered(name: &OsStr, number: u32) -> OsString {
    let mut name = name.to_owned();
    name.push(format!(".{number}"));
    name
}

impl Open {
    /// Writes everything, or says how much was written before an error.
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let all = bytes.len();
        while !bytes.is_empty() {
            let written = match self.file.write(bytes) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                other => other,
            };
            let written = written.map_err(|error| (all - bytes.len(), error))?;
            bytes = &bytes[written..];
            if let Some(size) = &mut self.bytes {
                *size += written as u64;
            }
        }
        Ok(())
    }

    /// Cuts off the last bytes of a regular file.
    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        if self.bytes.is_none() || bytes == 0 {
            return Ok(());
        }
        // Another program may have truncated it as well.
        let size = self.file.metadata()?.len().saturating_sub(bytes);
        self.file.set_len(size)?;
        self.bytes = Some(size);
        Ok(())
    }

    /// Makes the file end with a line's end; returns how many bytes of an own line were cut off.
    fn repair(&mut self, name: &OsStr) -> io::Result<u64> {
        let size = self.bytes.unwrap_or_default();
        if size == 0 {
            return Ok(0);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = fs::File::from(openat(&self.dir, name, flags, Mode::empty())?);
        let mut end = Vec::new();
        // Nearly always the last byte alone says that all is well.
        for length in [1, LONGEST_LINE] {
            file.seek(SeekFrom::Start(size.saturating_sub(length)))?;
            end.clear();
            (&mut file).take(length).read_to_end(&mut end)?;
            if end.ends_with(b"\n") {
                return Ok(0);
            }
        }
        let last = end.iter().rposition(|byte| *byte == b'\n');
        let begin = last.map_or(0, |at| at + 1);
        let torn = &end[begin..];
        let is_own = torn.starts_with(BEGIN) || BEGIN.starts_with(torn);
        if is_own && (last.is_some() || size == end.len() as u64) {
            let torn = torn.len() as u64;
            self.cut(torn)?;
            return Ok(torn);
        }
        // Another program wrote it: it stays, and the next record begins on a new line.
        self.write(b"\n").map_err(|(_, error)| error)?;
        Ok(0)
    }
}

/// Records as lines, and where each ends.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Lines {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn add(&mut self, item: &Item) {
        match &item.body {
            Body::Record(record) => record.write_line(&mut self.bytes),
            Body::Line(line) => self.bytes.extend_from_slice(line),
        }
        self.ends.push(self.bytes.len());
    }
}

impl Deliver for File {
    fn deliver(&mut self, items: &[Item]) -> Attempt {
        let mut delivered = 0;
        let mut lines = Lines::default();
        while delivered < items.len() {
            // Its size decides.
            if let Err(error) = self.opened() {
                return Attempt::failed(delivered, error);
            }
            lines.clear();
            let size = self.rotated_size();
            let is_over =
                |more: usize| size.is_some_and(|size| size + more as u64 > self.settings.max_bytes);
            for item in &items[delivered..] {
                let before = lines.bytes.len();
                lines.add(item);
                if before > 0 && (lines.bytes.len() > CHUNK || is_over(lines.bytes.len())) {
                    lines.bytes.truncate(before);
                    lines.ends.pop();
                    break;
                }
            }
            // A line that is larger than a whole file has one of its own.
            if size.is_some_and(|it| it > 0) && is_over(lines.bytes.len()) {
                self.rotate();
                continue;
            }
            match self.write(&lines) {
                Ok(count) => delivered += count,
                Err((count, error)) => return Attempt::failed(delivered + count, error),
            }
        }
        Attempt::done(delivered)
    }

    fn reopen(&mut self) {
        self.open = None;
        self.no_rotation_before = None;
        // A program that rotates expects the new file; the next record reports why there is none.
        let _ = self.opened();
    }
}

#[cfg(test)]
mod tests;

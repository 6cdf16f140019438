//! Which directory a path names, and whether its file system reports all changes.

use std::{io, path::Path};

use rustix::fs::{AtFlags, CWD, StatxFlags, statfs, statx};

/// Requests mount ids that are never reused (Linux 6.8).
const MNT_ID_UNIQUE: u32 = 0x4000;

/// The identity of a directory: neither its path nor its inode number is unique over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: (u32, u32),
    inode: u64,
    mount: u64,
}

impl Identity {
    /// The identity of what a path leads to.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Self::with(path, AtFlags::empty())
    }

    /// The identity of what is at the path itself, if it is a directory.
    pub(super) fn of_entry(path: &Path) -> io::Result<Self> {
        Self::with(path, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn with(path: &Path, flags: AtFlags) -> io::Result<Self> {
        let mounts = StatxFlags::MNT_ID | StatxFlags::from_bits_retain(MNT_ID_UNIQUE);
        let stat = statx(
            CWD,
            path,
            flags,
            StatxFlags::INO | StatxFlags::TYPE | mounts,
        )?;
        if rustix::fs::FileType::from_raw_mode(stat.stx_mode.into())
            != rustix::fs::FileType::Directory
        {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            mount: stat.stx_mnt_id,
        })
    }

    pub(super) fn device(&self) -> (u32, u32) {
        self.device
    }
}

/// File systems that others can change without this kernel's knowledge.
const REMOTE: [(u32, &str); 9] = [
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb3"),
    (0x517b, "smb"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "ceph"),
    (0x5346_414f, "afs"),
    (0x7375_7245, "coda"),
    (0x6573_5546, "fuse"),
];

/// The name of a directory's file system, if others can change it without this kernel's knowledge.
pub(super) fn remote(dir: &Path) -> Option<&'static str> {
    // The field's width depends on the architecture.
    #[allow(clippy::unnecessary_cast)]
    let magic = statfs(dir).ok()?.f_type as u32;
    remote_kind(magic)
}

fn remote_kind(magic: u32) -> Option<&'static str> {
    let kind = REMOTE.iter().find(|(known, _)| *known == magic);
    kind.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_remote_file_systems_are_remote() {
        assert_eq!(remote_kind(0x6969), Some("nfs"));
        assert_eq!(remote_kind(0xff53_4d42), Some("cifs"));
        // ext4, tmpfs, btrfs, overlayfs.
        for magic in [0xef53, 0x0102_1994, 0x9123_683e, 0x794c_7630] {
            assert_eq!(remote_kind(magic), None);
        }
        assert_eq!(remote(Path::new("/proc")), None);
    }

    #[test]
    fn a_file_is_not_a_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        Identity::of(file.path()).unwrap_err();
    }
}

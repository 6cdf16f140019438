//! Which directory a path means, and whether its file system tells of all changes.

use std::{io, path::Path};

use rustix::fs::{AtFlags, CWD, StatxFlags, statfs, statx};

/// Mounts are told apart by a number that is never used again (Linux 6.8).
const MNT_ID_UNIQUE: u32 = 0x4000;

/// A directory: neither a path nor an inode's number tells it from another one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: (u32, u32),
    inode: u64,
    mount: u64,
}

impl Identity {
    /// Of what a path leads to.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Self::with(path, AtFlags::empty())
    }

    /// Of what is at the path itself, if it is a directory.
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

/// File systems that others change without a word to this kernel.
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

/// The kind of file system that a directory is on, if other machines or programs may change it unseen.
pub(super) fn remote(dir: &Path) -> Option<&'static str> {
    // The field has other widths on other machines.
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
    fn a_file_is_no_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        Identity::of(file.path()).unwrap_err();
    }
}

//! Granted files: how they are found, and whether the worker's user may have them.
//!
//! Invariant: no symbolic link is followed on the way to a granted path. A plugin that may
//! write in one tree could otherwise replace what leads to another. Only what the host has judged is
//! taken, whatever was put in its place since then.

use std::{io, os::fd::OwnedFd, path::Path};

use landlock::{ABI, AccessFs, BitFlags};
use rustix::{
    fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, accessat, fstat, openat2},
    io::Errno,
};

use crate::{Grant, Judged, Plan};

/// The files and directories among the grants, those that contain others first.
pub(crate) fn files(grants: &[Grant]) -> impl Iterator<Item = (&Grant, &Path, bool)> {
    let mut files: Vec<_> = grants
        .iter()
        .filter_map(|grant| match grant {
            Grant::Files { path, write } => Some((grant, path.as_path(), *write)),
            Grant::Network => None,
        })
        .collect();
    files.sort();
    files.into_iter()
}

/// What the grant's path leads to, without rights to its contents.
///
/// # Errors
/// One sentence that names the grant.
pub(crate) fn open(grant: &Grant, path: &Path, judged: &[Judged]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(CWD, path, flags, Mode::empty(), resolve).map_err(|error| {
        let path = path.display();
        let why = match error {
            Errno::NOENT => format!("there is no `{path}`"),
            Errno::LOOP => format!(
                "`{path}` is or lies behind a symbolic link; grant the path that it leads to"
            ),
            error => format!("`{path}` cannot be reached: {error}"),
        };
        refused(grant, &why)
    })?;
    let judged = judged.iter().find(|it| it.path == path);
    if judged.is_some_and(|judged| Judged::of(path, &found).is_ok_and(|it| it != *judged)) {
        let why = format!(
            "`{}` was replaced after the host had judged it; reload the plugin",
            path.display()
        );
        return Err(refused(grant, &why));
    }
    Ok(found)
}

pub(crate) fn refused(grant: &Grant, why: &str) -> io::Error {
    io::Error::other(format!("`{grant}` is granted to it, but {why}"))
}

pub(crate) fn is_dir(file: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode).is_dir())
}

/// Checks that the process, as its current user, may do what was granted, so that wrong ownership
/// shows at the start and not at the thousandth call.
///
/// # Errors
/// One sentence that names the first grant that is worth nothing.
pub(crate) fn check(plan: &Plan) -> io::Result<()> {
    for (grant, path, write) in files(&plan.grants) {
        let mut access = Access::READ_OK;
        if is_dir(&open(grant, path, &plan.judged)?)? {
            access |= Access::EXEC_OK;
        }
        let may = |access| accessat(CWD, path, access, AtFlags::EACCESS);
        let what = match (may(access), write) {
            (Err(error), _) => Some(("read", error)),
            (Ok(()), true) => may(Access::WRITE_OK).err().map(|error| ("write", error)),
            (Ok(()), false) => None,
        };
        match what {
            None => {}
            Some((what, Errno::ACCESS)) => {
                let why = format!(
                    "user {user}, as whom its worker runs, may not {what} there; set `user` in its \
                     configuration and let the path belong to that user",
                    user = plan.user
                );
                return Err(refused(grant, &why));
            }
            Some((what, error)) => {
                return Err(refused(grant, &format!("it cannot {what} there: {error}")));
            }
        }
    }
    Ok(())
}

/// Landlock's names for what a grant permits. Nothing is ever executed or made a device.
pub(crate) fn access(abi: ABI, write: bool, is_dir: bool) -> BitFlags<AccessFs> {
    use landlock::Access as _;
    let never = AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    let access = if write {
        AccessFs::from_all(abi)
    } else {
        AccessFs::from_read(abi)
    };
    let access = access & !never;
    if is_dir {
        access
    } else {
        access & AccessFs::from_file(abi)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_path_replaced_after_its_judgement_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("tree");
        fs::create_dir(&path).unwrap();
        let grant = Grant::Files {
            path: path.clone(),
            write: false,
        };
        let judged = [Judged::of(&path, fs::File::open(&path).unwrap()).unwrap()];
        open(&grant, &path, &judged).unwrap();
        fs::create_dir(path.with_extension("new")).unwrap();
        fs::rename(path.with_extension("new"), &path).unwrap();
        let refused = open(&grant, &path, &judged).unwrap_err().to_string();
        assert!(refused.contains("was replaced"), "{refused}");
        open(&grant, &path, &[]).unwrap();
    }
}

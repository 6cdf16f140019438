//! Who can connect to the control socket: mode and group of the socket and its directory.
//!
//! They follow from `[[door.allow]]`. Without entries only the owner and root can connect. If the entries
//! name one group, and the host may hand files to it, its members can too; otherwise everybody can. In
//! every case the door decides by the credentials that the kernel reports for each peer.
//!
//! Absent on purpose: who may make which request.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
};

use hotmerge_daemon::config::{Allow, Principal};

/// Who must be able to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    /// The host's own user, and root, whom no mode restricts.
    Owner,
    /// Also the members of this group.
    Group(u32),
    Everybody,
}

impl Audience {
    fn of(allow: &[Allow]) -> Self {
        let mut audience = Self::Owner;
        for entry in allow {
            audience = match (audience, &entry.principal) {
                (Self::Owner, Principal::Group(group)) => Self::Group(*group),
                (Self::Group(one), Principal::Group(other)) if one == *other => audience,
                // These connect over HTTP.
                (_, Principal::Token(_) | Principal::Anybody) => audience,
                _ => return Self::Everybody,
            };
        }
        audience
    }

    fn socket_mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group(_) => 0o660,
            Self::Everybody => 0o666,
        }
    }

    /// The mode bits by which it can enter a directory.
    fn passage(self) -> u32 {
        match self {
            Self::Owner => 0,
            Self::Group(_) => 0o010,
            Self::Everybody => 0o011,
        }
    }
}

/// The changes that let others connect.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Mode and group of the directory before they were changed.
    before: Option<(u32, u32)>,
    /// The audience that was wanted when others were let in last, and the one that it became.
    applied: Option<(Audience, Audience)>,
    /// Why others cannot connect, as it was logged.
    trouble: Option<String>,
}

impl Reach {
    /// Sets modes and groups.
    ///
    /// # Errors
    /// Only if the socket cannot be protected from others. If others cannot connect, that is logged.
    pub(super) fn apply(&mut self, socket: &Path, allow: &[Allow]) -> io::Result<()> {
        let wanted = Audience::of(allow);
        let standing = self.standing(socket, wanted);
        if standing.is_none() {
            // Nobody can connect during the change.
            set_mode(socket, Audience::Owner.socket_mode())?;
        }
        let Some(dir) = socket.parent() else {
            return Ok(());
        };
        let opened = match (standing, wanted) {
            // Whoever may connect is not turned away where nothing changes.
            (Some(audience), _) => Ok(audience),
            (None, Audience::Owner) => {
                self.narrow(dir);
                return Ok(());
            }
            (None, Audience::Group(group)) => self
                .open(dir, socket, wanted, Some(group))
                // Only members of a group can hand files to it.
                .or_else(|_| self.open(dir, socket, Audience::Everybody, None)),
            (None, Audience::Everybody) => self.open(dir, socket, wanted, None),
        };
        let trouble = match opened {
            Ok(audience) => {
                self.applied = Some((wanted, audience));
                blocked_above(dir, audience)
            }
            Err(error) => Some(format!(
                "failed to open `{}` to them: {error}",
                dir.display()
            )),
        };
        if let Some(why) = &trouble
            && self.trouble != trouble
        {
            tracing::warn!(target: "hotmerge::door", "users named in `door.allow` cannot reach the control socket: {why}");
        }
        self.trouble = trouble;
        Ok(())
    }

    /// Who can connect, if modes and groups are still as an earlier call for this audience left them.
    fn standing(&self, socket: &Path, wanted: Audience) -> Option<Audience> {
        let (_, audience) = self.applied.filter(|(of, _)| *of == wanted)?;
        let mode = |path: &Path| {
            let found = fs::symlink_metadata(path).ok()?;
            let is_theirs = match audience {
                Audience::Group(group) => found.gid() == group,
                Audience::Owner | Audience::Everybody => true,
            };
            is_theirs.then_some(found.mode() & 0o7777)
        };
        let passage = audience.passage();
        let is_open =
            mode(socket)? == audience.socket_mode() && mode(socket.parent()?)? & passage == passage;
        is_open.then_some(audience)
    }

    fn open(
        &mut self,
        dir: &Path,
        socket: &Path,
        audience: Audience,
        group: Option<u32>,
    ) -> io::Result<Audience> {
        let found = fs::symlink_metadata(dir)?;
        let (mode, gid) = (found.mode() & 0o7777, found.gid());
        if let Some(group) = group {
            if gid != group {
                chown(dir, None, Some(group))?;
            }
            chown(socket, None, Some(group))?;
        }
        if mode & audience.passage() != audience.passage() {
            set_mode(dir, mode | audience.passage())?;
        }
        self.before.get_or_insert((mode, gid));
        set_mode(socket, audience.socket_mode())?;
        Ok(audience)
    }

    /// Restores the directory's mode if this host has changed it.
    fn narrow(&mut self, dir: &Path) {
        self.trouble = None;
        self.applied = None;
        let Some((mode, group)) = self.before.take() else {
            return;
        };
        let closed = chown(dir, None, Some(group)).and_then(|()| set_mode(dir, mode));
        if let Err(error) = closed {
            // The socket's own mode still keeps others out.
            tracing::warn!(target: "hotmerge::door", "failed to close `{}` again: {error}", dir.display());
        }
    }
}

/// The first directory above this one that the audience cannot enter.
fn blocked_above(dir: &Path, audience: Audience) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let blocking = dir.ancestors().skip(1).find(|above| {
        fs::metadata(above).is_ok_and(|found| match audience {
            Audience::Group(group) if found.gid() == group => found.mode() & 0o010 == 0,
            _ => found.mode() & 0o001 == 0,
        })
    })?;
    Some(format!(
        "`{}` lets no other user pass; choose another `runtime_dir`",
        blocking.display()
    ))
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(who: &[&str]) -> Vec<Allow> {
        let entries = who
            .iter()
            .map(|who| format!("[[allow]]\n{who}\nrole = \"read\"\n"));
        let text: String = entries.collect();
        let config: hotmerge_daemon::config::DoorConfig = toml::from_str(&text).unwrap();
        config.allow
    }

    #[test]
    fn the_audience_is_no_wider_than_the_entries() {
        let of = |who: &[&str]| Audience::of(&allow(who));
        assert_eq!(of(&[]), Audience::Owner);
        assert_eq!(of(&["group = 7"]), Audience::Group(7));
        assert_eq!(of(&["group = 7", "group = 7"]), Audience::Group(7));
        assert_eq!(of(&["group = 7", "group = 8"]), Audience::Everybody);
        assert_eq!(of(&["user = 7"]), Audience::Everybody);
        assert_eq!(of(&["group = 7", "user = 7"]), Audience::Everybody);
    }

    #[test]
    fn modes_follow_the_entries_both_ways() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("run");
        fs::create_dir(&dir).unwrap();
        set_mode(&dir, 0o700).unwrap();
        let socket = dir.join("control.sock");
        fs::write(&socket, "").unwrap();
        let modes = || [&dir, &socket].map(|it| fs::metadata(it).unwrap().mode() & 0o7777);
        let mut reach = Reach::default();
        let own_group = format!("group = {}", fs::metadata(&dir).unwrap().gid());
        for (who, expected) in [
            (&[][..], [0o700, 0o600]),
            (&[own_group.as_str()], [0o710, 0o660]),
            (&["user = 7"], [0o711, 0o666]),
            (&[], [0o700, 0o600]),
        ] {
            reach.apply(&socket, &allow(who)).unwrap();
            assert_eq!(modes(), expected, "{who:?}");
        }
    }

    #[test]
    fn nobody_is_turned_away_where_nothing_changes() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        fs::write(&socket, "").unwrap();
        let mut reach = Reach::default();
        let everybody = allow(&["user = 7"]);
        reach.apply(&socket, &everybody).unwrap();
        let changed = || fs::metadata(&socket).map(|it| (it.ctime(), it.ctime_nsec()));
        let before = changed().unwrap();
        reach.apply(&socket, &everybody).unwrap();
        assert_eq!(changed().unwrap(), before);
        set_mode(&socket, 0o600).unwrap();
        reach.apply(&socket, &everybody).unwrap();
        assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o666);
    }
}

//! Files that another user could have written are distinguished from those that none could.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
};

use hotmerge_meta::{ReadError, Trust, Untrusted, read_trusted, trust::shell_quoted};
use rustix::process::geteuid;
use tempfile::TempDir;

/// A user who is neither root nor the one who runs the tests.
const STRANGER: u32 = 64_321;

/// A file with two directories above it.
struct Tree {
    dir: TempDir,
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("one/two")).unwrap();
        fs::write(dir.path().join("one/two/file"), "text").unwrap();
        for name in ["", "one", "one/two"] {
            fs::set_permissions(dir.path().join(name), Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(
            dir.path().join("one/two/file"),
            Permissions::from_mode(0o644),
        )
        .unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        // The directory for temporary files may lie behind a link itself.
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    fn check(&self, name: &str) -> Result<(), Untrusted> {
        check(&self.path(name))
    }
}

fn check(path: &Path) -> Result<(), Untrusted> {
    Trust::own().check_way(File::open(path).unwrap(), path)
}

fn refused(result: Result<(), Untrusted>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn files_nobody_else_may_write_are_trusted() {
    let tree = Tree::new();
    tree.check("one/two/file").unwrap();
    tree.check("one/two").unwrap();
    tree.check("one/../one/./two/file").unwrap();
    check(Path::new("/")).unwrap();
    check(Path::new(".")).unwrap();
}

#[test]
fn writable_files_and_parents_are_named_with_remedy() {
    for (name, mode, told) in [
        ("one/two/file", 0o664, 0o664),
        ("one/two/file", 0o646, 0o646),
        ("one/two", 0o775, 0o775),
        ("one", 0o757, 0o757),
        ("one", 0o777, 0o777),
    ] {
        let tree = Tree::new();
        tree.set_mode(name, mode);
        let path = tree.path(name);
        let path = path.display();
        let owner = geteuid().as_raw();
        assert_eq!(
            refused(tree.check("one/two/file")),
            format!(
                "`{path}` is not safe: others may write to it (owner {owner}, mode {told:04o}); \
                 run `chmod go-w {path}`"
            )
        );
    }
}

#[test]
fn a_sticky_directory_is_trusted_only_as_parent() {
    let tree = Tree::new();
    tree.set_mode("one", 0o1777);
    tree.check("one/two/file").unwrap();
    // Anybody can put a package into it.
    let said = refused(tree.check("one"));
    assert!(said.contains("mode 1777"), "{said}");
}

#[test]
fn an_access_list_shows_as_its_mask() {
    let tree = Tree::new();
    let granted = std::process::Command::new("setfacl")
        .args(["-m", "u:64321:rw"])
        .arg(tree.path("one/two/file"))
        .status();
    if !granted.is_ok_and(|status| status.success()) {
        // The mask is in the group's bits wherever there are such lists.
        tree.set_mode("one/two/file", 0o664);
    }
    let said = refused(tree.check("one/two/file"));
    assert!(said.contains("mode 0664"), "{said}");
}

#[test]
fn each_link_of_a_path_is_judged() {
    let tree = Tree::new();
    fs::create_dir(tree.path("open")).unwrap();
    symlink("../one/two", tree.path("open/link")).unwrap();
    symlink(tree.path("open/link"), tree.path("far")).unwrap();
    tree.check("open/link/file").unwrap();
    tree.check("far/file").unwrap();
    // A user who may replace the link decides where it leads.
    tree.set_mode("open", 0o777);
    for name in ["open/link/file", "far/file"] {
        let said = refused(tree.check(name));
        assert!(said.contains("/open` is not safe"), "{said}");
    }
    symlink("circle", tree.path("circle")).unwrap();
    let any = File::open("/").unwrap();
    let said = refused(Trust::own().check_way(any, &tree.path("circle")));
    assert!(said.contains("Too many levels"), "{said}");
}

#[test]
fn another_file_than_the_opened_one_is_refused() {
    let tree = Tree::new();
    let path = tree.path("one/two/file");
    let opened = File::open(&path).unwrap();
    fs::write(tree.path("new"), "other").unwrap();
    fs::rename(tree.path("new"), &path).unwrap();
    let said = refused(Trust::own().check_way(&opened, &path));
    assert!(
        said.ends_with("was replaced while it was examined"),
        "{said}"
    );
}

#[test]
fn descriptors_of_the_kernel_are_judged_themselves() {
    let file = tempfile::tempfile().unwrap();
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    check(Path::new(&path)).unwrap();
}

#[test]
fn files_of_other_users_are_refused() {
    if !geteuid().is_root() {
        // Only root can give a file away; everything that root owns is believed.
        return check(Path::new("/etc")).unwrap();
    }
    for name in ["one/two/file", "one/two", "one"] {
        let tree = Tree::new();
        chown(tree.path(name), Some(STRANGER), None).unwrap();
        let path = tree.path(name);
        let said = refused(tree.check("one/two/file"));
        assert!(
            said.contains("it belongs to another user (owner 64321"),
            "{said}"
        );
        let command = format!("run `chown 0 {}`", path.display());
        assert!(said.ends_with(&command), "{said}");
        Trust::own()
            .and(STRANGER)
            .check_way(
                File::open(tree.path("one/two/file")).unwrap(),
                &tree.path("one/two/file"),
            )
            .unwrap();
    }
    let tree = Tree::new();
    symlink("one", tree.path("link")).unwrap();
    std::os::unix::fs::lchown(tree.path("link"), Some(STRANGER), None).unwrap();
    let said = refused(tree.check("link/two/file"));
    assert!(said.contains("chown -h 0 "), "{said}");
    let tree = Tree::new();
    chown(tree.path("one"), Some(STRANGER), None).unwrap();
    tree.set_mode("one", 0o1777);
    let said = refused(tree.check("one/two/file"));
    assert!(said.contains(" && chmod go-w "), "{said}");
}

#[test]
fn without_requirements_everybody_is_trusted() {
    let tree = Tree::new();
    tree.set_mode("one", 0o777);
    let path = tree.path("one/two/file");
    Trust::anybody()
        .check_way(File::open(&path).unwrap(), &path)
        .unwrap();
}

#[test]
fn the_read_descriptor_itself_is_judged() {
    let tree = Tree::new();
    let dir = File::open(tree.path("one/two")).unwrap();
    let read = || read_trusted(&dir, "file", 10, &Trust::own());
    assert_eq!(read().unwrap().0, b"text");
    tree.set_mode("one/two/file", 0o666);
    let error = read().unwrap_err();
    assert!(matches!(error, ReadError::Untrusted(_)), "{error}");
    let named = format!("run `chmod go-w {}`", tree.path("one/two/file").display());
    assert!(error.to_string().ends_with(&named), "{error}");
}

#[test]
fn commands_are_quoted_for_a_shell() {
    assert_eq!(shell_quoted(Path::new("/a/b-1.c")), "/a/b-1.c");
    assert_eq!(
        shell_quoted(Path::new("/a b/it's;$x")),
        r"'/a b/it'\''s;$x'"
    );
}

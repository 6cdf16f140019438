//! Files that an operator grants to a plugin.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::PathBuf,
};

use crate::{Lab, Neighbour, TestHost, actor, hosts_are_ordinary, reader};

/// The user that may write, where the host is root. Nobody else's, we hope; nothing is asked of
/// it but numbers.
const WRITER: u32 = 0x6d65_7267;

/// A tree to be granted to the fixture `reader`, with a file in it and one beside it.
#[derive(Debug)]
pub struct Ground {
    /// Where the host is.
    pub lab: Lab,
    /// The tree, with the file `deep/file` in it.
    pub tree: PathBuf,
    /// The file beside it.
    pub secret: PathBuf,
}

impl Default for Ground {
    fn default() -> Self {
        Self::new()
    }
}

impl Ground {
    /// The tree, and the plugin in place beside one that nobody attacks.
    ///
    /// # Panics
    /// If there is no place for temporary files.
    pub fn new() -> Self {
        let lab = Lab::new();
        lab.package("reader").put(&[&reader()]);
        lab.package("good").put(&[&actor("mark=1")]);
        let (tree, secret) = (lab.path("data/tree"), lab.path("data/secret"));
        fs::create_dir_all(tree.join("deep")).expect("the test's own directory");
        fs::write(tree.join("deep/file"), "granted").expect("the test's own directory");
        fs::write(&secret, "secret").expect("the test's own directory");
        for path in [&tree, &tree.join("deep")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))
                .expect("the test's own directory");
        }
        Self { lab, tree, secret }
    }

    /// A path in the tree, or the tree itself.
    ///
    /// # Panics
    /// If it is not text.
    pub fn tree(&self, path: &str) -> String {
        self.tree
            .join(path)
            .to_str()
            .expect("it is text")
            .to_owned()
    }

    /// A host that grants these; `None`, and a recorded skip, where there is no complete sandbox.
    #[track_caller]
    pub fn start(&self, grants: &[String], more: &str) -> Option<TestHost> {
        let own = format!("[plugin.reader]\nallow = {grants:?}\n{more}");
        self.lab.start_sandboxed(&own)
    }

    /// The plugin beside the one that is to break out.
    #[track_caller]
    pub fn neighbour(host: &TestHost) -> Neighbour {
        Neighbour::of(host, "actor", "mark")
    }

    /// The grant of a path in the tree.
    pub fn grant(&self, path: &str, mode: &str) -> String {
        format!("fs:{}:{mode}", self.tree(path).trim_end_matches('/'))
    }

    /// Lets the tree belong to the one who may write in it; lines that say so.
    pub fn give_away(&self) -> String {
        if hosts_are_ordinary() {
            return String::new();
        }
        for path in ["", "deep", "deep/file"] {
            // A root without other users cannot, and has no whole sandbox either.
            let _ = chown(self.tree(path), Some(WRITER), Some(WRITER));
        }
        format!("user = {WRITER}\n")
    }
}

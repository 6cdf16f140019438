//! A plugin of this repository's samples, to be changed and built by the driver.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use hotmerge_tests::{Driver, Lab, repository, scratch, skipped};
use tempfile::TempDir;

/// Copies of folders of this repository; the first is the plugin's.
pub struct Sample {
    dir: TempDir,
    folder: &'static str,
}

impl Sample {
    pub fn new(folders: &[&'static str]) -> Self {
        let dir = TempDir::new().expect("there is room for sources");
        for folder in folders {
            copy(&repository().join(folder), &dir.path().join(folder));
        }
        Self {
            dir,
            folder: folders[0],
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(self.folder).join(file)
    }

    /// Adds a file.
    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).expect("the test's own directory");
    }

    /// Changes a file.
    #[track_caller]
    pub fn edit(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(file)).expect("the sample has it");
        assert!(text.contains(from), "no `{from}` in:\n{text}");
        self.write(file, &text.replace(from, to));
    }

    /// The driver, which stages into the plugin directory of a lab and tells its host.
    pub fn driver(&self, lab: &Lab) -> Driver {
        let target = self.dir.path().join("target");
        let manifest = self.path("Cargo.toml");
        Driver::new(&manifest, &lab.plugin_dir(), &target)
            .arguments([
                OsStr::new("--runtime-dir"),
                lab.runtime_dir().path().as_os_str(),
            ])
            // Go keeps what it built, and asks nobody else.
            .env("GOCACHE", scratch().join("go"))
            .env("GOPROXY", "off")
            .env("GOFLAGS", "")
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the test's own directory");
    for entry in fs::read_dir(from).expect("the sample is there") {
        let entry = entry.expect("the directory can be read");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        // What an author built there is not of the sample.
        if entry.file_name() == "target" {
            continue;
        }
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).expect("the test's own directory");
        }
    }
}

/// Whether there is Go; told where there is none.
pub fn has_go() -> bool {
    let found = Command::new("go").arg("version").output();
    let is_there = found.is_ok_and(|output| output.status.success());
    if !is_there {
        skipped("there is no Go on this machine");
    }
    is_there
}

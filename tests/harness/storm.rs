//! Processes that change many packages as fast as they can.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{ChildStdout, Command, Stdio},
    sync::LazyLock,
};

use hotmerge_meta::Meta;

use crate::{Lab, Process, SOON, TestHost, Variant, programs};

/// Number of packages.
const PACKAGES: u64 = 200;
/// Number of processes.
const PROCESSES: u64 = 4;

/// The first number that is written; all have as many digits.
const START: u64 = 1_000_000_000;

static STORM: LazyLock<PathBuf> =
    LazyLock::new(|| programs::example_of("hotmerge-fanotify", "storm"));

/// The number that each package was given last.
pub type Numbers = BTreeMap<String, u64>;

/// A plugin directory with many packages that several processes write at once. No package has a
/// plugin that could start: what the host knows of each is the version that its meta says.
#[derive(Debug)]
pub struct Storm {
    lab: Lab,
    template: PathBuf,
    next: u64,
    numbers: Numbers,
}

impl Storm {
    /// Nothing is written yet.
    ///
    /// # Panics
    /// If the test's own directory cannot be written.
    pub fn new(lab: Lab, variant: &Variant) -> Self {
        let mut meta = variant.meta.clone();
        meta.name = "subject".parse().expect("it is a name");
        meta.file = "junk.so".parse().expect("it is a name");
        meta.version = format!("1.0.{START}").parse().expect("it is a version");
        meta.hash = format!("sha256:{:0>64}", START).parse().expect("digits");
        let meta = Meta::new(vec![meta]).expect("one plugin is enough");
        let template = lab.path("template");
        fs::write(&template, meta.to_toml()).expect("the test's own directory");
        Self {
            lab,
            template,
            next: START,
            numbers: Numbers::new(),
        }
    }

    /// Where it rages.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Writes about so many times, and waits for the end.
    ///
    /// # Panics
    /// If a process fails.
    pub fn rage(&mut self, writes: u64) {
        let own = (writes / PROCESSES).max(1);
        let processes = (0..PROCESSES).map(|first| {
            let numbers = [PACKAGES, first, PROCESSES, own, self.next + first * own];
            let mut command = Command::new(&*STORM);
            command
                .arg(self.lab.plugin_dir())
                .args(numbers.map(|number| number.to_string()))
                .arg(&self.template)
                .stdout(Stdio::piped());
            command.spawn().expect("it is built")
        });
        let processes: Vec<_> = processes.collect();
        self.next += own * PROCESSES;
        for process in processes {
            let output = process.wait_with_output().expect("it is a child");
            assert!(output.status.success(), "{output:?}");
            let said = String::from_utf8(output.stdout).expect("it is text");
            self.numbers.extend(said.lines().map(|line| {
                let (name, number) = line.split_once(' ').expect("a name and a number");
                (name.to_owned(), number.parse().expect("a number"))
            }));
        }
    }

    /// A process that writes until it is stopped, and the only reader of its final output.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn endless(&self) -> (Process, ChildStdout) {
        let mut command = Command::new(&*STORM);
        command
            .arg(self.lab.plugin_dir())
            .args([PACKAGES, 0, 1, 1 << 40, self.next].map(|number| number.to_string()))
            .arg(&self.template)
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command);
        let output = process.child().stdout.take().expect("it is a pipe");
        (process, output)
    }

    /// Waits until the host knows what was written last to each package.
    ///
    /// # Panics
    /// If it misses one.
    #[track_caller]
    pub fn is_known_to(&self, host: &TestHost) {
        let deadline = std::time::Instant::now() + SOON;
        loop {
            let status = host.status();
            let missed: Vec<_> = self
                .numbers
                .iter()
                .filter(|(name, number)| {
                    let plugin = status.plugins.iter().find(|it| it.name == **name);
                    let version = plugin.and_then(|it| it.version.as_deref());
                    version != Some(&format!("1.0.{number}"))
                })
                .collect();
            if missed.is_empty() {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "{} of {} packages were missed: {missed:?}; {:#?}",
                missed.len(),
                self.numbers.len(),
                status.host
            );
        }
    }
}

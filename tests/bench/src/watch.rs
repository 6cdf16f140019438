//! What it costs to follow a storm of writes, and how soon a single change is known, by each kind of
//! watcher: beside `notify` alone, which only counts, and beside a bare loop of `stat`.
//!
//! `HOTMERGE_STORM` says how many writes a storm has.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hotmerge_daemon::{Host, Watch};
use hotmerge_meta::{Abi, Handover, Meta, PluginMeta, Wants};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use crate::{
    figure::{Figure, Figures, median, micros},
    subject::{self, Subject, host_with},
};

const PACKAGES: u64 = 200;
const PROCESSES: u64 = 4;
/// The first number of a storm, as its template has it.
const START: u64 = 1_000_000_000;
/// How often the directory is polled, by the host and by the loop of `stat`.
const POLL: Duration = Duration::from_millis(50);

/// What a host waits for at least after a hint, which may come before this program looks at the clock.
const SILENCE: Duration = Duration::from_millis(19);

const KINDS: [(&str, Watch); 4] = [
    ("inotify", Watch::Inotify),
    ("fanotify", Watch::Fanotify),
    ("both", Watch::Both),
    ("polling", Watch::Poll),
];

pub(crate) fn run(_: &Subject, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let writes = match env::var("HOTMERGE_STORM") {
        Ok(text) => text.parse().context("HOTMERGE_STORM is a number")?,
        Err(_) => 100_000,
    };
    let storm = Storm::build()?;
    let alone = follow(&storm, writes, &NotifyAlone::start)?;
    let stats = follow(&storm, writes, &StatLoop::start)?;
    for (name, followed) in [("notify alone", alone), ("a loop of stat", stats)] {
        tell(figures, writes, name, &followed, None)?;
    }
    for (name, watch) in KINDS {
        let start = |dir: &Path| -> anyhow::Result<Box<dyn Follower>> {
            Ok(Box::new(Following::start(dir, watch)?))
        };
        let followed = follow(&storm, writes, &start)?;
        tell(figures, writes, name, &followed, Some(alone.cpu))?;
        latency(&storm, rounds, name, watch, figures)?;
    }
    Ok(())
}

fn tell(
    figures: &mut Figures,
    writes: u64,
    name: &str,
    followed: &Followed,
    peer: Option<Duration>,
) -> anyhow::Result<()> {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    figures.tell(&Figure {
        bench: format!("{writes} writes, processor time of {name}"),
        unit: "ms",
        value: ms(followed.cpu),
        peer: peer.map(ms),
        ratio: peer.map(|peer| followed.cpu.as_secs_f64() / peer.as_secs_f64()),
        ..Figure::default()
    })?;
    figures.tell(&Figure {
        bench: format!("{writes} writes, the last known after, {name}"),
        unit: "ms",
        value: ms(followed.known_after),
        ..Figure::default()
    })?;
    figures.tell(&Figure {
        bench: format!("{writes} writes, growth of memory, {name}"),
        unit: "KiB",
        value: followed.growth_kib,
        ..Figure::default()
    })
}

/// What following a storm took.
#[derive(Clone, Copy)]
struct Followed {
    cpu: Duration,
    known_after: Duration,
    growth_kib: f64,
}

/// A program that follows what happens in a directory.
trait Follower {
    /// Whether it knows the last number of each package.
    fn knows(&self, numbers: &BTreeMap<String, u64>) -> bool;
}

fn follow(
    storm: &Storm,
    writes: u64,
    start: &dyn Fn(&Path) -> anyhow::Result<Box<dyn Follower>>,
) -> anyhow::Result<Followed> {
    let dir = TempDir::new()?;
    storm.rage(dir.path(), 2_000, START)?;
    let follower = start(dir.path())?;
    // What it needs once is not counted.
    let before = storm.rage(dir.path(), 2_000, START + 2_000)?;
    while !follower.knows(&before) {
        thread::yield_now();
    }
    let (began, memory) = (cpu()?, private_kib()?);
    let mut numbers = before;
    numbers.extend(storm.rage(dir.path(), writes, START + 4_000)?);
    let ended = Instant::now();
    while !follower.knows(&numbers) {
        thread::yield_now();
    }
    Ok(Followed {
        known_after: ended.elapsed(),
        cpu: cpu()? - began,
        growth_kib: private_kib()? - memory,
    })
}

/// How soon a change that nobody announces is known.
fn latency(
    storm: &Storm,
    rounds: usize,
    name: &str,
    watch: Watch,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let dir = TempDir::new()?;
    storm.rage(dir.path(), 2_000, START)?;
    let following = Following::start(dir.path(), watch)?;
    let mut took = Vec::new();
    for round in 0..rounds as u64 {
        let number = START + 10_000 + round;
        let text = storm.text("p7", number)?;
        let wanted = BTreeMap::from([("p7".to_owned(), number)]);
        let (new, file) = (
            dir.path().join("p7/.new"),
            dir.path().join("p7/plugin.meta"),
        );
        fs::write(&new, text)?;
        fs::rename(new, file)?;
        let began = Instant::now();
        // Late events of the previous round do not belong to this one.
        while !following.knows(&wanted) {
            thread::yield_now();
        }
        let known = began.elapsed();
        anyhow::ensure!(
            watch == Watch::Poll || known >= SILENCE,
            "{name}: known after {known:?}, before the host scans"
        );
        took.push(micros(known));
        following.0.settle();
    }
    figures.tell(&Figure {
        bench: format!("one change of {PACKAGES} packages known after, {name}"),
        unit: "µs",
        value: median(took),
        ..Figure::default()
    })
}

struct Following(Host);

impl Following {
    fn start(dir: &Path, watch: Watch) -> anyhow::Result<Self> {
        let host = host_with(dir, |config| {
            config.watch = watch;
            config.rescan_s = 0;
            config.settle_ms = 1;
            config.poll_ms = POLL.as_millis() as u64;
        })?;
        Ok(Self(host))
    }
}

impl Follower for Following {
    fn knows(&self, numbers: &BTreeMap<String, u64>) -> bool {
        let plugins = self.0.status().plugins;
        let versions = plugins.into_iter().map(|it| (it.name, it.version));
        let versions: BTreeMap<_, _> = versions.collect();
        numbers.iter().all(|(name, number)| {
            let version = versions.get(name).and_then(Option::as_deref);
            version == Some(&format!("1.0.{number}"))
        })
    }
}

/// The library without a host: it receives every event and counts it.
struct NotifyAlone {
    _watcher: RecommendedWatcher,
}

impl NotifyAlone {
    fn start(dir: &Path) -> anyhow::Result<Box<dyn Follower>> {
        let events = AtomicU64::new(0);
        let mut watcher = notify::recommended_watcher(move |_| {
            events.fetch_add(1, Ordering::Relaxed);
        })?;
        watcher.watch(dir, RecursiveMode::Recursive)?;
        Ok(Box::new(Self { _watcher: watcher }))
    }
}

impl Follower for NotifyAlone {
    fn knows(&self, _: &BTreeMap<String, u64>) -> bool {
        true
    }
}

/// Looks at every file's stamp from time to time, and does nothing with it.
struct StatLoop {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StatLoop {
    fn start(dir: &Path) -> anyhow::Result<Box<dyn Follower>> {
        let found = stat_all(dir)?;
        anyhow::ensure!(found == PACKAGES, "{found} of {PACKAGES} metas are there");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, dir) = (Arc::clone(&stop), dir.to_owned());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // The directory itself stays.
                let _ = stat_all(&dir);
                thread::park_timeout(POLL);
            }
        });
        Ok(Box::new(Self {
            stop,
            thread: Some(thread),
        }))
    }
}

impl Follower for StatLoop {
    fn knows(&self, _: &BTreeMap<String, u64>) -> bool {
        true
    }
}

/// Looks at the stamp of each package's meta; how many there are. One that is being replaced is not there.
fn stat_all(dir: &Path) -> anyhow::Result<u64> {
    let root = fs::File::open(dir)?;
    let mut found = 0;
    for entry in fs::read_dir(dir)? {
        let meta = Path::new(&entry?.file_name()).join("plugin.meta");
        found += u64::from(hotmerge_meta::stamp(&root, meta).is_ok());
    }
    Ok(found)
}

impl Drop for StatLoop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has nothing to panic of.
            let _ = thread.join();
        }
    }
}

/// The processes that write.
struct Storm {
    program: PathBuf,
    template: PathBuf,
    _dir: TempDir,
}

impl Storm {
    fn build() -> anyhow::Result<Self> {
        let program = subject::example("hotmerge-fanotify", "storm")?;
        let dir = TempDir::new()?;
        let template = dir.path().join("template");
        let meta = Meta::new(vec![PluginMeta {
            name: "subject".parse()?,
            version: format!("1.0.{START}").parse()?,
            file: "junk.so".parse()?,
            hash: format!("sha256:{START:0>64}").parse()?,
            size: 4,
            abi: Abi::CURRENT,
            target: hotmerge_daemon::TARGET.to_owned(),
            handover: Handover::default(),
            requires: Vec::new(),
            wants: Wants::default(),
        }])?;
        fs::write(&template, meta.to_toml())?;
        Ok(Self {
            program,
            template,
            _dir: dir,
        })
    }

    fn text(&self, package: &str, number: u64) -> anyhow::Result<String> {
        let text = fs::read_to_string(&self.template)?;
        let text = text.replace(&START.to_string(), &number.to_string());
        Ok(text.replace("subject", package))
    }

    /// Writes from a number on, and returns the last one of each package.
    fn rage(&self, dir: &Path, writes: u64, from: u64) -> anyhow::Result<BTreeMap<String, u64>> {
        let own = writes / PROCESSES;
        let processes = (0..PROCESSES).map(|first| {
            let numbers = [PACKAGES, first, PROCESSES, own, from + first * own];
            let mut command = Command::new(&self.program);
            command
                .arg(dir)
                .args(numbers.map(|number| number.to_string()))
                .arg(&self.template)
                .stdout(Stdio::piped());
            command.spawn()
        });
        let mut last = BTreeMap::new();
        for process in processes.collect::<Result<Vec<_>, _>>()? {
            let output = process.wait_with_output()?;
            anyhow::ensure!(output.status.success(), "a storm failed: {output:?}");
            for line in String::from_utf8(output.stdout)?.lines() {
                let (name, number) = line.split_once(' ').context("a name and a number")?;
                last.insert(name.to_owned(), number.parse()?);
            }
        }
        Ok(last)
    }
}

/// The processor time of this process, without its children's.
fn cpu() -> anyhow::Result<Duration> {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Ok(Duration::new(
        time.tv_sec.try_into()?,
        time.tv_nsec.try_into()?,
    ))
}

fn private_kib() -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    Ok(kib.context("the kernel tells")?.trim().parse()?)
}

//! What a sandboxed plugin costs: a round trip, a start, the way back from a crash, memory and a
//! reload, beside what no call between processes can be faster than and what others do.
//!
//! Floors and peers run in child processes of their own, as the plugin does.

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hotmerge_daemon::{
    Call, Config, Host, Plugin, Reply, config::Isolation, context, status::WorkerStatus,
};
use hotmerge_meta::control::ReloadParams;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tempfile::TempDir;

use crate::{
    figure::{Figure, Figures, median, micros, time},
    subject::{Subject, host_with, program, stage},
};

mod grpc;
pub(crate) mod peer;
mod ping_pong;

/// Calls of one turn: some milliseconds.
const CALLS: usize = 2_000;
const WARM_UP: usize = 200;
/// How long nothing is to happen.
const REST: Duration = Duration::from_secs(2);

pub(crate) fn run(subject: &Subject, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let worker = program("hotmerge-worker", "hotmerge-worker")?;
    round_trips(subject, &worker, rounds, figures)?;
    crashes(subject, &worker, rounds, figures)?;
    reloads(subject, &worker, rounds, figures)
}

fn sandboxed(worker: &Path) -> impl FnOnce(&mut Config) {
    let worker = worker.to_owned();
    move |config| {
        config.isolation = Some(Isolation::Process);
        config.worker = Some(worker);
        config.restart.most = u32::MAX;
        config.restart.pause_ms = 0;
    }
}

/// The plugin in a worker of its own.
fn start(subject: &Subject, worker: &Path) -> anyhow::Result<(TempDir, Host, Arc<Plugin>)> {
    let dir = TempDir::new()?;
    stage(dir.path(), "subject", &subject.variants[0])?;
    let host = host_with(dir.path(), sandboxed(worker))?;
    let plugin = host.plugin("subject").context("the plugin is not loaded")?;
    Ok((dir, host, plugin))
}

/// One turn: how long each call took, sorted.
fn turn(mut call: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<Duration>> {
    for _ in 0..WARM_UP {
        call()?;
    }
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let began = Instant::now();
        call()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn at(times: &[Duration], percent: usize) -> f64 {
    micros(times[times.len() * percent / 100])
}

/// Threads that want all of every core's time, until dropped.
struct Load {
    goes_on: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn on_every_core() -> anyhow::Result<Self> {
        let goes_on = Arc::new(AtomicBool::new(true));
        let cores = thread::available_parallelism()?.get();
        let busy = |_| {
            let goes_on = Arc::clone(&goes_on);
            thread::spawn(move || while goes_on.load(Ordering::Relaxed) {})
        };
        let threads = (0..cores).map(busy).collect();
        Ok(Self { goes_on, threads })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.goes_on.store(false, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It cannot have panicked.
            let _ = thread.join();
        }
    }
}

fn round_trips(
    subject: &Subject,
    worker: &Path,
    rounds: usize,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let (_dir, _host, plugin) = start(subject, worker)?;
    let futex = ping_pong::Futex::start(false)?;
    let carrying = ping_pong::Futex::start(true)?;
    let mut socket = ping_pong::Socket::start()?;
    let grpc = grpc::Client::start()?;
    let context = context(None);
    let mut reply = Reply::default();
    let mut measure = |rounds: usize| -> anyhow::Result<[[Vec<f64>; 5]; 2]> {
        let mut values: [[Vec<f64>; 5]; 2] = Default::default();
        for _ in 0..rounds {
            let turns = [
                turn(|| {
                    plugin.call(&Call::new(&context, "nothing", &[0; 16]), &mut reply)?;
                    Ok(())
                })?,
                turn(|| {
                    futex.ask();
                    Ok(())
                })?,
                turn(|| {
                    carrying.ask();
                    Ok(())
                })?,
                turn(|| socket.ask())?,
                turn(|| grpc.ask())?,
            ];
            for (percent, values) in [50, 99].into_iter().zip(&mut values) {
                for (times, values) in turns.iter().zip(values) {
                    values.push(at(times, percent));
                }
            }
        }
        Ok(values)
    };
    tell_round_trips("worker call", measure(rounds)?, figures)?;
    let _load = Load::on_every_core()?;
    tell_round_trips("worker call on busy cores", measure(rounds)?, figures)
}

fn tell_round_trips(
    bench: &str,
    values: [[Vec<f64>; 5]; 2],
    figures: &mut Figures,
) -> anyhow::Result<()> {
    for (name, [hotmerge, futex, carrying, socket, grpc]) in ["p50", "p99"].into_iter().zip(values)
    {
        let value = median(hotmerge.clone());
        let ratio = |others: &[f64]| {
            let ratios = hotmerge.iter().zip(others).map(|(own, other)| own / other);
            Some(median(ratios.collect()))
        };
        for (what, others, is_floor) in [
            ("futex ping-pong", futex, true),
            ("futex ping-pong with as much", carrying, true),
            ("Unix socket ping-pong", socket, true),
            ("gRPC over a Unix socket", grpc, false),
        ] {
            let other = Some(median(others.clone()));
            figures.tell(&Figure {
                bench: format!("{bench} {name}, against {what}"),
                unit: "µs",
                value,
                floor: other.filter(|_| is_floor),
                peer: other.filter(|_| !is_floor),
                ratio: ratio(&others),
            })?;
        }
    }
    Ok(())
}

/// The worker of the one plugin.
fn worker_of(host: &Host) -> anyhow::Result<WorkerStatus> {
    let status = host.status();
    let plugin = status.plugins.into_iter().next();
    plugin
        .and_then(|plugin| plugin.worker)
        .context("it has no worker")
}

fn pid(host: &Host) -> anyhow::Result<i32> {
    worker_of(host)?.pid.context("its worker does not run")
}

fn start_ms(host: &Host) -> anyhow::Result<f64> {
    Ok(worker_of(host)?.start_ms)
}

/// Kills the worker, and takes the time until another answers: noticed, spawned, sandboxed, loaded
/// and started.
fn crashes(
    subject: &Subject,
    worker: &Path,
    rounds: usize,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let (_dir, host, plugin) = start(subject, worker)?;
    let context = context(None);
    let mut reply = Reply::default();
    let [mut started, mut bare, mut died, mut served] = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        plugin.call(&Call::new(&context, "nothing", &[]), &mut reply)?;
        let process = Pid::from_raw(pid(&host)?).context("it is a process")?;
        let process = pidfd_open(process, PidfdFlags::empty())?;
        let began = Instant::now();
        pidfd_send_signal(&process, Signal::KILL)?;
        let mut ends = [PollFd::new(&process, PollFlags::IN)];
        // A signal may report its end as well.
        retry_on_intr(|| poll(&mut ends, None))?;
        let dead = began.elapsed();
        // From here on another worker answers.
        while plugin
            .call(&Call::new(&context, "nothing", &[]), &mut reply)
            .is_err()
        {}
        let whole = began.elapsed();
        started.push(start_ms(&host)? * 1e3);
        // What the system needs for any process.
        let (took, status) = time(|| Command::new("true").status());
        anyhow::ensure!(status?.success(), "`true` fails");
        bare.push(micros(took));
        died.push(micros(whole.saturating_sub(dead)));
        served.push(micros(whole));
    }
    let ratios = started.iter().zip(&bare).map(|(own, bare)| own / bare);
    let ratio = Some(median(ratios.collect()));
    figures.tell(&Figure {
        bench: "worker spawned to ready, against running `true`".to_owned(),
        unit: "µs",
        value: median(started.clone()),
        floor: Some(median(bare.clone())),
        ratio,
        ..Figure::default()
    })?;
    for (what, values) in [
        ("worker dead to first reply of the next", died),
        ("worker killed to first reply of the next", served),
    ] {
        figures.tell(&Figure {
            bench: what.to_owned(),
            unit: "µs",
            value: median(values),
            ..Figure::default()
        })?;
    }
    at_rest(pid(&host)?, figures)?;
    let (whole, own) = private_kib(pid(&host)?)?;
    figures.tell(&Figure {
        bench: "worker memory, private, beyond the plugin".to_owned(),
        unit: "KiB",
        value: whole - own,
        ..Figure::default()
    })
}

/// How often anything of host and worker runs while nobody calls.
fn at_rest(worker: i32, figures: &mut Figures) -> anyhow::Result<()> {
    // What the last call left to do is done by then.
    lives_on(worker)?;
    let before = switches(worker)?;
    lives_on(worker)?;
    let after = switches(worker)?;
    // This thread waits once itself.
    let turns = (after - before).saturating_sub(1);
    figures.tell(&Figure {
        bench: "wake-ups of host and worker at rest".to_owned(),
        unit: "1/s",
        value: turns as f64 / REST.as_secs_f64(),
        ..Figure::default()
    })
}

/// Waits for a worker's end, which must not come while nobody does anything.
fn lives_on(worker: i32) -> anyhow::Result<()> {
    let worker = Pid::from_raw(worker).context("it is a process")?;
    let worker = pidfd_open(worker, PidfdFlags::empty())?;
    let rest = Timespec::try_from(REST)?;
    let mut ends = [PollFd::new(&worker, PollFlags::IN)];
    let ended = retry_on_intr(|| poll(&mut ends, Some(&rest)))?;
    anyhow::ensure!(ended == 0, "a worker at rest has ended");
    Ok(())
}

/// How often the threads of this process and of a worker went to sleep so far.
fn switches(worker: i32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pid in [std::process::id().to_string(), worker.to_string()] {
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = std::fs::read_to_string(task?.path().join("status"))?;
            let line = text
                .lines()
                .find_map(|it| it.strip_prefix("voluntary_ctxt_switches:"));
            sum += line.context("the kernel says it")?.trim().parse::<u64>()?;
        }
    }
    Ok(sum)
}

/// Private memory of a process, and what of it is the plugin's file.
fn private_kib(pid: i32) -> anyhow::Result<(f64, f64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut whole, mut own, mut is_own) = (0.0, 0.0, false);
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("Private_Clean:" | "Private_Dirty:") => {
                let kib: f64 = words.next().context("a number")?.parse()?;
                whole += kib;
                own += if is_own { kib } else { 0.0 };
            }
            Some(first) if !first.ends_with(':') => is_own = line.contains("/plugin.so"),
            _ => {}
        }
    }
    Ok((whole, own))
}

/// A reload in a worker and one in the host, in turns.
fn reloads(
    subject: &Subject,
    worker: &Path,
    rounds: usize,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let dirs = [TempDir::new()?, TempDir::new()?];
    for dir in &dirs {
        stage(dir.path(), "subject", &subject.variants[0])?;
    }
    let hosts = [
        host_with(dirs[0].path(), sandboxed(worker))?,
        host_with(dirs[1].path(), |_| ())?,
    ];
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        let variant = &subject.variants[(round + 1) % 2];
        for ((dir, host), times) in dirs.iter().zip(&hosts).zip(&mut times) {
            stage(dir.path(), "subject", variant)?;
            let (took, report) = time(|| host.reload(&ReloadParams::default()));
            anyhow::ensure!(report.plugins.len() == 1, "no reload: {report:?}");
            times.push(micros(took));
        }
    }
    let [sandboxed, inside] = times;
    let ratios = sandboxed
        .iter()
        .zip(&inside)
        .map(|(own, other)| own / other);
    let ratio = Some(median(ratios.collect()));
    figures.tell(&Figure {
        bench: "request to switch, sandboxed, against in the host".to_owned(),
        unit: "µs",
        value: median(sandboxed.clone()),
        floor: Some(median(inside.clone())),
        ratio,
        ..Figure::default()
    })
}

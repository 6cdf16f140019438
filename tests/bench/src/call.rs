//! What a call through the host costs over the same call of the same plugin through
//! `libloading`, from one thread and from two.

use std::{
    ffi::c_void,
    hint::black_box,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hotmerge_abi::{
    Bytes, CallContext, ENTRY_SYMBOL, HostTable, MediaTypes, PluginTable, Sink, Status,
};
use hotmerge_daemon::{Call, Plugin, Reply, context};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use tempfile::TempDir;

use crate::{
    figure::{Figure, Figures},
    subject::{Subject, host, stage},
};

/// Calls a batch: short enough to fit into one time slice of a busy machine.
const CALLS: u32 = 2_000;
const BATCHES_A_ROUND: usize = 50;
const METHOD: &str = "nothing";

pub(crate) fn run(subject: &Subject, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let dir = TempDir::new()?;
    stage(dir.path(), "subject", &subject.variants[0])?;
    let host = host(dir.path())?;
    let plugin = host.plugin("subject").context("the plugin is not loaded")?;
    let plain = Plain::load(subject)?;
    let batches = rounds * BATCHES_A_ROUND;
    for threads in [1, 2] {
        let (value, peer) = if threads == 1 {
            alone(batches, || through_host(&plugin), || plain.calls())
        } else {
            (
                beside(batches, || through_host(&plugin)),
                beside(batches, || plain.calls()),
            )
        };
        figures.tell(&Figure {
            bench: format!("call, {threads} thread(s), against libloading"),
            unit: "ns",
            value,
            peer: Some(peer),
            ratio: Some(value / peer),
            ..Figure::default()
        })?;
        figures.tell(&Figure {
            bench: format!("call overhead, {threads} thread(s)"),
            unit: "ns",
            value: value - peer,
            ..Figure::default()
        })?;
    }
    Ok(())
}

/// Both in turns on one thread.
fn alone(
    batches: usize,
    hosted: impl Fn() -> Duration,
    direct: impl Fn() -> Duration,
) -> (f64, f64) {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..batches {
        with.push(a_call(hosted()));
        without.push(a_call(direct()));
    }
    (undisturbed(with), undisturbed(without))
}

/// On this thread while another does the same; batches during which one of the two stood
/// still do not count.
fn beside(batches: usize, body: impl Fn() -> Duration + Sync) -> f64 {
    let done = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let mut times = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                body();
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        // On a busy machine the two seldom run side by side for a whole batch.
        for tried in 0..batches * 40 {
            if tried >= batches * 2 && times.len() >= batches / 10 {
                break;
            }
            let before = done.load(Ordering::Relaxed);
            let took = body();
            if (1..=2).contains(&(done.load(Ordering::Relaxed) - before)) {
                times.push(a_call(took));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    undisturbed(times)
}

fn a_call(batch: Duration) -> f64 {
    batch.as_secs_f64() * 1e9 / f64::from(CALLS)
}

/// The first decile: what a call costs when nothing else wants the processor.
fn undisturbed(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 10).copied().unwrap_or(f64::NAN)
}

fn through_host(plugin: &Plugin) -> Duration {
    let context = context(None);
    let mut reply = Reply::default();
    let began = Instant::now();
    for _ in 0..CALLS {
        let answered = plugin.call(&Call::new(&context, black_box(METHOD), &[]), &mut reply);
        black_box(&answered);
    }
    began.elapsed()
}

/// The same shared object, loaded and called with nothing in between.
struct Plain {
    table: *const PluginTable,
    instance: *mut c_void,
    // Keeps the table mapped.
    _library: Library,
}

// SAFETY: the contract lets every thread call an instance, several at once.
unsafe impl Sync for Plain {}

impl Plain {
    fn load(subject: &Subject) -> anyhow::Result<Self> {
        // SAFETY: our own plugin, built a moment ago.
        let library =
            unsafe { Library::open(Some(&subject.variants[0].file), RTLD_NOW | RTLD_LOCAL) }?;
        // SAFETY: the symbol is the plugin's table by contract.
        let table = unsafe { library.get::<*const PluginTable>(ENTRY_SYMBOL.as_bytes()) }?
            .into_raw()
            .cast::<PluginTable>()
            .cast_const();
        let mut instance = std::ptr::null_mut();
        // SAFETY: the table is mapped, host table and sink are statics.
        let status = unsafe {
            ((*table).create)(
                &HOST,
                Bytes::new(b"{}"),
                &raw mut instance,
                &raw const SINK.0,
            )
        };
        anyhow::ensure!(
            status == hotmerge_abi::STATUS_OK,
            "the plugin does not start"
        );
        Ok(Self {
            table,
            instance,
            _library: library,
        })
    }

    fn calls(&self) -> Duration {
        let context = context(None);
        let began = Instant::now();
        for _ in 0..CALLS {
            // SAFETY: the instance was created and is never destroyed.
            let status = unsafe {
                ((*self.table).call)(
                    self.instance,
                    &raw const context,
                    Bytes::new(black_box(METHOD).as_bytes()),
                    Bytes::EMPTY,
                    &raw const SINK.0,
                )
            };
            black_box(status);
        }
        began.elapsed()
    }
}

struct SyncSink(Sink);

// SAFETY: its functions touch nothing.
unsafe impl Sync for SyncSink {}

static SINK: SyncSink = SyncSink(Sink {
    size: size_of::<Sink>(),
    context: std::ptr::null_mut(),
    write,
    clear,
    content_type: write,
});

static HOST: HostTable = HostTable {
    abi_major: hotmerge_abi::ABI_MAJOR,
    abi_minor: hotmerge_abi::ABI_MINOR,
    size: size_of::<HostTable>() as u32,
    context: std::ptr::null_mut(),
    log,
    call,
    call_media,
};

unsafe extern "C" fn call_media(
    _: *mut c_void,
    _: Bytes,
    _: Bytes,
    _: Bytes,
    _: *const CallContext,
    _: *const MediaTypes,
    _: *const Sink,
) -> Status {
    hotmerge_abi::STATUS_NO_PLUGIN
}

unsafe extern "C" fn write(_: *mut c_void, _: Bytes) -> Status {
    hotmerge_abi::STATUS_OK
}

unsafe extern "C" fn clear(_: *mut c_void) {}

unsafe extern "C" fn log(_: *mut c_void, _: u32, _: Bytes, _: Bytes, _: *const CallContext) {}

unsafe extern "C" fn call(
    _: *mut c_void,
    _: Bytes,
    _: Bytes,
    _: Bytes,
    _: *const CallContext,
    _: *const Sink,
) -> Status {
    hotmerge_abi::STATUS_NO_PLUGIN
}

//! What a reload costs over hash, copy and `dlopen` of the same bytes measured alone, and
//! how long it takes from a signal to the first reply of the new code.

use std::{
    fs,
    io::Write as _,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hotmerge_daemon::{Call, Plugin, Reply, context};
use hotmerge_meta::control::ReloadParams;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    process::{Signal, getpid, kill_process},
};
use sha2::{Digest as _, Sha256};
use signal_hook::{consts::SIGHUP, iterator::Signals};
use tempfile::TempDir;

use crate::{
    figure::{Figure, Figures, Pairs, micros, time},
    subject::{Subject, Variant, host, stage},
};

pub(crate) fn run(subject: &Subject, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let dir = TempDir::new()?;
    stage(dir.path(), "subject", &subject.variants[0])?;
    let host = Arc::new(host(dir.path())?);
    let mut signals = Signals::new([SIGHUP])?;
    let handle = signals.handle();
    let listener = {
        let host = Arc::clone(&host);
        thread::spawn(move || {
            for _ in &mut signals {
                host.rescan();
            }
        })
    };
    let kib = subject.variants[0].image.len() / 1024;
    let reload = alternate(subject, rounds, dir.path(), |_| {
        let (took, report) = time(|| host.reload(&ReloadParams::default()));
        anyhow::ensure!(report.plugins.len() == 1, "no reload: {report:?}");
        Ok(took)
    });
    let signal = reload.and_then(|reload| {
        let plugin = host.plugin("subject").context("the plugin is not loaded")?;
        let signal = alternate(subject, rounds, dir.path(), |variant| {
            let began = Instant::now();
            kill_process(getpid(), Signal::HUP)?;
            first_reply(&plugin, variant);
            Ok(began.elapsed())
        })?;
        Ok((reload, signal))
    });
    handle.close();
    let _ = listener.join();
    let (reload, signal) = signal?;
    for (what, pairs) in [
        ("request to switch, of 1 plugin", reload),
        ("signal to first reply of new code", signal),
    ] {
        let (value, floor, ratio) = pairs.medians();
        figures.tell(&Figure {
            bench: format!("{what}, {kib} KiB"),
            unit: "µs",
            value,
            floor: Some(floor),
            ratio: Some(ratio),
            ..Figure::default()
        })?;
    }
    Ok(())
}

/// Stages the variants in turns; measures `body` and the floor after each staging.
fn alternate(
    subject: &Subject,
    rounds: usize,
    dir: &Path,
    mut body: impl FnMut(&Variant) -> anyhow::Result<Duration>,
) -> anyhow::Result<Pairs> {
    let mut pairs = Pairs::default();
    for round in 0..rounds + 2 {
        let variant = &subject.variants[(round + 1) % 2];
        stage(dir, "subject", variant)?;
        let took = body(variant)?;
        let floor = floor(variant)?;
        // The first two warm caches up.
        if round >= 2 {
            pairs.push(micros(took), micros(floor));
        }
    }
    // An even number of rounds leaves the next caller at the variant it expects.
    if rounds % 2 == 1 {
        stage(dir, "subject", &subject.variants[0])?;
        body(&subject.variants[0])?;
    }
    Ok(pairs)
}

fn first_reply(plugin: &Plugin, variant: &Variant) {
    let context = context(None);
    let mut reply = Reply::default();
    loop {
        if plugin
            .call(&Call::new(&context, "variant", &[]), &mut reply)
            .is_ok()
            && reply.bytes() == variant.answer
        {
            return;
        }
    }
}

/// Read, hash, copy, load: nothing else.
fn floor(variant: &Variant) -> anyhow::Result<Duration> {
    let (took, loaded) = time(|| {
        let bytes = fs::read(&variant.file)?;
        let digest = Sha256::digest(&bytes);
        let memory = seal(&bytes)?;
        let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
        // SAFETY: our own plugin, built a moment ago.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) }?;
        anyhow::Ok((digest, memory, library))
    });
    let (_, memory, library) = loaded?;
    library.close()?;
    drop(memory);
    Ok(took)
}

fn seal(bytes: &[u8]) -> anyhow::Result<OwnedFd> {
    let memory = memfd_create(
        "floor",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::EXEC,
    )?;
    let mut file = fs::File::from(memory);
    file.write_all(bytes)?;
    let memory = OwnedFd::from(file);
    fcntl_add_seals(
        &memory,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(memory)
}

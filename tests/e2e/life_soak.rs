//! Callers at full speed on every core while versions come and go, for long.
//!
//! The host is embedded, so that a call costs nanoseconds and every switch meets running
//! calls. `HOTMERGE_SOAK` says how many switches; some seconds' worth by default.

use std::{
    env,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use hotmerge_daemon::{Config, Host, Plugin, Reply, context};
use hotmerge_meta::{
    OnReplace, Requires,
    control::{Action, ReloadParams},
};
use hotmerge_tests::{Footprint, Lab, Variant, actor};

/// How many callers there are of each plugin.
const CALLERS: usize = 2;

fn switches() -> u64 {
    let asked = env::var("HOTMERGE_SOAK").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(100)
}

fn embedded(plugin_dir: &Path, state_dir: &Path) -> Host {
    let mut config = Config::default();
    config.plugin_dir = Some(plugin_dir.to_owned());
    config.state_dir = Some(state_dir.to_owned());
    config.watch = false;
    // A gate that opens too late would fail a switch, and this machine may be busy.
    config.handover_ms = 30_000;
    Host::start(config).expect("the directory is there")
}

/// What all threads of a soak share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// The generation that was live for certain, and the newest that may be.
    surely: AtomicU64,
    perhaps: AtomicU64,
}

/// Counts at full speed; hands out every number it got.
fn count(plugin: &Plugin, shared: &Shared) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut reply = Reply::default();
    while !shared.stop.load(Ordering::Relaxed) {
        let oldest = shared.surely.load(Ordering::SeqCst);
        let answered = plugin.call(&context(None), "count", b"", &mut reply);
        let answered = answered.expect("no call fails");
        let newest = shared.perhaps.load(Ordering::SeqCst);
        let range = oldest..=newest;
        assert!(
            range.contains(&answered.generation),
            "{answered:?} not of {range:?}"
        );
        numbers.push(u64::from_le_bytes(
            reply.bytes().try_into().expect("a number"),
        ));
    }
    numbers
}

/// Calls the plugin that calls the other one; how often.
fn ask(plugin: &Plugin, shared: &Shared) -> u64 {
    let mut calls = 0;
    let mut reply = Reply::default();
    while !shared.stop.load(Ordering::Relaxed) {
        let answered = plugin.call(&context(None), "ask", b"counter mark", &mut reply);
        answered.expect("no call fails");
        assert!(!reply.bytes().is_empty());
        calls += 1;
    }
    calls
}

fn counter(script: &str) -> Variant {
    actor(&format!("state=1 {script}")).named("counter")
}

fn user(mark: u64, on_replace: OnReplace) -> Variant {
    let requires = Requires {
        name: "counter".parse().unwrap(),
        version: "*".parse().unwrap(),
        on_replace,
    };
    actor(&format!("mark={mark}"))
        .named("user")
        .with_meta(|meta| meta.requires = vec![requires])
}

fn put(lab: &Lab, variant: &Variant) {
    lab.package(variant.meta.name.as_str()).put(&[variant]);
}

/// What the host did with a plugin.
fn reload(host: &Host, plugin: &str) -> Action {
    let report = host.reload(&ReloadParams::default());
    let found = report.plugins.iter().find(|it| it.plugin == *plugin);
    found
        .unwrap_or_else(|| panic!("nothing happened: {report:#?}"))
        .action
}

#[test]
fn no_call_is_lost_doubled_or_failed_while_versions_alternate() {
    let lab = Lab::new();
    put(&lab, &counter("mark=0"));
    put(&lab, &user(0, OnReplace::Rebind));
    let host = embedded(&lab.plugin_dir(), &lab.state_dir());
    host.settle();
    let shared = Arc::new(Shared::default());
    shared.surely.store(1, Ordering::SeqCst);
    shared.perhaps.store(1, Ordering::SeqCst);
    let (counting, asking) = (
        host.plugin("counter").unwrap(),
        host.plugin("user").unwrap(),
    );
    let counters: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (plugin, shared) = (Arc::clone(&counting), Arc::clone(&shared));
            thread::spawn(move || count(&plugin, &shared))
        })
        .collect();
    let askers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (plugin, shared) = (Arc::clone(&asking), Arc::clone(&shared));
            thread::spawn(move || ask(&plugin, &shared))
        })
        .collect();

    let mut generation = 1;
    for step in 1..=switches() {
        let bad = [
            "start=refuse",
            "start=panic",
            "check=refuse",
            "restore=refuse",
        ];
        if step.is_multiple_of(5) {
            let how = bad[usize::try_from(step / 5).unwrap() % bad.len()];
            put(&lab, &counter(&format!("mark={step} {how}")));
            assert_eq!(reload(&host, "counter"), Action::Refused);
            continue;
        }
        if step.is_multiple_of(7) {
            let on_replace = [OnReplace::Rebind, OnReplace::Reload][usize::from(step % 2 == 0)];
            put(&lab, &user(step, on_replace));
            assert_eq!(reload(&host, "user"), Action::Reloaded);
        }
        let slow = if step.is_multiple_of(3) {
            "teardown=slow"
        } else {
            ""
        };
        put(&lab, &counter(&format!("mark={step} {slow}")));
        generation += 1;
        shared.perhaps.store(generation, Ordering::SeqCst);
        assert_eq!(reload(&host, "counter"), Action::Reloaded);
        shared.surely.store(generation, Ordering::SeqCst);
    }
    shared.stop.store(true, Ordering::Relaxed);
    let mut numbers: Vec<u64> = Vec::new();
    for thread in counters {
        numbers.extend(thread.join().expect("no call fails"));
    }
    let asked: u64 = askers
        .into_iter()
        .map(|it| it.join().expect("no call fails"))
        .sum();
    // The count went through every version: one number a call, each exactly once.
    numbers.sort_unstable();
    let calls = u64::try_from(numbers.len()).unwrap();
    assert!(
        numbers.into_iter().eq(1..=calls),
        "a call was lost or doubled"
    );
    assert!(asked > 0);
    eprintln!("{calls} counted and {asked} nested calls over {generation} generations");
    assert_eq!(host.stop(), 0, "everything ends");
}

#[test]
fn memory_is_flat_while_versions_alternate() {
    let lab = Lab::new();
    put(&lab, &counter("mark=0"));
    let host = embedded(&lab.plugin_dir(), &lab.state_dir());
    host.settle();
    let round = |from: u64, to: u64| {
        for step in from..to {
            put(&lab, &counter(&format!("mark={step}")));
            assert_eq!(reload(&host, "counter"), Action::Reloaded);
        }
        // The last old version may still be ending.
        while host.status().plugins.iter().any(|it| !it.ending.is_empty()) {
            thread::yield_now();
        }
        Footprint::of(std::process::id())
    };
    let warm = round(1, 60);
    let end = round(60, 60 + switches());
    assert!(end.mappings <= warm.mappings + 16, "{warm:?} {end:?}");
    assert!(end.descriptors <= warm.descriptors + 8, "{warm:?} {end:?}");
    assert_eq!(host.status().host.retained, 0);
    assert_eq!(host.stop(), 0);
}

#[test]
fn a_newer_version_overtakes_one_that_is_still_starting() {
    let lab = Lab::new();
    let gate = hotmerge_tests::Gate::new(&lab);
    put(&lab, &counter("mark=0"));
    let host = lab.start_with(&gate.config("counter"));
    put(&lab, &counter("mark=1 start=wait"));
    let slow = {
        let mut client = host.client();
        thread::spawn(move || {
            let params = ReloadParams::default();
            let method = hotmerge_meta::control::method::RELOAD;
            client.request::<hotmerge_meta::control::ReloadReport>(
                method,
                &params,
                hotmerge_tests::SOON,
            )
        })
    };
    let visitor = gate.visitor();
    put(&lab, &counter("mark=2"));
    host.reload();
    assert_eq!(
        host.text("counter", "mark"),
        "2",
        "it did not wait for the other one"
    );
    visitor.let_go();
    slow.join().unwrap().unwrap();
    host.wait_for("the end of the one that was overtaken", |status| {
        status.plugins[0].ending.is_empty().then_some(())
    });
    assert_eq!(host.text("counter", "mark"), "2");
    host.stop();
}

//! A host that the system gives no threads.

use std::{os::unix::process::CommandExt as _, process::Command};

use hotmerge_daemon::status::{PluginStatus, Status};
use hotmerge_meta::control::{Client, method};
use hotmerge_tests::{Lab, NOBODY, SOON, TestHost, actor, call, run};
use rustix::process::{Resource, geteuid, getrlimit};

/// Lets the host's user have so many threads, of which the host is only told when it wants another.
fn allow_threads(host: &TestHost, most: Option<u64>) {
    let most = most.or(getrlimit(Resource::Nproc).maximum);
    let most = most.map_or("unlimited".to_owned(), |most| most.to_string());
    let mut limit = Command::new("prlimit");
    limit.args([format!("--pid={}", host.pid()), format!("--nproc={most}:")]);
    // Not even root may limit others everywhere; who owns the host may.
    if geteuid().is_root() {
        limit.uid(NOBODY).gid(NOBODY);
    }
    run(&mut limit, SOON).ok();
}

fn status(client: &mut Client) -> PluginStatus {
    let status: Status = client.request(method::STATUS, &(), SOON).unwrap();
    status.plugins.first().expect("it runs").clone()
}

#[test]
fn what_there_is_no_thread_for_waits_is_shown_and_done_later() {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    let serve = lab.serve("");
    // Nothing limits root.
    let host = TestHost::start(lab.as_ordinary_user(serve), lab.runtime_dir());
    // A connection that has its thread already.
    let mut client = host.client();
    assert_eq!(status(&mut client).generation, 1);
    allow_threads(&host, Some(1));
    lab.put(&actor("mark=2"));
    host.log().wait("there was no thread to start candidates");
    // A moment in which it is asked for again shows nothing.
    let waits = std::iter::repeat_with(|| status(&mut client))
        .take(1000)
        .find(|status| !status.waiting.is_empty())
        .expect("it waits");
    assert_eq!(
        (waits.generation, waits.waiting.len()),
        (1, 1),
        "{waits:#?}"
    );
    let reply = call(&mut client, "actor", "mark", b"").unwrap();
    assert_eq!(reply.output_base64.0, b"1");
    allow_threads(&host, None);
    let now = host.wait_for("the new version runs alone", |status| {
        let plugin = status.plugins.first()?;
        (plugin.generation == 2 && plugin.ending.is_empty()).then(|| plugin.clone())
    });
    assert_eq!(now.waiting, [""; 0]);
    assert_eq!(host.text("actor", "mark"), "2");
    host.stop();
}

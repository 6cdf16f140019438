//! The plugin as it is built for hosts: it answers in every format, and nothing of it stays in memory.

use std::{fs, sync::Arc, thread};

use hotmerge_announcement::Format;
use hotmerge_loader::{
    CallError, HostServices, Instance, LogRecord, Media, OutgoingCall, Reply, Unloaded, Verified,
};
use hotmerge_meta::Meta;
use hotmerge_tests::{Driver, Lab, repository, scratch};

/// A host that hears nothing and has no other plugins.
struct Alone;

impl HostServices for Alone {
    fn log(&self, _: LogRecord<'_>) {}

    fn call(&self, call: OutgoingCall<'_>, _: &mut Reply) -> Result<(), CallError> {
        Err(CallError::NoPlugin(call.plugin.to_owned()))
    }
}

/// A thread-local with a destructor, of whatever crate, would keep it mapped.
#[test]
fn the_plugin_unloads_after_every_format() {
    let lab = Lab::new();
    let dir = scratch().join("announce");
    let staging = dir.join("staging");
    Driver::new(
        &repository().join("Cargo.toml"),
        &staging,
        &dir.join("build"),
    )
    .arguments(["--notify", "never", "--plugin", "announce"])
    .run()
    .ok();
    let package = staging.join("announce");
    let meta = Meta::read_path(&package).unwrap();
    let plugin = &meta.plugin[0];
    let path = package.join(plugin.file.as_str());
    // A sandboxed host takes it without any grant.
    lab.hotmerge(["inspect", path.to_str().unwrap()]).ok();
    let file = fs::read(path).unwrap();
    let verified = Verified::new(file, plugin).unwrap();
    let sample = repository().join("plugins/announcement/samples/announcement.json");
    let sample = fs::read(sample).unwrap();
    // What a plugin leaves on a thread goes with the thread.
    let called = thread::spawn(move || {
        let instance = Instance::start(verified, "{}", Arc::new(Alone)).unwrap();
        let context = hotmerge_daemon::context(None);
        let mut reply = Reply::default();
        for format in Format::all() {
            let content_type = format.content_types()[0];
            let media = Media::new("application/json", content_type).unwrap();
            instance
                .call(&context, "generate", &sample, media, &mut reply)
                .unwrap();
            assert_eq!(reply.content_type(), content_type);
            let document = reply.bytes().to_vec();
            let media = Media::new(content_type, "").unwrap();
            instance
                .call(&context, "check", &document, media, &mut reply)
                .unwrap();
            assert_eq!(reply.bytes(), b"ok\n", "{format:?}");
        }
        instance.describe(&mut reply).unwrap();
        instance.destroy()
    });
    let remains = called.join().unwrap();
    assert_eq!(remains.unload(), Unloaded::Clean);
}

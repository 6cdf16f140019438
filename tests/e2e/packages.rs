//! Packages that come, go and change what is in them.

use std::fs;

use hotmerge_tests::{Callers, Lab, Workspace, actions, actor};

#[test]
fn appearing_packages_load_and_vanishing_ones_unload() {
    let lab = Lab::new();
    lab.package("stays").put(&[&actor("mark=1")]);
    let host = lab.start();
    let callers = Callers::start(&host, 1, ["actor"], "mark");

    lab.package("comes").put(&[&actor("mark=2").named("guest")]);
    host.log().wait_from(0, "the guest is loaded", |record| {
        record["plugin"] == "guest" && record["message"] == "loaded"
    });
    assert_eq!(host.text("guest", "mark"), "2");

    lab.package("comes").remove();
    host.log().wait_from(0, "the guest is removed", |record| {
        record["plugin"] == "guest" && record["message"] == "removed"
    });
    let error = host.call("guest", "mark", b"").unwrap_err().to_string();
    assert!(error.contains("no version of plugin `guest`"), "{error}");
    host.wait_for("the end of the guest", |status| {
        (status.plugins.len() == 1).then_some(())
    });

    // It comes back as if it had never been there.
    lab.package("comes").put(&[&actor("mark=3").named("guest")]);
    host.reload();
    assert_eq!(host.text("guest", "mark"), "3");
    assert_eq!(host.plugin("guest").generation, 1);
    assert_eq!(callers.unharmed()["actor"].generations, [1].into());
    host.stop();
}

#[test]
fn plugins_in_one_package_change_independently() {
    let lab = Lab::new();
    let package = lab.package("pair");
    let (left, right) = (
        actor("mark=l1").named("left"),
        actor("mark=r1").named("right"),
    );
    package.put(&[&left, &right]);
    let host = lab.start();
    let callers = Callers::start(&host, 1, ["left"], "mark");
    let before = host.plugin("left").address;

    package.put(&[&left, &actor("mark=r2").named("right")]);
    host.reload();
    assert_eq!(host.text("right", "mark"), "r2");
    assert_eq!(host.plugin("right").generation, 2);

    package.put_meta(&[&left]);
    fs::remove_file(package.file_path(&right)).unwrap();
    host.reload();
    host.wait_for("the end of the right one", |status| {
        (status.plugins.len() == 1).then_some(())
    });
    assert_eq!(host.plugin("left").address, before);
    assert_eq!(callers.unharmed()["left"].generations, [1].into());
    host.stop();
}

#[test]
fn moving_a_package_away_and_back_reloads_nothing() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    // Long enough for a scan in between.
    let host = lab.start_with("settle_ms = 600000");
    let callers = Callers::start(&host, 1, ["actor"], "mark");
    let before = host.plugin("actor").address;
    let looks = host.status().host.rescans;
    fs::rename(lab.plugin_dir().join("one"), lab.path("away")).unwrap();
    host.wait_for("a scan of the empty directory", |status| {
        (status.host.rescans > looks).then_some(())
    });
    fs::rename(lab.path("away"), lab.plugin_dir().join("one")).unwrap();
    assert!(host.reload().plugins.is_empty());
    assert_eq!(host.plugin("actor").address, before);
    callers.unharmed();
    host.stop();
}

#[test]
fn a_new_version_number_alone_reloads_nothing() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    let host = lab.start();
    let before = host.plugin("actor").address;
    lab.package("one").put(&[&actor("mark=1").version("1.0.1")]);
    host.reload();
    let plugin = host.plugin("actor");
    assert_eq!(plugin.version.as_deref(), Some("1.0.1"));
    assert_eq!((plugin.generation, plugin.address), (1, before));
    host.stop();
}

#[test]
fn a_half_written_package_is_no_error() {
    let lab = Lab::new();
    let package = lab.package("one");
    package.put(&[&actor("mark=1")]);
    let host = lab.start_with("settle_ms = 600000");
    let callers = Callers::start(&host, 1, ["actor"], "mark");
    let two = actor("mark=2");

    // Piece by piece, in place, with a scan of the host after each.
    let third = two.bytes.len() / 3;
    for end in [third, 2 * third, two.bytes.len()] {
        let looks = host.status().host.rescans;
        fs::write(package.file_path(&two), &two.bytes[..end]).unwrap();
        host.wait_for("a scan of the half-written file", |status| {
            (status.host.rescans > looks).then_some(())
        });
    }
    let settling = host.status();
    assert_eq!(settling.plugins[0].generation, 1);
    assert!(settling.plugins[0].refused.is_none() && settling.problems.is_empty());
    package.put_meta(&[&two]);
    host.log().wait("reloaded");
    assert_eq!(host.text("actor", "mark"), "2");
    assert_eq!(callers.unharmed()["actor"].generations, [1, 2].into());
    assert_eq!(host.stop().count("refused"), 0);
}

#[test]
fn a_plugin_removed_from_the_workspace_is_unloaded() {
    let lab = Lab::new();
    let workspace = Workspace::new("leaving", ["stays", "alone"]);
    workspace.add("twin-a", "package = \"twins\"");
    workspace.add("twin-b", "package = \"twins\"");
    let build = || workspace.driver(&lab);
    build().arguments(["--notify", "never"]).run().ok();
    let host = lab.start();
    let staying = ["stays", "twin-a"];
    let callers = Callers::start(&host, 1, staying, "answer");
    let addresses = || staying.map(|name| host.plugin(name).address);
    let before = addresses();
    assert_eq!(host.plugin("twin-b").package.as_deref(), Some("twins"));

    workspace.remove("alone");
    workspace.remove("twin-b");
    let lines = build()
        .arguments(["--notify", "require"])
        .run()
        .ok()
        .lines();
    let expected = [
        ("alone", "removed"),
        ("stays", "unchanged"),
        ("twin-a", "unchanged"),
        ("twin-b", "removed"),
    ];
    assert_eq!(actions(&lines), expected.into());
    host.wait_for("the end of those that left", |status| {
        (status.plugins.len() == 2).then_some(())
    });
    assert_eq!(addresses(), before);
    assert!(!lab.plugin_dir().join("alone").exists());
    callers.unharmed();
    host.stop();
}

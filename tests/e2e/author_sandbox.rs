//! What an author's code finds in the sandbox: whatever the symbol policy lets through works there.

use std::{fs, os::unix::fs::MetadataExt as _};

use hotmerge_tests::{Ground, TestHost};

/// What the plugin says when it is to do something with a path or a text.
fn ask(host: &TestHost, method: &str, target: &str) -> String {
    let reply = host.call("reader", method, target.as_bytes());
    String::from_utf8(reply.expect("it answers").output_base64.0).unwrap()
}

#[test]
fn pipes_and_pairs_work_without_grants() {
    let ground = Ground::new();
    let Some(host) = ground.start(&[], "") else {
        return;
    };
    let neighbour = Ground::neighbour(&host);
    assert_eq!(ask(&host, "pipe", "through a pipe"), "through a pipe");
    for _ in 0..100 {
        assert_eq!(ask(&host, "pair", "there and back"), "there and back");
    }
    neighbour.unharmed(host);
}

#[test]
fn granted_files_can_be_copied_and_changed() {
    let ground = Ground::new();
    let user = ground.give_away();
    let Some(host) = ground.start(&[ground.grant("", "rw")], &user) else {
        return;
    };
    let neighbour = Ground::neighbour(&host);
    let file = ground.tree("deep/file");
    assert_eq!(ask(&host, "copy", &file), "7");
    for method in ["link", "touch", "protect"] {
        assert_eq!(ask(&host, method, &file), "done", "{method}");
    }
    // The copy is one; the link is the file, which is shorter, older and its owner's alone now.
    let text = |path: &str| fs::read_to_string(ground.tree(path)).unwrap();
    assert_eq!(text("deep/file.copy"), "granted");
    assert_eq!(text("deep/file.link"), "gra");
    let linked = fs::metadata(ground.tree("deep/file.link")).unwrap();
    assert_eq!(linked.mode() & 0o7777, 0o600);
    assert_eq!((linked.nlink(), linked.mtime()), (2, 0));
    neighbour.unharmed(host);
}

#[test]
fn files_granted_for_reading_stay_unchanged() {
    let ground = Ground::new();
    let user = ground.give_away();
    let grants = [ground.grant("", "rw"), ground.grant("deep", "ro")];
    let Some(host) = ground.start(&grants, &user) else {
        return;
    };
    let neighbour = Ground::neighbour(&host);
    let file = ground.tree("deep/file");
    let before = fs::metadata(&file).unwrap();
    for method in ["copy", "link", "touch", "protect"] {
        let said = ask(&host, method, &file);
        assert!(said.starts_with("error: "), "{method}: {said}");
    }
    let after = fs::metadata(&file).unwrap();
    let of = |it: &fs::Metadata| (it.mode(), it.nlink(), it.mtime(), it.len());
    assert_eq!(of(&after), of(&before));
    neighbour.unharmed(host);
}

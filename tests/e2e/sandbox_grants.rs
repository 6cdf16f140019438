//! What an operator grants is what a plugin has: these files, this network, and nothing else.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    thread,
};

use hotmerge_daemon::{lifecycle::PluginState, status::PluginStatus};
use hotmerge_meta::Wants;
use hotmerge_tests::{Ground, Lab, TestHost, actor, attacks, reader};

/// What the plugin says when it is to do something with a path.
fn ask(host: &TestHost, method: &str, path: &str) -> String {
    let reply = host.call("reader", method, path.as_bytes());
    String::from_utf8(reply.expect("it answers").output_base64.0).unwrap()
}

#[track_caller]
fn refused(host: &TestHost, method: &str, path: &str) {
    let said = ask(host, method, path);
    assert!(said.starts_with("error: "), "{method} {path}: {said}");
}

#[track_caller]
fn reason(plugin: PluginStatus) -> String {
    assert_eq!(plugin.state, PluginState::Error);
    plugin.refused.expect("it was refused").reason
}

#[test]
fn without_grants_there_is_no_file_or_network() {
    let ground = Ground::new();
    let Some(host) = ground.start(&[], "") else {
        return;
    };
    let neighbour = Ground::neighbour(&host);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for path in [&ground.tree("deep/file"), "/etc/passwd", "/plugin.so"] {
        refused(&host, "read", path);
    }
    refused(&host, "list", "/");
    refused(&host, "write", &ground.tree("new"));
    refused(
        &host,
        "connect",
        &listener.local_addr().unwrap().to_string(),
    );
    neighbour.unharmed(host);
}

#[test]
fn a_read_grant_gives_only_its_tree() {
    let ground = Ground::new();
    symlink(&ground.secret, ground.tree("link")).unwrap();
    symlink("../secret", ground.tree("relative")).unwrap();
    symlink("/etc", ground.tree("etc")).unwrap();
    let Some(host) = ground.start(&[ground.grant("", "ro")], "") else {
        return;
    };
    let neighbour = Ground::neighbour(&host);
    assert_eq!(ask(&host, "read", &ground.tree("deep/file")), "granted");
    assert_eq!(
        ask(&host, "list", &ground.tree("")),
        "deep etc link relative"
    );
    for path in [
        ground.secret.to_str().unwrap(),
        &ground.tree("../secret"),
        &ground.tree("link"),
        &ground.tree("relative"),
        &ground.tree("etc/passwd"),
        "/etc/passwd",
        "/proc/self/status",
    ] {
        refused(&host, "read", path);
    }
    for (method, path) in [
        ("write", "deep/file"),
        ("write", "new"),
        ("make", "new"),
        ("remove", "deep/file"),
        ("rename", "deep/file"),
    ] {
        refused(&host, method, &ground.tree(path));
    }
    neighbour.unharmed(host);
    assert_eq!(
        fs::read_to_string(ground.tree("deep/file")).unwrap(),
        "granted"
    );
}

#[test]
fn a_single_file_is_granted_without_its_neighbours() {
    let ground = Ground::new();
    fs::write(ground.tree("deep/other"), "other").unwrap();
    let Some(host) = ground.start(&[ground.grant("deep/file", "ro")], "") else {
        return;
    };
    let neighbour = Ground::neighbour(&host);
    assert_eq!(ask(&host, "read", &ground.tree("deep/file")), "granted");
    refused(&host, "read", &ground.tree("deep/other"));
    refused(&host, "write", &ground.tree("deep/file"));
    neighbour.unharmed(host);
}

#[test]
fn a_write_grant_needs_its_owner() {
    let ground = Ground::new();
    symlink(&ground.secret, ground.tree("link")).unwrap();
    let user = ground.give_away();
    let Some(host) = ground.start(&[ground.grant("", "rw")], &user) else {
        return;
    };
    let neighbour = Ground::neighbour(&host);
    for (method, path) in [
        ("write", "new"),
        ("write", "deep/file"),
        ("make", "made"),
        ("rename", "new"),
    ] {
        assert_eq!(
            ask(&host, method, &ground.tree(path)),
            "done",
            "{method} {path}"
        );
    }
    assert_eq!(ask(&host, "read", &ground.tree("new.new")), "written");
    refused(&host, "write", ground.secret.to_str().unwrap());
    refused(&host, "write", &ground.tree("link"));
    refused(&host, "write", &ground.tree("../beside"));
    refused(&host, "write", "/new");
    neighbour.unharmed(host);
    assert_eq!(fs::read_to_string(&ground.secret).unwrap(), "secret");
    assert_eq!(
        fs::read_to_string(ground.tree("deep/file")).unwrap(),
        "written"
    );
    let made = fs::metadata(ground.tree("new.new")).unwrap();
    assert_eq!(made.uid(), fs::metadata(ground.tree("")).unwrap().uid());
}

#[test]
fn the_inner_of_nested_grants_applies() {
    let ground = Ground::new();
    let user = ground.give_away();
    let grants = [ground.grant("deep/file", "ro"), ground.grant("", "rw")];
    let Some(host) = ground.start(&grants, &user) else {
        return;
    };
    let neighbour = Ground::neighbour(&host);
    assert_eq!(ask(&host, "write", &ground.tree("deep/new")), "done");
    refused(&host, "write", &ground.tree("deep/file"));
    assert_eq!(ask(&host, "read", &ground.tree("deep/file")), "granted");
    neighbour.unharmed(host);
}

#[test]
fn a_write_grant_without_ownership_is_refused() {
    let ground = Ground::new();
    // An ordinary host's worker is its owner all the same, but may not change what nobody may.
    fs::set_permissions(&ground.tree, fs::Permissions::from_mode(0o555)).unwrap();
    let Some(host) = ground.start(&[ground.grant("", "rw")], "") else {
        return;
    };
    let said = reason(host.plugin("reader"));
    for word in [
        &*ground.grant("", "rw"),
        "may not write there",
        "set `user`",
    ] {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
    host.stop();
}

#[test]
fn an_impossible_grant_names_plugin_and_path() {
    let ground = Ground::new();
    symlink(ground.tree("deep"), ground.tree("link")).unwrap();
    for (path, why) in [
        ("missing", "there is no"),
        ("link", "behind a symbolic link"),
        ("link/file", "behind a symbolic link"),
    ] {
        let grant = ground.grant(path, "ro");
        let Some(host) = ground.start(std::slice::from_ref(&grant), "") else {
            return;
        };
        let said = reason(host.plugin("reader"));
        for word in [&*grant, why, &ground.tree(path)] {
            assert!(said.contains(word), "no `{word}` in: {said}");
        }
        let log = host.stop();
        let told = log.wait(&format!("refused: {said}"));
        assert_eq!(told["plugin"], "reader");
    }
}

#[test]
fn only_granted_network_is_reachable() {
    let ground = Ground::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let Some(host) = ground.start(&["net".to_owned()], "") else {
        return;
    };
    let neighbour = Ground::neighbour(&host);
    let serving = thread::spawn(move || {
        let (mut guest, _) = listener.accept().unwrap();
        guest.write_all(b"welcome").unwrap();
    });
    assert_eq!(ask(&host, "connect", &address), "welcome");
    serving.join().unwrap();
    refused(&host, "read", "/etc/passwd");
    neighbour.unharmed(host);
}

#[test]
fn a_network_grant_opens_nothing_else() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    lab.package("good").put(&[&actor("mark=1")]);
    let own = "[plugin.attacks]\nallow = [\"net\"]\n";
    let Some(host) = lab.start_sandboxed(own) else {
        return;
    };
    let neighbour = Ground::neighbour(&host);
    assert!(host.text("attacks", "socket").contains("did it"));
    // Another one for the signals of a socket would let it signal whomever it likes.
    for attack in ["unix", "netlink", "own", "open", "list", "kill-parent"] {
        let said = host.text("attacks", attack);
        assert!(said.contains("not permitted"), "{attack}: {said}");
    }
    neighbour.unharmed(host);
}

#[test]
fn requested_rights_are_reported_but_not_granted() {
    let ground = Ground::new();
    let wants = Wants {
        fs: vec![ground.tree("deep"), ground.tree("deep/file")],
        net: true,
    };
    ground
        .lab
        .package("reader")
        .put(&[&reader().with_meta(|meta| meta.wants = wants)]);
    let Some(host) = ground.start(&[ground.grant("deep/file", "ro")], "") else {
        return;
    };
    let asked = host.plugin("reader").not_granted;
    assert_eq!(
        asked,
        [format!("fs:{}", ground.tree("deep")), "net".to_owned()]
    );
    refused(&host, "list", &ground.tree("deep"));
    let shown = ground.lab.hotmerge(["status"]).ok().text();
    assert!(shown.contains("requested but not granted: "), "{shown}");
    let file = ground.lab.package("reader").file_path(&reader());
    let arguments = ["inspect", "--allow", "net", "--allow", "fs:/srv:ro"];
    let seen = [&arguments[..], &[file.to_str().unwrap()]].concat();
    let seen = ground.lab.hotmerge(seen).ok().text();
    assert!(seen.contains("wants    net\n"), "{seen}");
    let log = host.stop();
    log.wait("`net`, which the configuration does not grant");
}

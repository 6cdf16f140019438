//! Policies are data: shown, replaced by the operator's own, and refused with the place of
//! what is wrong in them.

use std::{fs, path::PathBuf};

use hotmerge_daemon::lifecycle::PluginState;
use hotmerge_tests::{Lab, SOON, actor, attacks, reader, run};

/// A policy of the operator's own: the built-in one, changed.
fn own(lab: &Lab, which: &str, change: impl FnOnce(String) -> String) -> PathBuf {
    let path = lab.path(format!("{which}.toml"));
    let shown = lab.hotmerge(["policy", which]).ok().text();
    fs::write(&path, change(shown)).unwrap();
    path
}

#[test]
fn every_active_policy_entry_has_a_reason() {
    let lab = Lab::new();
    let syscalls = lab.hotmerge(["policy", "syscalls"]).ok().text();
    assert!(syscalls.contains("\nexecve = \"another program\"\n"));
    let symbols = lab.hotmerge(["policy", "symbols"]).ok().text();
    assert_eq!(
        symbols.matches("[[group]]").count(),
        symbols.matches("\nreason = \"").count()
    );
    // What is shown can be used as it is.
    for (which, text) in [("syscalls", syscalls), ("symbols", symbols)] {
        let path = own(&lab, which, |_| text.clone());
        let config = lab.path("config.toml");
        let key = which.trim_end_matches('s');
        fs::write(&config, format!("{key}_policy = {path:?}\n")).unwrap();
        let again = lab.hotmerge(["policy", which, "--config", config.to_str().unwrap()]);
        assert_eq!(again.ok().text(), text);
    }
}

#[test]
fn the_probe_detects_an_allowed_system_call() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    let Some(host) = lab.start_sandboxed("") else {
        return;
    };
    assert!(host.text("attacks", "socket").contains("not permitted"));
    host.stop();
    let path = own(&lab, "syscalls", |text| {
        text.replace(
            "[run]\n",
            "[run]\nsocket = \"it counts its own descriptors\"\n",
        )
    });
    let workers = lab.living_in("process");
    let host = lab.start_with(&format!("{workers}syscall_policy = {path:?}\n"));
    assert!(host.text("attacks", "socket").contains("did it"));
    // Whatever the reason, the stub that looks whether attacks fail has seen one that did not.
    let degraded = host.status().host.degraded;
    assert_eq!(
        degraded,
        [
            "a hostile stub could socket",
            "a hostile stub could unix socket"
        ]
    );
    assert!(host.text("attacks", "open").contains("not permitted"));
    host.stop();
}

#[test]
fn a_custom_policy_can_forbid_a_symbol() {
    let lab = Lab::new();
    lab.package("reader").put(&[&reader()]);
    let path = own(&lab, "symbols", |text| {
        let group = "[[group]]\nname = \"no connections\"\nwhen = \"never\"\n\
                     reason = \"our plugins are offline\"\nsymbols = [\"connect\"]\n\n";
        format!("{group}{text}")
    });
    let config = format!("symbol_policy = {path:?}\n");
    let own = "[plugin.reader]\nallow = [\"net\", \"fs:/usr:ro\"]\n";
    let Some(host) = lab.start_sandboxed(&format!("{config}symbols = \"enforce\"\n{own}")) else {
        return;
    };
    let reason = host.plugin("reader").refused.expect("it was refused");
    assert!(
        reason
            .reason
            .contains("`connect`: imports of the group \"no connections\"")
            && reason.reason.contains("our plugins are offline"),
        "{}",
        reason.reason
    );
    host.stop();
    let file = lab.path("config.toml");
    fs::write(&file, config).unwrap();
    let plugin = lab.package("reader").file_path(&reader());
    let arguments = ["--allow", "net", "--allow", "fs:/usr:ro"];
    let inspect = |more: &[&str]| {
        let mut command = lab.command();
        command
            .arg("inspect")
            .arg(&plugin)
            .args(arguments)
            .args(more);
        run(&mut lab.as_host_user(command), SOON)
    };
    inspect(&[]).ok();
    let said = inspect(&["--config", file.to_str().unwrap()]).ended_with(5);
    assert!(said.text().contains("no connections"), "{}", said.text());
}

#[test]
fn a_policy_error_names_file_and_line() {
    let lab = Lab::new();
    for (which, change, words) in [
        (
            "syscalls",
            ("[run]\n", "[run]\nfrobnicate = \"why not\"\n"),
            &["syscalls.toml", "frobnicate"][..],
        ),
        (
            "syscalls",
            ("[run]\n", "[run]\ngetuid = \"\"\n"),
            &["syscalls.toml", "`getuid` has no reason"],
        ),
        (
            "syscalls",
            ("[never]\n", "[always]\n"),
            &["syscalls.toml", "always"],
        ),
        (
            "symbols",
            ("reason = \"libm\"", "reason = \" \""),
            &["symbols.toml", "`mathematics` has no reason"],
        ),
        (
            "symbols",
            ("when = \"net\"", "when = \"maybe\""),
            &["symbols.toml", "maybe"],
        ),
    ] {
        let path = own(&lab, which, |text| {
            assert!(text.contains(change.0), "{}", change.0);
            text.replace(change.0, change.1)
        });
        let key = which.trim_end_matches('s');
        let mut serve = lab.serve(&format!("{key}_policy = {path:?}\n"));
        let said = run(serve.arg("--check"), SOON).ended_with(3);
        for word in words {
            assert!(
                said.stderr.contains(word),
                "no `{word}` in: {}",
                said.stderr
            );
        }
    }
    let missing = format!("symbol_policy = {:?}\n", lab.path("missing"));
    let mut serve = lab.serve(&missing);
    let said = run(serve.arg("--check"), SOON).ended_with(3);
    assert!(said.stderr.contains("missing"), "{}", said.stderr);
}

#[test]
fn the_host_process_refuses_ungrouped_symbols() {
    let lab = Lab::new();
    lab.package("actor").put(&[&actor("mark=1")]);
    // What nobody has heard of is an import that the policy does not name any more.
    let path = own(&lab, "symbols", |text| text.replace("\"getcwd\", ", ""));
    let config = format!("symbol_policy = {path:?}\nsymbols = \"enforce\"\n");
    let strict = lab.start_with(&format!("{config}isolation = \"host\"\n"));
    let plugin = strict.plugin("actor");
    assert_eq!(plugin.state, PluginState::Error);
    let reason = plugin.refused.expect("it was refused").reason;
    assert!(
        reason.contains("`getcwd`: it is in no group of the symbol policy"),
        "{reason}"
    );
    strict.stop();
    let own = "[plugin.actor]\nallow = [\"net\", \"fs:/usr:ro\"]\n";
    let config = format!("{}{config}{own}", lab.living_in("process"));
    let sandboxed = lab.start_with(&config);
    assert_eq!(sandboxed.text("actor", "mark"), "1");
    sandboxed.stop();
}

#[test]
fn the_host_process_refuses_never_groups() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    let host = lab.start_with("isolation = \"host\"\nsymbols = \"enforce\"\n");
    let reason = host.plugin("attacks").refused.expect("it was refused");
    assert!(
        reason.reason.contains("imports of the group"),
        "{}",
        reason.reason
    );
    host.stop();
}

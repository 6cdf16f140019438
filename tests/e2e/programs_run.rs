//! `hotmerge run`: one call without a host; and what shells complete that only a host knows.

use std::fs;

use hotmerge_tests::{Lab, Ran, SOON, actor, attacks, plain, run, worker};

/// Runs plugins in the program's own process, which there is everywhere.
fn run_plugin(lab: &Lab, arguments: &[&str]) -> Ran {
    let config = lab.path("run.toml");
    fs::write(&config, "isolation = \"host\"\nsymbols = \"off\"\n").unwrap();
    let config = config.display().to_string();
    let all = ["run"].into_iter().chain(arguments.iter().copied());
    lab.hotmerge(all.chain(["--config", &config]))
}

#[test]
fn run_calls_a_plugin_without_a_host() {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    lab.package("two").put(&[&actor("mark=2").named("two")]);
    let package = lab.package("actor").dir().display().to_string();
    let file = lab.package("two").file_path(&actor("").named("two"));
    let file = file.display().to_string();
    let plugins = lab.plugin_dir().display().to_string();
    let bare = lab.path("libactor.so").display().to_string();
    fs::copy(lab.package("actor").file_path(&actor("")), &bare).unwrap();
    for (arguments, mark) in [
        (&[package.as_str()][..], "1"),
        (&[&file], "2"),
        (&[&bare], "1"),
        (&[&plugins, "--plugin", "two"], "2"),
    ] {
        let ran = run_plugin(&lab, &[&[arguments[0], "mark"], &arguments[1..]].concat());
        assert_eq!(ran.ok().text(), mark, "{arguments:?}");
    }
    fs::write(lab.path("request"), b"request").unwrap();
    let request = lab.path("request").display().to_string();
    let echo = run_plugin(&lab, &[&package, "echo", "--input", &request]);
    assert_eq!(echo.ok().text(), "request");
    let media = run_plugin(
        &lab,
        &[
            &package,
            "media",
            "--content-type",
            "a/b",
            "--accept",
            "c/d",
        ],
    );
    assert_eq!(media.ok().text(), "Some(\"a/b\") Some(\"c/d\")");
    assert!(!lab.runtime_dir().path().exists(), "nobody can reach it");
}

#[test]
fn a_failed_run_has_its_exit_code() {
    let lab = Lab::new();
    let place = |name: &str| lab.package(name).dir().display().to_string();
    lab.put(&actor("mark=1"));
    lab.put(&actor("").named("newer").with_abi(1, 9));
    lab.put(&actor("check=refuse").named("sick"));
    let plain_file = lab.path("libplain.so");
    fs::write(&plain_file, &plain().bytes).unwrap();
    let plugins = lab.plugin_dir().display().to_string();
    for (place, method, code, words) in [
        (place("actor"), "nothing", 10, "no method `nothing`"),
        (place("actor"), "fail", 8, "it was asked to fail"),
        (place("actor"), "panic", 11, "panicked at"),
        (place("actor"), "no-media", 8, "not acceptable: only x/this"),
        (place("newer"), "mark", 5, "ABI 1.9"),
        (place("sick"), "mark", 5, "does not run"),
        (
            plain_file.display().to_string(),
            "mark",
            5,
            "is not a plugin",
        ),
        (plugins, "mark", 1, "`--plugin` must say which plugin"),
        ("/does/not/exist".to_owned(), "mark", 1, "/does/not/exist"),
    ] {
        let ran = run_plugin(&lab, &[&place, method]).ended_with(code);
        ran.said(&["hotmerge: ", words]);
    }
}

#[test]
fn every_timeout_of_run_is_taken_or_refused() {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    let package = lab.package("actor").dir().display().to_string();
    for (timeout, code) in [
        ("1", 0),
        ("9223372036854775807", 0),
        ("18446744073709551615", 0),
        ("18446744073709551616", 2),
        ("-1", 2),
        ("1.5", 2),
        ("nan", 2),
        ("", 2),
    ] {
        let timeout = format!("--timeout={timeout}");
        let ran = run_plugin(&lab, &[&package, "mark", &timeout]);
        let ran = ran.ended_with(code);
        assert!(!ran.stderr.contains("panicked"), "{timeout}: {ran:?}");
    }
    let none = run_plugin(&lab, &[&package, "mark", "--timeout=0"]);
    assert!(matches!(none.code, Some(0 | 12)), "{none:?}");
}

#[test]
fn run_uses_the_sandbox() {
    let lab = Lab::new();
    // Says whether there is a whole sandbox here.
    let Some(host) = lab.start_sandboxed("") else {
        return;
    };
    host.stop();
    lab.put(&attacks());
    let config = lab.path("run.toml");
    let text = format!(
        "isolation = \"process\"\nsymbols = \"off\"\nworker = \"{}\"\n",
        worker().display()
    );
    fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    let place = lab.package("attacks").dir().display().to_string();
    // In this process it would end the command.
    let ran = lab.hotmerge(["run", &place, "abort", "--config", &config]);
    ran.ended_with(8).said(&["the plugin aborted in `abort`"]);
}

#[test]
fn describe_shows_what_a_plugin_says() {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    lab.put(&actor("mark=2").named("old").with_abi(1, 1));
    let host = lab.start();
    assert_eq!(
        lab.hotmerge(["describe", "actor"]).ok().text(),
        "mark\n  Says which \"version\" it is\n  replies text/plain; charset=utf-8\n"
    );
    let object = lab.hotmerge(["describe", "actor", "--json"]).ok().json();
    assert_eq!(object["methods"][0]["reply"]["schema"]["type"], "string");
    let old = lab.hotmerge(["describe", "old"]).ended_with(1);
    old.said(&["`old` does not describe itself"]);
    lab.hotmerge(["describe", "nobody"]).ended_with(9);
    host.stop();
}

#[test]
fn shells_complete_plugins_and_methods() {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    let host = lab.start();
    let complete = |words: &[&str]| {
        let mut command = lab.command();
        command
            .env("HOTMERGE_COMPLETE", "fish")
            .args(["--", "hotmerge"])
            .args(words);
        run(&mut command, SOON).ok().text()
    };
    assert_eq!(complete(&["call", "ac"]).trim_end(), "actor");
    let methods = complete(&["call", "actor", ""]);
    assert!(
        methods.starts_with("mark\tSays which \"version\" it is\n"),
        "{methods}"
    );
    assert_eq!(complete(&["describe", "a"]).trim_end(), "actor");
    let dir = lab.runtime_dir().path().display().to_string();
    let mut elsewhere = lab.command();
    elsewhere
        .env_remove("HOTMERGE_RUNTIME_DIR")
        .env("HOTMERGE_COMPLETE", "fish")
        .args([
            "--",
            "hotmerge",
            "call",
            "--runtime-dir",
            &dir,
            "actor",
            "m",
        ]);
    // The option stands before the plugin, and its value is not the plugin.
    assert!(run(&mut elsewhere, SOON).ok().text().starts_with("mark"));
    host.stop();
    assert_eq!(complete(&["call", "ac"]).trim_end(), "", "there is no host");
}

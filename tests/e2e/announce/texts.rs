//! What people read of `hotmerge-announce`: its help, what it prints when it is done, and the sentence for
//! each kind of failure. Held as files in `snapshots`.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use hotmerge_tests::{announcer, commands_of, repository};

/// Runs each line in turn, and returns what a terminal would show.
fn session(dir: &Path, lines: &[&str]) -> String {
    let mut shown = String::new();
    for line in lines {
        let ended = Command::new(announcer())
            .args(line.split_whitespace())
            .current_dir(dir)
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .expect("the program runs");
        let code = ended.status.code().expect("no signal ended it");
        writeln!(shown, "$ hotmerge-announce {line}").unwrap();
        shown += &String::from_utf8_lossy(&ended.stdout);
        shown += &String::from_utf8_lossy(&ended.stderr);
        writeln!(shown, "[exit code {code}]\n").unwrap();
    }
    shown.replace(&dir.display().to_string(), "[DIR]")
}

#[test]
fn every_announce_command_has_its_help() {
    let dir = tempfile::tempdir().unwrap();
    let main = session(dir.path(), &["--help"]);
    let lines: Vec<_> = commands_of(&main)
        .into_iter()
        .filter(|name| *name != "help")
        .map(|name| format!("{name} --help"))
        .collect();
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let commands = session(dir.path(), &lines);
    insta::assert_snapshot!("help", main.clone() + &commands);
}

#[test]
fn announcing_says_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let samples = repository().join("plugins/announcement/samples");
    for name in ["announcement.json", "release.md"] {
        fs::copy(samples.join(name), dir.path().join(name)).unwrap();
    }
    write("bad.md", "#No title\n");
    write("bad.json", "{\"title\": 7}\n");
    write("broken.json", "{\n");
    fs::create_dir(dir.path().join("templates")).unwrap();
    let shown = session(
        dir.path(),
        &[
            "",
            "check missing.md",
            "check bad.md release.md",
            "check bad.json",
            "check broken.json",
            "check bad.md --content-type image/png",
            "check announcement.json",
            "generate announcement.json --format text",
            "generate announcement.json --format nonsense",
            "generate announcement.json --templates templates",
            "generate bad.json",
            "release announcement.json --out made",
            "release announcement.json --overlay made",
            "release bad.json",
        ],
    );
    insta::assert_snapshot!("sessions", shown);
}

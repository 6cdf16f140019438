//! Lost output of `hotmerge-announce`: readers that go away, and full disks.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
};

use hotmerge_tests::{announcer, closed_pipe, commands_of, full_disk, repository};

/// Arguments of each command, its exit code, and whether it writes to standard output.
const COMMANDS: [(&str, u8, bool); 11] = [
    ("--help", 0, true),
    ("--version", 0, true),
    ("check --help", 0, true),
    ("check bad.md", 1, true),
    ("check --json SAMPLE", 0, true),
    ("check SAMPLE", 0, false),
    ("generate SAMPLE", 0, true),
    // What does not end with a line stays in a buffer to the end.
    ("generate SAMPLE --format protobuf", 0, true),
    ("release SAMPLE --out made", 0, true),
    ("completions bash", 0, true),
    ("man .", 0, false),
];

#[test]
fn every_command_survives_a_lost_output() {
    let dir = tempfile::tempdir().unwrap();
    let sample = repository().join("plugins/announcement/samples/announcement.json");
    fs::write(dir.path().join("bad.md"), "#No title\n").unwrap();
    let command = |line: &str| {
        let mut command = Command::new(announcer());
        command.current_dir(dir.path()).stdin(Stdio::null());
        command.args(line.split(' ').map(|word| match word {
            "SAMPLE" => sample.as_os_str(),
            other => other.as_ref(),
        }));
        command
    };
    let help = command("--help").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let tried = COMMANDS.map(|(line, ..)| line.split(' ').next().unwrap());
    let tried: BTreeSet<_> = tried
        .into_iter()
        .filter(|it| !it.starts_with('-'))
        .collect();
    let listed = commands_of(&help).into_iter().filter(|it| *it != "help");
    assert_eq!(listed.collect::<BTreeSet<_>>(), tried);

    for (line, code, writes) in COMMANDS {
        let full = if writes && code == 0 { 2 } else { code };
        let to = |stdout: Stdio| command(line).stdout(stdout).output().unwrap();
        for (stdout, code) in [(full_disk(), full), (closed_pipe(), code)] {
            let made = dir.path().join("made");
            let _ = fs::remove_dir_all(&made);
            let ended = to(stdout);
            let said = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(code.into()), "{line}: {said}");
            let is_told = said.contains("No space left on device");
            assert_eq!(is_told, code == 2, "{line}: {said}");
            assert!(is_told || said.is_empty(), "{line}: {said}");
            // What it makes, it has made.
            let all = ["ANNOUNCEMENT.md", "feed-entry.xml"];
            let is_made = all.iter().all(|name| made.join(name).is_file());
            assert_eq!(is_made, line.starts_with("release"), "{line}");
        }
    }
    for (stderr, code) in [(full_disk(), 2), (closed_pipe(), 2)] {
        let ended = command("check missing.md").stderr(stderr).status().unwrap();
        assert_eq!(ended.code(), Some(code));
    }
}

#[test]
fn a_reached_file_size_limit_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let sample = repository().join("plugins/announcement/samples/announcement.json");
    let script = "ulimit -f 0; exec \"$0\" release \"$1\" --out made 2>&1 | cat";
    let output = Command::new("bash")
        .args(["-o", "pipefail", "-c", script])
        .args([announcer().as_os_str(), sample.as_os_str()])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("ANNOUNCEMENT.md"), "{said}");
    assert!(said.contains("File too large"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

//! The host as a library: the example that embeds it, run as its words say.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use hotmerge_tests::{Lab, Process, SOON, actor, example};

/// What a child writes, line by line as it comes.
fn lines(process: &mut Process) -> Receiver<String> {
    let output = process.child().stdout.take().expect("it is a pipe");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[test]
fn a_program_with_a_host_inside_takes_new_versions_and_keeps_good_ones() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    let mut program = Process::spawn(
        Command::new(example("embed"))
            .arg(lab.plugin_dir())
            .args(["actor", "mark"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    let answers = lines(&mut program);
    let answer = || answers.recv_timeout(SOON).expect("the program answers");
    let mut asking = program.child().stdin.take().expect("it is a pipe");
    let mut ask = || {
        asking.write_all(b"\n").expect("the program reads");
        answer()
    };
    assert_eq!(answer(), "generation 1: 1");
    assert_eq!(ask(), "generation 1: 1");
    lab.package("one").put(&[&actor("mark=2")]);
    assert_eq!(ask(), "generation 2: 2");
    lab.package("one").put(&[&actor("start=refuse")]);
    assert_eq!(ask(), "generation 2: 2");
    drop(asking);
    let status = program.wait(SOON).expect("it ends with its input");
    assert!(status.success(), "the program ended with {status}");
}

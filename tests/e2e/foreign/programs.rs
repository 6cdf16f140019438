//! Main programs in C, C++ and Python, while the plugin is replaced under them.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use hotmerge_tests::{Lab, Process, SOON, actor, repository, run, worker};

use crate::library::{compile, library};

/// A program that answers lines with lines.
struct Conversation {
    program: Process,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Conversation {
    fn begin(command: &mut Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut program = Process::spawn(command);
        let output = program.child().stdout.take().expect("it is a pipe");
        let input = program.child().stdin.take().expect("it is a pipe");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            program,
            input,
            lines,
        }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(SOON).expect("the program answers")
    }

    fn ask(&mut self) -> String {
        self.input.write_all(b"\n").expect("the program reads");
        self.line()
    }

    /// Ends its input, and returns what it still writes.
    fn end(mut self) -> Vec<String> {
        drop(self.input);
        let status = self.program.wait(SOON).expect("it ends with its input");
        assert!(status.success(), "the program ended with {status}");
        self.lines.iter().collect()
    }
}

/// Runs a program that follows its plugin, as its own words say.
fn follows(mut command: Command) {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    command.arg(lab.plugin_dir()).args(["actor", "mark"]);
    let mut program = Conversation::begin(&mut command);
    assert_eq!(program.ask(), "generation 1: 1");
    lab.package("one").put(&[&actor("mark=2")]);
    assert_eq!(program.ask(), "generation 2: 2");
    lab.package("one").put(&[&actor("start=refuse")]);
    assert_eq!(program.ask(), "generation 2: 2");
    let long = "a-reply-that-does-not-fit-at-first";
    lab.package("one").put(&[&actor(&format!("mark={long}"))]);
    assert_eq!(program.ask(), format!("generation 3: {long}"));
    assert!(program.end().is_empty());
}

#[test]
fn a_c_program_follows_reloads() {
    let follow = compile("cc", &[], "host/capi/examples/follow.c");
    follows(follow.command());
}

#[test]
fn a_cpp_program_follows_reloads() {
    let follow = compile("c++", &["-std=c++17"], "host/capi/examples/follow.cpp");
    follows(follow.command());
}

#[test]
fn a_python_program_follows_reloads() {
    let mut python = Command::new("python3");
    python.arg(repository().join("host/capi/examples/follow.py"));
    python.env("LIBHOTMERGE", library().join("libhotmerge.so"));
    follows(python);
}

#[test]
fn no_misuse_harms_the_main_process() {
    let misuse = compile("cc", &[], "tests/e2e/foreign/misuse.c");
    let (lab, empty) = (Lab::new(), Lab::new());
    lab.put(&actor("mark=1"));
    let mut command = misuse.command();
    command.arg(lab.plugin_dir()).arg(empty.plugin_dir());
    let ran = run(&mut command, SOON).ok();
    assert_eq!(ran.text(), "right\n", "{ran:?}");
}

#[test]
fn valgrind_finds_nothing_in_any_misuse() {
    let misuse = compile("cc", &[], "tests/e2e/foreign/misuse.c");
    let (lab, empty) = (Lab::new(), Lab::new());
    lab.put(&actor("mark=1"));
    let mut command = Command::new("valgrind");
    command.args(["--error-exitcode=9", "--leak-check=full"]);
    // A forked child has what its parent's threads held: only the parent's own leaks count.
    command.args([
        "--errors-for-leak-kinds=none",
        "--child-silent-after-fork=yes",
    ]);
    command.arg(&misuse.program);
    command.arg(lab.plugin_dir()).arg(empty.plugin_dir());
    let ran = run(&mut command, SOON * 5).ok();
    assert_eq!(ran.text(), "right\n", "{ran:?}");
    assert!(ran.stderr.contains("definitely lost: 0 bytes"), "{ran:?}");
}

/// Replaces a plugin again and again under a program that calls it from several threads.
fn no_call_fails(isolation: &str) {
    let steady = compile("cc", &["-O2"], "tests/e2e/foreign/steady.c");
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=0")]);
    let mut command = steady.command();
    command.arg(lab.plugin_dir()).arg(isolation).arg(worker());
    let program = Conversation::begin(&mut command);
    assert_eq!(program.line(), "calling");
    for version in 1..=20 {
        lab.package("one")
            .put(&[&actor(&format!("mark={version}"))]);
        assert_eq!(program.line(), format!("reloaded {}", version + 1));
    }
    let said = program.end().join("\n");
    let words: Vec<_> = said.split(' ').collect();
    let [_, calls, _, failed, _, newest] = words[..] else {
        panic!("the program says: {said}");
    };
    assert_eq!((failed, newest), ("0", "21"), "{said}");
    assert!(calls.parse::<u64>().unwrap() > 1000, "{said}");
}

#[test]
fn no_call_fails_while_plugins_reload() {
    no_call_fails("host");
}

#[test]
fn no_sandboxed_call_fails_while_plugins_reload() {
    no_call_fails("process");
}

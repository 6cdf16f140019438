//! A terminal that a program under test draws on, and what it shows.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    num::NonZero,
    os::fd::OwnedFd,
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::Signal,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};

use crate::{Process, SOON};

const LINES: NonZero<u16> = NonZero::new(24).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(150).unwrap();

/// A program on a terminal of its own. It ends when dropped.
#[derive(Debug)]
pub struct Screen {
    process: Process,
    keys: File,
    /// The program's side, kept open so that its settings can be read.
    terminal: OwnedFd,
    before: Termios,
    shown: Arc<Shown>,
}

struct Shown {
    parser: Mutex<vt100::Parser>,
    changed: Condvar,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown")
    }
}

impl Screen {
    /// Runs a command on a new terminal.
    ///
    /// # Panics
    /// If the system has no terminal for it.
    pub fn run(command: &mut Command) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let ours = ours.expect("there are terminals");
        grantpt(&ours).expect("it is new");
        unlockpt(&ours).expect("it is new");
        let name = ptsname(&ours, Vec::new()).expect("it has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = open(name, flags, Mode::empty()).expect("it is ours");
        let size = Winsize {
            ws_row: LINES.get(),
            ws_col: COLUMNS.get(),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&terminal, size).expect("it has a size");
        let before = tcgetattr(&terminal).expect("it has settings");
        let side = || Stdio::from(terminal.try_clone().expect("descriptors are left"));
        command
            .env("TERM", "xterm-256color")
            .stdin(side())
            .stdout(side())
            .stderr(side());
        let process = Process::spawn(command);
        let shown = Arc::new(Shown {
            parser: Mutex::new(vt100::Parser::new(LINES, COLUMNS, 0)),
            changed: Condvar::new(),
        });
        let keys = File::from(ours);
        let output = keys.try_clone().expect("descriptors are left");
        let to = Arc::clone(&shown);
        thread::spawn(move || to.read(output));
        Self {
            process,
            keys,
            terminal,
            before,
            shown,
        }
    }

    /// Types.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.keys
            .write_all(keys.as_bytes())
            .expect("the terminal is there");
    }

    /// Waits until the screen is as expected, and returns it.
    ///
    /// # Panics
    /// If that does not happen.
    #[track_caller]
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&vt100::Screen) -> bool) -> String {
        let parser = self
            .shown
            .parser
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_missing = |parser: &mut vt100::Parser| !wanted(parser.screen());
        let waited = self
            .shown
            .changed
            .wait_timeout_while(parser, SOON, is_missing);
        let (parser, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        let shown = parser.screen().contents();
        assert!(!timeout.timed_out(), "never shown: {what}: {shown}");
        shown
    }

    /// Waits until a text is shown, and returns all that is.
    #[track_caller]
    pub fn wait_for_text(&self, text: &str) -> String {
        self.wait_for(text, |screen| screen.contents().contains(text))
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until the program has ended and has given the terminal back as it was.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let status = self.process.wait(SOON).expect("it ends");
        let is_back = |screen: &vt100::Screen| !screen.alternate_screen() && !screen.hide_cursor();
        self.wait_for("the screen of before", is_back);
        let after = tcgetattr(&self.terminal).expect("it has settings");
        assert_eq!(
            format!("{after:?}"),
            format!("{:?}", self.before),
            "its settings are back"
        );
        status
    }
}

impl Shown {
    fn read(&self, mut output: File) {
        let mut bytes = [0; 4096];
        // A terminal without programs cannot be read.
        while let Ok(length @ 1..) = output.read(&mut bytes) {
            let mut parser = self.parser.lock().unwrap_or_else(PoisonError::into_inner);
            parser.process(&bytes[..length]);
            self.changed.notify_all();
        }
    }
}

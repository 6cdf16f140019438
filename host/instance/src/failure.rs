//! A failure of a running plugin, and where in its code it happened.
//!
//! A plugin reports only addresses (see `STATUS_PANIC` of the contract); their names are in its file,
//! unless it was stripped. Everything here comes from the plugin and is bounded.

use std::fmt;

use hotmerge_abi::CallContext;
use hotmerge_meta::{control, on_one_line};
use object::{Object as _, ObjectSymbol as _, SymbolKind};

/// Longest message of a panic that is kept, in bytes.
const LONGEST: usize = 2 << 10;
/// Most frames that are kept of a stack.
const FRAMES: usize = 32;
/// Most frames that are shown.
const SHOWN: usize = 16;
/// Longest name of a function that is shown, in characters.
const NAME: usize = 120;

/// A failure of a running plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// What happened, as a predicate for "it": `was killed by SIGSEGV at 0x8`.
    pub what: String,
    /// What the plugin was doing meanwhile, as a clause that follows "while", if no report names the
    /// call.
    pub during: Option<String>,
    /// In which method.
    pub method: Option<String>,
    /// The trace of the call, in hexadecimal.
    pub trace: Option<String>,
    /// Return addresses in the plugin, relative to where it lies; innermost first.
    pub frames: Vec<u64>,
}

impl Failure {
    /// A panic as the plugin reports it.
    pub fn panic(text: &str) -> Self {
        let (message, frames) = split(text);
        let end = message.floor_char_boundary(LONGEST);
        let what = on_one_line(&message[..end]);
        Self {
            what: match what.trim().is_empty() {
                true => "panicked".to_owned(),
                false => what,
            },
            frames,
            ..Self::default()
        }
    }

    /// What happened, and what the plugin was doing.
    pub fn told(&self) -> String {
        match &self.during {
            Some(during) => format!("{}, while {during}", self.what),
            None => self.what.clone(),
        }
    }

    /// Names what the plugin was doing, unless it is known better.
    #[must_use]
    pub fn or_during(mut self, during: Option<String>) -> Self {
        if self.method.is_none() && self.during.is_none() {
            self.during = during;
        }
        self
    }

    /// The call that it happened in.
    #[must_use]
    pub fn in_call(mut self, method: &str, context: &CallContext) -> Self {
        let is_shown = |sign: &char| !sign.is_control();
        let method: String = method.chars().filter(is_shown).take(64).collect();
        self.method = (!method.trim().is_empty()).then_some(method);
        self.trace = (context.trace_id != [0; 16]).then(|| hex(&context.trace_id));
        self
    }
}

impl From<&str> for Failure {
    fn from(what: &str) -> Self {
        Self {
            what: what.to_owned(),
            ..Self::default()
        }
    }
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self {
            what,
            ..Self::default()
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        control::sentence(
            f,
            &self.told(),
            self.method.as_deref(),
            self.trace.as_deref(),
        )
    }
}

/// Splits a panic's text into message and frames. A message that only looks as if it had frames
/// stays a message.
pub fn split(text: &str) -> (&str, Vec<u64>) {
    let parsed = text.rsplit_once("\nstack: ").and_then(|(message, line)| {
        let frames = line.split(' ').take(FRAMES);
        let frames = frames.map(|frame| u64::from_str_radix(frame, 16));
        Some((message, frames.collect::<Result<_, _>>().ok()?))
    });
    parsed.unwrap_or((text, Vec::new()))
}

/// The message of a panic, without its frames.
pub fn message(text: String) -> String {
    match split(&text) {
        (_, frames) if frames.is_empty() => text,
        (message, _) => message.to_owned(),
    }
}

/// The code at the frames of a stack: the names of functions that `file` knows, offsets
/// otherwise. The panic's own machinery is left out as far as it is known.
pub fn names(frames: &[u64], file: Option<&[u8]>) -> Vec<String> {
    let file = file.and_then(|bytes| object::File::parse(bytes).ok());
    let mut functions: Vec<(u64, u64, &str)> = Vec::new();
    if let Some(file) = &file {
        let symbols = file.symbols().chain(file.dynamic_symbols());
        let symbols = symbols.filter(|symbol| symbol.kind() == SymbolKind::Text);
        functions.extend(symbols.filter_map(|symbol| {
            let name = symbol.name().ok()?;
            Some((symbol.address(), symbol.size(), name))
        }));
        functions.sort_unstable();
    }
    let name = |address: u64| {
        // A return address may lie behind the last instruction of its function.
        let inside = address.saturating_sub(1);
        let after = functions.partition_point(|(begin, ..)| *begin <= inside);
        let (begin, size, name) = functions.get(after.checked_sub(1)?)?;
        (inside - begin < *size).then(|| {
            let name = format!("{:#}", rustc_demangle::demangle(name));
            on_one_line(&name.chars().take(NAME).collect::<String>())
        })
    };
    let named: Vec<_> = frames
        .iter()
        .map(|frame| name(*frame).unwrap_or_else(|| format!("+{frame:#x}")))
        .collect();
    let is_machinery = |name: &String| {
        ["std::panicking::", "core::panicking::", "rust_begin_unwind"]
            .iter()
            .any(|part| name.contains(part))
    };
    let first = named.iter().rposition(is_machinery).map_or(0, |at| at + 1);
    let is_guard = |name: &String| name.contains("hotmerge_sdk::panic::guard");
    let rest = named.iter().skip(first);
    rest.take_while(|name| !is_guard(name))
        .take(SHOWN)
        .cloned()
        .collect()
}

/// An id of a call as logs show it.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_and_frames_are_separated() {
        let text = "panicked at a.rs:1:2: two\nlines\nstack: 1a2b ff";
        assert_eq!(
            split(text),
            ("panicked at a.rs:1:2: two\nlines", vec![0x1a2b, 0xff])
        );
        for text in [
            "",
            "stack: 1",
            "x\nstack: ",
            "x\nstack: 1 zz",
            "x\nstack: 1\n",
        ] {
            assert_eq!(split(text), (text, Vec::new()));
        }
        let many = format!("x\nstack:{}", " 1".repeat(1000));
        assert_eq!(split(&many).1.len(), FRAMES);
    }

    #[test]
    fn a_failure_is_one_sentence_with_its_call() {
        let context = CallContext {
            trace_id: [0xab; 16],
            ..CallContext::default()
        };
        let failure =
            Failure::panic("panicked at a.rs:1:2:\x1bno\nstack: 10").in_call("go", &context);
        assert_eq!(
            failure.to_string(),
            format!(
                "panicked at a.rs:1:2: no in `go` (trace {})",
                "ab".repeat(16)
            )
        );
        assert_eq!(failure.frames, [0x10]);
    }

    #[test]
    fn a_panic_that_says_nothing_is_a_panic() {
        for text in ["", " ", "\x01\x01\n", "\nstack: 10"] {
            let failure = Failure::panic(text).in_call("\x01", &CallContext::default());
            assert_eq!(failure.to_string(), "panicked", "{text:?}");
        }
    }

    #[test]
    fn frames_without_a_file_are_offsets() {
        assert_eq!(names(&[0x10, 0x2f], None), ["+0x10", "+0x2f"]);
        assert_eq!(names(&[0x10], Some(b"no file")), ["+0x10"]);
    }

    #[test]
    fn frames_get_the_names_that_the_file_has() {
        let file = std::fs::read("/proc/self/exe").expect("a process has a program");
        let parsed = object::File::parse(&*file).expect("it is one");
        let find = |part: &str| {
            let mut symbols = parsed.symbols();
            let found = symbols.find(|it| it.name().is_ok_and(|name| name.contains(part)));
            found.expect("tests are not stripped").address() + 1
        };
        let frames = [
            find("panic_fmt"),
            find("frames_get_the_names_that_the_file_has"),
        ];
        let names = names(&frames, Some(&file));
        assert_eq!(names.len(), 1, "{names:?}");
        assert!(names[0].contains("failure::tests::frames_get"), "{names:?}");
    }
}

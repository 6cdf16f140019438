//! What a plugin's file requests from the dynamic loader, and whether that is allowed.
//!
//! It reads what the loader reads: program headers, the dynamic segment, and the symbols that
//! relocations name. It ignores section headers; the result is the same without them.
//!
//! Invariant: a refusal names the symbol or the part of the file, and the rule.
//!
//! Absent on purpose: a security boundary. Code can make system calls without importing
//! anything; this finds mistakes and shows intentions. Namespaces and filters contain hostile
//! code.

#![forbid(unsafe_code)]

mod dynamic;
mod file;
mod lookup;
mod objection;
mod packed;
mod read;
mod reader;
mod symbols;

pub use file::{File, FileError, Segment};
pub use objection::Objection;
pub use symbols::{Group, Groups, GroupsError, When};

/// Libraries that a plugin may need; the loader would load any other unverified.
const LIBRARIES: [&str; 12] = [
    "libc.so.6",
    "libgcc_s.so.1",
    "libm.so.6",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
    "ld-linux-riscv64-lp64d.so.1",
    "ld64.so.2",
    "ld-linux.so.2",
    "libc.musl-x86_64.so.1",
    "libc.musl-aarch64.so.1",
    "libpthread.so.0",
    "libdl.so.2",
];

impl File {
    /// The libraries of the C runtime that it needs.
    pub fn runtime_libraries(&self) -> impl Iterator<Item = &str> {
        let needed = self.needed.iter().map(String::as_str);
        needed.filter(|library| LIBRARIES.contains(library))
    }
}

/// The function that a panic calls to unwind.
const UNWIND: &str = "_Unwind_RaiseException";

/// How a plugin is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Files were granted.
    pub fs: bool,
    /// The network was granted.
    pub net: bool,
    /// Whether symbols of no group are refused, as for the host's own process.
    pub strict: bool,
}

/// All reasons against a plugin.
pub fn judge(file: &File, groups: &Groups, rules: Rules) -> Vec<Objection> {
    let mut objections = file.oddities.clone();
    // First: whoever reads the first few of them reads why.
    if rules.strict && file.stays_loaded {
        objections.push(Objection {
            subject: "DT_FLAGS_1".into(),
            rule: "it can never be unloaded (NODELETE, as everything in Go), so that each version would stay in \
                   the host's process; run it in a worker, with `isolation = \"process\"`"
                .into(),
        });
    }
    for library in &file.needed {
        if !LIBRARIES.contains(&library.as_str()) {
            objections.push(Objection {
                subject: library.clone(),
                rule: "a plugin may need no library but the C runtime; link it statically".into(),
            });
        }
    }
    for symbol in &file.imports {
        let rule = match groups.of(symbol) {
            Some(group) => match group.when {
                When::Always => continue,
                When::Fs if rules.fs => continue,
                When::Net if rules.net => continue,
                When::Worker if !rules.strict => continue,
                When::Worker => format!("only a worker may import it ({})", group.reason),
                When::Fs => format!("files are not granted to it ({})", group.reason),
                When::Net => format!("the network is not granted to it ({})", group.reason),
                When::Never => format!(
                    "imports of the group \"{}\" are never allowed: {}",
                    group.name, group.reason
                ),
            },
            None if rules.strict => "it is in no group of the symbol policy".to_owned(),
            None => continue,
        };
        objections.push(Objection {
            subject: symbol.clone(),
            rule,
        });
    }
    // The host's own process ends where a plugin cannot unwind. Rust's standard library needs the unwinder in any
    // case, for backtraces; what imports nothing of it has no panics, such as a plugin in C.
    let can_panic = file.imports.iter().any(|it| it.starts_with("_Unwind_"));
    if rules.strict && can_panic && !file.imports.contains(UNWIND) {
        objections.push(Objection {
            subject: UNWIND.into(),
            rule: "a plugin that does not import it ends the host's process when it panics; build \
                   it with `panic = \"unwind\"`"
                .into(),
        });
    }
    objections
}

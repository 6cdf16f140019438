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
pub use objection::{Grouped, Objection};
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

/// All reasons against a plugin: first those that no grant changes.
pub fn judge(file: &File, groups: &Groups, rules: Rules) -> Vec<Objection> {
    let mut objections = file.oddities.clone();
    // First: whoever reads the first few of them reads why.
    if rules.strict && file.stays_loaded {
        objections.push(Objection::fatal(
            "DT_FLAGS_1",
            "it can never be unloaded (NODELETE, as everything in Go), so that each version would stay in \
             the host's process; run it in a worker, with `isolation = \"process\"`",
        ));
    }
    for library in &file.needed {
        if !LIBRARIES.contains(&library.as_str()) {
            objections.push(Objection::fatal(
                library,
                "a plugin may need no library but the C runtime; link it statically",
            ));
        }
    }
    // The host's own process ends where a plugin cannot unwind. Rust's standard library needs the unwinder in any
    // case, for backtraces; what imports nothing of it has no panics, such as a plugin in C.
    let can_panic = file.imports.iter().any(|it| it.starts_with("_Unwind_"));
    if rules.strict && can_panic && !file.imports.contains(UNWIND) {
        objections.push(Objection::fatal(
            UNWIND,
            "a plugin that does not import it ends the host's process when it panics; build \
             it with `panic = \"unwind\"`",
        ));
    }
    let of_symbols = file.imports.iter();
    objections.extend(of_symbols.filter_map(|symbol| against(symbol, groups, rules)));
    objections.sort_by_key(|objection| objection.grant);
    objections
}

/// What speaks against a symbol.
fn against(symbol: &str, groups: &Groups, rules: Rules) -> Option<Objection> {
    let Some(group) = groups.of(symbol) else {
        let rule = "it is in no group of the symbol policy";
        return rules.strict.then(|| Objection::fatal(symbol, rule));
    };
    let (rule, grant) = match group.when {
        When::Always => return None,
        When::Fs if rules.fs => return None,
        When::Net if rules.net => return None,
        When::Host if rules.strict => return None,
        When::Worker if !rules.strict => return None,
        When::Fs => (
            format!("files are not granted to it ({})", group.reason),
            Some("fs:PATH:ro"),
        ),
        When::Net => (
            format!("the network is not granted to it ({})", group.reason),
            Some("net"),
        ),
        When::Host => (
            format!(
                "imports of the group \"{}\" are for the host's own process only: {}",
                group.name, group.reason
            ),
            None,
        ),
        When::Worker => (
            format!("only a worker may import it ({})", group.reason),
            None,
        ),
        When::Never => (
            format!(
                "imports of the group \"{}\" are never allowed: {}",
                group.name, group.reason
            ),
            None,
        ),
    };
    Some(Objection {
        subject: symbol.to_owned(),
        rule,
        grant,
        likely: group.likely.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_grant_changes_comes_first() {
        let imports = [
            "accept4",
            "connect",
            "fork",
            "mkdir",
            "posix_spawnp",
            "read",
        ];
        let file = File {
            imports: imports.map(str::to_owned).into(),
            needed: vec!["libz.so.1".to_owned()],
            ..File::default()
        };
        let groups = Groups::parse(Groups::BUILTIN).unwrap();
        let judged = |rules| {
            let objections = judge(&file, &groups, rules);
            let subjects = objections.iter().map(|it| it.subject.clone());
            (subjects.collect::<Vec<_>>(), objections)
        };
        let rules = Rules {
            fs: false,
            net: false,
            strict: false,
        };
        let (subjects, objections) = judged(rules);
        assert_eq!(
            subjects,
            [
                "libz.so.1",
                "fork",
                "posix_spawnp",
                "mkdir",
                "accept4",
                "connect"
            ]
        );
        let said: Vec<_> = Grouped::all(&objections)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(
            said[1].contains("most likely `std::process::Command`"),
            "{said:?}"
        );
        assert!(
            said[2].starts_with("`mkdir`: files are not granted"),
            "{said:?}"
        );
        let rules = Rules {
            fs: true,
            net: true,
            ..rules
        };
        assert_eq!(judged(rules).0, ["libz.so.1", "fork", "posix_spawnp"]);
    }
}

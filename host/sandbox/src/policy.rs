//! The system call policy: read from data, compiled to filters.

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{BpfProgram, TargetArch, compile_from_json};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Grant, Program,
    filter::{self, SELF},
};

/// Why the policy cannot be used: its data are wrong, or this machine is not known.
#[derive(Debug, thiserror::Error)]
#[error("the system call policy cannot be compiled: {0}")]
pub struct PolicyError(String);

/// The policy as data.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    newest: u32,
    run: Group,
    load: Group,
    #[serde(rename = "fs-read")]
    fs_read: Group,
    #[serde(rename = "fs-write")]
    fs_write: Group,
    net: Group,
    never: Group,
}

type Group = BTreeMap<String, Entries>;

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Entries {
    Reason(String),
    One(Entry),
    Several(Vec<Entry>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    reason: String,
    arch: Option<String>,
    #[serde(default)]
    when: Vec<(u8, Operand, Operand)>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Operand {
    Number(u32),
    Word(String),
}

impl Operand {
    fn value(&self) -> Result<u64, PolicyError> {
        match self {
            Self::Number(number) => Ok((*number).into()),
            Self::Word(word) if word == "self" => Ok(SELF.into()),
            Self::Word(word) => Err(PolicyError(format!(
                "`{word}` is neither a number nor `self`"
            ))),
        }
    }

    /// The bits that count: of the lower half, or of all.
    fn mask(&self) -> Result<u64, PolicyError> {
        match self {
            Self::Number(number) => Ok((*number).into()),
            Self::Word(word) if word == "all" => Ok(u64::MAX),
            Self::Word(word) => Err(PolicyError(format!(
                "`{word}` is neither a number nor `all`"
            ))),
        }
    }
}

impl Entries {
    fn list(&self) -> Vec<Entry> {
        match self {
            Self::Reason(reason) => vec![Entry {
                reason: reason.clone(),
                arch: None,
                when: Vec::new(),
            }],
            Self::One(entry) => vec![entry.clone()],
            Self::Several(entries) => entries.clone(),
        }
    }
}

/// What plugins may ask of the kernel.
#[derive(Debug)]
pub struct Policy {
    data: Data,
}

impl Policy {
    /// The policy that comes with the host, as it is written.
    pub const BUILTIN: &str = include_str!("../policy/syscalls.toml");

    /// Reads a policy, in the format of the built-in one.
    ///
    /// # Errors
    /// Where it is wrong, in whatever group.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let data: Data = toml::from_str(text).map_err(|error| PolicyError(error.to_string()))?;
        let policy = Self { data };
        // With all that can be granted, so that no group is first examined when a plugin needs it.
        let files = Grant::Files {
            path: "/".into(),
            write: true,
        };
        policy.compile(&[files, Grant::Network])?;
        Ok(policy)
    }

    /// The filters before loading, and the one after it.
    ///
    /// # Errors
    /// If a name is unknown, or the machine is.
    pub fn compile(&self, grants: &[Grant]) -> Result<(Vec<Program>, Program), PolicyError> {
        let mut groups = vec![&self.data.run];
        for grant in grants {
            match grant {
                Grant::Network => groups.push(&self.data.net),
                Grant::Files { write, .. } => {
                    groups.push(&self.data.fs_read);
                    if *write {
                        groups.push(&self.data.fs_write);
                    }
                }
            }
        }
        let second = program(&groups, json!({ "errno": libc::EPERM }), json!("allow"))?;
        groups.push(&self.data.load);
        let first = program(&groups, json!({ "errno": libc::EPERM }), json!("allow"))?;
        let never = program(&[&self.data.never], json!("allow"), json!("kill_process"))?;
        let guard =
            |program| filter::guarded(self.data.newest, program).ok_or_else(unknown_machine);
        Ok((vec![guard(first)?, never], guard(second)?))
    }
}

fn unknown_machine() -> PolicyError {
    PolicyError(format!("there is no table for {}", std::env::consts::ARCH))
}

fn program(groups: &[&Group], otherwise: Value, matched: Value) -> Result<Program, PolicyError> {
    let arch = std::env::consts::ARCH;
    let mut rules = BTreeMap::<&str, BTreeSet<Vec<(u8, u64, u64)>>>::new();
    for (name, entries) in groups.iter().copied().flatten() {
        for entry in entries.list() {
            if entry.reason.trim().is_empty() {
                return Err(PolicyError(format!("`{name}` has no reason")));
            }
            if entry.arch.as_deref().is_some_and(|only| only != arch) {
                continue;
            }
            let when = entry
                .when
                .iter()
                .map(|(index, mask, operand)| Ok((*index, mask.mask()?, operand.value()?)))
                .collect::<Result<_, PolicyError>>()?;
            rules.entry(name).or_default().insert(when);
        }
    }
    let mut list = Vec::new();
    for (name, cases) in rules {
        if cases.contains(&Vec::new()) {
            list.push(json!({ "syscall": name }));
            continue;
        }
        for case in cases {
            let conditions: Vec<_> = case
                .into_iter()
                .map(|(index, mask, value)| {
                    // What the kernel takes as a number of 32 bits may have anything in the others.
                    let kind = match u32::try_from(mask) {
                        Ok(_) => "dword",
                        Err(_) => "qword",
                    };
                    json!({ "index": index, "type": kind, "op": { "masked_eq": mask }, "val": value })
                })
                .collect();
            list.push(json!({ "syscall": name, "args": conditions }));
        }
    }
    let text = json!({
        "filter": { "mismatch_action": otherwise, "match_action": matched, "filter": list }
    })
    .to_string();
    let arch = TargetArch::try_from(arch).map_err(|_| unknown_machine())?;
    let compiled = compile_from_json(text.as_bytes(), arch)
        .map_err(|error| PolicyError(error.to_string()))?
        .remove("filter");
    compiled
        .map(|program: BpfProgram| filter::pack(&program))
        .ok_or_else(|| PolicyError("the compiler returned nothing".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_policy_compiles_for_every_grant() {
        let policy = Policy::parse(Policy::BUILTIN).unwrap();
        let files = Grant::Files {
            path: "/srv".into(),
            write: true,
        };
        let (first, second) = policy.compile(&[]).unwrap();
        assert_eq!(first.len(), 2);
        let (_, more) = policy.compile(&[files, Grant::Network]).unwrap();
        assert!(more.0.len() > second.0.len());
    }

    #[test]
    fn unknown_calls_and_missing_reasons_are_refused() {
        for group in ["run", "load", "fs-read", "fs-write", "net", "never"] {
            let heading = format!("[{group}]\n");
            let with = |line| Policy::BUILTIN.replace(&heading, &format!("{heading}{line}\n"));
            for (line, name) in [
                ("frobnicate = \"why not\"", "frobnicate"),
                ("getuid = \"\"", "getuid"),
            ] {
                let error = Policy::parse(&with(line)).unwrap_err().to_string();
                assert!(error.contains(name), "{group}: {error}");
            }
        }
    }

    #[test]
    fn a_pointer_is_compared_with_all_bits() {
        let with = |mask| {
            let line = format!("getuid = {{ reason = \"a test\", when = [[0, {mask}, 0]] }}");
            let text = Policy::BUILTIN.replace("[run]\n", &format!("[run]\n{line}\n"));
            Policy::parse(&text).and_then(|policy| policy.compile(&[]))
        };
        // Each half takes a load, a mask and a jump.
        let half = with("0xffffffff").unwrap().1.0.len();
        let whole = with("\"all\"").unwrap().1.0.len();
        assert!(whole > half, "{whole} instructions, and {half} for a half");
        let error = with("\"most\"").unwrap_err().to_string();
        assert!(error.contains("`most`"), "{error}");
    }

    #[test]
    fn grants_parse_as_written() {
        for text in ["net", "fs:/srv/data:ro", "fs:/srv/a:b:rw"] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "fs",
            "fs:relative:ro",
            "fs:/a/../b:ro",
            "fs:/a",
            "fs:/a:x",
            "fs:/:ro",
        ] {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
    }
}

//! Filters as words, and their installation.

use std::iter;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

use crate::{Program, policy::SELF};

const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Where the kernel puts the number and the architecture of a call.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;

/// The same on every architecture.
const CLONE3: u32 = 435;
/// Marks calls of the x32 interface, which have other numbers.
const X32: u32 = 0x4000_0000;

/// How many system calls a part of a filter compares one by one. The kernel runs a new filter for
/// each number that it knows, so that a start is the faster the shorter the way through it.
const PART: usize = 8;

fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> u64 {
    u64::from(code) << 48 | u64::from(jt) << 40 | u64::from(jf) << 32 | u64::from(k)
}

/// This machine, as the kernel tells it to filters.
fn arch() -> Option<u32> {
    match std::env::consts::ARCH {
        "x86_64" => Some(0xc000_003e),
        "aarch64" => Some(0xc000_00b7),
        "riscv64" => Some(0xc000_00f3),
        _ => None,
    }
}

/// Puts in front of a filter: calls that are newer than `newest`, and `clone3` (whose flags no
/// filter sees), fail with ENOSYS; calls of another architecture end the process. `None` on an
/// unknown architecture.
pub(crate) fn guarded(newest: u32, program: Program) -> Option<Program> {
    let arch = arch()?;
    let mut words = vec![
        instruction(LOAD_WORD, ARCH_AT, 0, 0),
        instruction(JUMP_EQUAL, arch, 0, 6),
        instruction(LOAD_WORD, NUMBER_AT, 0, 0),
        instruction(JUMP_NOT_LESS, X32, 4, 0),
        instruction(JUMP_GREATER, newest, 2, 0),
        instruction(JUMP_EQUAL, CLONE3, 1, 0),
        instruction(JUMP, 2, 0, 0),
        instruction(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32, 0, 0),
        instruction(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
    ];
    words.extend(program.0);
    Some(Program(words))
}

/// A filter with rules by the numbers of calls, in ascending order. A binary search leads to the
/// part that decides.
pub(crate) fn compiled(
    rules: &[(i64, Vec<SeccompRule>)],
    otherwise: &SeccompAction,
    matched: &SeccompAction,
) -> Result<Program, BackendError> {
    // Without any rule there is a part as well: it says what becomes of all calls.
    let split = rules.len().min(PART);
    let (first, rest) = rules.split_at(split);
    let parts = iter::once(first)
        .chain(rest.chunks(PART))
        .map(|part| {
            let from = part.first().map_or(0, |(number, _)| *number as u32);
            Ok((from, compare(part, otherwise, matched)?))
        })
        .collect::<Result<Vec<_>, BackendError>>()?;
    let mut words = vec![instruction(LOAD_WORD, NUMBER_AT, 0, 0)];
    words.extend(branch(&parts));
    Ok(Program(words))
}

/// A filter that compares one by one.
fn compare(
    rules: &[(i64, Vec<SeccompRule>)],
    otherwise: &SeccompAction,
    matched: &SeccompAction,
) -> Result<Program, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let rules = rules.iter().cloned().collect();
    let filter = SeccompFilter::new(rules, otherwise.clone(), matched.clone(), arch)?;
    Ok(pack(&BpfProgram::try_from(filter)?))
}

fn branch(parts: &[(u32, Program)]) -> Vec<u64> {
    if let [(_, only)] = parts {
        return only.0.clone();
    }
    let (before, from) = parts.split_at(parts.len() / 2);
    let Some((first, _)) = from.first() else {
        return Vec::new();
    };
    let before = branch(before);
    let mut words = vec![
        instruction(JUMP_NOT_LESS, *first, 0, 1),
        instruction(JUMP, before.len() as u32, 0, 0),
    ];
    words.extend(before);
    words.extend(branch(from));
    words
}

fn pack(program: &BpfProgram) -> Program {
    let words = program.iter();
    Program(
        words
            .map(|one| instruction(one.code, one.k, one.jt, one.jf))
            .collect(),
    )
}

/// Installs a filter for all threads of this process.
pub(crate) fn install(program: &Program) -> Result<(), String> {
    let own = std::process::id();
    let program: BpfProgram = program
        .0
        .iter()
        .map(|word| {
            let (code, k) = ((word >> 48) as u16, *word as u32);
            let is_self = code == JUMP_EQUAL && k == SELF;
            sock_filter {
                code,
                jt: (word >> 40) as u8,
                jf: (word >> 32) as u8,
                k: if is_self { own } else { k },
            }
        })
        .collect();
    seccompiler::apply_filter_all_threads(&program).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};

    use super::*;

    const AND: u16 = 0x54;

    /// What the kernel would return for a call with the same word in all arguments.
    fn run(program: &Program, number: u32, argument: u32) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let word = program.0[at];
            let (code, k) = ((word >> 48) as u16, word as u32);
            let jump = |holds: bool| usize::from((word >> if holds { 40 } else { 32 }) as u8);
            at += 1;
            match code {
                LOAD_WORD => {
                    accumulator = match k {
                        NUMBER_AT => number,
                        ARCH_AT => arch().expect("tests run on a known machine"),
                        _ => argument,
                    };
                }
                AND => accumulator &= k,
                JUMP => at += k as usize,
                JUMP_EQUAL => at += jump(accumulator == k),
                JUMP_GREATER => at += jump(accumulator > k),
                JUMP_NOT_LESS => at += jump(accumulator >= k),
                RETURN => return k,
                _ => panic!("an instruction that filters here do not have: {code:#x}"),
            }
        }
    }

    /// Calls of which some are always allowed and others only with an argument that is odd.
    fn rules(numbers: impl Iterator<Item = i64>) -> Vec<(i64, Vec<seccompiler::SeccompRule>)> {
        let odd = || {
            let holds = SeccompCmpOp::MaskedEq(1);
            let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, holds, 1).unwrap();
            seccompiler::SeccompRule::new(vec![condition]).unwrap()
        };
        numbers
            .map(|number| (number, if number % 3 == 0 { vec![odd()] } else { vec![] }))
            .collect()
    }

    #[test]
    fn every_call_is_judged_as_if_all_were_compared_one_by_one() {
        for count in [0, 1, 7, 8, 9, 16, 100] {
            let rules = rules((0..count).map(|at| at * 5 + 2));
            let refuse = SeccompAction::Errno(libc::EPERM as u32);
            let program = compiled(&rules, &refuse, &SeccompAction::Allow).unwrap();
            for number in 0..=600 {
                for argument in [0, 1] {
                    let rule = rules.iter().find(|(of, _)| *of == i64::from(number));
                    let allowed = rule.is_some_and(|(_, when)| when.is_empty() || argument == 1);
                    let expected = if allowed {
                        libc::SECCOMP_RET_ALLOW
                    } else {
                        libc::SECCOMP_RET_ERRNO | libc::EPERM as u32
                    };
                    let judged = run(&program, number, argument);
                    assert_eq!(judged, expected, "call {number} of {count} rules");
                }
            }
        }
    }
}

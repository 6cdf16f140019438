//! Filters as words, and their installation.

use seccompiler::{BpfProgram, sock_filter};

use crate::Program;

/// The kernel refused a system call filter.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct FilterError(#[from] seccompiler::Error);

/// Stands in a compiled filter for the worker's own process id.
pub(crate) const SELF: u32 = 0x5e1f_5e1f;

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

fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> u64 {
    u64::from(code) << 48 | u64::from(jt) << 40 | u64::from(jf) << 32 | u64::from(k)
}

/// Puts in front of a filter: calls that are newer than `newest`, and `clone3` (whose flags no
/// filter sees), fail with ENOSYS; calls of another architecture end the process. `None` on an
/// unknown architecture.
pub(crate) fn guarded(newest: u32, program: Program) -> Option<Program> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => 0xc000_003e,
        "aarch64" => 0xc000_00b7,
        "riscv64" => 0xc000_00f3,
        _ => return None,
    };
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

pub(crate) fn pack(program: &BpfProgram) -> Program {
    let words = program.iter();
    Program(
        words
            .map(|one| instruction(one.code, one.k, one.jt, one.jf))
            .collect(),
    )
}

/// Installs a filter for all threads of this process.
pub(crate) fn install(program: &Program) -> Result<(), FilterError> {
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
    Ok(seccompiler::apply_filter_all_threads(&program)?)
}

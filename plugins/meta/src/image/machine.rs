//! What a shared object was built for.

use std::fmt;

use object::elf;

/// Word size, byte order and processor of a shared object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    /// Word size in bits: 32 or 64.
    pub bits: u8,
    /// Whether the most significant byte comes first.
    pub big_endian: bool,
    /// `e_machine` of the ELF header.
    pub code: u16,
}

impl Machine {
    /// What this program itself was built for; `None` on a processor that is not in the list.
    pub const fn native() -> Option<Self> {
        let code = if cfg!(target_arch = "x86_64") {
            elf::EM_X86_64
        } else if cfg!(target_arch = "x86") {
            elf::EM_386
        } else if cfg!(target_arch = "aarch64") {
            elf::EM_AARCH64
        } else if cfg!(target_arch = "arm") {
            elf::EM_ARM
        } else if cfg!(any(target_arch = "riscv64", target_arch = "riscv32")) {
            elf::EM_RISCV
        } else if cfg!(target_arch = "loongarch64") {
            elf::EM_LOONGARCH
        } else if cfg!(target_arch = "powerpc64") {
            elf::EM_PPC64
        } else if cfg!(target_arch = "powerpc") {
            elf::EM_PPC
        } else if cfg!(target_arch = "s390x") {
            elf::EM_S390
        } else if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
            elf::EM_MIPS
        } else if cfg!(target_arch = "sparc64") {
            elf::EM_SPARCV9
        } else {
            return None;
        };
        Some(Self {
            bits: if cfg!(target_pointer_width = "64") {
                64
            } else {
                32
            },
            big_endian: cfg!(target_endian = "big"),
            code: code.0,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match elf::Machine(self.code).name() {
            Some(name) => {
                let name = name.strip_prefix("EM_").unwrap_or(name);
                write!(f, "{}", name.to_ascii_lowercase())?;
            }
            None => write!(f, "machine {}", self.code)?,
        }
        let order = if self.big_endian { "big" } else { "little" };
        write!(f, " ({}-bit {order}-endian)", self.bits)
    }
}

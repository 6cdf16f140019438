//! Whether a worker has installed its filters, as the kernel reports it.

use std::{fs, io};

/// Why a worker counts as unfiltered.
#[derive(Debug, thiserror::Error)]
pub enum Unfiltered {
    /// The kernel did not say.
    #[error("the system call filters of its worker are unknown: {0}")]
    Unknown(#[source] io::Error),
    /// It has no filter at all.
    #[error("its worker has installed no system call filter")]
    None,
    /// Some are missing.
    #[error("its worker has only {found} system call filters, and should have {own} of its own")]
    TooFew {
        /// All that it has, inherited ones included.
        found: usize,
        /// Those that it should have installed itself.
        own: usize,
    },
}

/// Checks that a worker that this thread started has installed at least `own` filters itself.
///
/// # Errors
/// What is missing.
pub fn check_filters(pid: i32, own: usize) -> Result<(), Unfiltered> {
    let worker = Filters::read(&format!("/proc/{pid}/status")).map_err(Unfiltered::Unknown)?;
    // Children inherit the filters of this thread.
    let inherited = Filters::read("/proc/thread-self/status").unwrap_or_default();
    worker.check(&inherited, own)
}

#[derive(Debug, Default)]
struct Filters {
    is_filtered: bool,
    count: Option<usize>,
}

impl Filters {
    fn check(&self, inherited: &Self, own: usize) -> Result<(), Unfiltered> {
        if !self.is_filtered {
            return Err(Unfiltered::None);
        }
        match self.count {
            Some(found) if found < inherited.count.unwrap_or(0) + own => {
                Err(Unfiltered::TooFew { found, own })
            }
            // Kernels before 5.9 do not count.
            _ => Ok(()),
        }
    }

    fn read(path: &str) -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string(path)?))
    }

    fn parse(status: &str) -> Self {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        Self {
            is_filtered: field("Seccomp:").is_some_and(|mode| mode.trim() == "2"),
            count: field("Seccomp_filters:").and_then(|count| count.trim().parse().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(worker: &str, inherited: &str, own: usize) -> Result<(), String> {
        let checked = Filters::parse(worker).check(&Filters::parse(inherited), own);
        checked.map_err(|error| error.to_string())
    }

    #[test]
    fn inherited_filters_do_not_count_as_its_own() {
        let two = "Name:\tworker\nSeccomp:\t2\nSeccomp_filters:\t2\n";
        assert_eq!(check(two, "Seccomp:\t0\nSeccomp_filters:\t0\n", 2), Ok(()));
        let refused = check(two, "Seccomp:\t2\nSeccomp_filters:\t1\n", 2).unwrap_err();
        assert!(refused.contains("only 2 system call filters"), "{refused}");
    }

    #[test]
    fn strict_mode_and_no_filter_are_unfiltered() {
        for status in ["", "Seccomp:\t0\n", "Seccomp:\t1\nSeccomp_filters:\t3\n"] {
            let refused = check(status, "", 0).unwrap_err();
            assert!(
                refused.contains("installed no system call filter"),
                "{refused}"
            );
        }
    }

    #[test]
    fn kernels_that_do_not_count_are_trusted() {
        assert_eq!(check("Seccomp:\t2\n", "Seccomp:\t2\n", 2), Ok(()));
    }

    #[test]
    fn a_process_without_status_is_unknown() {
        let refused = check_filters(0, 0).unwrap_err();
        assert!(matches!(refused, Unfiltered::Unknown(_)), "{refused}");
    }
}

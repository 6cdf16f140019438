//! Whether a worker has installed its filters, as the kernel tells.

use std::{fs, io};

/// Looks whether a worker that was started by this thread has so many filters of its own.
///
/// # Errors
/// What is not so, for people.
pub fn check_filters(pid: i32, own: usize) -> Result<(), String> {
    let worker = Filters::read(&format!("/proc/{pid}/status"));
    let worker = worker.map_err(|error| format!("its filters are not known: {error}"))?;
    // What this thread has its children have too.
    let inherited = Filters::read("/proc/thread-self/status").unwrap_or_default();
    if !worker.is_filtered {
        return Err("no system call filter is in place in its worker".into());
    }
    match (worker.count, inherited.count) {
        (Some(found), inherited) if found < inherited.unwrap_or(0) + own => Err(format!(
            "its worker has {found} system call filters where {own} of its own were installed"
        )),
        // Kernels before 5.9 do not count.
        _ => Ok(()),
    }
}

#[derive(Debug, Default)]
struct Filters {
    is_filtered: bool,
    count: Option<usize>,
}

impl Filters {
    fn read(path: &str) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        Ok(Self {
            is_filtered: field("Seccomp:").is_some_and(|mode| mode.trim() == "2"),
            count: field("Seccomp_filters:").and_then(|count| count.trim().parse().ok()),
        })
    }
}

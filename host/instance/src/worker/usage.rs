//! The resources that a process uses, as `/proc` shows them.

use std::fs;

/// Private memory in bytes and processor time in milliseconds.
pub(super) fn usage(pid: i32) -> (Option<u64>, Option<u64>) {
    let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    (private_bytes(&read("status")), cpu_ms(&read("stat")))
}

fn private_bytes(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let field = lines.find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = field.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

fn cpu_ms(stat: &str) -> Option<u64> {
    // The name before the last parenthesis may contain blanks and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    // Linux reports ticks of 10 ms on every architecture that a host runs on.
    Some((user + system) * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_like_fields_is_skipped() {
        let stat = "7 (a) R 1 (b c) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 1 0 100";
        assert_eq!(cpu_ms(stat), Some(420));
        assert_eq!(cpu_ms("7 (a) S 1 7"), None);
        assert_eq!(cpu_ms(""), None);
    }

    #[test]
    fn only_private_memory_counts() {
        let status = "VmRSS:\t  900 kB\nRssAnon:\t   300 kB\nRssFile:\t  600 kB\n";
        assert_eq!(private_bytes(status), Some(300 << 10));
        assert_eq!(private_bytes("VmRSS:\t 900 kB\n"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let (bytes, cpu_ms) = usage(pid);
        assert!(bytes.is_some_and(|bytes| bytes > 0) && cpu_ms.is_some());
    }
}

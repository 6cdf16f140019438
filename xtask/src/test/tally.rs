//! Adds up the results of test programs.

/// Results so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// Failed cargo runs: a failed test or a failed build.
    pub(super) broken: usize,
}

impl Tally {
    /// Takes a line that a test program printed:
    /// `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
    pub(super) fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let words: Vec<_> = result.split([' ', ';', '.']).collect();
        for pair in words.windows(2) {
            let Ok(number) = pair[0].parse::<usize>() else {
                continue;
            };
            match pair[1] {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// Whether at least one test ran and all passed.
    pub(super) fn is_good(&self) -> bool {
        self.failed == 0 && self.broken == 0 && self.passed > 0
    }

    /// A one-line summary. A test program counts its skipped tests as passed.
    pub(super) fn summary(&self, skipped: usize) -> String {
        // Something that does not build is a failure that no program has counted.
        let failed = self.failed.max(self.broken);
        format!(
            "{} passed, {failed} failed, {} skipped",
            self.passed.saturating_sub(skipped),
            self.ignored + skipped,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut tally = Tally::default();
        tally.add("running 5 tests");
        tally.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; finished in 0.00s");
        tally.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 1 filtered out");
        assert_eq!(tally.summary(1), "3 passed, 2 failed, 2 skipped");
        assert!(!tally.is_good());
    }

    #[test]
    fn zero_tests_count_as_failure() {
        assert!(!Tally::default().is_good());
    }

    #[test]
    fn a_failed_build_counts_as_failure() {
        let mut tally = Tally::default();
        tally.add("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; finished in 0.00s");
        tally.broken += 1;
        assert_eq!(tally.summary(0), "3 passed, 1 failed, 0 skipped");
        assert!(!tally.is_good());
    }
}

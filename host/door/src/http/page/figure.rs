//! Numbers with their units, for people.

use std::fmt;

use hotmerge_meta::figures::Distribution;
use maud::Render;

/// A duration, to three digits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Milliseconds(pub(super) f64);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms < 0.001 => write!(f, "{:.0} ns", ms * 1e6),
            ms if ms < 1.0 => write!(f, "{:.0} µs", ms * 1e3),
            ms if ms < 10.0 => write!(f, "{ms:.1} ms"),
            ms if ms < 1e3 => write!(f, "{ms:.0} ms"),
            ms => write!(f, "{:.1} s", ms / 1e3),
        }
    }
}

impl Render for Milliseconds {
    fn render_to(&self, to: &mut String) {
        self.to_string().render_to(to);
    }
}

pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

pub(super) fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1e3)
}

/// A length in a drawing, to the precision that can be seen.
pub(super) fn tenths(length: f64) -> String {
    format!("{length:.1}")
}

/// An unknown value is a dash.
pub(super) fn or_dash(known: Option<impl fmt::Display>) -> String {
    known.map_or_else(|| "–".to_owned(), |known| known.to_string())
}

/// The duration that this share of the measured ones does not exceed, as exact as the buckets are.
pub(super) fn percentile(of: &Distribution, share: f64) -> Option<String> {
    let wanted = of.count() as f64 * share;
    let mut seen = 0;
    let reaches = |(_, count): &&(f64, u64)| {
        seen += count;
        *count > 0 && seen as f64 >= wanted
    };
    let (bound, _) = of.buckets.iter().find(reaches)?;
    Some(match bound.is_finite() {
        true => format!("≤ {}", Milliseconds(bound * 1e3)),
        false => {
            let bounds = of.buckets.iter().rev().map(|(bound, _)| bound);
            let last = bounds.into_iter().find(|bound| bound.is_finite())?;
            format!("> {}", Milliseconds(last * 1e3))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_fitting_units() {
        let all =
            [0.000_12, 0.25, 1.234, 42.42, 999.0, 12_345.0].map(|ms| Milliseconds(ms).to_string());
        assert_eq!(
            all,
            ["120 ns", "250 µs", "1.2 ms", "42 ms", "999 ms", "12.3 s"]
        );
    }

    #[test]
    fn a_percentile_is_the_bound_that_holds_it() {
        let buckets = vec![(0.001, 50), (0.01, 49), (0.1, 0), (f64::INFINITY, 1)];
        let of = Distribution { sum: 1.0, buckets };
        let told = [0.5, 0.51, 0.99, 1.0].map(|share| percentile(&of, share).unwrap());
        assert_eq!(told, ["≤ 1.0 ms", "≤ 10 ms", "≤ 10 ms", "> 100 ms"]);
        assert_eq!(percentile(&Distribution::default(), 0.5), None);
    }
}

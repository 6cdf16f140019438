//! Figures and how they are printed.

use std::time::{Duration, Instant};

use serde::Serialize;

/// One figure.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) bench: String,
    /// Unit of value, floor and peer.
    pub(crate) unit: &'static str,
    /// The median.
    pub(crate) value: f64,
    /// What it cannot be faster than, measured in turns with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) floor: Option<f64>,
    /// Another way to do the same, measured in turns with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<f64>,
    /// Value over floor or peer: the median of the ratios of single rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
}

/// Tells figures as they come.
pub(crate) struct Figures {
    json: bool,
}

impl Figures {
    pub(crate) fn new(json: bool) -> Self {
        if !json {
            println!(
                "{:<44} {:>10} {:>10} {:>10} {:>7}  unit",
                "bench", "value", "floor", "peer", "ratio"
            );
        }
        Self { json }
    }

    pub(crate) fn tell(&mut self, figure: &Figure) -> anyhow::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(figure)?);
            return Ok(());
        }
        let number =
            |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        println!(
            "{:<44} {:>10} {:>10} {:>10} {:>7}  {}",
            figure.bench,
            number(Some(figure.value)),
            number(figure.floor),
            number(figure.peer),
            number(figure.ratio),
            figure.unit
        );
        Ok(())
    }
}

/// Times one run.
pub(crate) fn time<R>(body: impl FnOnce() -> R) -> (Duration, R) {
    let began = Instant::now();
    let result = body();
    (began.elapsed(), result)
}

/// The middle one; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Pairs of a measured and a compared value, taken in turns.
#[derive(Debug, Default)]
pub(crate) struct Pairs(Vec<(f64, f64)>);

impl Pairs {
    pub(crate) fn push(&mut self, value: f64, other: f64) {
        self.0.push((value, other));
    }

    /// Medians of value, other, and of their ratio.
    pub(crate) fn medians(&self) -> (f64, f64, f64) {
        (
            median(self.0.iter().map(|(value, _)| *value).collect()),
            median(self.0.iter().map(|(_, other)| *other).collect()),
            median(self.0.iter().map(|(value, other)| value / other).collect()),
        )
    }
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

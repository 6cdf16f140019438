//! Families of metrics, one row per set of labels.
//!
//! Absent on purpose: which families there are.

use std::fmt;

use hotmerge_meta::figures::Distribution;
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeCounterValue, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

/// The labels of a row.
pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// A family: its name without unit, what it means, and its unit.
pub(super) type Family = (&'static str, &'static str, Option<Unit>);

/// Writes families. One without rows is left out.
pub(super) struct Rows<'a>(pub(super) DescriptorEncoder<'a>);

impl Rows<'_> {
    fn write<'v, T>(
        &mut self,
        (name, help, unit): Family,
        kind: MetricType,
        rows: impl IntoIterator<Item = (Labels<'v>, T)>,
        write: impl Fn(&mut MetricEncoder<'_>, &T) -> fmt::Result,
    ) -> fmt::Result {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in rows {
            match labels.is_empty() {
                true => write(&mut family, &value)?,
                false => write(&mut family.encode_family(&labels)?, &value)?,
            }
        }
        Ok(())
    }

    pub(super) fn counters<'v, V: EncodeCounterValue>(
        &mut self,
        family: Family,
        rows: impl IntoIterator<Item = (Labels<'v>, V)>,
    ) -> fmt::Result {
        self.write(family, MetricType::Counter, rows, |metric, value| {
            metric.encode_counter::<NoLabelSet, _, f64>(value, None)
        })
    }

    pub(super) fn gauges<'v>(
        &mut self,
        family: Family,
        rows: impl IntoIterator<Item = (Labels<'v>, f64)>,
    ) -> fmt::Result {
        self.write(family, MetricType::Gauge, rows, |metric, value| {
            metric.encode_gauge(value)
        })
    }

    /// Things that are described by their labels alone.
    pub(super) fn infos<'v>(
        &mut self,
        family: Family,
        rows: impl IntoIterator<Item = Labels<'v>>,
    ) -> fmt::Result {
        let rows = rows.into_iter().map(|labels| (Labels::new(), labels));
        self.write(family, MetricType::Info, rows, |metric, labels| {
            metric.encode_info(labels)
        })
    }

    pub(super) fn histograms<'v>(
        &mut self,
        family: Family,
        rows: impl IntoIterator<Item = (Labels<'v>, &'v Distribution)>,
    ) -> fmt::Result {
        self.write(family, MetricType::Histogram, rows, |metric, value| {
            metric.encode_histogram::<NoLabelSet>(value.sum, value.count(), &value.buckets, None)
        })
    }
}

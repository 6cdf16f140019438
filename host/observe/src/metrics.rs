//! A host's status and figures as Prometheus reads them.
//!
//! Invariant: labels are names of plugins in the directory and words from closed lists, never what a
//! caller or a plugin sent, so that the number of series is bounded by the number of plugins.
//!
//! Absent on purpose: counting, and how the text gets to Prometheus.

mod families;
mod rows;

use hotmerge_meta::{control::Status, figures::Figures};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, prometheus_text, text},
    registry::Registry,
};

use rows::Rows;

/// How metrics are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4 of Prometheus, which people can read as well.
    Text,
}

impl Encoding {
    /// The media type of what is written.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// A host's state at one moment.
#[derive(Debug)]
pub struct Scrape {
    /// Its status.
    pub status: Status,
    /// What it has counted and measured besides.
    pub figures: Figures,
}

impl Scrape {
    /// Everything as text.
    ///
    /// # Errors
    /// If a metric cannot be written, which is a fault of this program.
    pub fn write(self, encoding: Encoding) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("hotmerge");
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        match encoding {
            Encoding::OpenMetrics => text::encode(&mut text, &registry)?,
            Encoding::Text => prometheus_text::encode(&mut text, &registry)?,
        }
        Ok(text)
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut rows = Rows(encoder);
        families::host(&mut rows, &self.status, &self.figures)?;
        families::plugins(&mut rows, &self.status)?;
        families::workers(&mut rows, &self.status)?;
        families::calls(&mut rows, &self.figures)?;
        families::reloads(&mut rows, &self.figures)?;
        families::watchers(&mut rows, &self.status)?;
        families::sinks(&mut rows, &self.status)?;
        families::door(&mut rows, &self.status)
    }
}

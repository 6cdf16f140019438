//! Turns records of `tracing` into those that are kept.
//!
//! A record that names no plugin is about that of the span that it is in, if one names a plugin.

use std::{fmt, sync::Arc, time::SystemTime};

use hotmerge_meta::{control::LogLevel, cut};
use serde_json::Value;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use super::{Record, Records, TEXT};

/// A layer that keeps each record.
#[derive(Debug)]
pub struct Capture(pub Arc<Records>);

/// The plugin that a span is about.
struct OfPlugin(String);

impl<S> Layer<S> for Capture
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut plugin = NamesPlugin(None);
        attributes.record(&mut plugin);
        if let (Some(plugin), Some(span)) = (plugin.0, context.span(id)) {
            span.extensions_mut().insert(OfPlugin(plugin));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut record = Record {
            time: SystemTime::now(),
            level: match *metadata.level() {
                Level::ERROR => LogLevel::Error,
                Level::WARN => LogLevel::Warn,
                Level::INFO => LogLevel::Info,
                Level::DEBUG => LogLevel::Debug,
                Level::TRACE => LogLevel::Trace,
            },
            target: metadata.target(),
            plugin: None,
            version: None,
            generation: None,
            trace_id: None,
            span_id: None,
            message: String::new(),
            fields: serde_json::Map::new(),
        };
        event.record(&mut record);
        if record.plugin.is_none() {
            let mut spans = context.event_scope(event).into_iter().flatten();
            record.plugin = spans.find_map(|span| {
                let extensions = span.extensions();
                extensions.get::<OfPlugin>().map(|it| it.0.clone())
            });
        }
        self.0.push(record);
    }
}

struct NamesPlugin(Option<String>);

impl Visit for NamesPlugin {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "plugin" {
            self.0 = Some(text(value));
        }
    }
}

/// A value as a text that is not too long.
fn text(value: &dyn fmt::Debug) -> String {
    bounded(format!("{value:?}"))
}

fn bounded(mut text: String) -> String {
    cut(&mut text, TEXT);
    text
}

impl Record {
    fn take(&mut self, name: &str, text: String) {
        match name {
            "message" => self.message = text,
            "plugin" => self.plugin = Some(text),
            "version" => self.version = Some(text),
            "trace_id" => self.trace_id = Some(text),
            "span_id" => self.span_id = Some(text),
            _ => drop(self.fields.insert(name.to_owned(), Value::String(text))),
        }
    }

    fn take_value(&mut self, field: &Field, value: impl Into<Value>) {
        self.fields.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field.name(), text(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), bounded(value.to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "generation" => self.generation = Some(value),
            _ => self.take_value(field, value),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take_value(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take_value(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take_value(field, value);
    }
}

//! Turns records of `tracing` into those that are kept.
//!
//! A record that names no plugin is about that of the span that it is in, if one names a plugin.

use std::{fmt, sync::Arc};

use hotmerge_meta::{control::LogLevel, cut};
use serde_json::Value;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{self, Attributes, Id},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use crate::{record::Record, records::Records, sinks::Router};

/// The longest text of a record, in bytes.
const TEXT: usize = 16 << 10;

/// A layer that keeps each record and hands it to the routes, and writes those as lines that go to standard
/// error.
pub(crate) struct Capture<L> {
    records: Option<Arc<Records>>,
    router: Option<Arc<Router>>,
    lines: L,
}

impl<L> Capture<L> {
    pub(crate) fn new(
        records: Option<Arc<Records>>,
        router: Option<Arc<Router>>,
        lines: L,
    ) -> Self {
        Self {
            records,
            router,
            lines,
        }
    }

    fn take(&self, record: Record) -> bool {
        let record = Arc::new(record);
        if let Some(records) = &self.records {
            records.push(Arc::clone(&record));
        }
        self.router.as_ref().is_some_and(|it| it.take(&record))
    }
}

/// The plugin that a span is about.
struct OfPlugin(String);

impl<S, L> Layer<S> for Capture<L>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    L: Layer<S>,
{
    fn on_layer(&mut self, subscriber: &mut S) {
        self.lines.on_layer(subscriber);
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut plugin = NamesPlugin(None);
        attributes.record(&mut plugin);
        if let (Some(plugin), Some(span)) = (plugin.0, context.span(id)) {
            span.extensions_mut().insert(OfPlugin(plugin));
        }
        self.lines.on_new_span(attributes, id, context);
    }

    fn on_record(&self, span: &Id, values: &span::Record<'_>, context: Context<'_, S>) {
        self.lines.on_record(span, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.lines.on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.lines.on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.lines.on_close(id, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut record = Record::new(level(metadata.level()), metadata.target());
        event.record(&mut record);
        if record.plugin.is_none() {
            let mut spans = context.event_scope(event).into_iter().flatten();
            record.plugin = spans.find_map(|span| {
                let extensions = span.extensions();
                extensions.get::<OfPlugin>().map(|it| it.0.clone())
            });
        }
        if self.take(record) {
            self.lines.on_event(event, context);
        }
    }
}

/// A level of `tracing`.
pub(crate) fn level(level: &Level) -> LogLevel {
    match *level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
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

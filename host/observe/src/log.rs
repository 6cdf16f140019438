//! The program's log: it goes to sinks, one of which is standard error, and nothing waits for them; its last
//! records into memory.

use std::{
    io::{self, IsTerminal},
    sync::Arc,
};

use hotmerge_meta::{control::LogLevel, plain};
use tracing::Metadata;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    field::MakeExt as _,
    filter::{LevelFilter, ParseError},
    fmt::{self, MakeWriter, format::debug_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{
    capture::{self, Capture},
    record::Source,
    records::Records,
    sinks::Router,
};

/// The first part of the targets of the host's records, and the target of its plugins' own.
const OWN: &[&str] = &["hotmerge", "plugin"];

/// The format of log records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One line per record, for people.
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// Why logging does not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be parsed.
    #[error("`{filter}` is not a log filter: {source}")]
    Filter {
        /// The given filter.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// This process has a logger already.
    #[error("failed to start logging: {0}")]
    Start(Box<dyn std::error::Error + Send + Sync>),
}

/// Starts logging to the sinks of a router and, with `records`, into memory. Lines for standard error look as
/// `format` says.
///
/// # Errors
/// If `filter` is not a filter (`info`, `plugin=debug,warn`, …), or logging is on already.
pub fn start(
    format: Format,
    filter: &str,
    records: Option<&Arc<Records>>,
    router: &Arc<Router>,
) -> Result<(), LogError> {
    let filter = parse(filter)?;
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = fmt::layer()
        .with_ansi(colours)
        .with_writer(ToRouter(Arc::clone(router)));
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Text => {
            let fields = debug_fn(|writer, field, value| {
                let text = plain(&format!("{value:?}"));
                match field.name() {
                    "message" => write!(writer, "{text}"),
                    name => write!(writer, "{name}={text}"),
                }
            });
            Box::new(lines.fmt_fields(fields.delimited(" ")))
        }
        Format::Json => Box::new(lines.json().flatten_event(true)),
    };
    let capture = Capture::new(records.cloned(), Some(Arc::clone(router)), lines);
    let all = tracing_subscriber::registry().with(capture).with(filter);
    all.try_init()
        .map_err(|error| LogError::Start(error.into()))
}

/// Writes lines to the sink for standard error.
struct ToRouter(Arc<Router>);

/// Takes one line there.
struct LineToRouter<'a> {
    router: &'a Router,
    level: LogLevel,
    source: Source,
}

impl<'a> MakeWriter<'a> for ToRouter {
    type Writer = LineToRouter<'a>;

    fn make_writer(&'a self) -> LineToRouter<'a> {
        LineToRouter {
            router: &self.0,
            level: LogLevel::Info,
            source: Source::Host,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> LineToRouter<'a> {
        LineToRouter {
            router: &self.0,
            level: capture::level(metadata.level()),
            source: Source::of(metadata.target()),
        }
    }
}

impl io::Write for LineToRouter<'_> {
    /// The layer writes a whole line at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.router.line(self.level, self.source, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a filter. A level alone applies to the host and its plugins: what libraries log appears only
/// if they are named.
fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    let (levels, named): (Vec<_>, Vec<_>) = filter
        .split(',')
        .map(str::trim)
        .filter(|directive| !directive.is_empty())
        .partition(|directive| directive.parse::<LevelFilter>().is_ok());
    let level = levels.last().copied();
    let level = level.or(named.is_empty().then_some("error"));
    // Of two directives for one target the later one counts.
    let own = level.into_iter().flat_map(|level| {
        let for_target = move |target| format!("{target}={level}");
        OWN.iter().map(for_target)
    });
    let directives = own.chain(named.into_iter().map(str::to_owned));
    let directives = directives.collect::<Vec<_>>().join(",");
    let parsed = EnvFilter::builder().parse(directives);
    parsed.map_err(|source| LogError::Filter {
        filter: filter.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing::{Subscriber, debug, info};
    use tracing_subscriber::layer::Context;

    use super::*;

    /// Remembers which targets were let through.
    struct Seen(Arc<Mutex<Vec<&'static str>>>);

    impl<S: Subscriber> Layer<S> for Seen {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(event.metadata().target());
        }
    }

    /// The targets that a filter lets through, of records at two levels.
    fn seen(filter: &str) -> Vec<&'static str> {
        let seen = Arc::default();
        let layer = Seen(Arc::clone(&seen));
        let subscriber =
            tracing_subscriber::registry().with(layer.with_filter(parse(filter).unwrap()));
        tracing::subscriber::with_default(subscriber, || {
            info!(target: "hotmerge::host", "");
            info!(target: "hotmerge::plugin", "");
            info!(target: "plugin", "");
            info!(target: "notify::inotify", "");
            debug!(target: "hotmerge::worker", "");
            debug!(target: "plugin", "");
            debug!(target: "notify::inotify", "");
        });
        let seen = seen.lock().unwrap();
        seen.clone()
    }

    #[test]
    fn libraries_are_logged_only_if_named() {
        let own = ["hotmerge::host", "hotmerge::plugin", "plugin"];
        assert_eq!(seen("info"), own);
        assert_eq!(seen("debug").len(), 5);
        assert_eq!(seen("warn,notify=info"), ["notify::inotify"]);
        assert_eq!(seen("plugin=debug,warn"), ["plugin", "plugin"]);
        assert_eq!(seen("notify=debug").len(), 2);
        assert_eq!(
            seen("info,hotmerge::plugin=off"),
            ["hotmerge::host", "plugin"]
        );
        assert!(seen("").is_empty() && seen("off").is_empty());
    }

    #[test]
    fn an_invalid_filter_is_named() {
        let error = parse("info,plugin=loud").unwrap_err().to_string();
        assert!(
            error.contains("`info,plugin=loud` is not a log filter"),
            "{error}"
        );
    }
}

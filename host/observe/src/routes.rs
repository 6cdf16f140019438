//! Which sinks a record goes to.
//!
//! Invariant: a record goes to each sink of each route that matches it, and to none of them twice.
//!
//! Absent on purpose: delivering it.

use std::collections::BTreeMap;

use hotmerge_meta::control::LogLevel;

use crate::record::{Record, text};

/// A rule, and where the records go that match it. A condition that is empty matches every record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Records of this severity or above.
    pub level: Option<LogLevel>,
    /// Records whose target is one of these, or begins with one and `::`.
    pub sources: Vec<String>,
    /// Records by one of these plugins, or about it.
    pub plugins: Vec<String>,
    /// Records with all of these fields; values are compared as texts.
    pub fields: BTreeMap<String, String>,
    /// The names of the sinks.
    pub to: Vec<String>,
}

impl Route {
    /// Whether a record matches this route.
    pub fn matches(&self, record: &Record) -> bool {
        let Self {
            level,
            sources,
            plugins,
            fields,
            to: _,
        } = self;
        level.is_none_or(|least| record.level >= least)
            && (sources.is_empty() || sources.iter().any(|it| is_below(&record.target, it)))
            && (plugins.is_empty()
                || record
                    .plugin
                    .as_ref()
                    .is_some_and(|it| plugins.contains(it)))
            && fields.iter().all(|(name, value)| has(record, name, value))
    }
}

/// Whether a target is this one, or one below it.
fn is_below(target: &str, source: &str) -> bool {
    let rest = target.strip_prefix(source);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn has(record: &Record, name: &str, value: &str) -> bool {
    let known = match name {
        "message" => Some(&record.message),
        "version" => record.version.as_ref(),
        "trace_id" => record.trace_id.as_ref(),
        "span_id" => record.span_id.as_ref(),
        "generation" => return record.generation.is_some_and(|it| it.to_string() == value),
        name => return record.fields.get(name).is_some_and(|it| text(it) == value),
    };
    known.is_some_and(|it| it == value)
}

/// The names of the sinks that a record goes to, in the order of the routes, and the numbers of the routes
/// that match.
pub fn ways<'a>(routes: &'a [Route], record: &Record) -> (Vec<&'a str>, Vec<usize>) {
    let (mut sinks, mut taken) = (Vec::new(), Vec::new());
    for (number, route) in routes.iter().enumerate() {
        if route.matches(record) {
            taken.push(number);
            for name in &route.to {
                if !sinks.contains(&name.as_str()) {
                    sinks.push(name);
                }
            }
        }
    }
    (sinks, taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut record = Record::new(LogLevel::Warn, "hotmerge::plugin");
        record.plugin = Some("a".to_owned());
        record.generation = Some(3);
        record.fields.insert("code".to_owned(), 7.into());
        record.fields.insert("kind".to_owned(), "odd".into());
        record
    }

    #[test]
    fn every_condition_of_a_route_must_hold() {
        let any = Route::default();
        assert!(any.matches(&record()));
        let level = |level| Route {
            level: Some(level),
            ..Route::default()
        };
        assert!(level(LogLevel::Info).matches(&record()));
        assert!(!level(LogLevel::Error).matches(&record()));
        let plugins = |name: &str| Route {
            level: Some(LogLevel::Info),
            plugins: vec!["x".to_owned(), name.to_owned()],
            ..Route::default()
        };
        assert!(plugins("a").matches(&record()));
        assert!(!plugins("b").matches(&record()));
        let both = Route {
            level: Some(LogLevel::Error),
            ..plugins("a")
        };
        assert!(!both.matches(&record()));
    }

    #[test]
    fn a_source_covers_all_its_parts() {
        let from = |source: &str| Route {
            sources: vec![source.to_owned()],
            ..Route::default()
        };
        for (source, covers) in [
            ("hotmerge", true),
            ("hotmerge::plugin", true),
            ("hotmerge::plug", false),
            ("hot", false),
            ("plugin", false),
            ("hotmerge::plugin::x", false),
        ] {
            assert_eq!(from(source).matches(&record()), covers, "{source}");
        }
    }

    #[test]
    fn fields_are_compared_as_texts() {
        let with = |name: &str, value: &str| Route {
            fields: BTreeMap::from([(name.to_owned(), value.to_owned())]),
            ..Route::default()
        };
        assert!(with("code", "7").matches(&record()));
        assert!(with("kind", "odd").matches(&record()));
        assert!(with("generation", "3").matches(&record()));
        for (name, value) in [
            ("code", "8"),
            ("none", ""),
            ("message", "x"),
            ("version", ""),
        ] {
            assert!(!with(name, value).matches(&record()), "{name}");
        }
    }

    #[test]
    fn a_record_reaches_each_sink_once() {
        let to = |names: &[&str], level| Route {
            level: Some(level),
            to: names.iter().map(|it| (*it).to_owned()).collect(),
            ..Route::default()
        };
        let routes = [
            to(&["one"], LogLevel::Trace),
            to(&["two"], LogLevel::Error),
            to(&["three", "one"], LogLevel::Warn),
        ];
        assert_eq!(ways(&routes, &record()), (vec!["one", "three"], vec![0, 2]));
    }
}

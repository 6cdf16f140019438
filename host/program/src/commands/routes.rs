//! `hotmerge routes`: where records of the log go.
//!
//! Absent on purpose: the rules, which `hotmerge-observe` applies.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use hotmerge_daemon::Config;
use hotmerge_meta::{
    control::{LogLevel, LogLevelError, Status, method},
    plain,
};
use hotmerge_observe::{record::Record, routes};
use serde::Serialize;
use serde_json::{Map, Value};

use super::host::{HostArguments, configuration};
use crate::{
    exit::{self, CommandError},
    output,
    plan::plan,
};

/// The source of a record that names none.
const SOURCE: &str = "hotmerge::host";
/// The source of records of plugins.
const PLUGIN: &str = "plugin";

/// Show where records of the log go.
#[derive(Args, Debug)]
pub(super) struct Routes {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Test(Test),
}

/// Show to which sinks a record would go, without logging it.
///
/// Words `NAME=VALUE` describe the record: `level` (info by default), `source` (a target; by default
/// `plugin` if a plugin is named, otherwise `hotmerge::host`), `plugin`, `version`, `generation`, `trace_id`, `span_id`,
/// `message`, and fields of any other name. What `hotmerge serve --log` filters out reaches no
/// route.
#[derive(Args, Debug)]
struct Test {
    /// The record: words, or one text with words in it, as in `level=ERROR plugin=x 'message=a b'`
    #[arg(value_name = "NAME=VALUE", required = true)]
    record: Vec<String>,
    /// Configuration file (TOML) [default: the running host's]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    host: HostArguments,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Where a record would go.
#[derive(Debug, Serialize)]
struct Answer {
    /// The numbers of the routes that it would go, from 1.
    routes: Vec<usize>,
    /// The sinks that it would reach.
    sinks: Vec<Reached>,
}

#[derive(Debug, Serialize)]
struct Reached {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

/// Why a text describes no record.
#[derive(Debug, thiserror::Error)]
enum DescriptionError {
    #[error("`{0}` is not `NAME=VALUE`; quote a value with blanks: 'message=\"a b\"'")]
    Word(String),
    #[error("a quotation mark is not closed")]
    Quote,
    #[error(transparent)]
    Level(#[from] LogLevelError),
    #[error("`generation` must be a number, not `{0}`")]
    Generation(String),
}

impl Routes {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let Command::Test(test) = self.command;
        test.run()
    }
}

impl Test {
    fn run(self) -> Result<(), CommandError> {
        let record =
            described(&self.record).map_err(|error| CommandError::new(exit::USAGE, error))?;
        let answer = answer(&self.configuration()?, &record);
        match self.json {
            true => output::print_json(&answer)?,
            false => output::print(text(&answer)),
        }
        Ok(())
    }

    /// The file that was named, or the running host's.
    fn configuration(&self) -> Result<Config, CommandError> {
        if self.config.is_some() {
            return configuration(self.config.as_deref());
        }
        let status: Status = self
            .host
            .ask(method::STATUS, &(), Duration::from_secs(10))?;
        configuration(status.host.config.file.as_deref())
    }
}

fn answer(config: &Config, record: &Record) -> Answer {
    let plan = plan(config);
    let (names, routes) = routes::ways(&plan.routes, record);
    let sinks = names.into_iter().filter_map(|name| {
        let sink = plan.sinks.iter().find(|it| it.name == name)?;
        Some(Reached {
            name: sink.name.clone(),
            kind: sink.kind.name(),
        })
    });
    Answer {
        sinks: sinks.collect(),
        routes: routes.into_iter().map(|number| number + 1).collect(),
    }
}

fn text(answer: &Answer) -> String {
    if answer.sinks.is_empty() {
        return "no route matches: only `hotmerge logs` would show it\n".to_owned();
    }
    let numbers: Vec<_> = answer.routes.iter().map(ToString::to_string).collect();
    let routes = match numbers.len() {
        1 => "route",
        _ => "routes",
    };
    let sinks = answer.sinks.iter();
    let sinks: Vec<_> = sinks
        .map(|it| format!("{} ({})", plain(&it.name), it.kind))
        .collect();
    format!("{}, by {routes} {}\n", sinks.join(", "), numbers.join(", "))
}

/// The record that words describe.
fn described(texts: &[String]) -> Result<Record, DescriptionError> {
    let mut words = Vec::new();
    match texts {
        [one] => words.extend(split(one)?),
        several => words.extend_from_slice(several),
    }
    let mut record = Record::new(LogLevel::Info, "");
    for word in &words {
        let (name, value) = word
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| DescriptionError::Word(word.clone()))?;
        let value = value.to_owned();
        match name {
            "level" => record.level = value.parse()?,
            "source" | "target" => record.target = value.into(),
            "plugin" => record.plugin = Some(value),
            "version" => record.version = Some(value),
            "trace_id" => record.trace_id = Some(value),
            "span_id" => record.span_id = Some(value),
            "message" => record.message = value,
            "generation" => {
                let number = value.parse();
                record.generation = Some(number.map_err(|_| DescriptionError::Generation(value))?);
            }
            name => add_field(&mut record.fields, name, value),
        }
    }
    if record.target.is_empty() {
        let source = record.plugin.as_ref().map_or(SOURCE, |_| PLUGIN);
        record.target = source.into();
    }
    Ok(record)
}

fn add_field(fields: &mut Map<String, Value>, name: &str, value: String) {
    fields.insert(name.to_owned(), Value::String(value));
}

/// The words of a text. A part in double quotation marks may have blanks.
fn split(text: &str) -> Result<Vec<String>, DescriptionError> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut is_quoted = false;
    for sign in text.chars() {
        match sign {
            '"' => is_quoted = !is_quoted,
            sign if sign.is_whitespace() && !is_quoted => words.push(std::mem::take(&mut word)),
            sign => word.push(sign),
        }
    }
    words.push(word);
    words.retain(|it| !it.is_empty());
    match is_quoted {
        true => Err(DescriptionError::Quote),
        false => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described_as(texts: &[&str]) -> Result<Record, DescriptionError> {
        let texts: Vec<_> = texts.iter().map(|it| (*it).to_owned()).collect();
        described(&texts)
    }

    #[test]
    fn words_describe_a_record() {
        let record = described_as(&["level=ERROR plugin=x code=7 message=\"a b\""]).unwrap();
        assert_eq!(record.level, LogLevel::Error);
        assert_eq!(
            (&*record.target, record.plugin.as_deref()),
            ("plugin", Some("x"))
        );
        assert_eq!(
            (record.message.as_str(), &record.fields["code"]),
            ("a b", &"7".into())
        );
        let record = described_as(&["message=a = b", "generation=3"]).unwrap();
        assert_eq!(record.message, "a = b");
        assert_eq!(
            (&*record.target, record.generation),
            ("hotmerge::host", Some(3))
        );
        assert_eq!(record.level, LogLevel::Info);
    }

    #[test]
    fn an_invalid_description_is_refused() {
        for (text, reason) in [
            ("level", "`level` is not `NAME=VALUE`"),
            ("=x", "`=x` is not `NAME=VALUE`"),
            ("level=loud", "`loud` is not a log level"),
            ("generation=x", "`generation` must be a number, not `x`"),
            ("message=\"a", "a quotation mark is not closed"),
        ] {
            let refused = described_as(&[text]).unwrap_err().to_string();
            assert!(refused.starts_with(reason), "{text}: {refused}");
        }
    }

    #[test]
    fn sinks_and_routes_on_one_line() {
        let config = Config::parse(
            "[[log.sink]]\nname = \"a\"\ntype = \"stderr\"\n\
             [[log.sink]]\nname = \"b\"\ntype = \"journald\"\n\
             [[log.route]]\nto = [\"a\"]\nlevel = \"warn\"\n\
             [[log.route]]\nto = [\"b\", \"a\"]\nplugins = [\"x\"]\n",
        )
        .unwrap();
        let shown = |text: &str| super::text(&answer(&config, &described_as(&[text]).unwrap()));
        assert_eq!(
            shown("level=warn plugin=x"),
            "a (stderr), b (journald), by routes 1, 2\n"
        );
        assert_eq!(shown("level=error"), "a (stderr), by route 1\n");
        assert_eq!(
            shown("level=info"),
            "no route matches: only `hotmerge logs` would show it\n"
        );
    }
}

//! `hotmerge logs`: the last records of a host's log, and what comes after them.
//!
//! Absent on purpose: keeping records; the host has them in memory.

use std::{str::FromStr, time::Duration};

use clap::Args;
use hotmerge_meta::{
    PluginName,
    control::{Client, LogEntry, LogLevel, LogsParams, LogsReply, method},
    plain,
};
use jiff::{SignedDuration, Timestamp};

use super::{complete, host::HostArguments};
use crate::{exit::CommandError, output};

/// How long the host may take to answer, beyond the time it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the host waits for the next record.
const WAIT: Duration = Duration::from_secs(5);

/// Show the last records of the host's log.
///
/// The host keeps them in memory: `log.records` and `log.bytes` of its configuration limit them, and
/// `hotmerge serve --log` sets the levels that it logs.
#[derive(Args, Debug)]
pub(super) struct Logs {
    /// Show only records about these plugins, or by them
    #[arg(value_name = "PLUGIN", add = complete::plugins())]
    plugins: Vec<PluginName>,
    /// Continue with new records as they arrive
    #[arg(short, long)]
    follow: bool,
    /// Show only records of this level and above: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    level: Option<LogLevel>,
    /// Show only records since then: `10m`, `2h 30m`, or a time as in `2026-01-02T03:04:05Z`
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Show only records of this trace (32 hexadecimal digits)
    #[arg(long, value_name = "ID")]
    trace: Option<String>,
    #[command(flatten)]
    host: HostArguments,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// A moment in the past.
#[derive(Clone, Copy, Debug)]
struct Since(Timestamp);

/// The text names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give an age such as `10m`, or a time such as `2026-01-02T03:04:05Z`")]
struct NoMoment;

impl FromStr for Since {
    type Err = NoMoment;

    fn from_str(text: &str) -> Result<Self, NoMoment> {
        let moment = match text.parse::<SignedDuration>() {
            Ok(ago) => Timestamp::now().checked_sub(ago.unsigned_abs()),
            Err(_) => text.parse(),
        };
        moment.map(Self).map_err(|_| NoMoment)
    }
}

impl Logs {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let mut client = self.host.connect()?;
        let mut params = LogsParams {
            from: None,
            plugins: self.plugins.clone(),
            level: self.level,
            since_ms: self.since.map(|since| since.0.as_millisecond()),
            trace_id: self.trace.as_ref().map(|id| id.to_ascii_lowercase()),
            wait_ms: 0,
        };
        // Without `--follow` it ends where the log ended at first, or a busy log would have no end.
        let mut end = None;
        loop {
            let reply = self.ask(&mut client, &params)?;
            let is_read = self.show(&reply)?;
            let end = *end.get_or_insert(reply.end);
            if !is_read || (!self.follow && reply.next >= end) {
                return Ok(());
            }
            params.from = Some(reply.next);
            if self.follow && reply.next >= reply.end {
                params.wait_ms = u64::try_from(WAIT.as_millis()).unwrap_or_default();
            }
        }
    }

    fn ask(&self, client: &mut Client, params: &LogsParams) -> Result<LogsReply, CommandError> {
        HostArguments::request(client, method::LOGS, params, PATIENCE + WAIT)
    }

    /// Shows records; returns whether more can be written.
    fn show(&self, reply: &LogsReply) -> Result<bool, CommandError> {
        if reply.lost > 0 {
            output::complain(format_args!("{}\n", lost(reply.lost)));
        }
        let mut text = String::new();
        for entry in &reply.records {
            match self.json {
                true => text.push_str(&serde_json::to_string(entry).map_err(anyhow::Error::from)?),
                false => text.push_str(&line(entry)),
            }
            text.push('\n');
        }
        if !self.follow && text.is_empty() {
            return Ok(true);
        }
        Ok(output::print_to_reader(text))
    }
}

fn lost(count: u64) -> String {
    let records = hotmerge_meta::count(count, "record");
    format!(
        "the host has dropped {records} to make room; raise `log.records` and `log.bytes` in its \
         configuration to keep more"
    )
}

/// A record on one line without control characters.
fn line(entry: &LogEntry) -> String {
    let level = format!("{:5}", entry.level.to_ascii_uppercase());
    let mut line = format!(
        "{} {} {}",
        plain(&entry.time),
        plain(&level),
        plain(&entry.target)
    );
    if let Some(plugin) = &entry.plugin {
        line.push_str(&format!(" {}", plain(plugin)));
    }
    if let Some(version) = &entry.version {
        line.push_str(&format!(" {}", plain(version)));
    }
    if let Some(generation) = entry.generation {
        line.push_str(&format!(" #{generation}"));
    }
    line.push_str(&format!(": {}", plain(&entry.message)));
    for (name, value) in &entry.fields {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        line.push_str(&format!(" {}={}", plain(name), plain(&value)));
    }
    if let Some(trace) = &entry.trace_id {
        line.push_str(&format!(" trace={}", plain(trace)));
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn one_line_per_record() {
        let records: Vec<LogEntry> = from_value(json!([
            {
                "position": 0, "time": "2026-01-02T03:04:05.678901Z", "level": "info",
                "target": "hotmerge::plugin", "plugin": "counter", "message": "loaded",
                "fields": { "hash": "5f0c3f1b7d4e", "ms": 1.5 },
            },
            {
                "position": 1, "time": "2026-01-02T03:04:06.678901Z", "level": "warn",
                "target": "plugin", "plugin": "counter", "version": "1.2.3", "generation": 2,
                "trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331",
                "message": "odd\u{1b}[31m\nnews",
            },
        ]))
        .unwrap();
        let mut shown: Vec<String> = records.iter().map(line).collect();
        shown.push(lost(3));
        let shown = shown.join("\n");
        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string());
    }

    #[test]
    fn since_takes_a_date_or_an_age() {
        let ago = |text: &str| {
            let since: Since = text.parse().unwrap();
            Timestamp::now().as_second() - since.0.as_second()
        };
        assert!((600..660).contains(&ago("10m")));
        assert!((9000..9060).contains(&ago("2h 30m")));
        let moment: Since = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(moment.0.as_second(), 1_767_323_045);
        assert!("-9223372036854775808s".parse::<Since>().is_err());
        for wrong in ["", "soon", "10", "2026-01-02"] {
            assert!(wrong.parse::<Since>().is_err(), "{wrong}");
        }
    }
}

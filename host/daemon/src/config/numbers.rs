//! Every number of a configuration, at its ends and beyond: each value is taken, or refused by one sentence
//! that names its key, and none is too large to calculate with.

use std::time::{Duration, Instant};

use super::Config;

/// Every key that holds a number.
const NUMBERS: [&str; 41] = [
    "settle_ms",
    "start_ms",
    "drain_ms",
    "teardown_ms",
    "handover_ms",
    "keep_versions",
    "rescan_s",
    "poll_ms",
    "save_s",
    "call_ms",
    "restart.most",
    "restart.within_s",
    "restart.pause_ms",
    "http.max_body_bytes",
    "http.max_reply_bytes",
    "http.max_header_bytes",
    "http.header_ms",
    "http.body_ms",
    "http.deadline_ms",
    "http.max_connections",
    "http.max_calls",
    "http.max_calls_per_client",
    "http.stop_ms",
    "log.records",
    "log.bytes",
    "log.sink.queue_bytes",
    "log.sink.max_bytes",
    "log.sink.keep",
    "plugin.one.drain_ms",
    "plugin.one.teardown_ms",
    "plugin.one.handover_ms",
    "plugin.one.save_s",
    "plugin.one.canary.share",
    "plugin.one.canary.for_s",
    "plugin.one.canary.max_error_rate",
    "plugin.one.user",
    "plugin.one.limits.memory_mib",
    "plugin.one.limits.threads",
    "plugin.one.limits.files",
    "plugin.one.limits.cpu_s",
    "plugin.one.limits.cpus",
];

const ENDS: [&str; 18] = [
    "-9223372036854775808",
    "-1",
    "0",
    "1",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1.5",
    "-0.0",
    "1e-308",
    "1e308",
    "inf",
    "-inf",
    "nan",
    "\"1\"",
    "[]",
];

/// With what else the key's section demands.
fn document(key: &str, value: &str) -> String {
    if let Some(key) = key.strip_prefix("log.sink.") {
        return format!(
            "[[log.route]]\nto = [\"a\"]\n\
             [[log.sink]]\nname = \"a\"\ntype = \"file\"\npath = \"/a\"\n{key} = {value}\n"
        );
    }
    let mut text = format!("{key} = {value}\n");
    if let Some((section, _)) = key.split_once(".canary.") {
        for (other, value) in [("share", "0.5"), ("for_s", "1"), ("max_error_rate", "0.5")] {
            let other = format!("{section}.canary.{other}");
            if other != key {
                text += &format!("{other} = {value}\n");
            }
        }
    }
    text
}

/// What a host makes of a configuration: times to wait, and points in time.
fn calculate(config: &Config) {
    let one = "one".parse().unwrap();
    let settings = config.settings();
    let own = settings.of("one");
    let canary = config.canary(&one).map(|canary| canary.duration());
    let times = [
        config.settle(),
        config.start(),
        config.drain(&one),
        config.teardown(&one),
        config.handover(&one),
        config.longest_end(),
        config.rescan().unwrap_or_default(),
        canary.unwrap_or_default(),
        own.drain + own.teardown,
        settings.call_limit.unwrap_or_default(),
        settings.start_limit,
        Duration::from_secs(settings.restart.within_s),
        config.http.header(),
        config.http.body(),
        config.http.deadline(),
        config.http.stop(),
    ];
    for time in times {
        let _ = Instant::now() + time;
    }
    let bytes = own.limits.memory_mib.checked_mul(1 << 20);
    assert!(bytes.is_some(), "{:?}", own.limits);
}

#[test]
fn every_number_is_accepted_or_refused_with_reason() {
    for key in NUMBERS {
        for value in ENDS {
            match Config::parse(&document(key, value)) {
                Ok(config) => calculate(&config),
                Err(error) => {
                    let reason = error.to_string();
                    let name = key.rsplit('.').next().unwrap();
                    assert!(reason.contains(name), "{key} = {value}: {reason}");
                    assert!(!reason.contains(char::is_control), "{key}: {reason:?}");
                    assert!(!reason.ends_with('.'), "{key} = {value}: {reason}");
                }
            }
        }
    }
}

/// The packaged file shows every key.
#[test]
fn every_number_is_listed() {
    let shown = include_str!("../../../../scripts/services/hotmerge.toml.in");
    let is_number = |value: &str| {
        value
            .trim_start()
            .starts_with(|it: char| it.is_ascii_digit())
    };
    let keys = shown
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with(' '))
        .flat_map(|line| line.split(['{', ',']))
        .filter_map(|part| part.split_once('='))
        .filter(|(_, value)| is_number(value))
        .map(|(key, _)| key.trim());
    for key in keys {
        let is_known = NUMBERS.iter().any(|it| it.rsplit('.').next() == Some(key));
        assert!(is_known, "`{key}` is not tried");
    }
}

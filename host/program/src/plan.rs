//! The routes and sinks of the log, as the configuration has them.
//!
//! Absent on purpose: checking them, which reading the configuration does.

use hotmerge_daemon::{
    Config,
    config::{RouteConfig, SinkConfig, SinkType, SyslogAddress as Address, WrongValue},
};
use hotmerge_meta::Trust;
use hotmerge_observe::{
    routes::Route,
    sinks::{FileSettings, Kind, Plan, SinkSettings, SyslogAddress},
};

/// The journal's socket.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// The socket of the system's syslog.
const SYSLOG: &str = "/dev/log";
/// How many rotated files are kept.
const KEEP: u32 = 5;

/// What a configuration says of the log; without sinks, all goes to standard error.
pub(crate) fn plan(config: &Config) -> Plan {
    let log = &config.log;
    if log.sink.is_empty() {
        return Plan::default();
    }
    let trust = config.trust();
    Plan {
        sinks: log.sink.iter().map(|it| settings(it, &trust)).collect(),
        routes: log.route.iter().map(route).collect(),
    }
}

/// Checks that this program has every kind of sink that a configuration wants.
///
/// # Errors
/// The first one that it was built without.
pub(crate) fn check(config: &Config) -> Result<(), WrongValue> {
    for (number, sink) in plan(config).sinks.iter().enumerate() {
        if let Some(feature) = sink.kind.missing_feature() {
            let kind = sink.kind.name();
            let key = format!("log.sink[{number}].type");
            let reason =
                format!("is `{kind}`, but this program was built without it (feature `{feature}`)");
            return Err(WrongValue::new(key, reason));
        }
    }
    Ok(())
}

fn settings(sink: &SinkConfig, trust: &Trust) -> SinkSettings {
    SinkSettings {
        name: sink.name.clone(),
        queue_bytes: sink.queue_bytes,
        kind: match sink.kind {
            SinkType::Stderr => Kind::Stderr,
            SinkType::File => Kind::File(FileSettings {
                path: sink.path.clone().unwrap_or_default(),
                max_bytes: sink.max_bytes.unwrap_or_default(),
                keep: sink.keep.unwrap_or(KEEP),
                trust: trust.clone(),
            }),
            SinkType::Journald => Kind::Journald {
                socket: sink.socket.clone().unwrap_or_else(|| JOURNAL.into()),
            },
            SinkType::Syslog => Kind::Syslog {
                address: match &sink.address {
                    None => SyslogAddress::Unix(SYSLOG.into()),
                    Some(Address::Unix(path)) => SyslogAddress::Unix(path.clone()),
                    Some(Address::Udp(address)) => SyslogAddress::Udp(address.clone()),
                    Some(Address::Tcp(address)) => SyslogAddress::Tcp(address.clone()),
                },
                facility: sink.facility.unwrap_or_default() as u8,
            },
        },
    }
}

fn route(route: &RouteConfig) -> Route {
    Route {
        level: route.level,
        sources: route.sources.clone(),
        plugins: route.plugins.iter().map(ToString::to_string).collect(),
        fields: route.fields(),
        to: route.to.clone(),
    }
}

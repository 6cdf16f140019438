//! The operator's choice of how changes are noticed.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// How changes in the plugin directory are noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watch {
    /// inotify, and fanotify where this user may mark file systems; polling where they do not
    /// notice all changes.
    #[default]
    Auto,
    /// inotify alone.
    Inotify,
    /// fanotify alone.
    Fanotify,
    /// Both side by side.
    Both,
    /// The whole directory is scanned every `poll_ms`.
    Poll,
    /// Only signals, requests and the clock lead to a scan.
    Off,
}

const NAMES: [(&str, Watch); 6] = [
    ("auto", Watch::Auto),
    ("inotify", Watch::Inotify),
    ("fanotify", Watch::Fanotify),
    ("both", Watch::Both),
    ("poll", Watch::Poll),
    ("off", Watch::Off),
];

impl Watch {
    pub(super) fn has_inotify(self) -> bool {
        matches!(self, Self::Auto | Self::Inotify | Self::Both)
    }

    pub(super) fn has_fanotify(self) -> bool {
        matches!(self, Self::Auto | Self::Fanotify | Self::Both)
    }
}

/// The values of older configurations.
impl From<bool> for Watch {
    fn from(is_on: bool) -> Self {
        if is_on { Self::Auto } else { Self::Off }
    }
}

impl<'de> Deserialize<'de> for Watch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Words)
    }
}

struct Words;

impl Visitor<'_> for Words {
    type Value = Watch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one of ")?;
        for (name, _) in NAMES {
            write!(f, "\"{name}\", ")?;
        }
        f.write_str("true, false")
    }

    fn visit_bool<E: Error>(self, is_on: bool) -> Result<Watch, E> {
        Ok(is_on.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Watch, E> {
        let known = NAMES.iter().find(|(name, _)| *name == text);
        let unknown = || E::invalid_value(serde::de::Unexpected::Str(text), &self);
        known.map(|(_, watch)| *watch).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Config {
        watch: Watch,
    }

    fn read(value: &str) -> Result<Watch, String> {
        let config = toml::from_str::<Config>(&format!("watch = {value}"));
        config
            .map(|config| config.watch)
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn old_and_new_words_are_understood() {
        for (name, watch) in NAMES {
            assert_eq!(read(&format!("{name:?}")), Ok(watch));
        }
        assert_eq!(read("true"), Ok(Watch::Auto));
        assert_eq!(read("false"), Ok(Watch::Off));
        for wrong in ["\"dnotify\"", "1"] {
            let refused = read(wrong).unwrap_err();
            assert!(refused.contains("\"fanotify\", \"both\""), "{refused}");
        }
    }
}

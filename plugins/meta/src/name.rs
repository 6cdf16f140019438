//! The names that come from files and networks, as types: a value is always valid.
//!
//! None of them can leave its directory, hide, span lines or look like an option.

use std::{borrow::Borrow, ffi::OsStr, fmt, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

/// A name that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a {kind}: {rule}")]
pub struct NameError {
    kind: &'static str,
    name: String,
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks and wraps a name.
            ///
            /// # Errors
            /// The rule that the name breaks.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                match $check(&name) {
                    Ok(()) => Ok(Self(name)),
                    Err(rule) => Err(NameError { kind: $kind, name, rule }),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<OsStr> for $type {
            fn as_ref(&self) -> &OsStr {
                self.0.as_ref()
            }
        }

        impl AsRef<Path> for $type {
            fn as_ref(&self) -> &Path {
                self.0.as_ref()
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $type {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $type {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// The name of a plugin: `[a-z0-9_-]{1,64}`, starting with a letter or a digit.
    PluginName, "plugin name", check_plugin
}

name! {
    /// The name of a plugin's file in its package directory: plain, visible, ending in `.so`.
    FileName, "plugin file name", check_file
}

name! {
    /// The name of a package directory: `[A-Za-z0-9+_.-]{1,128}`, not starting with `.`, `-`
    /// or `#`, so that files which package managers leave behind (`._cfg…`, `#new`) do not match.
    PackageName, "package name", check_package
}

fn check_plugin(name: &str) -> Result<(), &'static str> {
    let rest = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if !(1..=64).contains(&name.len()) {
        return Err("it must be 1 to 64 characters long");
    }
    if !name.as_bytes().iter().all(rest) {
        return Err("it may only contain a-z, 0-9, `_` and `-`");
    }
    if name.starts_with(['_', '-']) {
        return Err("it must start with a letter or a digit");
    }
    Ok(())
}

fn check_file(name: &str) -> Result<(), &'static str> {
    if !(1..=255).contains(&name.len()) {
        return Err("it must be 1 to 255 bytes long");
    }
    if name.contains('/') {
        return Err("it must name a file in the package directory, without `/`");
    }
    if name.chars().any(char::is_control) {
        return Err("control characters may not be in it");
    }
    if name.starts_with(['.', '#', '-']) {
        return Err("it must not start with `.`, `#` or `-`");
    }
    if !name.ends_with(".so") {
        return Err("it must end in `.so`");
    }
    Ok(())
}

fn check_package(name: &str) -> Result<(), &'static str> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"+_.-".contains(byte);
    if !(1..=128).contains(&name.len()) {
        return Err("it must be 1 to 128 characters long");
    }
    if name.starts_with(['.', '-', '#']) {
        return Err("it must not start with `.`, `-` or `#`");
    }
    if !name.as_bytes().iter().all(allowed) {
        return Err("it may only contain A-Z, a-z, 0-9, `+`, `_`, `.` and `-`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugin_names() {
        for good in ["a", "0", "counter", "a-b_c", &"x".repeat(64)] {
            assert_eq!(PluginName::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "_a",
            "A",
            "a.b",
            "a/b",
            "..",
            "a b",
            "a\n",
            "é",
            &"x".repeat(65),
        ] {
            assert!(PluginName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn file_names() {
        for good in [
            "libcounter.so",
            "a b.so",
            "é.so",
            &format!("{}.so", "x".repeat(252)),
        ] {
            assert_eq!(FileName::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".so",
            ".hidden.so",
            "#new.so",
            "-l.so",
            "../a.so",
            "a/b.so",
            "a\n.so",
            "a\0.so",
            "a\u{85}.so",
            "a.so.1",
            "a",
            "..",
            &format!("{}.so", "x".repeat(253)),
        ] {
            assert!(FileName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn package_names() {
        for good in ["app-hotmerge", "gtk+", "a.b_c", "9"] {
            assert_eq!(PackageName::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "._cfg0000_x",
            "-x",
            "#new",
            "a/b",
            "a b",
            "x#new",
            &"x".repeat(129),
        ] {
            assert!(PackageName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_quotes_the_name() {
        assert_eq!(
            PluginName::new("a\nb").unwrap_err().to_string(),
            "\"a\\nb\" is not a plugin name: it may only contain a-z, 0-9, `_` and `-`",
        );
    }
}

//! Whether a package is signed, by whom, and whether that suffices.
//!
//! Invariant: a host parses the bytes that it verified, and runs as signed only an entry in them.
//!
//! Absent on purpose: the treatment of an unsigned package.

use std::os::fd::AsFd;

use hotmerge_meta::{
    META_FILE, Meta, PluginMeta, ReadError,
    control::SignedStatus,
    package::MAX_META_BYTES,
    read_trusted,
    signature::{MAX_SIGNATURE_BYTES, SIGNATURE_FILE, Signature},
};
use jiff::Timestamp;
use semver::Version;
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::{
    Config,
    config::SignedOrder,
    find::{
        keys::{Keys, NotSigned, Signer},
        unverified::Unverified,
    },
};

/// A signature and the bytes that it signs, as they were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignedText {
    meta: String,
    signature: String,
}

/// A plugin whose signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) text: SignedText,
    signer: Signer,
    comment: String,
    time: Option<u64>,
}

/// The newest version of a plugin that has run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Newest {
    version: Version,
    /// When its signature was made, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<u64>,
}

impl Signed {
    pub(crate) fn signer(&self) -> &Signer {
        &self.signer
    }

    pub(crate) fn status(&self) -> SignedStatus {
        SignedStatus {
            by: self.signer.name.clone(),
            key: self.signer.id.to_string(),
            comment: self.comment.clone(),
        }
    }

    /// The newest version once this one has run, given the newest before.
    pub(crate) fn newest(&self, meta: &PluginMeta, before: Option<&Newest>) -> Newest {
        let version = before.map(|before| before.version.clone());
        Newest {
            version: version.map_or(meta.version.clone(), |it| it.max(meta.version.clone())),
            time: self.time.max(before.and_then(|before| before.time)),
        }
    }

    /// Checks that it is not older than a version that has run.
    ///
    /// # Errors
    /// The reason, in one sentence.
    pub(crate) fn follows(
        &self,
        meta: &PluginMeta,
        newest: &Newest,
        order: SignedOrder,
    ) -> Result<(), Unverified> {
        let way_back = "`hotmerge rollback` goes back to a version that the host has kept";
        let refused = |reason: String| Err(Unverified::Refused(format!("{reason}; {way_back}")));
        let date = |seconds: u64| {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            Timestamp::from_second(seconds).map_or(seconds.to_string(), |it| it.to_string())
        };
        match (order, self.time, newest.time) {
            (SignedOrder::Version, ..) if meta.version < newest.version => refused(format!(
                "it is signed, but version {} is older than {}, which has run here",
                meta.version, newest.version
            )),
            (SignedOrder::Time, None, _) => Err(Unverified::Refused(
                "its signature does not say when it was made, which `signed_order = \"time\"` \
                 needs; sign it again"
                    .to_owned(),
            )),
            (SignedOrder::Time, Some(time), Some(before)) if time < before => refused(format!(
                "it was signed at {}, before a version that has run here and was signed at {}",
                date(time),
                date(before)
            )),
            _ => Ok(()),
        }
    }
}

/// Who signed a plugin of a package; `None` only where no signature is required.
pub(crate) fn check(
    package: impl AsFd,
    meta: &PluginMeta,
    config: &Config,
) -> Result<Option<Signed>, Unverified> {
    let signed = read(&package, config).and_then(|text| match text {
        Some(text) => verify(text, meta, config).map(Some),
        None => Ok(None),
    });
    match (signed, config.requires_signature(&meta.name)) {
        (Ok(None), true) => Err(Unverified::Differs(format!(
            "it is not signed: there is no `{SIGNATURE_FILE}` in its package, and the \
             configuration says `require_signature`; sign it with `cargo hotmerge sign`"
        ))),
        (signed, true) => signed,
        // No signature is required.
        (Err(error), false) => {
            debug!(target: "hotmerge::plugin", plugin = %meta.name, "its signature is not accepted: {error:?}");
            Ok(None)
        }
        (signed, false) => signed,
    }
}

/// Who signed a stored version.
pub(crate) fn check_kept(
    text: Option<SignedText>,
    meta: &PluginMeta,
    config: &Config,
) -> Result<Option<Signed>, Unverified> {
    let signed = match text {
        Some(text) => verify(text, meta, config).map(Some),
        None => Ok(None),
    };
    match (signed, config.requires_signature(&meta.name)) {
        (Ok(None), true) => Err(Unverified::Refused(
            "it was not signed when it was kept, and the configuration says `require_signature`; \
             stage it again, signed"
                .to_owned(),
        )),
        (signed, true) => signed,
        (signed, false) => Ok(signed.unwrap_or_default()),
    }
}

fn read(package: impl AsFd, config: &Config) -> Result<Option<SignedText>, Unverified> {
    let trust = config.trust();
    let text = |name: &str, limit| -> Result<String, ReadOrText> {
        let (bytes, _) = read_trusted(&package, name, limit, &trust)?;
        Ok(String::from_utf8(bytes)?)
    };
    let signature = match text(SIGNATURE_FILE, MAX_SIGNATURE_BYTES) {
        Err(ReadOrText::Read(ReadError::Missing(_))) => return Ok(None),
        other => other,
    };
    let meta = text(META_FILE, MAX_META_BYTES);
    let text = signature.and_then(|signature| {
        Ok(SignedText {
            meta: meta?,
            signature,
        })
    });
    text.map(Some)
        .map_err(|error| Unverified::Differs(error.to_string()))
}

/// Why a file is not usable text.
#[derive(Debug, thiserror::Error)]
enum ReadOrText {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("`{SIGNATURE_FILE}` or `{META_FILE}` is not UTF-8")]
    Text(#[from] std::string::FromUtf8Error),
}

fn verify(text: SignedText, meta: &PluginMeta, config: &Config) -> Result<Signed, Unverified> {
    let refused = |error: &dyn std::error::Error| Unverified::Refused(error.to_string());
    // File and signature may not match yet.
    let differs =
        |error: &dyn std::error::Error| Unverified::Differs(format!("`{SIGNATURE_FILE}`: {error}"));
    let signature = Signature::parse(text.signature.as_bytes()).map_err(|it| differs(&it))?;
    let keys = Keys::read(config.keys_dir(), &config.trust()).map_err(|it| refused(&it))?;
    let signer = keys
        .judge(text.meta.as_bytes(), &signature, Timestamp::now())
        .map_err(|error| match error {
            NotSigned::Invalid { .. } => differs(&error),
            error => refused(&error),
        })?;
    let entry = Meta::parse(&text.meta).map_err(|it| differs(&it))?;
    if entry.get(meta.name.as_str()) != Some(meta) {
        return Err(Unverified::Differs(format!(
            "`{META_FILE}` changed while it was verified"
        )));
    }
    Ok(Signed {
        signer,
        comment: signature.comment().to_owned(),
        time: signature.time(),
        text,
    })
}

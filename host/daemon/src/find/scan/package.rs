//! The scanner's knowledge of one package between two scans.
//!
//! Absent on purpose: the directory, and the effects of a change.

use std::{collections::BTreeMap, time::Instant};

use hotmerge_meta::{
    FileStamp, META_FILE, PackageName, PluginMeta, PluginName, signature::SIGNATURE_FILE,
};

#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: PackageName,
    /// The pass that saw it last.
    pub(super) seen: u64,
    pub(super) meta_path: String,
    /// `None` until a stamp is known that reveals every change.
    pub(super) meta_stamp: Option<FileStamp>,
    pub(super) signature_path: String,
    pub(super) signature_stamp: Option<FileStamp>,
    pub(super) files: BTreeMap<PluginName, Known>,
    /// Plugins of the meta that another package already contains.
    pub(super) conflicts: Vec<PluginName>,
    pub(super) unsettled: Option<(Instant, String)>,
    pub(super) missing: Option<Instant>,
    /// Whether it is known only from the host's last run.
    pub(super) is_remembered: bool,
    /// Whether a file that was seen was missing when it was to be read.
    pub(super) is_lost: bool,
}

#[derive(Debug)]
pub(super) struct Known {
    pub(super) meta: PluginMeta,
    pub(super) path: String,
    pub(super) stamp: Option<FileStamp>,
}

impl Package {
    pub(super) fn new(name: &PackageName) -> Self {
        Self {
            name: name.clone(),
            seen: 0,
            meta_path: format!("{name}/{META_FILE}"),
            meta_stamp: None,
            signature_path: format!("{name}/{SIGNATURE_FILE}"),
            signature_stamp: None,
            files: BTreeMap::new(),
            conflicts: Vec::new(),
            unsettled: None,
            missing: None,
            is_remembered: false,
            is_lost: false,
        }
    }

    /// Whether its meta need not be read while its stamp is unchanged.
    pub(super) fn is_settled(&self) -> bool {
        self.unsettled.is_none()
            && self.conflicts.is_empty()
            && self.missing.is_none()
            && self.meta_stamp.is_some()
    }

    /// Whether every scan includes it.
    pub(super) fn is_in_every_pass(&self) -> bool {
        !self.is_settled() || self.is_remembered || self.is_lost
    }
}

//! Records that a newer host has written, and the images that they need.
//!
//! Invariant: a record of any format names its images by their hashes, and no image that it names is
//! removed.
//!
//! Absent on purpose: everything else in such a record.

use std::collections::{BTreeMap, BTreeSet};

use hotmerge_meta::{Digest, PluginName};
use serde_json::Value;

#[derive(Debug, Default)]
pub(super) struct Foreign {
    formats: BTreeMap<PluginName, u32>,
    images: BTreeSet<Digest>,
}

impl Foreign {
    pub(super) fn note(&mut self, plugin: PluginName, record: &[u8], format: u32) {
        self.formats.insert(plugin, format);
        if let Ok(record) = serde_json::from_slice(record) {
            self.collect(&record);
        }
    }

    fn collect(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.images.extend(text.parse::<Digest>().ok()),
            Value::Array(values) => values.iter().for_each(|value| self.collect(value)),
            Value::Object(fields) => fields.values().for_each(|value| self.collect(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// The format of a plugin's record.
    pub(super) fn format(&self, plugin: &PluginName) -> Option<u32> {
        self.formats.get(plugin).copied()
    }

    /// The hashes of the images that the records need.
    pub(super) fn images(&self) -> &BTreeSet<Digest> {
        &self.images
    }
}

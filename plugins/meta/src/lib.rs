//! Definitions shared by the build driver and the host.
//!
//! * the identity of a plugin: a hash over what the dynamic loader maps ([`Image`]);
//! * `plugin.meta`, its names and its place ([`Meta`], [`name`], [`publish()`], [`read`]);
//! * who signed that ([`signature`]);
//! * where a host runs and how to reach it ([`runtime`], [`control`]);
//! * what a host has counted and measured ([`figures`]);
//! * whether somebody else could have written a file ([`trust`]).
//!
//! All code here handles untrusted bytes: no input causes a panic, and every refusal is one
//! sentence that says what, where and what to do.
//!
//! Absent on purpose: unsafe code, loading, policy (the host decides which plugin
//! may run), threads, logging.

#![forbid(unsafe_code)]

pub mod control;
pub mod digest;
pub mod figures;
pub mod frame;
pub mod image;
pub mod name;
pub mod package;
mod peer;
mod plain;
pub mod publish;
pub mod read;
pub mod runtime;
pub mod signature;
pub mod testing;
pub mod trust;

pub use digest::Digest;
pub use image::{AbiError, Image, ImageError, Machine, ReadImageError, check_abi};
pub use name::{FileName, NameError, PackageName, PluginName};
pub use package::{
    Abi, Handover, META_FILE, Meta, MetaError, OnReplace, PluginMeta, PromiseError, Requires, Wants,
};
pub use peer::Peer;
pub use plain::{count, cut, on_one_line, plain};
pub use publish::{PublishError, Published, publish, publish_signature};
pub use read::{FileStamp, ReadError, read_regular, read_trusted, stamp};
pub use runtime::{PidFile, RuntimeDir};
pub use signature::SIGNATURE_FILE;
pub use trust::{Trust, Untrusted};

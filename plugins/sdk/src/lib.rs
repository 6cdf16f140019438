//! Write hotmerge plugins in safe Rust: implement [`Plugin`], then name the type in
//! [`export_plugin!`].
//!
//! ```
//! use hotmerge_sdk::{Call, Error, Host, Plugin, Reply};
//!
//! struct Hello;
//!
//! impl Plugin for Hello {
//!     fn start(_host: Host, _config: &[u8]) -> Result<Self, Error> {
//!         Ok(Self)
//!     }
//!
//!     fn call(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error> {
//!         match call.method() {
//!             "hello" => reply.text("hello"),
//!             _ => Err(Error::NoMethod),
//!         }
//!     }
//! }
//!
//! hotmerge_sdk::export_plugin!(Hello);
//! # fn main() {}
//! ```
//!
//! The macro puts a panic guard into the plugin itself: a host cannot catch the panic of
//! a library that links its own standard library. The guard keeps nothing that outlives
//! the plugin (no thread-local with a destructor), so a plugin that follows the same rule
//! can be unloaded.
//!
//! Absent on purpose: features, dependencies beyond the contract, and the plugin's
//! name and version (they live in `plugin.meta`, so that a new version number alone
//! changes no byte of the code).

mod answer;
mod call;
mod clock;
mod describe;
mod error;
mod export;
mod host;
mod panic;
mod stack;
pub mod testing;

pub use answer::Answer;
pub use call::{Call, Reply};
pub use describe::Method;
pub use error::Error;
pub use export::table;
pub use host::{Host, Level};
pub use hotmerge_abi as abi;

use std::time::Duration;

/// A plugin. One value lives from `start` until the last call has ended.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// Makes the plugin ready to take calls. `config` is the operator's configuration as a
    /// JSON object, `{}` if there is none.
    ///
    /// # Errors
    /// If the plugin refuses: the host shows the reason and keeps the running version.
    fn start(host: Host, config: &[u8]) -> Result<Self, Error>;

    /// Answers one call. Calls may run concurrently, on any thread.
    ///
    /// # Errors
    /// The caller gets the error with its reason; everything written to `reply` is discarded.
    fn call(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error>;

    /// This plugin's methods, for its callers: `hotmerge describe` shows them.
    ///
    /// The default describes nothing.
    fn describe(&self) -> &[Method] {
        &[]
    }

    /// Checks whether this instance can replace the running one.
    ///
    /// # Errors
    /// The host shows the reason and keeps the running version.
    fn self_check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Writes the state for the next instance: a new version, or this one after a crash. The
    /// host may call it at any time and often, also while calls run; it does not mean
    /// shutdown.
    ///
    /// # Errors
    /// [`Error::Unsupported`], the default, means that the plugin has no state.
    fn save(&self, state: &mut Reply<'_>) -> Result<(), Error> {
        let _ = state;
        Err(Error::Unsupported)
    }

    /// Restores the state that version `from` saved, before the first call.
    ///
    /// # Errors
    /// The host keeps the old version with its state.
    fn restore(&self, from: &str, state: &[u8]) -> Result<(), Error> {
        let _ = (from, state);
        Err(Error::Unsupported)
    }

    /// Stops all work within `limit`: joins threads, closes files. No call is in progress.
    ///
    /// In the host's process the host then drops the value; a worker just exits. After a crash
    /// or a panic a worker exits without calling this, so do not defer important work to it.
    ///
    /// # Errors
    /// The host logs it and ends the instance anyway.
    fn teardown(&self, limit: Duration) -> Result<(), Error> {
        let _ = limit;
        Ok(())
    }
}

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
//! a library that brings its own standard library. The guard keeps nothing that
//! outlives the plugin (no thread-local with a destructor), so a plugin that does the
//! same can really be unloaded.
//!
//! Absent on purpose: features, dependencies beyond the contract, and the plugin's
//! name and version (they live in `plugin.meta`, so that a new version number alone
//! changes no byte of the code).

mod answer;
mod call;
mod clock;
mod error;
mod export;
mod host;
mod panic;
mod stack;
pub mod testing;

pub use answer::Answer;
pub use call::{Call, Reply};
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
    /// A refusal: the host shows the reason and keeps the version that runs.
    fn start(host: Host, config: &[u8]) -> Result<Self, Error>;

    /// Answers one call. Several may run at once, on any thread.
    ///
    /// # Errors
    /// Goes to the caller with its reason; what was written to `reply` is dropped.
    fn call(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error>;

    /// Answers whether this instance is fit to replace the one that runs.
    ///
    /// # Errors
    /// The host shows the reason and keeps the version that runs.
    fn self_check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Writes the state that the next instance takes over: a new version, or this one again
    /// after a crash. Asked for at any time and as often as the host likes, also while calls
    /// run; it is no farewell.
    ///
    /// # Errors
    /// [`Error::Unsupported`], the default, says that there is no state.
    fn save(&self, state: &mut Reply<'_>) -> Result<(), Error> {
        let _ = state;
        Err(Error::Unsupported)
    }

    /// Takes over what version `from` saved, before the first call.
    ///
    /// # Errors
    /// The host keeps the old version with its state.
    fn restore(&self, from: &str, state: &[u8]) -> Result<(), Error> {
        let _ = (from, state);
        Err(Error::Unsupported)
    }

    /// Ends the work within `limit`: joins threads, closes files. No call is under way.
    ///
    /// In the host's process the value is dropped then; a process of its own just ends. What
    /// crashed or panicked there ends without being asked, so keep nothing for this moment.
    ///
    /// # Errors
    /// Is logged; the instance ends all the same.
    fn teardown(&self, limit: Duration) -> Result<(), Error> {
        let _ = limit;
        Ok(())
    }
}

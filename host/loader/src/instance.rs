//! A started plugin in this process.

use std::{ffi::c_void, fmt, fs::File, ptr, sync::Arc, time::Duration};

use hotmerge_abi::{self as abi, Bytes, CallContext, Sink, Status};

use crate::{
    CallError, HostServices, LoadError, Reply, Unloaded, Verified, library::Library,
    services::Context,
};

/// A started plugin. Calls may run on several threads at once.
pub struct Instance {
    library: Library,
    plugin: *mut c_void,
    context: Arc<Context>,
}

// SAFETY: the contract lets every thread call an instance, several at once.
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("library", &self.library)
            .finish_non_exhaustive()
    }
}

/// A plugin that is loaded and of which nothing has run yet: its image was disarmed.
#[derive(Debug)]
pub struct Loaded(Library);

impl Loaded {
    /// Loads what a host has verified and disarmed.
    ///
    /// # Errors
    /// What the loader refused.
    pub fn load(verified: Verified) -> Result<Self, LoadError> {
        Library::open(verified).map(Self)
    }

    /// Runs the constructors, and starts the plugin: see [`Instance::start`].
    ///
    /// # Errors
    /// As there.
    pub fn start(
        mut self,
        config: &str,
        services: Arc<dyn HostServices>,
    ) -> Result<Instance, LoadError> {
        self.0.construct()?;
        self.0.find_table()?;
        Instance::create(self.0, config, services)
    }
}

impl Instance {
    /// Loads verified bytes and starts the plugin with `config`, a JSON object.
    ///
    /// Runs the plugin's code on this thread, which ought to end before the instance does:
    /// a thread-local that the plugin leaves on a living thread keeps it mapped.
    ///
    /// # Errors
    /// What the loader or the plugin refused. Nothing of it is left behind then.
    pub fn start(
        verified: Verified,
        config: &str,
        services: Arc<dyn HostServices>,
    ) -> Result<Self, LoadError> {
        let mut library = Library::open(verified)?;
        library.find_table()?;
        Self::create(library, config, services)
    }

    fn create(
        library: Library,
        config: &str,
        services: Arc<dyn HostServices>,
    ) -> Result<Self, LoadError> {
        let context = Context::new(services);
        let mut plugin = ptr::null_mut();
        let mut reply = Reply::default();
        let create = library.table().create;
        let started = conclude(&mut reply, "create", |sink| {
            // SAFETY: the table was checked; context and place outlive the call, and the
            // context lives until after `destroy`.
            unsafe {
                create(
                    &raw const context.table,
                    Bytes::new(config.as_bytes()),
                    &raw mut plugin,
                    sink,
                )
            }
        });
        match started {
            Ok(()) => Ok(Self {
                library,
                plugin,
                context,
            }),
            Err(error) => {
                if library.unload() == Unloaded::Retained {
                    std::mem::forget(context);
                }
                Err(LoadError::Refused(error.to_string()))
            }
        }
    }

    /// The verified bytes that it runs, as a file to read from offset 0.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn image(&self) -> std::io::Result<File> {
        self.library.image()
    }

    /// Where the plugin's table lies in this process: the same for as long as the instance
    /// lives.
    pub fn address(&self) -> usize {
        self.library.address()
    }

    /// Calls a method. The reply's memory is the caller's.
    ///
    /// # Errors
    /// What the plugin answered instead of a reply; `reply` is empty then. Boxed, so that the
    /// result of a call that succeeds fits into a register.
    #[inline]
    pub fn call(
        &self,
        context: &CallContext,
        method: &str,
        request: &[u8],
        reply: &mut Reply,
    ) -> Result<(), Box<CallError>> {
        conclude(reply, method, |sink| {
            // SAFETY: the instance was created and not destroyed, and the rest is borrowed
            // for the call.
            unsafe {
                (self.library.table().call)(
                    self.plugin,
                    context,
                    Bytes::new(method.as_bytes()),
                    Bytes::new(request),
                    sink,
                )
            }
        })
    }

    /// Calls a method with everything as the contract has it: for a worker, whose reply goes
    /// where its host reads it.
    ///
    /// # Safety
    /// The sink and what it points to must be valid for this call.
    pub unsafe fn call_raw(
        &self,
        context: &CallContext,
        method: &[u8],
        request: &[u8],
        sink: &Sink,
    ) -> Status {
        // SAFETY: the instance was created and not destroyed; the caller vouches for the sink,
        // and the rest is borrowed for the call.
        unsafe {
            (self.library.table().call)(
                self.plugin,
                context,
                Bytes::new(method),
                Bytes::new(request),
                sink,
            )
        }
    }

    /// Asks for the state with a sink of the caller's: see [`Instance::call_raw`].
    ///
    /// # Safety
    /// As there.
    pub unsafe fn save_raw(&self, sink: &Sink) -> Status {
        // SAFETY: as in `call_raw`.
        unsafe { (self.library.table().save)(self.plugin, sink) }
    }

    /// Asks the instance whether it is fit to take calls.
    ///
    /// # Errors
    /// Its reason if it is not.
    pub fn self_check(&self) -> Result<(), Box<CallError>> {
        conclude(&mut Reply::default(), "self_check", |sink| {
            // SAFETY: as in `call`.
            unsafe { (self.library.table().self_check)(self.plugin, sink) }
        })
    }

    /// Asks for the state that the next version takes over.
    ///
    /// # Errors
    /// [`CallError::Unsupported`] if the plugin has none.
    pub fn save(&self, state: &mut Reply) -> Result<(), Box<CallError>> {
        conclude(state, "save", |sink| {
            // SAFETY: as in `call`.
            unsafe { (self.library.table().save)(self.plugin, sink) }
        })
    }

    /// Hands over the state that version `from` saved.
    ///
    /// # Errors
    /// The plugin's reason; it must not take calls then.
    pub fn restore(&self, from: &str, state: &[u8]) -> Result<(), Box<CallError>> {
        conclude(&mut Reply::default(), "restore", |sink| {
            // SAFETY: as in `call`.
            unsafe {
                (self.library.table().restore)(
                    self.plugin,
                    Bytes::new(from.as_bytes()),
                    Bytes::new(state),
                    sink,
                )
            }
        })
    }

    /// Lets the plugin end its work within `limit`. A plugin that does not keep to the limit
    /// blocks the calling thread: run it on one that can be spared.
    ///
    /// # Errors
    /// What the plugin said; it can be ended all the same.
    pub fn teardown(&self, limit: Duration) -> Result<(), Box<CallError>> {
        let limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        conclude(&mut Reply::default(), "teardown", |sink| {
            // SAFETY: as in `call`.
            unsafe { (self.library.table().teardown)(self.plugin, limit_ns, sink) }
        })
    }

    /// Frees the plugin's instance and gives back its library, which is still mapped. The
    /// caller makes sure by ownership that no call is under way.
    pub fn destroy(self) -> Remains {
        // SAFETY: created once, destroyed once: `self` is consumed.
        unsafe { (self.library.table().destroy)(self.plugin) };
        Remains {
            library: self.library,
            context: self.context,
        }
    }
}

/// A plugin that was ended and is still mapped.
pub struct Remains {
    library: Library,
    context: Arc<Context>,
}

impl fmt::Debug for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.library.fmt(f)
    }
}

impl Remains {
    /// Unmaps the plugin. Best done after the threads that ran its code have ended.
    pub fn unload(self) -> Unloaded {
        let unloaded = self.library.unload();
        if unloaded == Unloaded::Retained {
            // A destructor that still runs on some thread may want to log.
            std::mem::forget(self.context);
        }
        unloaded
    }
}

#[inline]
fn conclude(
    reply: &mut Reply,
    method: &str,
    body: impl FnOnce(&Sink) -> Status,
) -> Result<(), Box<CallError>> {
    reply.reset();
    let sink = reply.sink();
    match body(&sink) {
        abi::STATUS_OK => Ok(()),
        status => Err(Box::new(refusal(status, reply, method))),
    }
}

#[cold]
fn refusal(status: Status, reply: &mut Reply, method: &str) -> CallError {
    let error = CallError::of(status, reply.bytes(), method);
    reply.reset();
    error
}

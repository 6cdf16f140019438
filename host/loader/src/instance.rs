//! A started plugin in this process.

use std::{ffi::c_void, fmt, fs::File, ptr, sync::Arc, time::Duration};

use hotmerge_abi::{self as abi, Bytes, CallContext, Sink, Status};

use crate::{
    CallError, HostServices, LoadError, Media, Reply, Unloaded, Verified, library::Library,
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

    /// Runs the constructors.
    ///
    /// # Errors
    /// If the loader does not report the plugin's address.
    pub fn construct(mut self) -> Result<Constructed, LoadError> {
        self.0.construct()?;
        Ok(Constructed(self.0))
    }
}

/// A plugin whose constructors have run, and nothing else of it.
#[derive(Debug)]
pub struct Constructed(Library);

impl Constructed {
    /// Starts the plugin: see [`Instance::start`].
    ///
    /// # Errors
    /// As there.
    pub fn start(
        mut self,
        config: &str,
        services: Arc<dyn HostServices>,
    ) -> Result<Instance, LoadError> {
        self.0.find_table()?;
        Instance::create(self.0, config, services)
    }
}

impl Instance {
    /// Loads verified bytes and starts the plugin with `config`, a JSON object.
    ///
    /// Runs the plugin's code on this thread, which should end before the instance does: a
    /// plugin's thread-local on a living thread keeps the plugin mapped.
    ///
    /// # Errors
    /// If the loader or the plugin refuses; then nothing remains loaded.
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
                Err(LoadError::Refused(not_started(&error)))
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

    /// Address of the plugin's table in this process; constant for the instance's lifetime.
    pub fn address(&self) -> usize {
        self.library.address()
    }

    /// Calls a method. The reply's memory is the caller's. A plugin of an older minor is not told
    /// of the media types.
    ///
    /// # Errors
    /// The plugin's error; `reply` is empty then. Boxed, so that the result of a successful call
    /// fits into a register.
    #[inline]
    pub fn call(
        &self,
        context: &CallContext,
        method: &str,
        request: &[u8],
        media: Media<'_>,
        reply: &mut Reply,
    ) -> Result<(), Box<CallError>> {
        conclude(reply, method, |sink| {
            // SAFETY: the sink is over the reply, which is borrowed for the call.
            unsafe { self.call_raw(context, method.as_bytes(), request, media, sink) }
        })
    }

    /// Asks the plugin to describe itself: see [`hotmerge_abi::PluginTable::describe`].
    ///
    /// # Errors
    /// The plugin's error; [`CallError::Unsupported`] if it does not describe itself.
    pub fn describe(&self, reply: &mut Reply) -> Result<(), Box<CallError>> {
        conclude(reply, "describe", |sink| {
            // SAFETY: as in `call`.
            unsafe { self.describe_raw(sink) }
        })
    }

    /// Calls a method with the contract's raw types: for a worker, which writes the reply where
    /// its host reads it.
    ///
    /// # Safety
    /// The sink and what it points to must be valid for this call.
    #[inline]
    pub unsafe fn call_raw(
        &self,
        context: &CallContext,
        method: &[u8],
        request: &[u8],
        media: Media<'_>,
        sink: &Sink,
    ) -> Status {
        let (table, method, request) = (
            self.library.table(),
            Bytes::new(method),
            Bytes::new(request),
        );
        if !media.is_empty()
            && let Some(call_media) = table.call_media
        {
            let media = media.raw();
            // SAFETY: as below.
            return unsafe {
                call_media(
                    self.plugin,
                    context,
                    method,
                    request,
                    &raw const media,
                    sink,
                )
            };
        }
        // SAFETY: the instance was created and not destroyed; the caller vouches for the sink,
        // and the rest is borrowed for the call.
        unsafe { (table.call)(self.plugin, context, method, request, sink) }
    }

    /// Asks the plugin to describe itself into a sink of the caller: see [`Instance::call_raw`].
    ///
    /// # Safety
    /// As there.
    pub unsafe fn describe_raw(&self, sink: &Sink) -> Status {
        match self.library.table().describe {
            // SAFETY: as in `call_raw`.
            Some(describe) => unsafe { describe(self.plugin, sink) },
            None => abi::STATUS_UNSUPPORTED,
        }
    }

    /// Saves the state into a sink of the caller: see [`Instance::call_raw`].
    ///
    /// # Safety
    /// As there.
    pub unsafe fn save_raw(&self, sink: &Sink) -> Status {
        // SAFETY: as in `call_raw`.
        unsafe { (self.library.table().save)(self.plugin, sink) }
    }

    /// Asks the instance whether it can take calls.
    ///
    /// # Errors
    /// The reason if it cannot.
    pub fn self_check(&self) -> Result<(), Box<CallError>> {
        conclude(&mut Reply::default(), "self_check", |sink| {
            // SAFETY: as in `call`.
            unsafe { (self.library.table().self_check)(self.plugin, sink) }
        })
    }

    /// Saves the state for the next version.
    ///
    /// # Errors
    /// [`CallError::Unsupported`] if the plugin has none.
    pub fn save(&self, state: &mut Reply) -> Result<(), Box<CallError>> {
        conclude(state, "save", |sink| {
            // SAFETY: as in `call`.
            unsafe { (self.library.table().save)(self.plugin, sink) }
        })
    }

    /// Restores the state that version `from` saved.
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

    /// Lets the plugin stop its work within `limit`. A plugin that exceeds the limit blocks the
    /// calling thread: use a dedicated one.
    ///
    /// # Errors
    /// The plugin's reason; the instance can still be ended.
    pub fn teardown(&self, limit: Duration) -> Result<(), Box<CallError>> {
        let limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        conclude(&mut Reply::default(), "teardown", |sink| {
            // SAFETY: as in `call`.
            unsafe { (self.library.table().teardown)(self.plugin, limit_ns, sink) }
        })
    }

    /// Frees the plugin's instance and returns its library, which is still mapped. Ownership
    /// guarantees that no call is in progress.
    pub fn destroy(self) -> Remains {
        // SAFETY: created once, destroyed once: `self` is consumed.
        unsafe { (self.library.table().destroy)(self.plugin) };
        Remains {
            library: self.library,
            context: self.context,
        }
    }
}

/// A plugin that has ended but is still mapped.
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

/// Why a plugin did not start. A panic can come from any step, so the step is named.
fn not_started(error: &CallError) -> String {
    let told = error.to_string();
    if !matches!(error, CallError::Panicked(_)) {
        return told;
    }
    match told.split_once("\nstack: ") {
        Some((message, stack)) => format!("{message}, while it started\nstack: {stack}"),
        None => format!("{told}, while it started"),
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

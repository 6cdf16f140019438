//! Events of plugins, for callbacks of the main process.
//!
//! One thread per host calls them, one after the other. It exists once there is one to call.

use std::{
    ffi::{CString, c_char, c_int, c_void},
    ptr,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use hotmerge_daemon::{self as daemon, Subscription};

use crate::{
    callbacks::{Callbacks, Duplicate, Unknown, User},
    code::{Failure, HM_DUPLICATE, HM_FAILED, HM_NOT_FOUND},
    exported,
    host::Host,
};

/// How many events wait for slow callbacks before further ones are lost, and counted.
const WAITING: usize = 1024;

/// What happened.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The first version of a plugin went live.
    Loaded = 1,
    /// A new version replaced the one that ran.
    Reloaded = 2,
    /// A new version takes a share of the calls.
    Trying = 3,
    /// A version was refused; what ran before still runs.
    Refused = 4,
    /// The file changed, but not the code that runs.
    Unchanged = 5,
    /// The plugin is gone from the directory and takes no more calls.
    Removed = 6,
    /// The host stops, and the plugin takes no more calls.
    Stopped = 7,
    /// The plugin crashed, or its panic was caught.
    Crashed = 8,
    /// Another instance takes the calls after a crash.
    Recovered = 9,
    /// It crashed too often, and the host gave it up.
    GivenUp = 10,
}

/// An event of a plugin. It and all that it points to belong to the library and are valid until the callback
/// returns.
#[repr(C)]
#[derive(Debug)]
pub struct Event {
    /// The size of this structure, in bytes.
    pub size: usize,
    /// What happened.
    pub kind: EventKind,
    /// The plugin's name.
    pub plugin: *const c_char,
    /// The version that it is about, or null.
    pub version: *const c_char,
    /// Why, in a sentence, or null.
    pub reason: *const c_char,
    /// The generation that runs now, or 0.
    pub generation: u64,
    /// The 32 bytes of the version's SHA-256, or null.
    pub hash: *const u8,
    /// How many events were lost so far because callbacks were too slow.
    pub lost: u64,
}

/// A function that receives events, with the user pointer of its registration.
pub type EventCallback = Option<unsafe extern "C" fn(event: *const Event, user: *mut c_void)>;

pub(crate) type EventFunction = unsafe extern "C" fn(event: *const Event, user: *mut c_void);

/// Tells a host's events to its callbacks.
#[derive(Debug, Default)]
pub(crate) struct Dispatcher {
    callbacks: Arc<Callbacks<EventFunction>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Dispatcher {
    fn start(&self, host: &Host) -> Result<(), Failure> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_some() {
            return Ok(());
        }
        let events = host.running()?.subscribe(WAITING);
        let callbacks = Arc::clone(&self.callbacks);
        let run = move || tell_all(&events, &callbacks);
        let started = thread::Builder::new().name("events".into()).spawn(run);
        let started = started.map_err(|error| {
            let text = format!("failed to start the thread for events: {error}");
            Failure::new(HM_FAILED, text)
        })?;
        *thread = Some(started);
        Ok(())
    }

    /// Waits until all events of a stopped host have been delivered, unless a callback is what stops it.
    pub(crate) fn close(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread.filter(|it| it.thread().id() != thread::current().id()) {
            // The thread catches nothing: a callback that unwinds ends the process.
            let _ = thread.join();
        }
    }
}

fn tell_all(events: &Subscription, callbacks: &Callbacks<EventFunction>) {
    while let Some(happened) = events.next() {
        let told = Told::new(&happened);
        let event = told.event(events.lost());
        callbacks.each(|callback, user| {
            // SAFETY: the caller that registered it promised that it is such a function, for this pointer.
            unsafe { callback(&raw const event, user.0) };
        });
    }
}

/// An event whose texts end with NUL.
struct Told<'a> {
    happened: &'a daemon::Event,
    plugin: CString,
    version: Option<CString>,
    reason: Option<CString>,
}

impl<'a> Told<'a> {
    fn new(happened: &'a daemon::Event) -> Self {
        let version = happened.version.as_ref().map(ToString::to_string);
        Self {
            happened,
            plugin: c_text(happened.plugin.as_str()),
            version: version.as_deref().map(c_text),
            reason: happened.reason.as_deref().map(c_text),
        }
    }

    fn event(&self, lost: u64) -> Event {
        let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |it| it.as_ptr());
        let hash = self.happened.hash.as_ref();
        Event {
            size: size_of::<Event>(),
            kind: kind(self.happened.kind),
            plugin: self.plugin.as_ptr(),
            version: pointer(&self.version),
            reason: pointer(&self.reason),
            generation: self.happened.generation.unwrap_or(0),
            hash: hash.map_or(ptr::null(), |hash| hash.as_bytes().as_ptr()),
            lost,
        }
    }
}

fn kind(kind: daemon::EventKind) -> EventKind {
    use daemon::EventKind as Kind;

    match kind {
        Kind::Loaded => EventKind::Loaded,
        Kind::Reloaded => EventKind::Reloaded,
        Kind::Trying => EventKind::Trying,
        Kind::Refused => EventKind::Refused,
        Kind::Unchanged => EventKind::Unchanged,
        Kind::Removed => EventKind::Removed,
        Kind::Stopped => EventKind::Stopped,
        Kind::Crashed => EventKind::Crashed,
        Kind::Recovered => EventKind::Recovered,
        Kind::GivenUp => EventKind::GivenUp,
    }
}

/// Text for C; a NUL in it is left out.
pub(crate) fn c_text(text: &str) -> CString {
    let bytes = text.bytes().filter(|byte| *byte != 0).collect::<Vec<_>>();
    CString::new(bytes).unwrap_or_default()
}

/// What goes wrong with a registration.
pub(crate) fn duplicate(_: Duplicate) -> Failure {
    let text = "this callback is registered already, with the same user pointer";
    Failure::new(HM_DUPLICATE, text)
}

pub(crate) fn unknown(_: Unknown) -> Failure {
    let text = "this callback is not registered with this user pointer";
    Failure::new(HM_NOT_FOUND, text)
}

/// Registers a function that receives what happens to plugins from now on, on a thread of the library.
///
/// It may use every function of the library; while it runs, further events wait. Registered again with the
/// same `user` it is refused (`HM_DUPLICATE`).
///
/// # Safety
/// `host` comes from `hm_start`; `callback` is such a function, does not unwind, and may be called with
/// `user` until `hm_off_event` or `hm_stop` has returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_on_event(
    host: *const Host,
    callback: EventCallback,
    user: *mut c_void,
) -> c_int {
    exported::run(|| {
        // SAFETY: the caller's promise.
        let host = unsafe { exported::reference(host, "host") }?;
        let callback = exported::given(callback, "callback")?;
        let (events, address) = (&host.events, callback as usize);
        host.running()?;
        events
            .callbacks
            .register(callback, address, User(user))
            .map_err(duplicate)?;
        events.start(host).inspect_err(|_| {
            // Only this thread knows that it is registered.
            let _ = events.callbacks.unregister(address, User(user));
        })
    })
}

/// Unregisters a function. When this returns, it does not run and will not; called by the function
/// itself, it will not run again.
///
/// `HM_NOT_FOUND` if it is not registered with this `user`.
///
/// # Safety
/// `host` comes from `hm_start`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_off_event(
    host: *const Host,
    callback: EventCallback,
    user: *mut c_void,
) -> c_int {
    exported::run(|| {
        // SAFETY: the caller's promise.
        let host = unsafe { exported::reference(host, "host") }?;
        let callback = exported::given(callback, "callback")?;
        let callbacks = &host.events.callbacks;
        callbacks
            .unregister(callback as usize, User(user))
            .map_err(unknown)
    })
}

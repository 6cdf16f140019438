//! Log records of all hosts of this process and their plugins, for callbacks of the main process.
//!
//! Nobody waits for them: a record goes into a bounded queue, from which one thread calls the functions.

use std::{
    collections::BTreeMap,
    ffi::{c_char, c_int, c_void},
    fmt, io, ptr,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    subscriber::Interest,
};
use tracing_subscriber::{
    Layer,
    layer::Context,
    layer::SubscriberExt as _,
    util::{SubscriberInitExt as _, TryInitError},
};

use crate::{
    callbacks::{Callbacks, User},
    code::{Failure, HM_FAILED},
    events::{c_text, duplicate, unknown},
    exported,
};

/// How many records wait for slow callbacks before further ones are lost, and counted.
const WAITING: usize = 4096;

/// The first parts of the targets of the host's records, and the target of its plugins' own.
const OWN: [&str; 2] = ["hotmerge", "plugin"];

/// A log record. It and all that it points to belong to the library and are valid until the callback returns.
#[repr(C)]
#[derive(Debug)]
pub struct LogRecord {
    /// The size of this structure, in bytes.
    pub size: usize,
    /// 1 error, 2 warning, 3 information, 4 debug, 5 trace.
    pub level: c_int,
    /// Which part of the host wrote it, for example "hotmerge::plugin"; "plugin" if a plugin did.
    pub target: *const c_char,
    /// The plugin that it is about, or null.
    pub plugin: *const c_char,
    /// The message.
    pub message: *const c_char,
    /// All other fields, as an object in JSON.
    pub fields: *const c_char,
    /// How many records were lost so far because callbacks were too slow.
    pub lost: u64,
}

/// A function that is given log records, with the user pointer of its registration.
pub type LogCallback = Option<unsafe extern "C" fn(record: *const LogRecord, user: *mut c_void)>;

pub(crate) type LogFunction = unsafe extern "C" fn(record: *const LogRecord, user: *mut c_void);

/// A function and the highest level that it wants.
#[derive(Clone, Copy, Debug)]
struct Listener {
    callback: LogFunction,
    level: u8,
}

#[derive(Debug)]
struct Log {
    callbacks: Callbacks<Listener>,
    /// The highest level that any of them wanted.
    level: AtomicU8,
    /// Held while that level is found anew.
    counting: Mutex<()>,
    lost: AtomicU64,
}

impl Log {
    fn set_level(&self) {
        let _counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let levels = self.callbacks.all().into_iter().map(|it| it.level);
        self.level
            .store(levels.max().unwrap_or(0), Ordering::Relaxed);
    }
}

static LOG: OnceLock<Result<&'static Log, NoLog>> = OnceLock::new();

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
enum NoLog {
    /// The system has no thread for it.
    #[error("failed to start the thread for log records: {0}")]
    Thread(io::Error),
    /// Another logger in this process takes the records.
    #[error("failed to start logging: {0}")]
    Taken(TryInitError),
}

/// A record on its way.
#[derive(Debug, Default)]
struct Record {
    level: u8,
    target: String,
    plugin: Option<String>,
    message: String,
    fields: BTreeMap<&'static str, serde_json::Value>,
}

/// Takes records in.
struct Collector {
    log: &'static Log,
    queue: SyncSender<Record>,
}

impl<S: Subscriber> Layer<S> for Collector {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // The level may change.
        match is_own(metadata.target()) {
            true => Interest::sometimes(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        number(*metadata.level()) <= self.log.level.load(Ordering::Relaxed)
            && is_own(metadata.target())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut record = Record {
            level: number(*metadata.level()),
            target: metadata.target().to_owned(),
            ..Record::default()
        };
        event.record(&mut record);
        match self.queue.try_send(record) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.log.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn is_own(target: &str) -> bool {
    let first = target.split("::").next();
    first.is_some_and(|first| OWN.contains(&first))
}

fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

impl Record {
    fn take(&mut self, field: &Field, value: serde_json::Value) {
        let text = || {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        match field.name() {
            "message" => self.message = text(),
            "plugin" => self.plugin = Some(text()),
            name => drop(self.fields.insert(name, value)),
        }
    }
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value.into());
    }
}

/// The log, which begins when somebody asks for it.
fn log() -> Result<&'static Log, Failure> {
    let begun = LOG.get_or_init(begin);
    begun
        .as_ref()
        .copied()
        .map_err(|reason| Failure::new(HM_FAILED, reason.to_string()))
}

fn begin() -> Result<&'static Log, NoLog> {
    let log: &'static Log = Box::leak(Box::new(Log {
        callbacks: Callbacks::default(),
        level: AtomicU8::new(0),
        counting: Mutex::default(),
        lost: AtomicU64::new(0),
    }));
    let (queue, records) = sync_channel(WAITING);
    thread::Builder::new()
        .name("log".into())
        .spawn(move || tell_all(log, &records))
        .map_err(NoLog::Thread)?;
    let all = tracing_subscriber::registry().with(Collector { log, queue });
    all.try_init().map_err(NoLog::Taken)?;
    Ok(log)
}

fn tell_all(log: &Log, records: &Receiver<Record>) {
    for record in records {
        let target = c_text(&record.target);
        let plugin = record.plugin.as_deref().map(c_text);
        let message = c_text(&record.message);
        // A map with text for keys is always an object.
        let fields = c_text(&serde_json::to_string(&record.fields).unwrap_or_default());
        let told = LogRecord {
            size: size_of::<LogRecord>(),
            level: record.level.into(),
            target: target.as_ptr(),
            plugin: plugin.as_ref().map_or(ptr::null(), |it| it.as_ptr()),
            message: message.as_ptr(),
            fields: fields.as_ptr(),
            lost: log.lost.load(Ordering::Relaxed),
        };
        log.callbacks.each(|listener, user| {
            if record.level <= listener.level {
                // SAFETY: the caller that registered it promised that it is such a function, for this pointer.
                unsafe { (listener.callback)(&raw const told, user.0) };
            }
        });
    }
}

/// Registers a function that is given the log records of all hosts in this process and of their plugins, up
/// to a level from 1 (errors) to 5 (traces), on a thread of the library.
///
/// Without such a function nothing is logged. Registered again with the same `user` it is refused
/// (`HM_DUPLICATE`).
///
/// # Safety
/// `callback` is such a function, does not unwind, and may be called with `user` until `hm_off_log` has
/// returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_on_log(
    level: c_int,
    callback: LogCallback,
    user: *mut c_void,
) -> c_int {
    exported::run(|| {
        let callback = exported::given(callback, "callback")?;
        let level = u8::try_from(level)
            .ok()
            .filter(|level| (1..=5).contains(level))
            .ok_or_else(|| Failure::invalid(format!("`level` is {level}, expected 1 to 5")))?;
        let log = log()?;
        log.callbacks
            .register(Listener { callback, level }, callback as usize, User(user))
            .map_err(duplicate)?;
        log.set_level();
        Ok(())
    })
}

/// Unregisters a function. When this returns, it does not run and will not; called by the function
/// itself, it will not run again.
///
/// `HM_NOT_FOUND` if it is not registered with this `user`.
///
/// # Safety
/// None beyond those of every function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_off_log(callback: LogCallback, user: *mut c_void) -> c_int {
    exported::run(|| {
        let callback = exported::given(callback, "callback")?;
        let log = log()?;
        log.callbacks
            .unregister(callback as usize, User(user))
            .map_err(unknown)?;
        log.set_level();
        Ok(())
    })
}

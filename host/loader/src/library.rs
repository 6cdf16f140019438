//! A loaded shared object, and whether it was really unmapped.

use std::{
    ffi::{c_int, c_void},
    fs::File,
    io,
    mem::MaybeUninit,
    os::fd::AsRawFd,
    ptr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use hotmerge_abi::{ENTRY_SYMBOL, PluginTable, TableHeader};
use libloading::os::unix::{Library as Object, RTLD_LAZY, RTLD_LOCAL, RTLD_NOW};

use crate::{LoadError, Verified};

/// `RTLD_NOLOAD` of glibc and musl: answers only whether the object is loaded.
const RTLD_NOLOAD: c_int = 0x4;

/// What happened to the memory of a closed library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unloaded {
    /// It is no longer mapped.
    Clean,
    /// It stays mapped: a thread still owns a thread-local with a destructor in it, or it
    /// asked never to be unloaded.
    Retained,
}

/// A loaded plugin. Its descriptor stays open as long as its code may be mapped.
#[derive(Debug)]
pub(crate) struct Library {
    object: Option<Object>,
    path: String,
    verified: Option<Verified>,
    /// Where it lies; null until it was found.
    address: *const PluginTable,
    /// A copy, with null in what its minor does not have.
    table: Option<PluginTable>,
}

unsafe extern "C" {
    /// Of glibc and musl. The first word behind the pointer that it writes is where the object lies.
    fn dlinfo(handle: *mut c_void, request: c_int, info: *mut *const usize) -> c_int;
}

/// `RTLD_DI_LINKMAP` of glibc and musl.
const RTLD_DI_LINKMAP: c_int = 2;

// SAFETY: the table is immutable data of a loaded object, and the object's handle may be
// used from every thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

/// Serialises loading: between checking that a name is free and loading under it, no other
/// thread may load.
fn loading() -> MutexGuard<'static, ()> {
    static LOADING: Mutex<()> = Mutex::new(());
    LOADING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Library {
    /// Maps and relocates an object. Its constructors run, unless it was disarmed.
    pub(crate) fn open(verified: Verified) -> Result<Self, LoadError> {
        let path = match &verified.path {
            Some(path) => path.display().to_string(),
            None => format!("/proc/self/fd/{}", verified.memory.as_raw_fd()),
        };
        let guard = loading();
        if is_loaded(&path) {
            // Not this object's: never reuse the number.
            std::mem::forget(verified);
            return Err(LoadError::Occupied(path));
        }
        // SAFETY: the object's constructors run here. They are those of a plugin that the
        // operator chose to run in this process; its bytes are the verified ones.
        let object = unsafe { Object::open(Some(&path), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|error| LoadError::Dynamic(describe(&error, &path)))?;
        drop(guard);
        Ok(Self {
            object: Some(object),
            path,
            verified: Some(verified),
            address: ptr::null(),
            table: None,
        })
    }

    /// Runs the constructors of an object that was disarmed.
    pub(crate) fn construct(&mut self) -> Result<(), LoadError> {
        let Some(object) = self.object.take() else {
            return Ok(());
        };
        let handle = object.into_raw();
        let mut place = ptr::null::<usize>();
        // SAFETY: a handle of the loader's, which is taken back at once, and a place for the answer,
        // whose first word is there if it was given.
        let base = unsafe {
            let told = dlinfo(handle, RTLD_DI_LINKMAP, &raw mut place);
            self.object = Some(Object::from_raw(handle));
            (told == 0).then(|| place.read())
        };
        let lost = || LoadError::Dynamic("its load address is unknown".into());
        let base = base.ok_or_else(lost)?;
        let constructors = self.verified.as_ref().map(Verified::constructors);
        if let Some(Ok(constructors)) = constructors {
            // SAFETY: the image is loaded there, and was disarmed: nothing of it has run.
            unsafe { constructors.run(base) };
        }
        Ok(())
    }

    /// Finds the table. From here on the library can be used.
    pub(crate) fn find_table(&mut self) -> Result<(), LoadError> {
        let Some(object) = &self.object else {
            return Err(LoadError::Table);
        };
        // SAFETY: the entry symbol is data of type `PluginTable` by contract, and the header
        // read from the file below vouches for the version of that contract.
        let symbol = unsafe { object.get::<*const PluginTable>(ENTRY_SYMBOL.as_bytes()) }
            .map_err(|error| LoadError::Dynamic(describe(&error, &self.path)))?;
        let table = symbol.into_raw().cast::<PluginTable>().cast_const();
        // SAFETY: the symbol was found in the file with a header that passed the check.
        let header = unsafe { (*table).header };
        let expected = self.verified.as_ref().map(|verified| verified.header);
        if Some(header) != expected {
            return Err(LoadError::Table);
        }
        let size = (header.size as usize).min(size_of::<PluginTable>());
        if size < TableHeader::table_bytes(0) as usize {
            return Err(LoadError::Table);
        }
        let mut copy = MaybeUninit::<PluginTable>::zeroed();
        // SAFETY: the header vouches for that many bytes of static data, which hold at least the
        // functions of the first minor; those of later ones may be null, and are if they are absent.
        let copy = unsafe {
            ptr::copy_nonoverlapping(table.cast::<u8>(), copy.as_mut_ptr().cast(), size);
            copy.assume_init()
        };
        (self.address, self.table) = (table, Some(copy));
        Ok(())
    }

    /// Only of a library whose table was found.
    #[inline]
    pub(crate) fn table(&self) -> &PluginTable {
        match &self.table {
            Some(table) => table,
            None => unreachable!("the table is found before anything else is done"),
        }
    }

    /// The sealed bytes it was loaded from.
    pub(crate) fn image(&self) -> io::Result<File> {
        let verified = self.verified.as_ref();
        let verified = verified.ok_or_else(|| io::Error::other("the plugin is unloaded"))?;
        Ok(File::from(verified.memory.try_clone()?))
    }

    /// Where the plugin's table lies in this process.
    pub(crate) fn address(&self) -> usize {
        self.address.addr()
    }

    pub(crate) fn unload(mut self) -> Unloaded {
        self.close()
    }

    fn close(&mut self) -> Unloaded {
        let Some(object) = self.object.take() else {
            return Unloaded::Clean;
        };
        let guard = loading();
        // A failure leaves the object mapped, which the next check shows.
        let _ = object.close();
        let retained = is_loaded(&self.path);
        drop(guard);
        if retained {
            std::mem::forget(self.verified.take());
            Unloaded::Retained
        } else {
            Unloaded::Clean
        }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        self.close();
    }
}

fn is_loaded(path: &str) -> bool {
    // SAFETY: with this flag nothing is loaded and no constructor runs.
    match unsafe { Object::open(Some(path), RTLD_NOLOAD | RTLD_LAZY) } {
        Ok(object) => {
            // Releases the reference that the check took.
            let _ = object.close();
            true
        }
        Err(_) => false,
    }
}

fn describe(error: &libloading::Error, path: &str) -> String {
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        text = source.to_string();
    }
    text.replace(path, "plugin")
}

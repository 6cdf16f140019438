//! Bytes that match `plugin.meta`, sealed against every change.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    ptr,
};

use crate::advice::advice;
use hotmerge_abi::TableHeader;
use hotmerge_meta::{Image, ImageError, Machine, PluginMeta, PromiseError, check_abi};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create},
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use crate::{Constructors, ConstructorsError};

/// Why bytes were not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bytes do not match `plugin.meta`. May be temporary: a file is replaced before its
    /// meta.
    #[error(transparent)]
    Promise(#[from] PromiseError),
    /// The bytes are not a plugin.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The plugin was built for another contract.
    #[error("{0}")]
    Abi(String),
    /// The plugin was built for another kind of machine.
    #[error("the file is for {found}, this host is for {host}; build it for this machine")]
    Machine {
        /// What the file is for.
        found: String,
        /// What this process runs on.
        host: &'static str,
    },
    /// The image cannot be put into sealed memory.
    #[error("failed to put {bytes} bytes into sealed memory: {source}{}", advice(&(*source).into()))]
    Seal {
        /// Size of the image.
        bytes: usize,
        /// What the kernel said.
        source: Errno,
    },
    /// The dynamic loader refused.
    #[error("the dynamic loader refused it: {0}")]
    Dynamic(String),
    /// The dynamic loader returned an object that was already loaded.
    #[error("the dynamic loader already has an object named `{0}`")]
    Occupied(String),
    /// The loaded table is not the one that was read from the file.
    #[error("the loaded table differs from the one in the file")]
    Table,
    /// The system has no process for it, which is not the plugin's fault.
    #[error("{0}")]
    NoProcess(String),
    /// The plugin itself refused to start, or the host refused it: by a policy, or because there
    /// is not a sandbox.
    #[error("{0}")]
    Refused(String),
}

/// A plugin image with the expected digest, in sealed memory.
#[derive(Debug)]
pub struct Verified {
    pub(crate) memory: OwnedFd,
    /// Where the dynamic loader finds the bytes, if not by the descriptor.
    pub(crate) path: Option<PathBuf>,
    pub(crate) header: TableHeader,
    constructors: Result<Constructors, ConstructorsError>,
    bytes: usize,
}

impl Verified {
    /// Verifies the bytes of a plugin file and seals what will be loaded.
    ///
    /// # Errors
    /// [`LoadError::Promise`] and [`LoadError::Image`] if the file and its meta do not match
    /// (yet); all others are final for these bytes.
    pub fn new(file: Vec<u8>, promised: &PluginMeta) -> Result<Self, LoadError> {
        let image = Image::normalise(file)?;
        promised.check(&image)?;
        if Machine::native().is_some_and(|native| native != image.machine()) {
            return Err(LoadError::Machine {
                found: image.machine().to_string(),
                host: std::env::consts::ARCH,
            });
        }
        let header = image.header()?;
        check_abi(&header).map_err(|error| LoadError::Abi(error.to_string()))?;
        let bytes = image.len();
        let constructors = Constructors::of(image.bytes());
        let memory = seal(promised.name.as_str(), image.bytes())
            .map_err(|source| LoadError::Seal { bytes, source })?;
        Ok(Self {
            memory,
            path: None,
            header,
            constructors,
            bytes,
        })
    }

    /// Takes over an image that another process verified: `memory` is the sealed image, and `path`
    /// a read-only copy of it lies, without its constructors. For a worker, which trusts its host.
    ///
    /// # Errors
    /// If the memory is not sealed.
    pub fn by_host(
        memory: OwnedFd,
        path: PathBuf,
        header: TableHeader,
        constructors: Constructors,
    ) -> Result<Self, LoadError> {
        let bytes = usize::try_from(fstat(&memory).map_or(0, |stat| stat.st_size)).unwrap_or(0);
        let sealed = fcntl_get_seals(&memory)
            .is_ok_and(|seals| seals.contains(SealFlags::WRITE | SealFlags::SHRINK));
        if !sealed {
            let source = Errno::PERM;
            return Err(LoadError::Seal { bytes, source });
        }
        Ok(Self {
            memory,
            path: Some(path),
            header,
            constructors: Ok(constructors),
            bytes,
        })
    }

    /// The sealed image, to be handed to a worker.
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// The header of the plugin's table, as it lies in the image.
    pub fn header(&self) -> TableHeader {
        self.header
    }

    /// What of it the dynamic loader would run.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn constructors(&self) -> Result<&Constructors, ConstructorsError> {
        self.constructors.as_ref().map_err(|error| *error)
    }

    /// How much private memory it takes to load it, in bytes, as far as that can be told.
    pub fn writable_bytes(&self) -> u64 {
        let constructors = self.constructors.as_ref();
        constructors.map_or(0, |constructors| constructors.writable_bytes)
    }

    /// Size of the image in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Tries whether this system lets bytes be sealed in memory, and run from there.
///
/// # Errors
/// [`LoadError::Seal`], with the setting that forbids it where that is known.
pub fn try_memory() -> Result<(), LoadError> {
    let bytes = [0; 1];
    let run = || {
        let memory = seal("check", &bytes)?;
        // SAFETY: a new mapping, at an address that the kernel chooses; nothing runs or reads it.
        unsafe {
            let protection = ProtFlags::READ | ProtFlags::EXEC;
            let mapped = mmap(
                ptr::null_mut(),
                1,
                protection,
                MapFlags::PRIVATE,
                &memory,
                0,
            )?;
            munmap(mapped, 1)
        }
    };
    run().map_err(|source| LoadError::Seal {
        bytes: bytes.len(),
        source,
    })
}

fn seal(name: &str, bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let label = format!("hotmerge-{name}");
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // EXEC keeps working where the system makes memory files not executable by default;
    // kernels before 6.3 do not know the flag.
    let memory = match memfd_create(&label, flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create(&label, flags)?,
        other => other?,
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(&memory, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    fcntl_add_seals(
        &memory,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(memory)
}

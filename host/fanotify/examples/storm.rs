//! Changes files of many packages in every possible way, as fast as it can: for tests of watchers.
//!
//! `storm DIR PACKAGES FIRST STEP WRITES START TEMPLATE` writes to the packages `p{FIRST}`,
//! `p{FIRST + STEP}`, … below PACKAGES in DIR, so that several processes can share a directory. The n-th
//! write puts `START + n` in the place of every `1000000000` of the template, and the package's name in
//! the place of `subject`. At its end it says which number each package has. If its output is a pipe, it
//! ends as soon as nobody reads that.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    process, ptr, thread,
};

use rustix::event::{PollFd, PollFlags, poll};

const NUMBER: &str = "1000000000";
const FILE: &str = "plugin.meta";

/// One package, and how to write the file in it.
struct Package {
    dir: PathBuf,
    number: u64,
}

impl Package {
    fn file(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// A name that nobody else has.
    fn hidden(&self) -> PathBuf {
        self.dir.join(format!(".{}", self.number))
    }

    fn create(&self, text: &[u8]) -> io::Result<()> {
        fs::remove_file(self.file())?;
        File::create_new(self.file())?.write_all(text)
    }

    fn write(&self, text: &[u8]) -> io::Result<()> {
        File::create(self.file())?.write_all(text)
    }

    fn rename(&self, text: &[u8]) -> io::Result<()> {
        fs::write(self.hidden(), text)?;
        fs::rename(self.hidden(), self.file())
    }

    fn link(&self, text: &[u8]) -> io::Result<()> {
        fs::write(self.hidden(), text)?;
        fs::remove_file(self.file())?;
        fs::hard_link(self.hidden(), self.file())?;
        fs::remove_file(self.hidden())
    }

    fn truncate(&self, text: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.file())?;
        file.write_all_at(&[text, b"# too long"].concat(), 0)?;
        file.set_len(text.len() as u64)
    }

    fn store(&self, text: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.file())?;
        file.set_len(text.len() as u64)?;
        // SAFETY: a new mapping of an open file, at an address that the kernel chooses.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                text.len(),
                libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping has this many bytes, and nobody else in this process knows it.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), at.cast(), text.len()) };
        // SAFETY: the mapping is the one made above, and nothing points into it any more.
        match unsafe { libc::munmap(at, text.len()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn copy_range(&self, text: &[u8]) -> io::Result<()> {
        fs::write(self.hidden(), text)?;
        // The standard library copies from file to file in the kernel.
        io::copy(
            &mut File::open(self.hidden())?,
            &mut File::create(self.file())?,
        )?;
        fs::remove_file(self.hidden())
    }

    /// Another directory of the same name.
    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let beside = |kind: &str| self.dir.with_file_name(format!(".{kind}-{}", self.number));
        let (new, old) = (beside("new"), beside("old"));
        fs::create_dir(&new)?;
        fs::write(new.join(FILE), text)?;
        fs::write(new.join("junk.so"), "junk")?;
        fs::rename(&self.dir, &old)?;
        fs::rename(&new, &self.dir)?;
        fs::remove_dir_all(old)
    }
}

type Way = fn(&Package, &[u8]) -> io::Result<()>;

const WAYS: [Way; 8] = [
    Package::create,
    Package::write,
    Package::rename,
    Package::link,
    Package::truncate,
    Package::store,
    Package::copy_range,
    Package::replace,
];

/// Its parent may have been killed, and nobody would stop it then.
fn end_with_reader() {
    let output = io::stdout();
    let mut closed = [PollFd::new(&output, PollFlags::empty())];
    while poll(&mut closed, None).is_err() {}
    process::exit(1);
}

fn main() -> io::Result<()> {
    thread::spawn(end_with_reader);
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [dir, numbers @ .., template] = &arguments[..] else {
        return Err(io::Error::other(
            "storm DIR PACKAGES FIRST STEP WRITES START TEMPLATE",
        ));
    };
    let numbers: Result<Vec<u64>, _> = numbers.iter().map(|number| number.parse()).collect();
    let numbers: [u64; 5] = numbers
        .map_err(io::Error::other)?
        .try_into()
        .map_err(|_| io::Error::other("not five numbers"))?;
    let [packages, first, step, writes, start] = numbers;
    let template = fs::read_to_string(template)?;
    let names = (first..packages).step_by(step as usize);
    let mut packages: Vec<_> = names
        .map(|index| package(dir, index))
        .collect::<Result<_, _>>()?;
    let mut random = start | 1;
    for number in start..start + writes {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let index = (random >> 16) as usize % packages.len();
        let way = (random >> 40) as usize % WAYS.len();
        let package = &mut packages[index];
        package.number = number;
        let name = package.dir.file_name().unwrap_or_default();
        let text = template.replace(NUMBER, &number.to_string());
        let text = text.replace("subject", &name.to_string_lossy());
        WAYS[way](package, text.as_bytes())?;
    }
    let mut output = io::stdout().lock();
    for package in packages.iter().filter(|package| package.number != 0) {
        let name = package.dir.file_name().unwrap_or_default();
        writeln!(output, "{} {}", name.to_string_lossy(), package.number)?;
    }
    Ok(())
}

fn package(dir: &str, index: u64) -> io::Result<Package> {
    let dir = Path::new(dir).join(format!("p{index}"));
    fs::create_dir_all(&dir)?;
    if !dir.join(FILE).exists() {
        fs::write(dir.join(FILE), "")?;
        fs::write(dir.join("junk.so"), "junk")?;
    }
    Ok(Package { dir, number: 0 })
}

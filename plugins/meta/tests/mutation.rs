//! What may happen to a real plugin between build and load, with the real tools.
//!
//! Stripped, split, with another build-id: the same hash. One bit that the loader or the code
//! can see: another one. Where the visible bits are is asked of `readelf`.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use hotmerge_meta::{Image, ImageError, check_abi};

/// A release build of the sample plugin, in a place of these tests' own.
static PLUGIN: LazyLock<PathBuf> = LazyLock::new(|| {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--release", "-p", "hotmerge-counter"])
        .args(["--message-format", "json-render-diagnostics"])
        .args([
            "--target-dir",
            concat!(env!("CARGO_TARGET_TMPDIR"), "/mutation"),
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let files = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let message: serde_json::Value = serde_json::from_slice(line).ok()?;
            let files = message.get("filenames")?.as_array()?.clone();
            files
                .into_iter()
                .find_map(|file| file.as_str().map(PathBuf::from))
        });
    let mut objects = files.filter(|file| file.extension().is_some_and(|end| end == "so"));
    let ours = objects.find(|file| {
        file.file_stem()
            .unwrap()
            .to_string_lossy()
            .contains("counter")
    });
    ours.expect("cargo builds a shared object")
});

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("`{program}` is needed (binutils): {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

fn normalise(file: &[u8]) -> Result<Image, ImageError> {
    Image::normalise(file.to_vec())
}

/// A copy of the plugin to work on.
struct Copy {
    dir: tempfile::TempDir,
}

impl Copy {
    fn new() -> Self {
        let copy = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::copy(&*PLUGIN, copy.path("plugin.so")).unwrap();
        copy
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn bytes(&self) -> Vec<u8> {
        read(Path::new(&self.path("plugin.so")))
    }

    /// The file must differ, or the tool did nothing and the test would show nothing.
    fn assert_same_plugin(&self) {
        let (before, after) = (read(&PLUGIN), self.bytes());
        assert_ne!(before, after, "the tool changed nothing");
        let (before, after) = (normalise(&before).unwrap(), normalise(&after).unwrap());
        assert_eq!(before.digest(), after.digest());
        assert_eq!(before.bytes(), after.bytes());
    }
}

fn stripped() -> Vec<u8> {
    let copy = Copy::new();
    run("strip", &["--strip-unneeded", &copy.path("plugin.so")]);
    copy.bytes()
}

#[test]
fn a_real_plugin_has_a_table() {
    let image = normalise(&read(&PLUGIN)).unwrap();
    let header = image.header().unwrap();
    assert_eq!(check_abi(&header), Ok(()));
    assert_eq!(header, hotmerge_abi::TableHeader::CURRENT);
}

#[test]
fn stripping_changes_nothing() {
    for how in ["--strip-debug", "--strip-unneeded", "--strip-all"] {
        let copy = Copy::new();
        run("strip", &[how, &copy.path("plugin.so")]);
        copy.assert_same_plugin();
    }
}

#[test]
fn split_debug_information_changes_nothing() {
    let copy = Copy::new();
    let (plugin, debug) = (copy.path("plugin.so"), copy.path("plugin.debug"));
    run("objcopy", &["--only-keep-debug", &plugin, &debug]);
    run("strip", &["--strip-unneeded", &plugin]);
    run(
        "objcopy",
        &[&format!("--add-gnu-debuglink={debug}"), &plugin],
    );
    assert!(run("readelf", &["-SW", &plugin]).contains(".gnu_debuglink"));
    copy.assert_same_plugin();
}

#[test]
fn another_build_id_changes_nothing() {
    let copy = Copy::new();
    let (plugin, note) = (copy.path("plugin.so"), copy.path("note"));
    let section = ".note.gnu.build-id";
    run(
        "objcopy",
        &["-O", "binary", "--only-section", section, &plugin, &note],
    );
    let mut bytes = read(Path::new(&note));
    let id_starts = bytes.len() - 20;
    for byte in &mut bytes[id_starts..] {
        *byte ^= 0x5a;
    }
    fs::write(&note, bytes).unwrap();
    let before = run("readelf", &["-n", &plugin]);
    run(
        "objcopy",
        &["--update-section", &format!("{section}={note}"), &plugin],
    );
    assert_ne!(run("readelf", &["-n", &plugin]), before);
    copy.assert_same_plugin();
}

#[test]
fn losing_the_section_headers_changes_nothing() {
    let copy = Copy::new();
    let mut bytes = copy.bytes();
    let sections = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
    bytes[sections..].fill(0xff);
    bytes[40..48].fill(0);
    bytes[58..64].fill(0);
    fs::write(copy.path("plugin.so"), bytes).unwrap();
    copy.assert_same_plugin();
    assert!(normalise(&copy.bytes()).unwrap().header().is_ok());
}

/// What `readelf` says of a file: the loadable parts and the bytes of the build-id.
struct Visible {
    headers_end: usize,
    loads: Vec<Range<usize>>,
    build_id: Range<usize>,
}

impl Visible {
    fn of(path: &str) -> Self {
        let hex = |text: &str| usize::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
        let segments = run("readelf", &["-lW", path]);
        let range = |line: &str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            hex(fields[1])..hex(fields[1]) + hex(fields[4])
        };
        let of_type = |kind: &str| -> Vec<_> {
            let lines = segments.lines().map(str::trim_start);
            lines
                .filter(|line| line.starts_with(kind))
                .map(range)
                .collect()
        };
        let sections = run("readelf", &["-SW", path]);
        let note = sections
            .lines()
            .find(|line| line.contains(".note.gnu.build-id"))
            .unwrap();
        let fields: Vec<_> = note.split(']').nth(1).unwrap().split_whitespace().collect();
        let (start, len) = (hex(fields[3]), hex(fields[4]));
        Self {
            headers_end: of_type("PHDR ")[0].end,
            loads: of_type("LOAD "),
            // Three words and the name `GNU` come before it.
            build_id: start + 16..start + len,
        }
    }

    fn is_visible(&self, at: usize) -> bool {
        self.loads.iter().any(|load| load.contains(&at))
            && !self.build_id.contains(&at)
            && !(40..48).contains(&at)
            && !(58..64).contains(&at)
    }
}

/// Flips bits of the file and compares what becomes of the image with what should.
fn flip(file: &[u8], visible: &Visible, bits: impl Iterator<Item = usize>) -> (usize, usize) {
    let original = normalise(file).unwrap();
    let (mut seen, mut unseen) = (0, 0);
    for bit in bits {
        let at = bit / 8;
        let mut changed = file.to_vec();
        changed[at] ^= 1 << (bit % 8);
        match normalise(&changed) {
            Ok(image) if visible.is_visible(at) => {
                assert_ne!(image.digest(), original.digest(), "bit {bit} is visible");
                seen += 1;
            }
            Ok(image) => {
                assert_eq!(image.bytes(), original.bytes(), "bit {bit} is invisible");
                assert_eq!(image.digest(), original.digest(), "bit {bit} is invisible");
                unseen += 1;
            }
            Err(error) => {
                assert!(
                    at < visible.headers_end,
                    "bit {bit} is in no header, but: {error}"
                );
                seen += 1;
            }
        }
    }
    (seen, unseen)
}

#[test]
fn every_bit_of_the_headers_is_hashed() {
    let copy = Copy::new();
    run("strip", &["--strip-unneeded", &copy.path("plugin.so")]);
    let visible = Visible::of(&copy.path("plugin.so"));
    let (seen, unseen) = flip(&copy.bytes(), &visible, 0..visible.headers_end * 8);
    assert_eq!(
        unseen,
        (8 + 6) * 8,
        "only the fields about sections are not"
    );
    assert_eq!(seen + unseen, visible.headers_end * 8);
}

#[test]
fn sampled_bits_of_the_image_are_all_hashed() {
    let copy = Copy::new();
    let visible = Visible::of(&copy.path("plugin.so"));
    let file = copy.bytes();
    // Two strides without a common factor with anything that repeats in a file: one through
    // what is loaded, one through the debug information behind it.
    let loaded = visible.loads.last().unwrap().end * 8;
    let (seen, _) = flip(&file[..loaded / 8], &visible, (7..loaded).step_by(2503));
    assert!(seen > 900, "{seen}");
    let (_, unseen) = flip(&file, &visible, (loaded..file.len() * 8).step_by(300_007));
    assert!(unseen > 50, "{unseen}");
}

#[test]
fn the_hash_excludes_exactly_the_build_id() {
    let copy = Copy::new();
    run("strip", &["--strip-unneeded", &copy.path("plugin.so")]);
    let visible = Visible::of(&copy.path("plugin.so"));
    let id = visible.build_id.clone();
    assert_eq!(id.len(), 20);
    let (seen, unseen) = flip(
        &copy.bytes(),
        &visible,
        (id.start - 16) * 8..(id.end + 4) * 8,
    );
    assert_eq!((seen, unseen), (20 * 8, 20 * 8));
}

#[test]
fn both_ends_of_each_segment_are_hashed() {
    let copy = Copy::new();
    run("strip", &["--strip-unneeded", &copy.path("plugin.so")]);
    let visible = Visible::of(&copy.path("plugin.so"));
    let file = copy.bytes();
    for load in visible.loads.clone() {
        for edge in [load.start, load.end] {
            let around = edge.saturating_sub(3)..(edge + 3).min(file.len());
            flip(&file, &visible, around.start * 8..around.end * 8);
        }
    }
}

#[test]
fn a_truncated_plugin_is_refused() {
    let file = stripped();
    let end = normalise(&file).unwrap().len();
    let lengths = (0..4096)
        .chain((4096..end).step_by(1009))
        .chain(end - 64..end);
    for len in lengths {
        assert!(normalise(&file[..len]).is_err(), "{len} bytes");
    }
    let whole = normalise(&file).unwrap().digest();
    assert_eq!(normalise(&file[..end]).unwrap().digest(), whole);
}

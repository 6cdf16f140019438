//! Files that request from the dynamic loader what no plugin may: refused with the name of the rule, by
//! `hotmerge inspect` and by hosts, wherever the plugin is to live.

mod elf;

use std::{fs, path::Path, process::Command};

use hotmerge_daemon::lifecycle::PluginState;
use hotmerge_tests::{Lab, Neighbour, Ran, SOON, Variant, abrupt, honest, keep_one_heap, run};
use object::elf::{self as constants, PF_R, PF_W, PF_X, PT_DYNAMIC, PT_GNU_STACK, PT_LOAD};

use self::elf::Elf;

/// A trick: its name, what it changes, and words of the refusal.
type Trick = (&'static str, fn(&mut Elf<'_>), &'static [&'static str]);

const FILES: &str = "look for other files";

/// On a good plugin each of these is the only thing that is wrong.
const TRICKS: &[Trick] = &[
    (
        "needed",
        |elf| elf.replace_dynamic(1, 1),
        &["may need no library"],
    ),
    (
        "rpath",
        |elf| elf.replace_dynamic(15, 1),
        &["DT_RPATH", FILES],
    ),
    (
        "runpath",
        |elf| elf.replace_dynamic(29, 1),
        &["DT_RUNPATH", FILES],
    ),
    (
        "audit",
        |elf| elf.replace_dynamic(0x6fff_fefc, 1),
        &["DT_AUDIT", FILES],
    ),
    (
        "depaudit",
        |elf| elf.replace_dynamic(0x6fff_fefb, 1),
        &["DT_DEPAUDIT", FILES],
    ),
    (
        "config",
        |elf| elf.replace_dynamic(0x6fff_fefa, 1),
        &["DT_CONFIG", FILES],
    ),
    (
        "filter",
        |elf| elf.replace_dynamic(0x7fff_ffff, 1),
        &["DT_FILTER", FILES],
    ),
    (
        "auxiliary",
        |elf| elf.replace_dynamic(0x7fff_fffd, 1),
        &["DT_AUXILIARY", FILES],
    ),
    (
        "textrel",
        |elf| elf.replace_dynamic(22, 0),
        &["DT_TEXTREL", "write to code"],
    ),
    (
        "flag-textrel",
        |elf| elf.set_dynamic(constants::DT_FLAGS, 12),
        &["DT_TEXTREL"],
    ),
    (
        "rel",
        |elf| elf.replace_dynamic(17, 0x1000),
        &["DT_REL", "addends"],
    ),
    (
        "soname",
        |elf| elf.replace_dynamic(14, elf.needed()),
        &["DT_SONAME"],
    ),
    (
        "interpose",
        |elf| elf.set_dynamic(constants::DT_FLAGS_1, 0x401),
        &["DT_FLAGS_1"],
    ),
    (
        "entry-size",
        |elf| elf.set_dynamic(constants::DT_RELAENT, 8),
        &["DT_RELAENT"],
    ),
    (
        "plt-kind",
        |elf| elf.set_dynamic(constants::DT_PLTREL, 17),
        &["DT_PLTREL"],
    ),
    (
        "init-in-data",
        init_in_data,
        &["DT_INIT", "outside of the file's code"],
    ),
    (
        "init-nowhere",
        |elf| elf.set_dynamic(constants::DT_INIT, 1 << 40),
        &["DT_INIT"],
    ),
    (
        "fini-nowhere",
        |elf| elf.set_dynamic(constants::DT_FINI, 1 << 40),
        &["DT_FINI"],
    ),
    (
        "write-execute",
        write_execute,
        &["segment", "writable and executable"],
    ),
    ("shared-page", shared_page, &["share a page of memory"]),
    ("overlap", overlap, &["overlaps the one before it"]),
    (
        "stack",
        executable_stack,
        &["GNU_STACK", "stack executable"],
    ),
    ("no-stack", no_stack, &["GNU_STACK", "without it"]),
    ("interpreter", interpreter, &["PT_INTERP", "only programs"]),
    ("two-dynamic", two_dynamic, &["PT_DYNAMIC", "several"]),
    ("endless-dynamic", endless_dynamic, &["no end mark"]),
    ("program", |elf| elf.put(16, [2, 0]), &["EXEC"]),
    (
        "machine",
        |elf| elf.put(18, [0xb7, 0]),
        &["build it for this machine"],
    ),
    (
        "ifunc-symbol",
        ifunc_symbol,
        &["IFUNC", "while the loader relocates"],
    ),
    (
        "irelative",
        irelative,
        &["IFUNC", "while the loader relocates"],
    ),
    ("relocate-code", relocate_code, &["relocation", "read-only"]),
    (
        "relocate-dynamic",
        relocate_dynamic,
        &["relocation", "what the loader reads"],
    ),
    ("packed", packed, &["relocation", "read-only"]),
    (
        "tables-in-data",
        tables_in_data,
        &["DT_STRTAB", "read-only"],
    ),
    (
        "hidden-import",
        hidden_import,
        &["`execve`", "other programs"],
    ),
];

fn init_in_data(elf: &mut Elf<'_>) {
    let data = elf.address(elf.segment(PF_R | PF_W));
    elf.set_dynamic(constants::DT_INIT, data);
}

fn write_execute(elf: &mut Elf<'_>) {
    let at = elf.header(PT_LOAD, elf.segment(PF_R | PF_W));
    elf.put(at + 4, [7, 0, 0, 0]);
}

/// The second begins in the page that the first ends in.
fn shared_page(elf: &mut Elf<'_>) {
    let (first, second) = (elf.header(PT_LOAD, 0), elf.address(1));
    let bytes = (second & !4095) + 1;
    elf.put(first + 40, bytes.to_le_bytes());
}

fn overlap(elf: &mut Elf<'_>) {
    let (first, second) = (elf.header(PT_LOAD, 0), elf.address(1));
    elf.put(first + 40, (second + 8).to_le_bytes());
}

fn executable_stack(elf: &mut Elf<'_>) {
    let at = elf.header(PT_GNU_STACK, 0);
    elf.put(at + 4, [7, 0, 0, 0]);
}

fn no_stack(elf: &mut Elf<'_>) {
    let at = elf.header(PT_GNU_STACK, 0);
    elf.put(at, [0; 4]);
}

fn interpreter(elf: &mut Elf<'_>) {
    elf.put(elf.spare_header(), constants::PT_INTERP.0.to_le_bytes());
}

fn two_dynamic(elf: &mut Elf<'_>) {
    elf.put(elf.spare_header(), PT_DYNAMIC.0.to_le_bytes());
}

/// The loader goes on where the header says that there is no more.
fn endless_dynamic(elf: &mut Elf<'_>) {
    let at = elf.header(PT_DYNAMIC, 0);
    let (last, _) = elf.dynamic(constants::DT_NULL);
    let (first, _) = elf.dynamic(constants::DT_NEEDED);
    elf.put(at + 32, ((last - first) as u64).to_le_bytes());
}

fn ifunc_symbol(elf: &mut Elf<'_>) {
    let symbol = elf.symbol_of(elf.linkage());
    // And its section: the loader ignores the type of symbols that the file does not define.
    elf.put(symbol + 4, [0x1a, 0, 1, 0]);
}

fn irelative(elf: &mut Elf<'_>) {
    elf.put(elf.relocation() + 8, [37, 0, 0, 0]);
}

fn relocate_code(elf: &mut Elf<'_>) {
    let code = elf.address(elf.segment(PF_R | PF_X));
    elf.put(elf.relocation(), code.to_le_bytes());
}

fn relocate_dynamic(elf: &mut Elf<'_>) {
    let at = elf.header(PT_DYNAMIC, 0) + 16;
    let address: [u8; 8] = elf.0[at..at + 8].try_into().expect("eight");
    elf.put(elf.relocation(), address);
}

/// As if the code were a packed table of relocations, which is where most of them would write.
fn packed(elf: &mut Elf<'_>) {
    let (version, _) = elf.dynamic(constants::DT_VERNEEDNUM);
    let (hint, _) = elf.dynamic(constants::DT_RELACOUNT);
    for (at, tag, value) in [(hint, 36_u64, 0x40_u64), (version, 35, 64)] {
        elf.put(at, tag.to_le_bytes());
        elf.put(at + 8, value.to_le_bytes());
    }
}

/// Where relocations could change names after they were checked.
fn tables_in_data(elf: &mut Elf<'_>) {
    let at = elf.header(PT_LOAD, 0);
    elf.put(at + 4, [6, 0, 0, 0]);
}

fn hidden_import(elf: &mut Elf<'_>) {
    elf.rename("readlink", "execve");
    elf.without_sections();
}

fn trick((name, change, _): &Trick) -> Variant {
    let variant = honest("formatting").named(name);
    variant.with_bytes(|bytes| change(&mut Elf(bytes)))
}

fn inspect(lab: &Lab, path: &Path) -> Ran {
    lab.hotmerge(["inspect", path.to_str().expect("it is text")])
}

#[test]
fn inspect_names_the_rule_against_each_trick() {
    let lab = Lab::new();
    for one in TRICKS {
        let path = lab.path(one.0);
        fs::write(&path, trick(one).bytes).expect("the test's own directory");
        let ran = inspect(&lab, &path);
        assert_ne!(ran.code, Some(0), "{} is allowed: {}", one.0, ran.text());
        let said = format!("{}{}", ran.text(), ran.stderr);
        for word in one.2 {
            assert!(said.contains(word), "no `{word}` about {}: {said}", one.0);
        }
    }
    let path = lab.path("good");
    fs::write(&path, honest("formatting").bytes).expect("the test's own directory");
    inspect(&lab, &path).ok();
}

/// What a host with all tricks in its plugin directory says of them.
fn a_host_refuses_each_trick(isolation: &str) {
    let lab = Lab::new();
    lab.package("good")
        .put(&[&honest("formatting"), &honest("hashing")]);
    let lives = lab.living_in(isolation);
    let mut serve = lab.serve(&format!("{lives}symbols = \"enforce\"\n"));
    keep_one_heap(&mut serve);
    let host = lab.start_by(serve);
    let mut neighbour = Neighbour::of(&host, "hashing", "work");
    let tricks: Vec<_> = TRICKS.iter().map(trick).collect();
    let package = lab.package("tricks");
    let put = || {
        package.put(&tricks.iter().collect::<Vec<_>>());
        host.reload();
    };
    let remove = || {
        package.remove();
        host.reload();
    };
    // Once more, since what is made once is not a leak.
    put();
    remove();
    neighbour.remember(&host);
    put();
    assert_eq!(host.plugin("formatting").state, PluginState::Active);
    for (name, _, words) in TRICKS {
        let plugin = host.plugin(name);
        let refused = plugin
            .refused
            .unwrap_or_else(|| panic!("{name} is not refused"));
        for word in *words {
            assert!(
                refused.reason.contains(word),
                "no `{word}` about {name}: {}",
                refused.reason
            );
        }
        assert_eq!(lab.verify_objects(name), Some(refused.reason));
    }
    assert_eq!(lab.verify_objects("formatting"), None);
    remove();
    neighbour.unharmed(host);
}

#[test]
fn workers_refuse_each_trick() {
    a_host_refuses_each_trick("process");
}

#[test]
fn the_host_process_refuses_each_trick() {
    a_host_refuses_each_trick("host");
}

/// No setting lets the loader run code of a file before its worker has confined itself.
#[test]
fn ifunc_is_refused_even_without_the_policy() {
    let lab = Lab::new();
    let one = TRICKS.iter().find(|(name, ..)| *name == "ifunc-symbol");
    lab.put(&trick(one.expect("it is listed")));
    let lives = lab.living_in("process");
    let host = lab.start_with(&format!("{lives}symbols = \"off\"\n"));
    let refused = host.plugin("ifunc-symbol").refused.expect("it is refused");
    assert!(refused.reason.contains("IFUNC"), "{refused:?}");
    assert_eq!(lab.verify_objects("ifunc-symbol"), Some(refused.reason));
    host.stop();
}

/// Hash tables say how many symbols there are, and nothing that is checked depends on it.
#[test]
fn a_forged_hash_table_hides_no_import() {
    let lab = Lab::new();
    for lie in [[0_u32; 4], [1, 0, 0, 0], [u32::MAX; 4], [1, u32::MAX, 1, 0]] {
        let liar = honest("formatting").with_bytes(|bytes| {
            let mut elf = Elf(bytes);
            hidden_import(&mut elf);
            let at = elf.hash_table();
            for (number, word) in lie.iter().enumerate() {
                elf.put(at + 4 * number, word.to_le_bytes());
            }
        });
        let path = lab.path("liar");
        fs::write(&path, liar.bytes).expect("the test's own directory");
        let ran = inspect(&lab, &path);
        assert!(ran.text().contains("`execve`"), "{lie:?}: {}", ran.text());
    }
}

/// Made by a linker, not by changing bytes.
#[test]
fn tricks_built_by_real_linkers_are_refused() {
    const PLAIN: &str = "int answer(void) { return 42; }";
    const RESOLVED: &str = "static int one(void) { return 1; }\n\
         static void *choose(void) { return one; }\n\
         int chosen(void) __attribute__((ifunc(\"choose\")));\n\
         int (*use)(void) = chosen;";
    const ABSOLUTE: &str = "__asm__(\".text\\n.globl at\\nat: .quad at\\n\");";
    let lab = Lab::new();
    for (name, source, flags, word) in [
        ("execstack", PLAIN, "-Wl,-z,execstack", "GNU_STACK"),
        ("runpath", PLAIN, "-Wl,-rpath,/tmp", "PATH"),
        ("auxiliary", PLAIN, "-Wl,-f,libother.so", "DT_AUXILIARY"),
        ("filter", PLAIN, "-Wl,-F,libother.so", "DT_FILTER"),
        ("interpose", PLAIN, "-Wl,-z,interpose", "DT_FLAGS_1"),
        ("initfirst", PLAIN, "-Wl,-z,initfirst", "DT_FLAGS_1"),
        ("ifunc", RESOLVED, "-O0", "IFUNC"),
        ("textrel", ABSOLUTE, "-Wl,-z,notext", "relocation"),
    ] {
        let (source_path, path) = (
            lab.path(format!("{name}.c")),
            lab.path(format!("{name}.so")),
        );
        fs::write(&source_path, source).expect("the test's own directory");
        let mut linker = Command::new("cc");
        linker
            .args(["-shared", "-fPIC", flags, "-o"])
            .args([&path, &source_path]);
        run(&mut linker, SOON).ok();
        let ran = inspect(&lab, &path);
        assert_ne!(ran.code, Some(0), "{name} is allowed: {}", ran.text());
        assert!(
            ran.text().contains(word),
            "no `{word}` about {name}: {}",
            ran.text()
        );
    }
}

/// As everything in Go is. The end of a worker unloads it all the same.
#[test]
fn only_workers_load_what_is_never_unloaded() {
    let lab = Lab::new();
    let (source, path) = (lab.path("kept.c"), lab.path("kept.so"));
    fs::write(
        &source,
        "int setuid(int); int answer(void) { return setuid(1); }",
    )
    .expect("the test's own directory");
    let mut linker = Command::new("cc");
    linker
        .args(["-shared", "-fPIC", "-Wl,-z,nodelete", "-o"])
        .args([&path, &source]);
    run(&mut linker, SOON).ok();
    let path = path.to_str().expect("it is text");
    let of_worker = lab.hotmerge(["inspect", path]).text();
    let of_host = lab.hotmerge(["inspect", "--host", path]).text();
    for objection in ["can never be unloaded", "only a worker may import it"] {
        assert!(!of_worker.contains(objection), "{of_worker}");
        assert!(of_host.contains(objection), "{of_host}");
    }
}

/// Nothing refers to the definition by its number: the loader finds it by its name.
#[test]
fn an_import_the_file_defines_runs_no_code() {
    const EVADING: &str = "extern int others(void);\n\
         static int one(void) { return 1; }\n\
         static void *choose(void) { return one; }\n\
         int chosen(void) __attribute__((ifunc(\"choose\")));\n\
         int (*use)(void) = others;";
    let lab = Lab::new();
    for style in ["gnu", "sysv"] {
        let (source, path) = (lab.path("evading.c"), lab.path("evading.so"));
        fs::write(&source, EVADING).expect("the test's own directory");
        let mut linker = Command::new("cc");
        linker
            .args([
                "-shared",
                "-fPIC",
                "-O0",
                &format!("-Wl,--hash-style={style}"),
            ])
            .arg("-o")
            .args([&path, &source]);
        run(&mut linker, SOON).ok();
        let said = inspect(&lab, &path).text();
        assert!(
            !said.contains("IFUNC"),
            "{style}: nothing refers to it: {said}"
        );
        let mut bytes = fs::read(&path).expect("it was built");
        Elf(&mut bytes).rename("others", "chosen");
        fs::write(&path, bytes).expect("the test's own directory");
        let ran = inspect(&lab, &path);
        assert_ne!(ran.code, Some(0), "{style}: {}", ran.text());
        assert!(ran.text().contains("IFUNC"), "{style}: {}", ran.text());
    }
}

/// Built with `panic = "abort"`: nobody could catch its panics.
#[test]
fn only_the_host_process_requires_unwinding() {
    let lab = Lab::new();
    lab.package("abrupt").put(&[&abrupt()]);
    for (isolation, refused) in [("host", true), ("process", false)] {
        let lives = lab.living_in(isolation);
        let host = lab.start_with(&format!("{lives}symbols = \"enforce\"\n"));
        match host.plugin("small").refused {
            Some(attempt) => {
                assert!(refused, "{}", attempt.reason);
                assert!(
                    attempt.reason.contains("_Unwind_RaiseException"),
                    "{}",
                    attempt.reason
                );
            }
            None => {
                assert!(!refused, "it was not refused");
                assert_eq!(host.text("small", "answer"), "one");
            }
        }
        host.stop();
    }
}

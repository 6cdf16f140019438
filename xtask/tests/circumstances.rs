//! Hostile circumstances that were tried and held, as tables: clocks, closed standard streams, disks
//! that cannot be written, and a system without `/proc`.

mod common;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use common::{Scratch, dev, failure, field, lines, one_plugin};
use hotmerge_meta::Meta;
use walkdir::WalkDir;

/// The same command, started by a shell that does something first.
fn after(setup: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{setup} && exec \"$@\""), "sh"]);
    append(&mut shell, command);
    shell
}

/// The same in a mount namespace of its own; `None` if this user may not have one.
fn after_mounting(setup: &str, command: &Command) -> Option<Command> {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount"]);
        unshare
    };
    let allowed = unshare().arg("true").stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user may not have a mount namespace");
        return None;
    }
    let mut inside = unshare();
    append(&mut inside, &after(setup, command));
    Some(inside)
}

fn append(to: &mut Command, command: &Command) {
    to.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        to.current_dir(dir);
    }
}

fn staged_hash(scratch: &Scratch) -> String {
    let staged = Meta::read_path(&scratch.staged("one")).unwrap();
    staged.plugin[0].hash.to_string()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = WalkDir::new(dir).into_iter().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().is_file());
    files.map(|entry| entry.into_path()).collect()
}

/// From the second before the epoch to what 64 bits of nanoseconds hold.
#[test]
fn times_of_sources_do_not_matter() {
    let scratch = one_plugin();
    let hash = field(&lines(&mut dev(&scratch)), "one", "hash");
    let epoch = SystemTime::UNIX_EPOCH;
    let after = |s: u64| epoch + Duration::from_secs(s);
    for time in [
        epoch - Duration::from_secs(1),
        epoch,
        after(1),
        after((1 << 31) - 1),
        after(1 << 31),
        after(1 << 32),
        after(9_214_646_400),
    ] {
        for path in files(&scratch.path("plugins/crates")) {
            File::options()
                .append(true)
                .open(path)
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        let (code, said) = failure(&mut dev(&scratch));
        assert_eq!(code, 0, "{time:?}: {said}");
        assert_eq!(staged_hash(&scratch), hash, "{time:?}");
    }
}

#[test]
fn the_date_of_a_build_changes_no_byte() {
    let scratch = one_plugin();
    let hash = field(&lines(&mut dev(&scratch)), "one", "hash");
    for date in [
        "-1",
        "0",
        "2147483648",
        "4294967296",
        "9214646400",
        "253402300800",
        "18446744073709551616",
        "",
        "never",
    ] {
        // Something to build, from the same sources.
        fs::remove_dir_all(scratch.path("plugins/target")).unwrap();
        let (code, said) = failure(dev(&scratch).env("SOURCE_DATE_EPOCH", date));
        assert_eq!(code, 0, "{date}: {said}");
        assert_eq!(staged_hash(&scratch), hash, "{date}");
    }
}

#[test]
fn closed_standard_streams_do_not_matter() {
    let scratch = one_plugin();
    for closed in [
        "exec <&-",
        "exec >&-",
        "exec 2>&-",
        "exec <&- >&-",
        "exec <&- >&- 2>&-",
    ] {
        let _ = fs::remove_dir_all(scratch.path("plugins/target/hotmerge/staging"));
        let (code, said) = failure(&mut after(closed, &dev(&scratch)));
        assert_eq!(code, 0, "{closed}: {said}");
        staged_hash(&scratch);
        // The exit code still reports what is wrong.
        let mut wrong = dev(&scratch);
        wrong.args(["--plugin", "nobody"]);
        let (code, said) = failure(&mut after(closed, &wrong));
        assert_eq!(code, 1, "{closed}: {said}");
    }
}

#[test]
fn sources_on_a_read_only_disk_build() {
    let scratch = one_plugin();
    let hash = field(&lines(&mut dev(&scratch)), "one", "hash");
    let here = scratch.path("plugins");
    let elsewhere = tempfile::tempdir().unwrap();
    let setup = format!(
        "mount --bind '{0}' '{0}' && mount -o remount,bind,ro '{0}' && cd '{0}'",
        here.display()
    );
    let mut driver = dev(&scratch);
    driver.env("CARGO_TARGET_DIR", elsewhere.path());
    let Some(mut inside) = after_mounting(&setup, &driver) else {
        return;
    };
    assert_eq!(field(&lines(&mut inside), "one", "hash"), hash);
    // Without another target directory one sentence says what cannot be written.
    scratch.edit("plugins/crates/one/src/lib.rs", "hello", "hallo");
    let inside = after_mounting(&setup, &dev(&scratch));
    let (code, said) = failure(&mut inside.expect("it was possible before"));
    assert_ne!(code, 0);
    assert!(
        said.contains("Read-only file system") && !said.contains("panicked"),
        "{said}"
    );
    assert_eq!(staged_hash(&scratch), hash, "nothing has changed");
}

#[test]
fn a_driver_without_proc_says_so() {
    let scratch = one_plugin();
    let inside = after_mounting("mount -t tmpfs none /proc", &dev(&scratch));
    let Some(mut inside) = inside else { return };
    let (code, said) = failure(&mut inside);
    assert_ne!(code, 0, "{said}");
    assert!(
        said.contains("/proc") && !said.contains("panicked"),
        "{said}"
    );
}

//! Hostile circumstances that were tried and held, as tables: a host and its commands with odd
//! variables, closed standard streams, clocks of all ages, and disks that cannot be written.

use std::{
    fs::{self, File},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use hotmerge_daemon::lifecycle::PluginState;
use hotmerge_tests::{
    Lab, Process, SOON, TestHost, TinyDisk, actor, copy_environment, run, skipped,
};

fn lab() -> Lab {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    lab
}

/// The same command, started by a shell that does something first.
fn after(setup: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{setup} && exec \"$@\""), "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    copy_environment(command, &mut shell);
    shell
}

/// The same in a mount namespace of its own.
fn after_mounting(setup: &str, command: &Command) -> Command {
    let inner = after(setup, command);
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount"]);
    unshare.arg(inner.get_program()).args(inner.get_args());
    copy_environment(command, &mut unshare);
    unshare
}

fn may_mount() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "true"]);
    run(&mut unshare, SOON).code == Some(0)
}

/// Calls the plugin until it answers: without a log there is nothing else to wait for.
fn answers(lab: &Lab, host: &mut Process) {
    let mark = || {
        let mut call = lab.command();
        call.args(["call", "actor", "mark"]);
        run(&mut call, SOON).stdout == b"1"
    };
    while !mark() {
        assert!(host.is_running(), "the host ended");
    }
}

/// None of these keeps a host from serving, or a command from answering.
#[test]
fn variables_of_an_environment_do_not_matter() {
    let lab = lab();
    for (variable, value) in [
        ("CLICOLOR_FORCE", "1"),
        ("COLUMNS", "0"),
        ("COLUMNS", "1"),
        ("COLUMNS", "99999999999999999999"),
        ("HOME", ""),
        ("HOME", "relative"),
        ("HOTMERGE_LOG", ""),
        ("HOTMERGE_STATE_DIR", ""),
        ("INVOCATION_ID", "x"),
        ("JOURNAL_STREAM", "8:x"),
        ("LANG", "tr_TR.UTF-8"),
        ("LC_ALL", "\u{fffd}"),
        ("LD_BIND_NOW", "1"),
        ("LISTEN_FDS", "99"),
        ("LISTEN_PID", "1"),
        ("LOGNAME", ""),
        ("MALLOC_ARENA_MAX", "0"),
        ("MALLOC_PERTURB_", "85"),
        ("NO_COLOR", "1"),
        ("NOTIFY_SOCKET", ""),
        ("NOTIFY_SOCKET", "/nonexistent"),
        ("NOTIFY_SOCKET", "relative"),
        ("PAGER", "/bin/false"),
        ("PATH", ""),
        ("PWD", "/nonexistent"),
        ("RUST_BACKTRACE", "full"),
        ("RUST_LOG", "trace"),
        ("RUST_MIN_STACK", "65536"),
        ("SHELL", "/bin/false"),
        ("SHLVL", "x"),
        ("SSL_CERT_FILE", "/nonexistent"),
        ("TERM", ""),
        ("TERM", "dumb"),
        ("TMPDIR", "/nonexistent"),
        ("TZ", "Pacific/Kiritimati"),
        ("TZ", ":/nonexistent"),
        ("USER", ""),
        ("WATCHDOG_PID", "1"),
        ("WATCHDOG_USEC", "x"),
        ("XDG_RUNTIME_DIR", "relative"),
        ("XDG_STATE_HOME", "relative"),
    ] {
        let mut serve = lab.serve("");
        serve.env(variable, value);
        let host = lab.start_by(serve);
        let mut call = lab.command();
        call.args(["call", "actor", "mark"]).env(variable, value);
        let called = run(&mut call, SOON);
        assert_eq!(
            (called.code, &*called.stdout),
            (Some(0), &b"1"[..]),
            "{variable}={value}: {called:?}"
        );
        let mut status = lab.command();
        status.args(["status", "--json"]).env(variable, value);
        let shown = run(&mut status, SOON).ok().json();
        assert_eq!(shown["plugins"][0]["state"], "active", "{variable}={value}");
        host.stop();
    }
}

#[test]
fn a_host_serves_with_closed_standard_streams() {
    let lab = lab();
    for closed in ["exec <&-", "exec >&-", "exec 2>&-", "exec <&- >&- 2>&-"] {
        let mut serve = after(closed, &lab.serve(""));
        serve.stdout(Stdio::null()).stderr(Stdio::null());
        let mut host = Process::spawn(&mut serve);
        answers(&lab, &mut host);
        // What it opens in their place is nothing that plugins or clients write into.
        lab.put(&actor("mark=2"));
        lab.hotmerge(["reload"]).ok();
        lab.put(&actor("mark=1"));
        lab.hotmerge(["reload"]).ok();
        answers(&lab, &mut host);
        lab.hotmerge(["stop"]).ok();
        let ended = host.wait(SOON);
        assert!(ended.is_some_and(|it| it.success()), "{closed}: {ended:?}");
    }
}

#[test]
fn commands_end_well_with_closed_standard_streams() {
    let lab = lab();
    let host = lab.start();
    for closed in ["exec <&-", "exec >&-", "exec 2>&-", "exec <&- >&- 2>&-"] {
        for (arguments, code) in [
            (&["status"][..], 0),
            (&["status", "--json"], 0),
            (&["call", "actor", "mark"], 0),
            (&["reload"], 0),
            (&["history"], 0),
            (&["policy", "syscalls"], 0),
            (&["completions", "bash"], 0),
            (&["--nonsense"], 2),
            (&["hash", "/nonexistent"], 1),
        ] {
            let mut command = lab.command();
            command.args(arguments);
            let ran = run(&mut after(closed, &command), SOON);
            assert_eq!(ran.code, Some(code), "{closed} {arguments:?}: {ran:?}");
        }
    }
    host.stop();
}

/// From the second before the epoch to what 64 bits of nanoseconds hold; also for files that are
/// replaced by others of the same size and time.
#[test]
fn times_of_files_do_not_matter() {
    let lab = lab();
    let host = lab.start_with("watch = false\n");
    let package = lab.package("actor");
    let epoch = SystemTime::UNIX_EPOCH;
    let after = |s: u64| epoch + Duration::from_secs(s);
    for (number, time) in [
        epoch - Duration::from_secs(1),
        epoch,
        epoch,
        after((1 << 31) - 1),
        after(1 << 31),
        after(1 << 32),
        after(9_214_646_400),
        after(9_214_646_400),
        SystemTime::now(),
    ]
    .into_iter()
    .enumerate()
    {
        let variant = actor(&format!("mark={}", 100 + number));
        host.reload_after(|| {
            package.put(&[&variant]);
            for path in [package.file_path(&variant), package.meta_path()] {
                let file = File::options().append(true).open(path).unwrap();
                file.set_modified(time).unwrap();
            }
        });
        let plugin = host.plugin("actor");
        assert_eq!(plugin.state, PluginState::Active, "{time:?}: {plugin:#?}");
        let mark = host.text("actor", "mark");
        assert_eq!(mark, (100 + number).to_string(), "{time:?}");
    }
    host.stop();
}

/// For `LD_PRELOAD`: the date begins at so many seconds since 1970, and goes on from there.
const CLOCK: &str = r#"
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <stdlib.h>
    #include <time.h>

    int clock_gettime(clockid_t clock, struct timespec *now) {
        static int (*real)(clockid_t, struct timespec *);
        static time_t offset;
        if (!real) {
            int (*found)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
            found(CLOCK_REALTIME, now);
            offset = atoll(getenv("HOTMERGE_TEST_DATE")) - now->tv_sec;
            real = found;
        }
        int failed = real(clock, now);
        if (clock == CLOCK_REALTIME) now->tv_sec += offset;
        return failed;
    }
"#;

/// From 1969 to what 64 bits of nanoseconds hold. Files have the times of the real clock: those of a
/// machine whose clock was set back, or forward.
#[test]
fn a_host_serves_at_any_date() {
    let built = Lab::new();
    let (source, clock) = (built.path("clock.c"), built.path("clock.so"));
    fs::write(&source, CLOCK).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]);
    run(compiler.arg(&clock).arg(&source), SOON).ok();
    for (date, year) in [
        (-31_000_000_i64, "1969"),
        // The epoch passes while the host runs.
        (-2, "19"),
        (0, "1970"),
        ((1 << 31) - 2, "2038"),
        (1 << 32, "2106"),
        (9_214_646_400, "2262"),
    ] {
        let lab = lab();
        let dated = |mut command: Command| {
            command.env("LD_PRELOAD", &clock);
            command.env("HOTMERGE_TEST_DATE", date.to_string());
            command
        };
        let mut host = lab.start_by(dated(lab.serve(&lab.living_in("process"))));
        assert_eq!(host.text("actor", "mark"), "1", "{year}");
        lab.put(&actor("mark=2"));
        for arguments in [
            &["reload"][..],
            &["status"],
            &["history"],
            &["logs", "--since", "1h"],
            &["call", "actor", "mark"],
        ] {
            let mut command = lab.command();
            command.args(arguments);
            let ran = run(&mut dated(command), SOON);
            assert_eq!(ran.code, Some(0), "{year} {arguments:?}: {ran:?}");
        }
        assert_eq!(host.text("actor", "mark"), "2", "{year}");
        let history = lab.hotmerge(["history", "--json"]).ok().json();
        let time = history[0]["time"].as_str().expect("each entry has one");
        assert!(time.starts_with(year), "{year}: {time}");
        // What is kept is found again.
        lab.hotmerge(["rollback", "actor"]).ok();
        assert_eq!(host.text("actor", "mark"), "1", "{year}");
        lab.hotmerge(["stop"]).ok();
        assert!(host.ended().success(), "{year}");
        assert!(!host.log().to_string().contains("panicked"), "{year}");
    }
}

#[test]
fn a_host_serves_from_a_read_only_disk() {
    if !may_mount() {
        return skipped("this user may not have a mount namespace");
    }
    let lab = lab();
    fs::create_dir(lab.state_dir()).unwrap();
    let read_only = |path: &std::path::Path| {
        format!(
            "mount --bind '{0}' '{0}' && mount -o remount,bind,ro '{0}'",
            path.display()
        )
    };
    let serve = after_mounting(&read_only(&lab.plugin_dir()), &lab.serve(""));
    let host = TestHost::start(serve, lab.runtime_dir());
    assert_eq!(host.text("actor", "mark"), "1");
    host.stop();

    // What is to be written nowhere is said at the start.
    for (dir, said) in [(lab.state_dir(), "state"), (lab.path(""), "hotmerge-test-")] {
        let mut serve = after_mounting(&read_only(&dir), &lab.serve(""));
        let ran = run(&mut serve, SOON);
        assert!(matches!(ran.code, Some(1 | 3)), "{ran:?}");
        let ran = ran.said(&[said, "Read-only file system"]);
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    }
}

#[test]
fn a_host_serves_or_explains_a_full_disk() {
    let lab = lab();
    let variant = actor("mark=1");
    let small = variant.bytes.len() as u64 / 2;
    fs::create_dir(lab.state_dir()).unwrap();
    let Some(disk) = TinyDisk::new(&lab.state_dir(), small) else {
        return skipped("this user may not mount a small disk");
    };
    let state = format!("state_dir = {:?}\n", disk.path());
    let host = TestHost::start(lab.serve(&state), lab.runtime_dir());
    assert_eq!(host.text("actor", "mark"), "1");
    let failure = host.wait_for("the full disk is reported", |status| {
        status.host.store_failure.clone()
    });
    assert!(
        failure.reason.contains("No space left on device"),
        "{failure:?}"
    );
    // Half an image would keep the disk full.
    for dir in ["images", "plugins"] {
        let names = fs::read_dir(disk.path().join(dir)).unwrap();
        let names: Vec<_> = names.map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, [""; 0], "`{dir}` keeps what was not written");
    }
    host.stop();

    let run_dir = lab.path("small");
    fs::create_dir(&run_dir).unwrap();
    let setup = format!(
        "mount -t tmpfs -o nr_inodes=2,mode=700 tmpfs '{}'",
        run_dir.display()
    );
    let mut serve = lab.serve("");
    serve.arg("--runtime-dir").arg(&run_dir);
    let ran = run(&mut after_mounting(&setup, &serve), SOON).ended_with(1);
    let ran = ran.said(&["No space left on device"]);
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
}

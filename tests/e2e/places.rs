//! Directories, pid files and other hosts: what a host does when they are not as
//! they should be, and that no foreign process is signalled.

use std::{
    fs,
    io::Read as _,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use hotmerge_meta::{
    PidFile, RuntimeDir,
    control::{Client, ConnectError},
    runtime::{self, RuntimeError, Signalled},
};
use hotmerge_tests::{
    Callers, Lab, NOBODY, Package, Process, SOON, TestHost, actor, copy_environment, copy_program,
    hotmerge, listen_as, repository, run, skipped,
};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    process::{Pid, Signal, geteuid},
};

/// Starts a host as a user that file modes hold for.
fn start_unprivileged(lab: &Lab) -> TestHost {
    TestHost::start(lab.as_ordinary_user(lab.serve("")), lab.runtime_dir())
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn lab_with_actor() -> Lab {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    lab
}

// --- The plugin directory

#[test]
fn no_host_starts_without_its_plugin_directory() {
    let lab = Lab::new();
    fs::remove_dir(lab.plugin_dir()).unwrap();
    run(&mut lab.serve(""), SOON).ended_with(3).said(&[
        "plugin directory",
        "cannot be opened",
        "create it",
    ]);
    fs::write(lab.plugin_dir(), "").unwrap();
    run(&mut lab.serve(""), SOON)
        .ended_with(3)
        .said(&["plugin directory", "Not a directory"]);
    run(lab.command().arg("serve"), SOON)
        .ended_with(3)
        .said(&["no plugin directory", "--plugin-dir"]);
}

#[test]
fn a_vanished_plugin_directory_unloads_nothing() {
    let lab = lab_with_actor();
    // A timer for the start would also make the host scan again.
    let host = lab.start_with("start_ms = 600000");
    let callers = Callers::start(&host, 1, ["actor"], "mark");
    let before = host.plugin("actor").address;
    fs::rename(lab.plugin_dir(), lab.path("away")).unwrap();
    lab.hotmerge(["reload"])
        .ended_with(5)
        .said(&["cannot be used"]);
    let reason = host.problem("").reason;
    assert!(reason.contains("cannot be opened"), "{reason}");
    assert_eq!(host.plugin("actor").address, before);
    callers.go_on();

    fs::rename(lab.path("away"), lab.plugin_dir()).unwrap();
    host.reload();
    assert!(host.status().problems.is_empty());
    assert_eq!(host.plugin("actor").address, before);
    // Another directory of the same name is watched like the first one.
    fs::rename(lab.plugin_dir(), lab.path("away")).unwrap();
    lab.package("one").put(&[&actor("mark=2")]);
    host.reload();
    assert_eq!(host.text("actor", "mark"), "2");
    assert!(host.status().host.watch.starts_with("inotify"));
    lab.package("one").put(&[&actor("mark=3")]);
    host.wait_for("a change without a hint", |status| {
        (status.plugins[0].generation == 3).then_some(())
    });
    callers.unharmed();
    host.stop();
}

/// A link that is turned to another release, and a directory that is removed and made again, which
/// may have the inode number of the old one.
#[test]
fn another_plugin_directory_is_followed() {
    let lab = Lab::new();
    let package = |release: &str| Package::at(lab.path(release).join("one"));
    let link = lab.path("current");
    let turn = |release: &str| {
        let mut ln = Command::new("ln");
        run(ln.arg("-sfn").arg(lab.path(release)).arg(&link), SOON).ok();
    };
    let made = |release: &str, mark: u32| {
        let _ = fs::remove_dir_all(lab.path(release));
        package(release).put(&[&actor(&format!("mark={mark}"))]);
    };
    made("a", 1);
    made("b", 2);
    turn("a");
    // No clock helps.
    for watch in ["inotify", "auto"] {
        let config = format!("rescan_s = 0\nwatch = {watch:?}\n");
        let host = lab.start_by(lab.serve_from(&link, &config));
        let runs = |mark: &str| {
            host.wait_for(mark, |_| {
                let run = host.call("actor", "mark", b"").ok()?;
                (run.output_base64.0 == mark.as_bytes()).then_some(())
            });
            assert!(host.status().host.watch.starts_with("inotify"));
        };
        runs("1");
        turn("b");
        runs("2");
        package("b").put(&[&actor("mark=3")]);
        runs("3");
        for mark in [4, 6, 8] {
            made("b", mark);
            runs(&mark.to_string());
            package("b").put(&[&actor(&format!("mark={}", mark + 1))]);
            runs(&(mark + 1).to_string());
        }
        turn("a");
        runs("1");
        made("b", 2);
        host.stop();
    }
}

#[test]
fn a_mount_over_the_plugin_directory_is_noticed() {
    let own_mounts = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command
    };
    if run(own_mounts().arg("true"), SOON).code != Some(0) {
        return skipped("this user may not mount anything");
    }
    let lab = lab_with_actor();
    let over = lab.path("over");
    Package::at(over.join("one")).put(&[&actor("mark=2")]);
    // A timer for the start would also make the host scan again.
    let serve = lab.serve("start_ms = 600000");
    let mut command = own_mounts();
    command.arg(serve.get_program()).args(serve.get_args());
    copy_environment(&serve, &mut command);
    let host = TestHost::start(command, lab.runtime_dir());
    let in_host = |command: &[&std::ffi::OsStr]| {
        let mut enter = Command::new("nsenter");
        enter.args(["--mount", "--target", &host.pid().to_string()]);
        run(enter.args(command), SOON).ok();
    };
    let runs = |mark: &str| {
        host.wait_for("the other directory's plugin", |_| {
            (host.text("actor", "mark") == mark).then_some(())
        });
        assert!(host.status().host.watch.starts_with("inotify"));
    };
    let dir = lab.plugin_dir();
    in_host(&[
        "mount".as_ref(),
        "--bind".as_ref(),
        over.as_ref(),
        dir.as_ref(),
    ]);
    runs("2");
    in_host(&["umount".as_ref(), dir.as_ref()]);
    runs("1");
    host.stop();
}

#[test]
fn an_unreadable_package_affects_no_other() {
    let lab = lab_with_actor();
    let host = start_unprivileged(&lab);
    let callers = Callers::start(&host, 1, ["actor"], "mark");
    let before = host.plugin("actor").address;
    let package = lab.package("one");
    let two = actor("mark=2");

    // The plugin directory, the package, its meta, its file.
    for (path, name, words) in [
        (lab.plugin_dir(), "", "cannot be opened: Permission denied"),
        (package.dir().to_owned(), "one", "Permission denied"),
    ] {
        set_mode(&path, 0);
        host.reload();
        let reason = host.problem(name).reason;
        assert!(reason.contains(words), "{reason}");
        assert_eq!(host.plugin("actor").address, before);
        set_mode(&path, 0o755);
        host.reload();
        assert!(host.status().problems.is_empty());
    }
    package.put_meta(&[&two]);
    set_mode(&package.meta_path(), 0);
    host.reload();
    let reason = host.problem("one").reason;
    assert!(reason.contains("may not be read by this user"), "{reason}");
    set_mode(&package.meta_path(), 0o644);
    package.put(&[&two]);
    set_mode(&package.file_path(&two), 0);
    host.reload();
    let refused = host.plugin("actor").refused.expect("it is refused").reason;
    assert!(
        refused.contains("may not be read by this user"),
        "{refused}"
    );
    assert_eq!(host.plugin("actor").address, before);

    set_mode(&package.file_path(&two), 0o644);
    host.reload();
    assert_eq!(host.text("actor", "mark"), "2");
    assert_eq!(callers.unharmed()["actor"].generations, [1, 2].into());
    host.stop();
}

#[test]
fn other_users_cannot_reach_a_host() {
    if !geteuid().is_root() {
        return skipped("only root can become another user");
    }
    let lab = lab_with_actor();
    let host = lab.start();
    let program = lab.path("hotmerge");
    copy_program(hotmerge(), &program);
    // Down to the runtime directory everybody may go.
    set_mode(&lab.path(""), 0o755);
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .env(RuntimeDir::VARIABLE, lab.runtime_dir().path())
            .uid(NOBODY)
            .gid(NOBODY);
        run(&mut command, SOON)
    };
    for arguments in [
        &["status"][..],
        &["reload"],
        &["call", "actor", "mark"],
        &["stop"],
    ] {
        as_nobody(arguments)
            .ended_with(7)
            .said(&["not permitted", "run this as root"]);
    }
    // Even if somebody opens directory and socket, the host looks who it is.
    set_mode(lab.runtime_dir().path(), 0o755);
    set_mode(&lab.runtime_dir().control_socket(), 0o777);
    as_nobody(&["stop"]).ended_with(7).said(&[
        &format!("user {NOBODY} has no role on this host"),
        "`[[door.allow]]`",
    ]);
    assert_eq!(host.text("actor", "mark"), "1");
    host.stop();
}

fn connect_as(uid: u32, dir: &RuntimeDir) -> Result<(), ConnectError> {
    let dir = dir.clone();
    let connect = move || {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(uid)).unwrap();
        Client::connect(&dir).map(drop)
    };
    std::thread::spawn(connect).join().unwrap()
}

#[test]
fn clients_know_whose_socket_they_talk_to() {
    const SOMEBODY: u32 = 65_533;

    if !geteuid().is_root() {
        return skipped("only root can answer as another user");
    }
    for (owner, listener, client, is_right) in [
        (0, NOBODY, 0, false),
        (NOBODY, NOBODY, 0, true),
        (NOBODY, SOMEBODY, 0, false),
        (NOBODY, NOBODY, NOBODY, true),
        (NOBODY, NOBODY, SOMEBODY, false),
        (SOMEBODY, NOBODY, SOMEBODY, false),
        (NOBODY, 0, SOMEBODY, true),
    ] {
        let lab = Lab::new();
        let dir = lab.runtime_dir();
        fs::create_dir(dir.path()).unwrap();
        // Somebody has been careless.
        set_mode(&lab.path(""), 0o755);
        set_mode(dir.path(), 0o777);
        std::os::unix::fs::chown(dir.path(), Some(owner), None).unwrap();
        let _listener = listen_as(listener, &dir);
        set_mode(&dir.control_socket(), 0o777);
        let connected = connect_as(client, &dir);
        let case = format!("directory of {owner}, host of {listener}, client {client}");
        match connected {
            Ok(()) => assert!(is_right, "{case}"),
            Err(ConnectError::Stranger { found, .. }) if found == listener => {
                assert!(!is_right, "{case}");
            }
            Err(other) => panic!("{case}: {other}"),
        }
        if client == 0 && !is_right {
            let sentence = ["belongs to user", "nothing was sent"];
            lab.hotmerge(["status"]).ended_with(7).said(&sentence);
        }
    }
}

// --- The configuration

#[test]
fn a_configuration_error_names_file_and_line() {
    let lab = Lab::new();
    for (text, words) in [
        ("drain_ms = \"soon\"", vec!["drain_ms", "string"]),
        ("drains_ms = 3", vec!["drains_ms", "unknown field"]),
        ("[plugin.\"../x\".config]", vec!["plugin name"]),
    ] {
        let mut serve = lab.serve(text);
        let ran = run(&mut serve, SOON).ended_with(3);
        for word in ["hotmerge.toml", "line 4"].into_iter().chain(words) {
            assert!(ran.stderr.contains(word), "no `{word}` in: {}", ran.stderr);
        }
    }
    let mut serve = lab.serve("");
    fs::remove_file(lab.path("hotmerge.toml")).unwrap();
    run(&mut serve, SOON)
        .ended_with(3)
        .said(&["hotmerge.toml", "cannot be read"]);
}

/// The keys that a table of a configuration may have, as the refusal of another one lists them.
fn keys(lab: &Lab, table: &str) -> Vec<String> {
    let mut serve = lab.serve(&format!("{table}no-such-key = 1"));
    let ran = run(serve.arg("--check"), SOON).ended_with(3);
    let (_, list) = ran.stderr.split_once("expected one of ").expect("a list");
    let list = list.lines().next().expect("it is on one line");
    list.split(", ")
        .map(|key| key.trim_matches('`').to_owned())
        .collect()
}

#[test]
fn documented_keys_match_configuration_keys() {
    let lab = Lab::new();
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, block) = readme.split_once("```toml\n").expect("it shows one");
    let (block, _) = block.split_once("```").expect("it ends");
    let service = repository().join("scripts/services/hotmerge.toml.in");
    let service = fs::read_to_string(service).unwrap();
    let tables = [
        "",
        "[plugin.x]\n",
        "[plugin.x.limits]\n",
        "[restart]\n",
        "[[door.allow]]\n",
    ];
    let has = |text: &str, key: &str| {
        let mut words = text.split(|sign: char| !sign.is_ascii_lowercase() && sign != '_');
        words.any(|word| word == key)
    };
    for key in tables.iter().flat_map(|table| keys(&lab, table)) {
        assert!(has(block, &key), "README.md has no `{key}`");
        // Where a service is found, its own definition says.
        let is_there = has(&service, &key) || key == "runtime_dir";
        assert!(is_there, "the configuration of services has no `{key}`");
    }
    let uncommented: String = block
        .lines()
        .map(|line| format!("{}\n", line.trim_start_matches('#')))
        .collect();
    let path = lab.path("documented.toml");
    fs::write(&path, uncommented).unwrap();
    hotmerge_daemon::Config::read(&path).expect("it is a configuration");
}

#[test]
fn serve_check_validates_without_starting_a_host() {
    let lab = Lab::new();
    let ran = run(lab.serve("").arg("--check"), SOON).ok();
    assert!(ran.text().contains("can be used"), "{}", ran.text());
    assert!(!lab.runtime_dir().path().exists());
}

// --- One host a runtime directory

#[test]
fn a_second_host_names_the_first_and_exits() {
    let lab = lab_with_actor();
    let host = lab.start();
    let callers = Callers::start(&host, 1, ["actor"], "mark");
    let before = host.plugin("actor").address;
    let pid = host.pid().to_string();
    run(&mut lab.serve(""), SOON).ended_with(6).said(&[
        "already running",
        &pid,
        "another runtime directory",
    ]);
    assert_eq!(host.plugin("actor").address, before);
    assert!(lab.runtime_dir().control_socket().exists());
    callers.unharmed();
    host.stop();
}

#[test]
fn a_cleared_runtime_directory_is_created_again() {
    let lab = lab_with_actor();
    // No scan of the plugins comes to its help, and nobody sends a signal.
    let host = lab.start_with("watch = false\nrescan_s = 0");
    let mut before = host.client();
    let dir = lab.runtime_dir();
    let aside = lab.path("aside");
    let empty = lab.path("empty");
    // Each in one step: the host may be as quick as it likes.
    let clear: [&dyn Fn(); 4] = [
        &|| fs::remove_file(dir.pid_file()).unwrap(),
        &|| fs::remove_file(dir.control_socket()).unwrap(),
        &|| {
            fs::rename(dir.path(), &aside).unwrap();
            fs::remove_dir_all(&aside).unwrap();
        },
        &|| {
            fs::create_dir(&empty).unwrap();
            renameat_with(CWD, &empty, CWD, dir.path(), RenameFlags::EXCHANGE).unwrap();
            fs::remove_dir_all(&empty).unwrap();
        },
    ];
    for clear in clear {
        let from = host.log().len();
        clear();
        let another = format!("state_dir = {:?}", lab.path("another"));
        run(&mut lab.serve(&another), SOON)
            .ended_with(6)
            .said(&["already running", &host.pid().to_string()]);
        host.log()
            .wait_from(from, "that it is created again", |record| {
                record["message"]
                    .as_str()
                    .is_some_and(|it| it.contains("created its files again"))
            });
        lab.hotmerge(["status"]).ok();
        let told = runtime::send_hup(&dir).unwrap();
        assert!(matches!(told, Signalled::Sent(_)), "{told:?}");
    }
    // Who was connected still is.
    let position = before.request::<u64>(hotmerge_meta::control::method::POSITION, &(), SOON);
    position.unwrap();
    lab.hotmerge(["stop"]).ok();
}

#[test]
fn a_runtime_directory_writable_by_others_is_refused() {
    let lab = Lab::new();
    fs::create_dir(lab.runtime_dir().path()).unwrap();
    set_mode(lab.runtime_dir().path(), 0o777);
    let ran = run(&mut lab.serve(""), SOON).ended_with(1);
    ran.said(&["not safe", "others may write", "choose another"]);
}

#[test]
fn a_record_that_another_user_planted_runs_nothing() {
    if !geteuid().is_root() {
        return skipped("only root can give a file to another user");
    }
    let lab = lab_with_actor();
    let host = lab.start();
    lab.package("one").put(&[&actor("mark=2")]);
    host.reload();
    host.stop();
    for path in ["", "plugins", "images", "lock", "plugins/actor.json"] {
        let path = lab.state_dir().join(path);
        std::os::unix::fs::chown(&path, Some(NOBODY), None).unwrap();
        run(&mut lab.serve(""), SOON).ended_with(3).said(&[
            "not safe in a state directory",
            "belongs to another user",
            "owner 65534",
            "run `",
        ]);
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    }
    let host = lab.start();
    assert_eq!(host.text("actor", "mark"), "2");
    host.stop();
}

#[test]
fn leftovers_of_a_killed_host_block_nothing() {
    let lab = lab_with_actor();
    let mut host = lab.start();
    host.signal(Signal::KILL);
    assert!(!host.ended().success());
    assert!(
        lab.runtime_dir().control_socket().exists(),
        "it is left behind"
    );
    let pid = fs::read_to_string(lab.runtime_dir().pid_file()).unwrap();
    assert!(
        pid.starts_with(&host.pid().to_string()),
        "it is left behind"
    );

    lab.hotmerge(["status"])
        .ended_with(4)
        .said(&["no host is running", "hotmerge serve"]);
    let told = runtime::send_hup(&lab.runtime_dir());
    assert_eq!(told.unwrap(), Signalled::NotRunning);
    let next = lab.start();
    assert_eq!(next.text("actor", "mark"), "1");
    next.stop();
}

/// A process of this test that any signal would end, and that would tell.
struct Bystander(Process);

impl Bystander {
    fn new() -> Self {
        let mut cat = Command::new("cat");
        Self(Process::spawn(
            cat.stdin(Stdio::piped()).stdout(Stdio::piped()),
        ))
    }

    fn was_left_alone(mut self) {
        drop(self.0.child().stdin.take());
        let mut rest = String::new();
        let mut output = self.0.child().stdout.take().unwrap();
        output.read_to_string(&mut rest).unwrap();
        let status = self.0.wait(SOON).expect("it ends with its input");
        assert!(status.success(), "a stranger was signalled: {status}");
    }
}

#[test]
fn a_process_reusing_the_pid_is_not_signalled() {
    let lab = Lab::new();
    let bystander = Bystander::new();
    fs::create_dir(lab.runtime_dir().path()).unwrap();
    let claim = |text: &str| fs::write(lab.runtime_dir().pid_file(), text).unwrap();
    let pid = bystander.0.pid();

    // Nobody holds the lock: the host is gone, and its pid has come to mean another process.
    claim(&format!("{pid}\nstart=1\n"));
    let told = runtime::send_hup(&lab.runtime_dir());
    assert_eq!(told.unwrap(), Signalled::NotRunning);
    lab.hotmerge(["reload"]).ended_with(4);

    // Somebody holds the lock, but the pid is not the one that wrote it.
    fs::remove_file(lab.runtime_dir().pid_file()).unwrap();
    let _held = PidFile::acquire(&lab.runtime_dir()).unwrap();
    claim(&format!("{pid}\nstart=1\n"));
    match runtime::send_hup(&lab.runtime_dir()) {
        Err(RuntimeError::Stranger { pid: named, .. }) => {
            assert_eq!(Some(named), Pid::from_raw(pid as i32));
        }
        other => panic!("not recognised: {other:?}"),
    }
    for nonsense in ["", "x", "-1\nstart=1\n", "0\nstart=1\n", "1", "\n\n"] {
        claim(nonsense);
        let told = runtime::send_hup(&lab.runtime_dir());
        assert_eq!(told.unwrap(), Signalled::Starting, "{nonsense:?}");
    }
    bystander.was_left_alone();
}

// --- Without a host

#[test]
fn commands_report_that_no_host_runs() {
    let lab = Lab::new();
    for arguments in [
        &["status"][..],
        &["reload"],
        &["call", "actor", "mark"],
        &["stop"],
    ] {
        lab.hotmerge(arguments.iter().copied())
            .ended_with(4)
            .said(&["no host is running", "hotmerge serve"]);
    }
}

#[test]
fn a_too_long_runtime_path_is_reported() {
    let lab = Lab::new();
    let long = lab.path("x".repeat(100));
    let mut status = lab.command();
    status.arg("status").env(RuntimeDir::VARIABLE, &long);
    run(&mut status, SOON)
        .ended_with(1)
        .said(&["too long", "shorter runtime directory"]);
}

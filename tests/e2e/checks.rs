//! `hotmerge serve --check` tries each part of the system that a host needs, and names the setting behind
//! each problem.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use hotmerge_tests::{Forbidden, Lab, Ran, SOON, actor, copy_environment, run, skipped, without};
use rustix::process::geteuid;

fn lab() -> Lab {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    lab
}

/// The check of a host whose plugins live in workers, with further lines of configuration.
fn check(lab: &Lab, more: &str) -> Command {
    let mut serve = lab.serve(&format!("{}{more}", lab.living_in("process")));
    serve.arg("--check");
    serve
}

/// The same, started by a shell in namespaces of its own that sets something first.
fn behind(unshare: &[&str], setup: &str, command: &Command) -> Command {
    let mut all = Command::new("unshare");
    all.args(unshare)
        .args(["sh", "-c", &format!("{setup} && exec \"$@\""), "sh"]);
    all.arg(command.get_program()).args(command.get_args());
    copy_environment(command, &mut all);
    all
}

const USER: [&str; 3] = ["--user", "--map-root-user", "--mount"];

fn may_unshare(namespaces: &[&str]) -> bool {
    let mut unshare = Command::new("unshare");
    run(unshare.args(namespaces).arg("true"), SOON).code == Some(0)
}

/// What it prints of a part that is not good, in a line.
#[track_caller]
fn warns(ran: &Ran, part: &str, words: &[&str]) {
    let text = ran.text();
    let begin = format!("warning: {part}: ");
    let line = text.lines().find(|line| line.starts_with(&begin));
    let line = line.unwrap_or_else(|| panic!("no warning of {part}: {ran:?}"));
    for word in words {
        assert!(line.contains(word), "no `{word}` in: {line}");
    }
}

#[test]
fn a_good_system_passes_every_check() {
    let lab = lab();
    let text = run(&mut check(&lab, ""), SOON).ok().text();
    for part in [
        "memory for plugins: can be",
        "sandbox: ",
        "state directory: ",
        "open files: a host with 1 plugin needs ",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!lab.state_dir().exists(), "it was made");
    assert!(!lab.runtime_dir().path().exists(), "it was made");
}

#[test]
fn forbidden_memory_names_its_setting() {
    let namespaces = ["--fork", "--pid", "--mount-proc"];
    if !geteuid().is_root() || !may_unshare(&namespaces) {
        return skipped("only root may set `vm.memfd_noexec`");
    }
    let lab = lab();
    let setup = "echo 2 > /proc/sys/vm/memfd_noexec";
    let mut check = behind(&namespaces, setup, &check(&lab, ""));
    let ran = run(&mut check, SOON);
    if ran.stderr.contains("cannot create") {
        return skipped("this kernel has no `vm.memfd_noexec`");
    }
    let ran = ran.ended_with(3);
    assert!(
        ran.stderr.contains("memory for plugins: ")
            && ran.stderr.contains("`vm.memfd_noexec` is 2"),
        "{ran:?}"
    );
}

/// The setting belongs to the namespace of processes, and ends with it.
#[test]
fn a_running_host_names_what_forbids_memory() {
    let namespaces = ["--fork", "--pid", "--mount-proc", "--kill-child"];
    let setup = "echo 2 > /proc/sys/vm/memfd_noexec";
    let set = ["sh", "-c", setup];
    if !geteuid().is_root() || !may_unshare(&[&namespaces[..], &set].concat()) {
        return skipped("only root may set `vm.memfd_noexec`, where the kernel has it");
    }
    for isolation in ["host", "process"] {
        let lab = lab();
        let serve = lab.serve(&lab.living_in(isolation));
        let mut host = lab.start_by(behind(&namespaces, setup, &serve));
        let named = host.wait_for("it is refused", |status| {
            status.plugins.first()?.refused.clone()
        });
        let setting = "`vm.memfd_noexec` is 2";
        assert!(named.reason.contains(setting), "{isolation}: {named:?}");
        let shown = lab.hotmerge(["status"]).ok().text();
        assert!(shown.contains(setting), "{isolation}: {shown}");
        lab.hotmerge(["reload"]).ended_with(5);
        lab.hotmerge(["stop"]).ok();
        assert!(host.ended().success(), "{isolation}");
    }
}

#[test]
fn forbidden_namespaces_name_their_setting() {
    if !may_unshare(&USER) {
        return skipped("this user may not have namespaces");
    }
    let lab = lab();
    for (setting, name) in [
        ("max_user_namespaces", "user"),
        ("max_pid_namespaces", "pid"),
        ("max_mnt_namespaces", "mount"),
        ("max_uts_namespaces", "uts"),
    ] {
        // Below the one that the test needs itself.
        let setup = format!("echo 0 > /proc/sys/user/{setting}");
        let ran = run(&mut behind(&USER, &setup, &check(&lab, "")), SOON).ok();
        let told = format!("`user.{setting}` is 0");
        warns(&ran, "sandbox", &["degraded: namespaces: ", &told]);
        let refuse = check(&lab, "degraded = \"refuse\"\n");
        let ran = run(&mut behind(&USER, &setup, &refuse), SOON).ended_with(3);
        assert!(ran.stderr.contains(&told), "{name}: {ran:?}");
    }
}

#[test]
fn a_filter_around_the_host_is_named() {
    let lab = lab();
    let mut check = check(&lab, "");
    let ran = without(&[Forbidden::Namespaces], || run(&mut check, SOON)).ok();
    let filter = "a filter of system calls is in force";
    warns(&ran, "sandbox", &["degraded: namespaces: ", filter]);
}

#[test]
fn a_worker_that_cannot_run_is_explained() {
    if !may_unshare(&USER) {
        return skipped("this user may not have namespaces");
    }
    let lab = lab();
    let dir = lab.path("programs");
    fs::create_dir(&dir).unwrap();
    let setup = |options: &str, mode: u32| {
        format!(
            "mount -t tmpfs -o {options} tmpfs '{0}' && cp '{1}' '{0}/w' && chmod {mode:o} '{0}/w'",
            dir.display(),
            hotmerge_tests::worker().display()
        )
    };
    let config = format!("isolation = \"process\"\nworker = {:?}\n", dir.join("w"));
    let mut serve = lab.serve(&config);
    serve.arg("--check");
    for (setup, told) in [
        (setup("noexec", 0o755), "mounted with `noexec`"),
        (setup("exec", 0o644), "run `chmod +x` on it"),
    ] {
        let ran = run(&mut behind(&USER, &setup, &serve), SOON).ended_with(3);
        let ran = ran.said(&["sandbox: plugins must run in worker processes", told]);
        assert!(ran.stderr.contains("programs/w"), "{ran:?}");
    }
}

#[test]
fn limits_below_the_hosts_needs_are_named() {
    let lab = lab();
    let limited = |limit: &str| {
        let check = check(&lab, "");
        let mut all = Command::new("prlimit");
        all.arg(limit).arg(check.get_program());
        all.args(check.get_args());
        copy_environment(&check, &mut all);
        run(&mut all, SOON)
    };
    let ran = limited("--nofile=64:64").ok();
    let words = [
        "a host with 1 plugin needs 136",
        "the limit is 64",
        "LimitNOFILE=",
    ];
    warns(&ran, "open files", &words);
    let ran = limited("--nofile=140:140").ok();
    warns(
        &ran,
        "open files",
        &["replacements wait", "the limit is 140"],
    );
    let ran = limited("--fsize=0:0").ended_with(3);
    assert!(ran.stderr.contains("`ulimit -f`"), "{ran:?}");
}

/// A limit on descriptors takes nothing of the sandbox: it is complete, or there are no workers and no
/// plugin runs without one.
#[test]
fn few_descriptors_move_no_plugin_into_the_host() {
    let lab = lab();
    for limit in [16, 20, 24, 28, 32, 40, 64, 100] {
        let mut check = lab.serve("# isolation\n");
        check.arg("--check");
        let mut limited = Command::new("prlimit");
        limited
            .arg(format!("--nofile={limit}:{limit}"))
            .arg(check.get_program())
            .args(check.get_args());
        copy_environment(&check, &mut limited);
        let ran = run(&mut limited, SOON);
        let said = format!("{}{}", ran.text(), ran.stderr);
        assert!(
            !said.contains("in the host's own process"),
            "{limit}: {said}"
        );
        assert!(!said.contains("degraded"), "{limit}: {said}");
        assert!(
            ran.code == Some(0) || said.contains("Too many open files"),
            "{limit}: {said}"
        );
    }
}

#[test]
fn an_unusable_state_directory_is_found() {
    let lab = lab();
    let state = lab.state_dir();
    fs::create_dir(&state).unwrap();
    let good = run(&mut check(&lab, ""), SOON).ok().text();
    assert!(good.contains("can be written"), "{good}");
    assert_eq!(
        fs::read_dir(&state).unwrap().count(),
        0,
        "something is left"
    );

    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
    run(&mut check(&lab, ""), SOON).ended_with(3).said(&[
        "state directory: ",
        "mode 0777",
        "chmod go-w",
    ]);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    if may_unshare(&USER) {
        let setup = format!(
            "mount --bind '{0}' '{0}' && mount -o remount,bind,ro '{0}'",
            state.display()
        );
        run(&mut behind(&USER, &setup, &check(&lab, "")), SOON)
            .ended_with(3)
            .said(&["state directory: ", "Read-only file system"]);
        // Too small for a copy of the plugin.
        let setup = format!(
            "mount -t tmpfs -o size=64k,mode=700 tmpfs '{}'",
            state.display()
        );
        let ran = run(&mut behind(&USER, &setup, &check(&lab, "")), SOON).ok();
        warns(&ran, "state directory", &["0 MiB free"]);
    }
    if geteuid().is_root() {
        // What root checks for a service's user is not root's to use.
        std::os::unix::fs::chown(&state, Some(4711), None).unwrap();
        let ran = run(&mut check(&lab, ""), SOON).ok();
        warns(&ran, "state directory", &["belongs to the user 4711"]);
    }
    fs::remove_dir(&state).unwrap();
    fs::write(&state, "").unwrap();
    run(&mut check(&lab, ""), SOON)
        .ended_with(3)
        .said(&["state directory: ", "not a directory"]);
}

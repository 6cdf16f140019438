//! Where the kernel cannot provide the full sandbox, the host reports it, and the rest still
//! holds; or it refuses plugins, if so configured.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::Path,
    process::Command,
};

use hotmerge_daemon::lifecycle::PluginState;
use hotmerge_tests::{
    Forbidden, Lab, NOBODY, Neighbour, SOON, TestHost, UNTIRING, actor, attacks, attacks_at,
    copy_environment, hosts_are_ordinary, reader, run, skipped, without,
};
use rustix::process::geteuid;

/// A host that plays with these rules, with plugins in workers.
fn start(lab: &Lab, forbidden: &[Forbidden], more: &str) -> TestHost {
    let serve = serve(lab, more);
    without(forbidden, || lab.start_by(serve))
}

fn serve(lab: &Lab, more: &str) -> Command {
    lab.serve(&format!("{}{UNTIRING}{more}", lab.living_in("process")))
}

fn lab() -> Lab {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    lab.package("good").put(&[&actor("mark=1")]);
    lab
}

/// What seccomp and Landlock stop without any namespace; ends the host.
#[track_caller]
fn attacks_fail(host: TestHost) {
    let neighbour = Neighbour::of(&host, "actor", "mark");
    for attack in [
        "open",
        "proc",
        "list",
        "host-memory",
        "write",
        "socket",
        "unix",
        "connect",
        "fork",
        "rwx",
        "mprotect",
        "kill-parent",
        "kill-all",
        "kill-group",
        "truncate",
    ] {
        let said = host.text("attacks", attack);
        assert!(said.contains("not permitted"), "{attack}: {said}");
    }
    for attack in ["exec", "ptrace", "mount", "unshare", "memfd"] {
        let error = host.call("attacks", attack, b"").expect_err(attack);
        assert!(error.to_string().contains("SIGSYS"), "{attack}: {error}");
    }
    host.answers_again("attacks");
    neighbour.unharmed(host);
}

#[track_caller]
fn names(host: &TestHost, part: &str) {
    let degraded = host.status().host.degraded;
    assert!(
        degraded.iter().any(|it| it.starts_with(part)),
        "no `{part}` in {degraded:#?}"
    );
    host.log().wait(&format!("the sandbox is degraded: {part}"));
}

#[test]
fn attacks_still_fail_without_namespaces() {
    let lab = lab();
    let host = start(&lab, &[Forbidden::Namespaces], "");
    names(&host, "namespaces: ");
    if hosts_are_ordinary() {
        // Its processes are counted together with all others of the user.
        names(&host, "the limit on threads");
    }
    let worker = host.plugin("attacks").worker.expect("it has a worker");
    assert!(!worker.degraded.is_empty(), "{worker:?}");
    let shown = lab.hotmerge(["status"]).ok().text();
    assert!(shown.contains("the sandbox is degraded: namespaces"));
    assert!(shown.contains("process (degraded)"), "{shown}");
    let coloured = lab
        .command()
        .args(["status"])
        .env("CLICOLOR_FORCE", "1")
        .output()
        .unwrap();
    let coloured = String::from_utf8(coloured.stdout).unwrap();
    assert!(
        coloured.contains("\u{1b}[31mthe sandbox is degraded"),
        "{coloured}"
    );
    let json = lab.hotmerge(["status", "--json"]).ok().json();
    assert!(json["host"]["degraded"][0].is_string(), "{json}");
    attacks_fail(host);
}

#[test]
fn namespaces_without_mounts_count_as_missing() {
    let lab = lab();
    let host = start(&lab, &[Forbidden::Mounts], "");
    names(&host, "namespaces: ");
    attacks_fail(host);
}

#[test]
fn missing_landlock_is_reported_and_the_rest_holds() {
    let lab = lab();
    let host = start(&lab, &[Forbidden::Landlock], "");
    names(&host, "Landlock");
    attacks_fail(host);
}

/// Nothing but the filters is left then.
#[test]
fn without_namespaces_and_landlock_nothing_can_be_opened() {
    let lab = Lab::new();
    let prepared = ["host-memory", "open", "list", "own-filter", "keep-rwx"];
    let ways: Vec<_> = prepared
        .iter()
        .flat_map(|name| ["load", "start"].map(|moment| (format!("{moment}-{name}"), *name)))
        .collect();
    let variants: Vec<_> = ways
        .iter()
        .map(|(plugin, name)| {
            let moment = plugin.split('-').next().unwrap_or_default();
            attacks_at(&format!("{moment}={name}")).named(plugin)
        })
        .collect();
    lab.package("hostile")
        .put(&variants.iter().collect::<Vec<_>>());
    let forbidden = [Forbidden::Namespaces, Forbidden::Landlock];
    lab.package("good").put(&[&actor("mark=1")]);
    let host = start(&lab, &forbidden, "");
    let neighbour = Neighbour::of(&host, "actor", "mark");
    for (plugin, _) in &ways {
        let pid = host.worker(plugin).pid.expect("it runs");
        let opened = open_files(pid);
        assert!(opened.is_empty(), "{plugin} holds {opened:?}");
        for attack in ["host-memory", "open", "list", "rwx", "use-rwx"] {
            let said = host.text(plugin, attack);
            assert!(!said.contains("did it"), "{plugin}, {attack}: {said}");
        }
    }
    neighbour.unharmed(host);
}

/// Whether only root may look into a process whose group is not root's: what belongs to it is the
/// kernel's then. Of a process of root, its user does not tell.
fn is_hidden(host: &TestHost) -> bool {
    let group = |name: &str| {
        let metadata = fs::metadata(format!("/proc/{}/{name}", host.pid()));
        metadata.expect("it runs").gid()
    };
    assert_ne!(
        group(""),
        0,
        "the group of a hidden process would be the same"
    );
    group("environ") == 0
}

#[test]
fn a_host_that_workers_see_hides_its_memory() {
    for (forbidden, hides) in [
        (&[Forbidden::Namespaces][..], true),
        (&[Forbidden::Mounts], true),
        (&[Forbidden::Namespaces, Forbidden::Landlock], true),
        (&[], false),
    ] {
        let lab = lab();
        let mut serve = serve(&lab, "");
        if geteuid().is_root() {
            serve.gid(NOBODY);
        }
        let host = without(forbidden, || lab.start_by(serve));
        let degraded = host.status().host.degraded;
        if !hides && !degraded.is_empty() {
            return skipped(&format!("there is no whole sandbox: {degraded:?}"));
        }
        assert_eq!(is_hidden(&host), hides, "without {forbidden:?}");
        host.stop();
    }
}

/// An operator's policy that permits workers to open files.
fn opening(lab: &Lab) -> String {
    let path = lab.path("syscalls.toml");
    let shown = lab.hotmerge(["policy", "syscalls"]).ok().text();
    let permits = "[run]\nopen = \"a mistake\"\nopenat = \"a mistake\"\n";
    fs::write(&path, shown.replace("[run]\n", permits)).unwrap();
    format!("syscall_policy = {path:?}\n")
}

/// Not by a system call for it, nor as a file; the latter not even where a worker may open files.
#[test]
fn no_constructor_reaches_the_hosts_memory() {
    for forbidden in [
        &[Forbidden::Namespaces][..],
        &[Forbidden::Mounts],
        &[Forbidden::Namespaces, Forbidden::Landlock],
    ] {
        for opens in [false, true] {
            let lab = Lab::new();
            let file = attacks_at("load=host-memory").named("file");
            let call = attacks_at("load=process-vm-write").named("call");
            lab.package("hostile").put(&[&file, &call]);
            lab.package("good").put(&[&actor("mark=1")]);
            let policy = if opens { opening(&lab) } else { String::new() };
            let host = start(&lab, forbidden, &policy);
            let neighbour = Neighbour::of(&host, "actor", "mark");
            let refused = host.plugin("call").refused.expect("it is refused");
            assert_eq!(
                refused.reason,
                "its worker was killed by SIGSYS: it made a system call that is never allowed, \
                 while its constructors ran"
            );
            // What it opened stays open.
            let opened = open_files(host.worker("file").pid.expect("it runs"));
            let memory: Vec<_> = opened.iter().filter(|it| it.ends_with("/mem")).collect();
            assert_eq!(memory, [""; 0], "opens: {opens}, without {forbidden:?}");
            let said = host.text("file", "host-memory");
            assert!(!said.contains("did it"), "{said}, without {forbidden:?}");
            neighbour.unharmed(host);
        }
    }
}

/// What a worker has open besides pipes, its image, and nothing.
fn open_files(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let opened = entries.map(|entry| fs::read_link(entry.unwrap().path()).unwrap());
    opened
        .map(|path| path.display().to_string())
        .filter(|path| {
            !["pipe:", "/memfd:", "/dev/null"]
                .iter()
                .any(|it| path.starts_with(it))
        })
        .collect()
}

#[test]
fn degraded_refuse_refuses_plugins() {
    for forbidden in [
        Forbidden::Namespaces,
        Forbidden::Mounts,
        Forbidden::Landlock,
    ] {
        let lab = lab();
        let host = start(&lab, &[forbidden], "degraded = \"refuse\"\n");
        let plugin = host.plugin("attacks");
        assert_eq!(plugin.state, PluginState::Error, "{forbidden:?}");
        let reason = plugin.refused.expect("it was refused").reason;
        assert!(
            reason.contains("the sandbox is incomplete")
                && reason.contains("degraded = \"refuse\""),
            "{forbidden:?}: {reason}"
        );
        host.stop();
    }
}

#[test]
fn without_workers_plugins_run_in_the_host() {
    let lab = Lab::new();
    let wants_net = actor("mark=1").with_meta(|meta| meta.wants.net = true);
    lab.package("good").put(&[&wants_net]);
    let nowhere = format!("worker = {:?}\n", lab.path("nowhere"));
    // No `isolation` at all: the comment keeps the tests' own from being added.
    let check = |config: &str| {
        let mut check = lab.serve(config);
        check.arg("--check");
        run(&mut lab.as_host_user(check), SOON)
    };
    let said = check(&format!("{nowhere}# isolation\n")).ok();
    let said = said.text();
    assert!(said.contains("the host's own process"), "{said}");
    let host = lab.start_with(&format!("{nowhere}# isolation\n"));
    names(&host, "failed to open the worker program");
    let plugin = host.plugin("actor");
    assert_eq!(plugin.isolation.as_deref(), Some("host"));
    assert_eq!(plugin.not_granted, [""; 0], "it has what the host has");
    assert_eq!(host.text("actor", "mark"), "1");
    host.stop();
    for minds in [
        "isolation = \"process\"",
        "degraded = \"refuse\" # isolation",
    ] {
        let said = check(&format!("{nowhere}{minds}\n")).ended_with(3);
        assert!(said.stderr.contains("nowhere"), "{minds}: {}", said.stderr);
        let host = lab.start_with(&format!("{nowhere}{minds}\n"));
        let plugin = host.plugin("actor");
        assert_eq!(plugin.state, PluginState::Error, "{minds}");
        assert_eq!(plugin.not_granted, ["net"], "{minds}");
        let reason = plugin.refused.expect("it was refused").reason;
        assert!(reason.contains("nowhere"), "{minds}: {reason}");
        host.stop();
    }
}

#[test]
fn files_are_granted_only_where_enforceable() {
    let lab = Lab::new();
    lab.package("reader").put(&[&reader()]);
    let (granted, secret) = (lab.path("granted"), lab.path("secret"));
    fs::write(&granted, "granted").unwrap();
    fs::write(&secret, "secret").unwrap();
    // Down to the file everybody may go, also where no mount leads there.
    fs::set_permissions(lab.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let grants = format!(
        "[plugin.reader]\nallow = [\"fs:{}:ro\"]\n",
        granted.display()
    );
    let host = start(&lab, &[Forbidden::Namespaces], &grants);
    let read = |host: &TestHost, path: &Path| {
        let path = path.to_str().unwrap().as_bytes();
        let reply = host.call("reader", "read", path).expect("it answers");
        String::from_utf8(reply.output_base64.0).unwrap()
    };
    assert_eq!(read(&host, &granted), "granted");
    for path in [secret.as_path(), "/etc/passwd".as_ref()] {
        let said = read(&host, path);
        assert!(said.starts_with("error: "), "{said}");
    }
    host.stop();
    let nothing = [Forbidden::Namespaces, Forbidden::Landlock];
    let host = start(&lab, &nothing, &grants);
    let reason = host.plugin("reader").refused.expect("it was refused");
    assert!(
        reason.reason.contains("nothing could confine it to that"),
        "{}",
        reason.reason
    );
    host.stop();
}

#[test]
fn root_without_other_users_reports_it() {
    if !geteuid().is_root() {
        return skipped("only root has other users to lose");
    }
    let lab = lab();
    let serve = serve(&lab, "");
    // A user namespace in which there is nobody but root, as in some containers.
    let mut inside = Command::new("unshare");
    inside
        .args(["--user", "--map-root-user", "--"])
        .arg(serve.get_program())
        .args(serve.get_args());
    copy_environment(&serve, &mut inside);
    let host = TestHost::start(inside, lab.runtime_dir());
    names(&host, "separate users");
    attacks_fail(host);
}

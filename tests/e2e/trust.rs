//! Files that another user could have written are refused with their path, owner, mode and the
//! command that repairs it: by root's hosts, and by those of ordinary users that are configured to.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use hotmerge_daemon::lifecycle::PluginState;
use hotmerge_tests::{Lab, Ran, SOON, TestHost, actor, copy_program, run, skipped, worker};
use rustix::process::geteuid;

/// Nobody's user id, who is neither root nor an ordinary user of the tests.
const STRANGER: u32 = 64_321;

/// Whose host it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Root,
    Ordinary,
}

/// A lab with one package, and a host that refuses what others could have written.
struct Place {
    lab: Lab,
    whose: Whose,
}

impl Place {
    /// One for each kind of user who can run the tests.
    fn each() -> Vec<Self> {
        let whose = match geteuid().is_root() {
            true => &[Whose::Root, Whose::Ordinary][..],
            false => {
                skipped("only root can start root's hosts");
                &[Whose::Ordinary]
            }
        };
        let place = |whose: &Whose| {
            let lab = Lab::new();
            lab.package("one").put(&[&actor("mark=1")]);
            Self { lab, whose: *whose }
        };
        whose.iter().map(place).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lab.path(name)
    }

    /// The command with these arguments, and everything in the lab belongs to who runs it.
    fn by(&self, command: Command) -> Command {
        match self.whose {
            Whose::Root => command,
            Whose::Ordinary => self.lab.as_ordinary_user(command),
        }
    }

    fn config(&self, more: &str) -> String {
        match self.whose {
            // What root does not have to say.
            Whose::Root => more.to_owned(),
            Whose::Ordinary => format!("untrusted_files = \"refuse\"\n{more}"),
        }
    }

    fn serve(&self, more: &str) -> Command {
        self.by(self.lab.serve(&self.config(more)))
    }

    fn verify(&self) -> Command {
        let mut command = self.lab.command();
        command.arg("verify").arg("--config");
        command.arg(self.path("hotmerge.toml"));
        command.arg(self.lab.plugin_dir());
        self.by(command)
    }

    /// A worker program that every user can reach.
    fn worker(&self) -> PathBuf {
        let copy = self.path("worker");
        if !copy.exists() {
            copy_program(worker(), &copy);
        }
        copy
    }

    fn start(&self) -> TestHost {
        TestHost::start(self.serve(""), self.lab.runtime_dir())
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Asserts that a message names a path, what is wrong with it, and what repairs it.
#[track_caller]
fn names(said: &str, path: &Path, words: &[&str]) {
    let path = path.canonicalize().unwrap_or(path.to_owned());
    for word in [
        &path.display().to_string(),
        "is not safe",
        "owner",
        "mode",
        "; run `ch",
    ]
    .into_iter()
    .map(AsRef::as_ref)
    .chain(words.iter().copied())
    {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
}

/// Does what a refusal advises.
#[track_caller]
fn repair(said: &str) {
    let (_, command) = said.rsplit_once("; run `").expect("it advises");
    let (command, _) = command.split_once('`').expect("it ends");
    let ran = run(Command::new("sh").args(["-c", command]), SOON);
    assert_eq!(ran.code, Some(0), "{command}: {ran:?}");
}

/// Spoils a place once its command is made, and insists that the command refuses it, once for
/// others that may write and once for another owner, until it is repaired.
#[track_caller]
fn refused_until_mended(place: &Place, more: &str, spoilt: &Path) {
    let check = || run(place.serve(more).arg("--check"), SOON);
    check().ok();
    let mode = fs::metadata(spoilt).unwrap().permissions().mode() & 0o7777;
    let spoil_mode = || set_mode(spoilt, mode | 0o022);
    let spoil_owner = || chown(spoilt, Some(STRANGER), None).unwrap();
    let mut ways: Vec<(&dyn Fn(), &str)> = vec![(&spoil_mode, "others may write to it")];
    if geteuid().is_root() {
        ways.push((&spoil_owner, "it belongs to another user (owner 64321"));
    }
    for (spoil, words) in ways {
        let mut serve = place.serve(more);
        spoil();
        let ran: Ran = run(serve.arg("--check"), SOON).ended_with(3);
        names(&ran.stderr, spoilt, &[words]);
        repair(&ran.stderr);
        run(&mut serve, SOON).ok();
    }
}

#[test]
fn a_plugin_directory_others_may_write_is_refused() {
    for place in Place::each() {
        refused_until_mended(&place, "", &place.lab.plugin_dir());
    }
}

#[test]
fn a_parent_that_others_may_write_is_refused() {
    for place in Place::each() {
        refused_until_mended(&place, "", &place.path(""));
    }
}

#[test]
fn a_link_that_others_may_replace_is_refused() {
    for place in Place::each() {
        fs::create_dir(place.path("links")).unwrap();
        symlink(place.lab.plugin_dir(), place.path("links/plugins")).unwrap();
        let command = || {
            let config = place.config("");
            place.by(place.lab.serve_from(&place.path("links/plugins"), &config))
        };
        run(command().arg("--check"), SOON).ok();
        let mut serve = command();
        set_mode(&place.path("links"), 0o777);
        let ran = run(serve.arg("--check"), SOON).ended_with(3);
        names(
            &ran.stderr,
            &place.path("links"),
            &["others may write to it"],
        );
    }
}

#[test]
fn a_configuration_others_may_write_is_refused() {
    for place in Place::each() {
        place.lab.serve("");
        refused_until_mended(&place, "", &place.path("hotmerge.toml"));
    }
}

#[test]
fn a_policy_others_may_write_is_refused() {
    for place in Place::each() {
        let policy = place.path("policies/symbols.toml");
        fs::create_dir(place.path("policies")).unwrap();
        let printed = place.lab.hotmerge(["policy", "symbols"]).ok();
        fs::write(&policy, printed.text()).unwrap();
        let more = format!("symbol_policy = {policy:?}");
        refused_until_mended(&place, &more, &policy);
        refused_until_mended(&place, &more, &place.path("policies"));
    }
}

#[test]
fn a_worker_program_others_may_write_is_refused() {
    for place in Place::each() {
        let program = place.path("programs/worker");
        fs::create_dir(place.path("programs")).unwrap();
        copy_program(worker(), &program);
        // Nor do plugins come into the host's process by that.
        for isolation in ["", "isolation = \"process\"\n"] {
            let more = format!("{isolation}worker = {program:?}\n# isolation");
            refused_until_mended(&place, &more, &program);
            refused_until_mended(&place, &more, &place.path("programs"));
            let serve = place.serve(&more);
            set_mode(&program, 0o777);
            let host = TestHost::start(serve, place.lab.runtime_dir());
            let plugin = host.plugin("actor");
            assert_eq!(plugin.state, PluginState::Error);
            names(&plugin.refused.unwrap().reason, &program, &[]);
            host.stop();
            set_mode(&program, 0o755);
        }
    }
}

#[test]
fn a_granted_path_others_may_turn_is_refused() {
    for place in Place::each() {
        let tree = place.path("data/tree");
        fs::create_dir_all(&tree).unwrap();
        for access in ["ro", "rw"] {
            let more = format!(
                "isolation = \"process\"\nworker = {:?}\n\
                 [plugin.actor]\nallow = [\"fs:{}:{access}\"]",
                place.worker(),
                tree.display()
            );
            refused_until_mended(&place, &more, &tree);
            refused_until_mended(&place, &more, &place.path("data"));
        }
    }
}

#[test]
fn the_host_itself_refuses_untrusted_granted_paths() {
    for place in Place::each() {
        let tree = place.path("data/tree");
        fs::create_dir_all(&tree).unwrap();
        let more = format!(
            "isolation = \"process\"\nworker = {:?}\n[plugin.actor]\nallow = [\"fs:{}:ro\"]",
            place.worker(),
            tree.display()
        );
        let serve = place.serve(&more);
        set_mode(&place.path("data"), 0o777);
        let host = TestHost::start(serve, place.lab.runtime_dir());
        let reason = host.plugin("actor").refused.expect("it is refused").reason;
        names(&reason, &place.path("data"), &["is granted to it, but"]);
        host.stop();
    }
}

#[test]
fn the_plugins_own_user_may_own_its_grants() {
    if !geteuid().is_root() {
        return skipped("only root can give a directory to another user");
    }
    let lab = Lab::new();
    let tree = lab.path("data");
    fs::create_dir(&tree).unwrap();
    chown(&tree, Some(STRANGER), None).unwrap();
    let grant = format!("[plugin.actor]\nallow = [\"fs:{}:rw\"]\n", tree.display());
    let said = run(lab.serve(&grant).arg("--check"), SOON).ended_with(3);
    names(&said.stderr, &tree, &["plugin `actor`"]);
    let owned = format!("{grant}user = {STRANGER}");
    run(lab.serve(&owned).arg("--check"), SOON).ok();
}

#[test]
fn packages_others_may_write_are_refused_until_repaired() {
    for place in Place::each() {
        let host = place.start();
        assert_eq!(host.text("actor", "mark"), "1");
        for (round, spoilt) in ["", "plugin.meta", "libactor.so"].into_iter().enumerate() {
            let mark = format!("mark={}", round + 2);
            let new = actor(&mark);
            let name = match spoilt {
                "libactor.so" => new.meta.file.as_str(),
                other => other,
            };
            let package = place.lab.package("one");
            let spoilt = package.dir().join(name);
            set_mode(package.dir(), if name.is_empty() { 0o777 } else { 0o755 });
            package.put(&[&new]);
            if !name.is_empty() {
                set_mode(&spoilt, 0o666);
            }
            host.reload();
            // It has to settle first.
            let said = host.wait_for("it is refused", |status| {
                let problem = status.problems.iter().find(|it| it.package == "one");
                let refused = status.plugins.iter().find_map(|it| it.refused.as_ref());
                let reason = problem
                    .map(|it| &it.reason)
                    .or(refused.map(|it| &it.reason));
                reason.cloned()
            });
            names(&said, &spoilt, &["others may write to it"]);
            // What ran before runs on.
            assert_eq!(host.text("actor", "mark"), (round + 1).to_string());
            let verified = run(&mut place.verify(), SOON).ended_with(5);
            names(&verified.text(), &spoilt, &[]);
            repair(&said);
            host.reload();
            host.wait_for("it is taken", |_| {
                (host.text("actor", "mark") == (round + 2).to_string()).then_some(())
            });
        }
        host.stop();
    }
}

#[test]
fn everything_is_used_where_the_configuration_says_so() {
    for place in Place::each() {
        let more = match place.whose {
            Whose::Root => "untrusted_files = \"use\"",
            Whose::Ordinary => "",
        };
        let serve = place.by(place.lab.serve(more));
        set_mode(&place.lab.plugin_dir(), 0o777);
        set_mode(place.lab.package("one").dir(), 0o777);
        let host = TestHost::start(serve, place.lab.runtime_dir());
        assert_eq!(host.text("actor", "mark"), "1");
        host.stop();
    }
}

#[test]
fn roots_configuration_must_be_roots_in_any_case() {
    if !geteuid().is_root() {
        return skipped("only root can start root's hosts");
    }
    let lab = Lab::new();
    let mut serve = lab.serve("untrusted_files = \"use\"");
    set_mode(&lab.path("hotmerge.toml"), 0o666);
    let ran = run(serve.arg("--check"), SOON).ended_with(3);
    names(&ran.stderr, &lab.path("hotmerge.toml"), &["configuration"]);
}

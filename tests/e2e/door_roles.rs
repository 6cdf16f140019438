//! Roles at the control socket: who may ask for what, of hosts of root and of an ordinary user.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    sync::mpsc,
    thread,
};

use hotmerge_daemon::status::Status;
use hotmerge_meta::control::{CallReply, Client, ClientError, code, method};
use hotmerge_tests::{Gate, Lab, NOBODY, SOON, TestHost, actor, call, call_params, skipped};
use rustix::{
    process::{Gid, Uid, geteuid},
    thread::{set_thread_gid, set_thread_groups, set_thread_uid},
};
use serde_json::{Value, json};

const READER: u32 = 60_001;
const CALLER: u32 = 60_002;
const ADMIN: u32 = 60_003;
const STRANGER: u32 = 60_004;
const GROUP: u32 = 60_100;

const ROLES: &str = "[[door.allow]]\nuser = 60001\nrole = \"read\"\n\
                     [[door.allow]]\nuser = 60002\nrole = \"call\"\n\
                     [[door.allow]]\nuser = 60003\nrole = \"admin\"\n";

/// Whose host it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Root,
    Ordinary,
}

impl Owner {
    fn uid(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::Ordinary => NOBODY,
        }
    }
}

/// Does it with a host of root and with one of an ordinary user. Only root can be several users.
fn for_each_owner(test: impl Fn(Owner)) {
    if !geteuid().is_root() {
        return skipped("only root can become another user");
    }
    for owner in [Owner::Root, Owner::Ordinary] {
        println!("a host of {owner:?}");
        test(owner);
    }
}

fn lab() -> Lab {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    lab
}

/// A host in a place that root has made for it, as service managers do.
#[track_caller]
fn start(lab: &Lab, owner: Owner, config: &str) -> TestHost {
    for dir in [lab.runtime_dir().path(), &lab.state_dir()] {
        fs::create_dir(dir).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let mut serve = lab.serve(config);
    if owner == Owner::Ordinary {
        serve = lab.as_ordinary_user(serve);
    }
    chown(lab.path(""), Some(0), None).unwrap();
    fs::set_permissions(lab.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    TestHost::start(serve, lab.runtime_dir())
}

/// A connection of another user, with these supplementary groups.
fn client_in(lab: &Lab, uid: u32, groups: &[u32]) -> Client {
    let dir = lab.runtime_dir();
    let groups: Vec<_> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
    // The thread is that user from then on, and nobody else is.
    let connect = move || {
        set_thread_groups(&groups).unwrap();
        set_thread_gid(Gid::from_raw(uid)).unwrap();
        set_thread_uid(Uid::from_raw(uid)).unwrap();
        Client::connect(&dir)
    };
    let connected = thread::spawn(connect).join().unwrap();
    connected.unwrap_or_else(|error| panic!("user {uid} gets to the host: {error}"))
}

fn client(lab: &Lab, uid: u32) -> Client {
    client_in(lab, uid, &[])
}

/// What a request is refused with.
fn refusal(asked: Result<Value, ClientError>) -> Option<(i32, String)> {
    match asked {
        Ok(_) => None,
        Err(ClientError::Refused(error)) => Some((error.code(), error.message().to_owned())),
        Err(other) => panic!("{other}"),
    }
}

fn denied(asked: Result<Value, ClientError>) -> Option<String> {
    let refused = refusal(asked)?;
    (refused.0 == code::DENIED).then_some(refused.1)
}

#[test]
fn each_role_permits_its_requests_alone() {
    for_each_owner(|owner| {
        let lab = lab();
        let mut host = start(&lab, owner, ROLES);
        let plugin = json!({"plugin": "actor"});
        let mark = serde_json::to_value(call_params("actor", "mark", b"")).unwrap();
        let nothing = Value::Null;
        let requests = [
            (method::STATUS, &nothing, "read"),
            (method::POSITION, &nothing, "read"),
            (method::HISTORY, &nothing, "read"),
            (method::DEBUG, &plugin, "read"),
            (method::LOGS, &nothing, "read"),
            (method::CALL, &mark, "call"),
            (method::DESCRIBE, &plugin, "call"),
            (method::RELOAD, &nothing, "admin"),
            (method::ROLLBACK, &plugin, "admin"),
            (method::PIN, &plugin, "admin"),
            (method::UNPIN, &plugin, "admin"),
            (method::STOP, &nothing, "admin"),
        ];
        for (uid, own) in [(READER, "read"), (CALLER, "call"), (ADMIN, "admin")] {
            let mut client = client(&lab, uid);
            for (name, params, role) in requests {
                let refused = denied(client.request(name, params, SOON));
                let may = own == role || own == "admin";
                assert_eq!(refused.is_none(), may, "{own} asks for {name}: {refused:?}");
                let Some(text) = refused else { continue };
                let grantor = match owner {
                    Owner::Root => "the host's administrator".to_owned(),
                    Owner::Ordinary => format!("user `nobody` ({NOBODY})"),
                };
                for words in [
                    format!("user {uid} may not ask for `{name}`"),
                    format!("needs the role `{role}`"),
                    format!("root or {grantor} can grant it"),
                    format!("`[[door.allow]]`, `user = {uid}`, `role = \"{role}\"`"),
                ] {
                    assert!(text.contains(&words), "no `{words}` in: {text}");
                }
            }
        }
        assert!(host.ended().success(), "the administrator has stopped it");
    });
}

#[test]
fn calls_are_permitted_by_plugin_and_method() {
    for_each_owner(|owner| {
        let lab = lab();
        lab.put(&actor("mark=2").named("other"));
        let config = "[[door.allow]]\nuser = 60002\nrole = \"call\"\n\
                      plugins = [\"actor\"]\nmethods = [\"mark\", \"count\"]\n";
        let host = start(&lab, owner, config);
        let mut client = client(&lab, CALLER);
        let ask = |client: &mut Client, plugin: &str, name: &str| {
            let asked = call(client, plugin, name, b"");
            denied(asked.map(|_: CallReply| Value::Null))
        };
        assert_eq!(ask(&mut client, "actor", "mark"), None);
        assert_eq!(ask(&mut client, "actor", "count"), None);
        for (plugin, name) in [("actor", "echo"), ("other", "mark"), ("absent", "mark")] {
            let text = ask(&mut client, plugin, name).expect("it is refused");
            let of = format!("role `call` for method `{name}` of plugin `{plugin}`");
            assert!(text.contains(&of), "{text}");
        }
        host.stop();
    });
}

#[test]
fn a_group_member_reads_by_a_supplementary_group() {
    for_each_owner(|owner| {
        let lab = lab();
        let host = start(
            &lab,
            owner,
            "[[door.allow]]\ngroup = 60100\nrole = \"read\"\n",
        );
        // More groups than a first guess has room for.
        let mut groups: Vec<_> = (61_000..61_300).collect();
        groups.push(GROUP);
        let mut member = client_in(&lab, STRANGER, &groups);
        let status: Status = member.request(method::STATUS, &(), SOON).unwrap();
        assert_eq!(status.plugins[0].name, "actor");
        assert!(denied(member.request(method::STOP, &(), SOON)).is_some());
        host.stop();
    });
}

#[test]
fn users_without_a_role_learn_the_remedy() {
    for_each_owner(|owner| {
        let lab = lab();
        let host = start(&lab, owner, ROLES);
        let text = denied(client(&lab, STRANGER).request(method::STATUS, &(), SOON));
        let text = text.expect("it is refused");
        let grantor = match owner {
            Owner::Root => "the host's administrator".to_owned(),
            Owner::Ordinary => format!("user `nobody` ({NOBODY})"),
        };
        for words in [
            format!("user {STRANGER} has no role on this host"),
            format!("root or {grantor} can grant one"),
            format!("`[[door.allow]]`, `user = {STRANGER}`, and `role = \"read\"` for status"),
        ] {
            assert!(text.contains(&words), "no `{words}` in: {text}");
        }
        let counted = host.status().host.door.expect("it counts");
        assert_eq!(counted.denied, 1);
        host.log()
            .wait_from(0, "a record", |record| record["uid"] == STRANGER);
        host.stop();
    });
}

#[test]
fn the_socket_opens_only_for_existing_roles() {
    for_each_owner(|owner| {
        let group = format!("[[door.allow]]\ngroup = {GROUP}\nrole = \"read\"\n");
        let of_group = match owner {
            Owner::Root => [0o710, 0o660],
            // It is not a member and cannot hand files to the group.
            Owner::Ordinary => [0o711, 0o666],
        };
        for (config, modes) in [
            ("", [0o700, 0o600]),
            (&group, of_group),
            (ROLES, [0o711, 0o666]),
        ] {
            let lab = lab();
            let host = start(&lab, owner, config);
            let dir = lab.runtime_dir();
            let found = [dir.path(), &dir.control_socket()].map(|path| {
                let found = fs::metadata(path).unwrap();
                assert_eq!(found.uid(), owner.uid());
                found.mode() & 0o7777
            });
            assert_eq!(found, modes, "{config}");
            host.stop();
        }
    });
}

#[test]
fn administrative_requests_leave_an_audit_record() {
    for_each_owner(|owner| {
        let lab = lab();
        let host = start(&lab, owner, ROLES);
        let plugin = json!({"plugin": "actor"});
        let mut admin = client(&lab, ADMIN);
        let _: Value = admin.request(method::PIN, &plugin, SOON).unwrap();
        let again = refusal(admin.request(method::PIN, &plugin, SOON));
        let _: Value = admin.request(method::STATUS, &(), SOON).unwrap();
        let refused = denied(client(&lab, READER).request(method::UNPIN, &plugin, SOON));
        assert!(refused.is_some());
        let log = host.stop();
        let records: Vec<_> = log
            .records()
            .into_iter()
            .filter(|record| record["target"] == "hotmerge::audit")
            .map(|record| {
                let who = record["who"].as_str().unwrap_or_default().to_owned();
                (who, record["method"].clone(), record["outcome"].clone())
            })
            .collect();
        let of = |uid: u32, name: &str, outcome: &str| {
            (format!("user {uid}"), json!(name), json!(outcome))
        };
        assert!(again.is_some(), "it is pinned already");
        assert_eq!(
            records,
            [
                of(ADMIN, "pin", "done"),
                of(ADMIN, "pin", "failed"),
                of(READER, "unpin", "denied"),
            ]
        );
    });
}

#[test]
fn only_administrators_see_memory_addresses() {
    for_each_owner(|owner| {
        let lab = lab();
        let host = start(&lab, owner, &format!("isolation = \"host\"\n{ROLES}"));
        let address = |uid| {
            let status: Status = client(&lab, uid)
                .request(method::STATUS, &(), SOON)
                .unwrap();
            status.plugins[0].address.clone()
        };
        assert!(address(ADMIN).is_some());
        assert_eq!(address(READER), None);
        host.stop();
    });
}

/// Four users ask for as many calls as there are common places, and another one still reads.
#[test]
fn many_users_calls_leave_room_to_read() {
    const CALLS: u32 = 60;
    const PLACES: u32 = 200;

    for_each_owner(|owner| {
        let lab = lab();
        let gate = Gate::new(&lab);
        let callers = 61_001..61_005;
        let entries: String = callers
            .clone()
            .map(|user| format!("[[door.allow]]\nuser = {user}\nrole = \"call\"\n"))
            .collect();
        let config = format!("{}\n{ROLES}{entries}", gate.config("actor"));
        let mut host = start(&lab, owner, &config);
        let (told, ends) = mpsc::channel();
        let all = callers.flat_map(|user| (0..CALLS).map(move |_| user));
        let threads: Vec<_> = all
            .map(|user| {
                let (mut client, told) = (client(&lab, user), told.clone());
                thread::spawn(move || {
                    let ended = call(&mut client, "actor", "wait", b"").map(drop);
                    // It keeps its place until the test has ended.
                    told.send(ended).map(|()| client)
                })
            })
            .collect();
        // The others wait in the plugin.
        for _ in 0..4 * CALLS - PLACES {
            let ended = ends.recv_timeout(SOON).unwrap();
            let Err(ClientError::Refused(why)) = &ended else {
                panic!("{ended:?}");
            };
            assert_eq!(why.code(), code::BUSY, "{why}");
        }
        let mut reader = client(&lab, READER);
        let status: Status = reader.request(method::STATUS, &(), SOON).unwrap();
        assert_eq!(status.plugins.len(), 1);
        let _: Value = reader.request(method::HISTORY, &(), SOON).unwrap();
        let _: Value = client(&lab, ADMIN)
            .request(method::STOP, &(), SOON)
            .unwrap();
        drop(gate);
        host.ended();
        for thread in threads {
            let _ = thread.join().unwrap();
        }
    });
}

/// Eight reloads of one user wait for a candidate; the ninth one is refused.
#[test]
fn a_refused_busy_administrator_leaves_an_audit_record() {
    for_each_owner(|owner| {
        let lab = lab();
        let gate = Gate::new(&lab);
        let host = start(&lab, owner, &format!("{}\n{ROLES}", gate.config("actor")));
        lab.put(&actor("mark=2 start=wait"));
        let (told, ends) = mpsc::channel();
        let threads: Vec<_> = (0..9)
            .map(|_| {
                let (mut client, told) = (client(&lab, ADMIN), told.clone());
                thread::spawn(move || {
                    let ended: Result<Value, _> = client.request(method::RELOAD, &(), SOON);
                    // The test may have ended.
                    let _ = told.send(refusal(ended));
                })
            })
            .collect();
        let visitor = gate.visitor();
        let (code, _) = ends.recv_timeout(SOON).unwrap().expect("it is refused");
        assert_eq!(code, code::BUSY);
        visitor.let_go();
        for thread in threads {
            thread.join().unwrap();
        }
        let log = host.stop();
        let outcomes: Vec<_> = log
            .records()
            .into_iter()
            .filter(|record| record["target"] == "hotmerge::audit" && record["method"] == "reload")
            .map(|record| record["outcome"].clone())
            .collect();
        assert_eq!(outcomes.len(), 9, "{outcomes:?}");
        assert_eq!(outcomes[0], "failed");
        assert!(outcomes[1..].iter().all(|it| it == "done"), "{outcomes:?}");
    });
}

/// A user takes every place for calls; another one still reads, and a third one still calls.
#[test]
fn one_users_calls_keep_nobody_else_waiting() {
    for_each_owner(|owner| {
        let lab = lab();
        let gate = Gate::new(&lab);
        lab.put(&actor("mark=2").named("other"));
        let config = format!(
            "{}\n{ROLES}[[door.allow]]\nuser = 60004\nrole = \"call\"\n",
            gate.config("actor")
        );
        let mut host = start(&lab, owner, &config);
        let (told, ends) = mpsc::channel();
        let threads: Vec<_> = (0..65)
            .map(|_| {
                let (mut client, told) = (client(&lab, CALLER), told.clone());
                thread::spawn(move || {
                    let ended = call(&mut client, "actor", "wait", b"").map(drop);
                    // The test may have ended.
                    let _ = told.send(ended);
                })
            })
            .collect();
        let ended = ends.recv_timeout(SOON).unwrap();
        let Err(ClientError::Refused(why)) = &ended else {
            panic!("{ended:?}");
        };
        assert_eq!(why.code(), code::BUSY, "{why}");
        let status: Status = client(&lab, READER)
            .request(method::STATUS, &(), SOON)
            .unwrap();
        assert_eq!(status.plugins.len(), 2);
        let reply = call(&mut client(&lab, STRANGER), "other", "mark", b"").unwrap();
        assert_eq!(reply.output_base64.0, b"2");
        let _: Value = client(&lab, ADMIN)
            .request(method::STOP, &(), SOON)
            .unwrap();
        drop(gate);
        host.ended();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

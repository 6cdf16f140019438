//! Keys that are accepted, and those that no longer are.

use std::{
    fs::{self, Permissions},
    io::Cursor,
    os::unix::fs::PermissionsExt as _,
};

use minisign::KeyPair;
use tempfile::TempDir;

use super::*;

const TEXT: &[u8] = b"what is signed";

struct Lab {
    dir: TempDir,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn add(&self, name: &str) -> KeyPair {
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        self.add_key(name, &pair);
        pair
    }

    fn add_key(&self, name: &str, pair: &KeyPair) {
        let text = pair.pk.to_box().unwrap().into_string();
        self.write(&format!("{name}.pub"), &text);
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.path().join(file), text).unwrap();
    }

    fn keys(&self) -> Keys {
        Keys::read(self.dir.path(), &Trust::anybody()).unwrap()
    }

    fn judge(&self, pair: &KeyPair) -> Result<Signer, NotSigned> {
        let now = "2026-11-27T12:00:00Z".parse().unwrap();
        self.keys().judge(TEXT, &sign(pair, TEXT), now)
    }

    #[track_caller]
    fn refused(&self, pair: &KeyPair) -> String {
        self.judge(pair).unwrap_err().to_string()
    }
}

fn sign(pair: &KeyPair, bytes: &[u8]) -> Signature {
    let signed = minisign::sign(Some(&pair.pk), &pair.sk, Cursor::new(bytes), None, None);
    Signature::parse(signed.unwrap().into_string().as_bytes()).unwrap()
}

#[test]
fn several_keys_count_side_by_side() {
    let lab = Lab::new();
    for name in ["alice", "bob"] {
        let pair = lab.add(name);
        assert_eq!(lab.judge(&pair).unwrap().name, name);
    }
    assert_eq!(lab.keys().problems(), [""; 0]);
}

#[test]
fn an_unknown_key_is_named_beside_the_known() {
    let lab = Lab::new();
    let stranger = KeyPair::generate_unencrypted_keypair().unwrap();
    assert!(lab.refused(&stranger).contains("there are no keys"));
    lab.add("alice");
    let said = lab.refused(&stranger);
    let id = sign(&stranger, TEXT).key().to_string();
    for word in ["which is not in", "there are: `alice` (key ", &id] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn a_revoked_key_signs_nothing() {
    let lab = Lab::new();
    let pair = lab.add("alice");
    lab.write("alice.toml", "revoked = \"the laptop was stolen\"");
    let said = lab.refused(&pair);
    assert!(said.contains("`alice` (key "), "{said}");
    assert!(said.contains("is revoked: the laptop was stolen"), "{said}");
    // It is not accepted under another name either.
    lab.add_key("again", &pair);
    assert!(lab.refused(&pair).contains("is revoked"));
}

#[test]
fn an_expired_key_signs_nothing() {
    let lab = Lab::new();
    let pair = lab.add("alice");
    for (expires, counts) in [
        ("2026-11-27", false),
        ("2026-11-28", true),
        ("2026-11-27T12:00:00Z", false),
        ("2026-11-27T12:00:01Z", true),
        ("2026-11-27T13:00:00+02:00", false),
    ] {
        lab.write("alice.toml", &format!("expires = {expires}"));
        assert_eq!(lab.judge(&pair).is_ok(), counts, "{expires}");
    }
    lab.write("alice.toml", "expires = 2026-01-01");
    let said = lab.refused(&pair);
    assert!(
        said.contains("which expired on 2026-01-01T00:00:00Z"),
        "{said}"
    );
}

#[test]
fn a_key_with_unclear_terms_does_not_count() {
    for (terms, words) in [
        ("revokd = \"x\"", "unknown field `revokd`"),
        ("expires = \"2026\"", "is not valid"),
        ("expires = 2026-11-28T12:00:00", "its offset from UTC"),
        ("expires = 12:00:00", "its offset from UTC"),
        ("expires", "is not valid"),
    ] {
        let lab = Lab::new();
        let pair = lab.add("alice");
        lab.write("alice.toml", terms);
        let said = lab.refused(&pair);
        assert!(said.contains("`alice.pub`: `alice.toml`"), "{said}");
        assert!(said.contains(words), "{terms}: {said}");
        assert_eq!(lab.keys().problems().len(), 1);
    }
}

#[test]
fn terms_of_no_key_are_told_of() {
    let lab = Lab::new();
    let pair = lab.add("alice");
    lab.write("alcie.toml", "revoked = \"\"");
    lab.write("README", "these are keys");
    lab.judge(&pair).unwrap();
    let problems = lab.keys().problems();
    assert!(
        problems[0].contains("describes the key `alcie.pub`"),
        "{problems:?}"
    );
    assert_eq!(problems.len(), 1);
}

#[test]
fn a_signature_of_something_else_names_the_key() {
    let lab = Lab::new();
    let pair = lab.add("alice");
    let now = Timestamp::now();
    let refused = lab.keys().judge(b"else", &sign(&pair, TEXT), now);
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("its signature by `alice`"), "{said}");
    assert!(said.contains("signature of other contents"), "{said}");
}

#[test]
fn keys_that_others_may_write_do_not_count() {
    let lab = Lab::new();
    lab.add("alice");
    let path = lab.dir.path().join("alice.pub");
    fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
    let keys = Keys::read(lab.dir.path(), &Trust::own()).unwrap();
    let problems = keys.problems();
    assert!(problems[0].contains("is not safe"), "{problems:?}");
    fs::set_permissions(lab.dir.path(), Permissions::from_mode(0o777)).unwrap();
    let error = Keys::read(lab.dir.path(), &Trust::own()).unwrap_err();
    assert!(error.to_string().contains("chmod go-w"), "{error}");
}

#[test]
fn a_missing_directory_has_no_keys() {
    let keys = Keys::read(Path::new("/nonexistent"), &Trust::own()).unwrap();
    assert_eq!(keys.problems(), ["there is no key in `/nonexistent`"]);
}

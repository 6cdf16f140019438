//! Where signatures are required, plugins without a signature by an accepted key are refused, each with its
//! own sentence; `status` shows who signed the others.

use std::{
    fs,
    io::Cursor,
    path::PathBuf,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use hotmerge_meta::{Meta, SIGNATURE_FILE, signature::comment};
use hotmerge_tests::{Lab, SOON, TestHost, Variant, actor, driver, run};
use minisign::KeyPair;

/// Seconds since 1970, long ago.
const THEN: u64 = 1_700_000_000;

/// A lab whose hosts require signatures, with a key that counts.
struct Place {
    lab: Lab,
    key: KeyPair,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            lab: Lab::new(),
            key: KeyPair::generate_unencrypted_keypair().unwrap(),
        };
        fs::create_dir(place.keys("")).unwrap();
        place.add_key("releases", &place.key);
        place
    }

    fn keys(&self, name: &str) -> PathBuf {
        self.lab.path("keys.d").join(name)
    }

    fn add_key(&self, name: &str, pair: &KeyPair) {
        let text = pair.pk.to_box().unwrap().into_string();
        fs::write(self.keys(&format!("{name}.pub")), text).unwrap();
    }

    fn config(&self, more: &str) -> String {
        let keys = self.keys("");
        format!("require_signature = true\nkeys_dir = {keys:?}\n{more}")
    }

    fn start(&self, more: &str) -> TestHost {
        self.lab.start_with(&self.config(more))
    }

    /// Puts a plugin in place in the driver's order: the file, the signature, the meta.
    fn put(&self, variant: &Variant) {
        self.put_signed(variant, &self.key, THEN);
    }

    /// The host refuses the plugin, and `hotmerge verify` does for the same reason.
    #[track_caller]
    fn refused(&self, host: &TestHost, words: &[&str]) {
        let reason = refused(host, words);
        assert_eq!(self.lab.verify_objects("actor"), Some(reason));
    }

    /// The host refuses the plugin for what it has run before, which nobody else knows.
    #[track_caller]
    fn refused_by_history(&self, host: &TestHost, words: &[&str]) {
        refused(host, words);
        assert_eq!(self.lab.verify_objects("actor"), None);
    }

    fn put_signed(&self, variant: &Variant, key: &KeyPair, seconds: u64) {
        let package = self.lab.package("one");
        package.put_files(&[variant]);
        package.replace(SIGNATURE_FILE, &sign(&meta_of(variant), key, seconds));
        package.put_meta(&[variant]);
    }
}

fn meta_of(variant: &Variant) -> String {
    Meta::new(vec![variant.meta.clone()]).unwrap().to_toml()
}

fn sign(text: &str, key: &KeyPair, seconds: u64) -> Vec<u8> {
    let comment = comment(seconds, "plugin.meta");
    let made = minisign::sign(None, &key.sk, Cursor::new(text), Some(&comment), None);
    made.unwrap().into_string().into_bytes()
}

fn version(version: &str, mark: &str) -> Variant {
    let mut variant = actor(&format!("mark={mark}"));
    variant.meta.version = version.parse().unwrap();
    variant
}

/// Waits until the host says why it refuses the plugin. Returns what it says.
#[track_caller]
fn refused(host: &TestHost, words: &[&str]) -> String {
    let said = host.wait_for("it is refused", |status| {
        let mut refused = status.plugins.iter().filter_map(|it| it.refused.as_ref());
        let has = |reason: &str| words.iter().all(|word| reason.contains(word));
        refused.find(|it| has(&it.reason)).cloned()
    });
    said.reason
}

#[track_caller]
fn runs(host: &TestHost, mark: &str) {
    host.wait_for("it runs", |status| {
        let is_there = status.plugins.iter().any(|it| it.generation > 0);
        (is_there && host.text("actor", "mark") == mark).then_some(())
    });
}

#[test]
fn a_signed_package_runs_and_says_by_whom() {
    let place = Place::new();
    place.put(&version("1.0.0", "1"));
    let host = place.start("");
    runs(&host, "1");
    let signed = host.plugin("actor").signed.expect("it is signed");
    assert_eq!(signed.by, "releases");
    assert_eq!(
        signed.comment,
        format!("timestamp:{THEN}\tfile:plugin.meta")
    );
    let shown = place.lab.hotmerge(["status"]).ok().text();
    let by = format!("signed by `releases` (key {})", signed.key);
    assert!(shown.contains(&by), "{shown}");
    let config = place.lab.path("hotmerge.toml");
    let mut verify = place.lab.command();
    verify.arg("verify").arg("--config").arg(config);
    verify.arg(place.lab.plugin_dir());
    let shown = run(&mut verify, SOON).ok().text();
    assert!(shown.contains(&by), "{shown}");
    let json = run(verify.arg("--json"), SOON).ok().text();
    assert!(json.contains("\"signed\":{\"by\":\"releases\""), "{json}");
    host.stop();
}

#[test]
fn an_unsigned_package_is_refused_until_signed() {
    let place = Place::new();
    place.put(&version("1.0.0", "1"));
    let host = place.start("");
    runs(&host, "1");
    let unsigned = version("1.1.0", "2");
    let package = place.lab.package("one");
    fs::remove_file(package.dir().join(SIGNATURE_FILE)).unwrap();
    package.put(&[&unsigned]);
    place.refused(&host, &["it is not signed", "cargo hotmerge sign"]);
    assert_eq!(host.text("actor", "mark"), "1");
    // Only the signature is new.
    package.replace(SIGNATURE_FILE, &sign(&meta_of(&unsigned), &place.key, THEN));
    runs(&host, "2");
    host.stop();
}

#[test]
fn a_signature_of_something_else_is_refused() {
    let place = Place::new();
    let host = place.start("");
    let package = place.lab.package("one");
    package.put_files(&[&version("1.0.0", "1")]);
    let other = meta_of(&version("1.0.0", "2"));
    package.replace(SIGNATURE_FILE, &sign(&other, &place.key, THEN));
    package.put_meta(&[&version("1.0.0", "1")]);
    place.refused(&host, &["by `releases`", "signature of other contents"]);
    package.replace(SIGNATURE_FILE, b"not a signature\n");
    host.reload();
    place.refused(&host, &[SIGNATURE_FILE, "not a minisign signature"]);
    host.stop();
}

#[test]
fn a_half_published_package_is_not_refused_early() {
    let place = Place::new();
    place.put(&version("1.0.0", "1"));
    let host = place.start("settle_ms = 60000");
    runs(&host, "1");
    let new = version("2.0.0", "2");
    let package = place.lab.package("one");
    let steps: [&dyn Fn(); 3] = [
        &|| package.put_files(&[&new]),
        &|| package.replace(SIGNATURE_FILE, &sign(&meta_of(&new), &place.key, THEN)),
        &|| package.put_meta(&[&new]),
    ];
    for step in steps {
        assert_eq!(host.text("actor", "mark"), "1");
        step();
        // A scan in between refuses nothing.
        host.signal(rustix::process::Signal::HUP);
        let status = host.status();
        assert!(status.problems.is_empty(), "{:?}", status.problems);
        assert!(host.plugin("actor").refused.is_none());
    }
    runs(&host, "2");
    host.stop();
}

#[test]
fn an_unknown_key_is_refused_until_added() {
    let place = Place::new();
    let stranger = KeyPair::generate_unencrypted_keypair().unwrap();
    place.put_signed(&version("1.0.0", "1"), &stranger, THEN);
    let host = place.start("");
    place.refused(&host, &["which is not in", "there are: `releases`"]);
    place.add_key("another", &stranger);
    place.lab.hotmerge(["reload", "actor"]).ok();
    assert_eq!(host.plugin("actor").signed.unwrap().by, "another");
    host.stop();
}

#[test]
fn a_key_that_no_longer_counts_starts_nothing() {
    for (terms, words) in [
        ("revoked = \"it leaked\"", "is revoked: it leaked"),
        ("expires = 2020-01-01", "which expired on 2020-01-01"),
    ] {
        let place = Place::new();
        place.put(&version("1.0.0", "1"));
        let host = place.start("");
        runs(&host, "1");
        fs::write(place.keys("releases.toml"), terms).unwrap();
        // What runs was signed when it started.
        place.put(&version("1.1.0", "2"));
        place.refused(&host, &["signed by `releases`", words]);
        assert_eq!(host.text("actor", "mark"), "1");
        host.stop();
        // Neither the directory's version nor the one that the host has kept.
        let host = place.start("");
        place.refused(&host, &[words]);
        assert_eq!(host.plugin("actor").generation, 0);
        fs::remove_file(place.keys("releases.toml")).unwrap();
        place.lab.hotmerge(["reload", "actor"]).ok();
        runs(&host, "2");
        host.stop();
    }
}

#[test]
fn an_older_signed_version_needs_the_operators_order() {
    let place = Place::new();
    let order = "signed_order = \"version\"";
    let (old, new) = (version("1.0.0", "1"), version("1.1.0", "2"));
    place.put(&old);
    let host = place.start(order);
    runs(&host, "1");
    place.put(&new);
    runs(&host, "2");
    place.put(&old);
    let words = ["version 1.0.0 is older than 1.1.0", "hotmerge rollback"];
    place.refused_by_history(&host, &words);
    assert_eq!(host.text("actor", "mark"), "2");
    place.put(&new);
    host.reload();
    place.lab.hotmerge(["rollback", "actor"]).ok();
    assert_eq!(host.text("actor", "mark"), "1");
    assert_eq!(host.plugin("actor").signed.unwrap().by, "releases");
    host.stop();
    // The rollback holds, and what has run is not forgotten with the plugin.
    let host = place.start(order);
    runs(&host, "1");
    place.lab.package("one").remove();
    host.reload();
    host.wait_for("it is gone", |status| {
        status.plugins.is_empty().then_some(())
    });
    host.stop();
    place.put(&old);
    let host = place.start(order);
    place.refused_by_history(&host, &words);
    host.stop();
}

#[test]
fn a_version_signed_earlier_than_live_is_refused() {
    let place = Place::new();
    let host = place.start("signed_order = \"time\"");
    place.put_signed(&version("1.0.0", "1"), &place.key, THEN);
    runs(&host, "1");
    // The number says nothing here.
    place.put_signed(&version("2.0.0", "2"), &place.key, THEN - 1);
    place.refused_by_history(&host, &["it was signed at 2023-11-14T22:13:19Z, before"]);
    let timeless = version("2.0.0", "3");
    let package = place.lab.package("one");
    let signed = minisign::sign(
        None,
        &place.key.sk,
        Cursor::new(meta_of(&timeless)),
        Some("no time"),
        None,
    );
    package.put_files(&[&timeless]);
    package.replace(SIGNATURE_FILE, signed.unwrap().into_string().as_bytes());
    package.put_meta(&[&timeless]);
    place.refused_by_history(&host, &["does not say when it was made"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    place.put_signed(&version("0.9.0", "4"), &place.key, now.as_secs());
    runs(&host, "4");
    host.stop();
}

#[test]
fn each_plugin_may_require_or_not() {
    let place = Place::new();
    let package = place.lab.package("one");
    package.put(&[&version("1.0.0", "1")]);
    let host = place.start("[plugin.actor]\nrequire_signature = false");
    runs(&host, "1");
    assert_eq!(host.plugin("actor").signed, None);
    host.stop();
    let keys = place.keys("");
    let own = format!("keys_dir = {keys:?}\n[plugin.actor]\nrequire_signature = true");
    let host = place.lab.start_with(&own);
    refused(&host, &["it was not signed when it was kept"]);
    let told = place.lab.verify_objects("actor").expect("it is refused");
    assert!(told.contains("it is not signed"), "{told}");
    host.stop();
}

#[test]
fn a_running_version_keeps_its_last_signature() {
    let place = Place::new();
    let another = KeyPair::generate_unencrypted_keypair().unwrap();
    place.add_key("another", &another);
    place.put(&version("1.0.0", "1"));
    let host = place.start("");
    runs(&host, "1");
    // The same code under another number, and signed by somebody else.
    let same = version("1.0.1", "1");
    place.put_signed(&same, &another, THEN);
    host.wait_for("its new signature is shown", |status| {
        let signed = status.plugins.first()?.signed.as_ref()?;
        (signed.by == "another").then_some(())
    });
    assert_eq!(host.plugin("actor").generation, 1);
    host.stop();
    fs::write(place.keys("releases.toml"), "revoked = \"it leaked\"").unwrap();
    place
        .lab
        .package("one")
        .replace(same.meta.file.as_str(), b"");
    let host = place.start("");
    runs(&host, "1");
    assert_eq!(host.plugin("actor").signed.unwrap().by, "another");
    host.stop();
}

#[test]
fn serve_check_names_keys_that_cannot_be_used() {
    let place = Place::new();
    let check = || run(place.lab.serve(&place.config("")).arg("--check"), SOON);
    check().ok();
    fs::write(place.keys("releases.toml"), "revoked = 1").unwrap();
    check()
        .ended_with(3)
        .said(&["`releases.pub`: `releases.toml` is not valid"]);
    fs::remove_file(place.keys("releases.toml")).unwrap();
    fs::remove_file(place.keys("releases.pub")).unwrap();
    check().ended_with(3).said(&["there is no key in"]);
}

#[test]
fn the_driver_signs_what_hosts_take() {
    let place = Place::new();
    let sign = |arguments: &[&str]| {
        let mut command = Command::new(driver());
        command.arg("sign").args(arguments);
        command.env_remove("HOTMERGE_SIGN_KEY");
        run(&mut command, SOON)
    };
    let path = |name: &str| place.lab.path(name).to_str().unwrap().to_owned();
    let (key, password) = (path("key"), path("password"));
    fs::write(&password, "a password\n").unwrap();
    sign(&["--new-key", &key, "--password-file", &password]).ok();
    let again = sign(&["--new-key", &key, "--password-file", &password]).ended_with(1);
    again.said(&["failed to create", "exists"]);
    fs::copy(place.lab.path("key.pub"), place.keys("driver.pub")).unwrap();
    let package = place.lab.package("one");
    package.put(&[&version("1.0.0", "1")]);
    let host = place.start("");
    place.refused(&host, &["it is not signed"]);
    let plugins = path("plugins");
    // Nobody is there to be asked.
    sign(&["--key", &key, &plugins])
        .ended_with(1)
        .said(&["--password-file"]);
    fs::write(&password, "another\n").unwrap();
    sign(&["--key", &key, "--password-file", &password, &plugins])
        .ended_with(1)
        .said(&["the password is wrong"]);
    fs::write(&password, "a password\n").unwrap();
    let signed = sign(&["--key", &key, "--password-file", &password, &plugins]).ok();
    assert!(signed.text().contains(" signed by "), "{}", signed.text());
    runs(&host, "1");
    assert_eq!(host.plugin("actor").signed.unwrap().by, "driver");
    let before = fs::read(package.dir().join(SIGNATURE_FILE)).unwrap();
    let signed = sign(&["--key", &key, "--password-file", &password, &plugins]).ok();
    assert!(
        signed.text().contains(" is already signed by "),
        "{}",
        signed.text()
    );
    let after = fs::read(package.dir().join(SIGNATURE_FILE)).unwrap();
    assert_eq!(before, after, "a valid signature stays");
    sign(&["--key", &key, &path("keys.d")])
        .ended_with(1)
        .said(&["--password-file"]);
    host.stop();
}

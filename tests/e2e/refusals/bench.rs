//! A host with a good plugin, to which bad ones are added.

use hotmerge_daemon::{lifecycle::PluginState, status::PluginStatus};
use hotmerge_tests::{Callers, Lab, Package, Ran, TestHost, Variant, actor};

/// A host with one good plugin that is called all the while.
pub(crate) struct Bench {
    pub(crate) lab: Lab,
    pub(crate) host: TestHost,
    pub(crate) callers: Callers,
    pub(crate) before: PluginStatus,
}

impl Bench {
    pub(crate) fn new(config: &str) -> Self {
        let lab = Lab::new();
        lab.package("victim").put(&[&actor("mark=1")]);
        let host = lab.start_with(config);
        Self {
            callers: Callers::start(&host, 1, ["actor"], "mark"),
            before: host.plugin("actor"),
            lab,
            host,
        }
    }

    pub(crate) fn package(&self) -> Package {
        self.lab.package("victim")
    }

    /// Makes the host scan, and asserts that it says why it refuses what it found, and that
    /// `hotmerge verify` refuses it for the same reason.
    #[track_caller]
    pub(crate) fn is_refused(&self, words: &[&str]) {
        let reason = self.refusal(words);
        self.verify_refuses("victim", &reason);
    }

    /// Makes the host scan, and asserts that it says why what it found does not start. Files alone
    /// do not tell.
    #[track_caller]
    pub(crate) fn fails_to_start(&self, words: &[&str]) {
        self.refusal(words);
        self.verify().ok();
    }

    fn verify(&self) -> Ran {
        let [config, dir] = ["hotmerge.toml", "plugins"].map(|name| self.lab.path(name));
        let [config, dir] = [&config, &dir].map(|path| path.display().to_string());
        self.lab
            .hotmerge(["verify", "--json", "--config", &config, &dir])
    }

    #[track_caller]
    fn verify_refuses(&self, package: &str, reason: &str) {
        let lines = self.verify().ended_with(5).lines();
        let mut findings = lines.iter().filter(|line| line["package"] == package);
        assert!(
            findings.any(|finding| finding["problem"] == reason && finding["ok"] == false),
            "the host says: {reason}\nverify says: {lines:#?}"
        );
    }

    #[track_caller]
    fn refusal(&self, words: &[&str]) -> String {
        self.host.reload();
        let plugin = self.host.plugin("actor");
        let reason = plugin
            .refused
            .as_ref()
            .expect("it is refused")
            .reason
            .clone();
        is_a_sentence(&reason, words);
        // People see the same.
        let shown = self.lab.hotmerge(["status"]).ok().text();
        assert!(shown.contains(&reason), "not shown: {reason}\n{shown}");
        self.is_undisturbed();
        reason
    }

    /// Makes the host scan, and asserts that it says why a package cannot be used, and that
    /// `hotmerge verify` says the same.
    #[track_caller]
    pub(crate) fn has_a_problem(&self, package: &str, words: &[&str]) {
        self.lab
            .hotmerge(["reload"])
            .ended_with(5)
            .said(&["cannot be used"]);
        let reason = self.host.problem(package).reason;
        is_a_sentence(&reason, words);
        let shown = self.lab.hotmerge(["status"]).ok().text();
        assert!(shown.contains(&reason), "not shown: {reason}\n{shown}");
        self.verify_refuses(package, &reason);
        self.is_undisturbed();
    }

    #[track_caller]
    pub(crate) fn is_undisturbed(&self) {
        let now = self.host.plugin("actor");
        assert_eq!(now.state, PluginState::Active);
        assert_eq!(now.generation, self.before.generation);
        assert_eq!(now.address, self.before.address);
        assert_eq!(now.hash, self.before.hash);
        self.callers.go_on();
    }

    /// Ends the calls and the host; both well.
    #[track_caller]
    pub(crate) fn end(self) {
        assert_eq!(self.callers.unharmed()["actor"].generations, [1].into());
        self.host.stop();
    }
}

#[track_caller]
pub(crate) fn is_a_sentence(reason: &str, words: &[&str]) {
    for word in words {
        assert!(reason.contains(word), "no `{word}` in: {reason}");
    }
    assert!(
        !reason.contains(char::is_control),
        "more than one line: {reason:?}"
    );
    assert!(!reason.ends_with('.'), "a full stop: {reason}");
}

/// A package whose meta or file is spoiled so that nothing in it can be understood.
#[track_caller]
pub(crate) fn a_problem(spoil: impl FnOnce(&Package), words: &[&str]) {
    let bench = Bench::new("");
    spoil(&bench.package());
    bench.has_a_problem("victim", words);
    bench.end();
}

/// A new version that is not taken.
#[track_caller]
pub(crate) fn a_refusal(new: &Variant, words: &[&str]) {
    let bench = Bench::new("");
    bench.package().put(&[new]);
    bench.is_refused(words);
    bench.end();
}

/// A new version that does not start.
#[track_caller]
pub(crate) fn a_failed_start(new: &Variant, words: &[&str]) {
    let bench = Bench::new("");
    bench.package().put(&[new]);
    bench.fails_to_start(words);
    bench.end();
}

pub(crate) fn two() -> Variant {
    actor("mark=2")
}

//! Plugins that flood and forge what goes to the log: the host's log and memory stay bounded, a
//! terminal shows what was said, and reports that lie end their own worker at most.

use std::time::Instant;

use hotmerge_tests::{
    Callers, Lab, SOON, TestHost, UNTIRING, Vitals, actor, attacks, attacks_at, run,
};

fn start(lab: &Lab) -> Option<TestHost> {
    lab.package("hostile").put(&[&attacks()]);
    lab.package("good").put(&[&actor("mark=1")]);
    lab.start_sandboxed(UNTIRING)
}

#[test]
fn a_flood_slows_the_plugin_not_the_host() {
    let lab = Lab::new();
    let Some(host) = start(&lab) else {
        return;
    };
    let callers = Callers::start(&host, 1, ["actor"], "mark");
    let before = Vitals::of(&host);
    for name in ["log-flood", "print-flood", "error-flood", "print-line"] {
        host.text("attacks", name);
        callers.go_on();
        before.regained(&host, name);
    }
    assert!(
        host.worker("attacks").log_dropped > 0,
        "nothing was dropped"
    );
    callers.unharmed();
    host.stop();
}

/// The host takes at most so much of one source in half a second; a record counts as 64 bytes.
const RECORDS: usize = (256 << 10) / 64;

#[test]
fn an_endless_flood_keeps_the_log_bounded() {
    let lab = Lab::new();
    let Some(host) = start(&lab) else {
        return;
    };
    let callers = Callers::start(&host, 1, ["actor"], "mark");
    let before = Vitals::of(&host);
    let (began, logged) = (Instant::now(), host.log().len());
    for name in ["log-for-ever", "print-for-ever"] {
        host.text("attacks", name);
    }
    for _ in 0..100 {
        callers.go_on();
        assert_eq!(host.text("attacks", "echo"), "");
    }
    let records = host.log().len() - logged;
    let halves = began.elapsed().as_millis() as usize / 500 + 2;
    assert!(records <= 3 * halves * RECORDS, "{records} records");
    host.call("attacks", "exit-raw", b"").expect_err("it ends");
    host.replaced("attacks", 1);
    before.regained(&host, "floods");
    callers.unharmed();
    host.stop();
}

#[test]
fn endless_forged_reports_cost_no_memory() {
    let lab = Lab::new();
    let Some(host) = start(&lab) else {
        return;
    };
    let callers = Callers::start(&host, 1, ["actor"], "mark");
    let before = Vitals::of(&host);
    for (number, name) in ["forge-for-ever", "garbage-for-ever", "panics-for-ever"]
        .iter()
        .enumerate()
    {
        // The answer and the end of the worker race.
        let _ = host.call("attacks", name, b"");
        host.replaced("attacks", number as u64 + 1);
        host.answers_again("attacks");
        callers.go_on();
        before.regained(&host, name);
    }
    callers.unharmed();
    host.stop();
}

#[test]
fn control_characters_are_escaped_in_the_log() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    let config = lab.path("for-people.toml");
    let text = format!(
        "worker = {:?}\nsettle_ms = 100\nsymbols = \"off\"\n{UNTIRING}",
        lab.worker()
    );
    std::fs::write(&config, text).expect("the test's own directory");
    let mut command = lab.command();
    command
        .args(["serve", "--log-format", "text", "--config"])
        .arg(config)
        .arg("--plugin-dir")
        .arg(lab.plugin_dir())
        .arg("--state-dir")
        .arg(lab.state_dir());
    let host = lab.start_by(command);
    for name in ["log-escape", "print-escape", "forge-text", "panic-escape"] {
        let _ = host.call("attacks", name, b"");
    }
    host.replaced("attacks", 1);
    let log = host.stop();
    let lines = log.messages();
    let said = lines.iter().filter(|line| line.contains("forged line"));
    assert!(said.count() >= 3, "{lines:#?}");
    for line in &lines {
        let is_clean = !line.contains(|sign: char| sign.is_control() || sign == '\u{202e}');
        assert!(is_clean, "a control character in {line:?}");
        assert!(
            !line.starts_with("ERROR forged"),
            "a line that nobody wrote: {line:?}"
        );
    }
}

#[test]
fn control_characters_are_escaped_in_status() {
    let lab = Lab::new();
    let Some(host) = start(&lab) else {
        return;
    };
    // As it would be on a terminal: otherwise orders to it are taken out on the way.
    let hotmerge = |arguments: &[&str]| {
        let mut command = lab.command();
        run(command.args(arguments).env("CLICOLOR_FORCE", "1"), SOON)
    };
    let shows_text = |shown: &str| {
        assert!(shown.contains("forged line"), "{shown:?}");
        for line in shown.lines() {
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    };
    let answered = hotmerge(&["call", "attacks", "panic-escape"]);
    shows_text(&answered.ended_with(11).stderr);
    host.replaced("attacks", 1);
    lab.package("hostile")
        .put(&[&attacks_at("start=panic-escape")]);
    host.reload();
    for arguments in [&["reload", "attacks"][..], &["status"], &["history"]] {
        let shown = hotmerge(arguments).text();
        shows_text(&shown);
        let lines = shown.lines().filter(|line| line.starts_with("ERROR"));
        assert_eq!(lines.count(), 0, "a line that nobody wrote: {shown:?}");
    }
    host.stop();
}

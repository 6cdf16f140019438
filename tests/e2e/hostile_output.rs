//! Plugins that flood and forge what goes to the log: the host's log and memory stay bounded, a
//! terminal shows what was said, and reports that lie end their own worker at most.

use std::time::Instant;

use hotmerge_tests::{
    Lab, Neighbour, SOON, TestHost, UNTIRING, Vitals, actor, attacks, attacks_at, keep_one_heap,
    run,
};

fn start(lab: &Lab) -> Option<TestHost> {
    lab.package("hostile").put(&[&attacks()]);
    lab.package("good").put(&[&actor("mark=1")]);
    // What the host keeps of the log in memory, up to its bound, is nothing that a flood leaves behind.
    lab.start_sandboxed(&format!("{UNTIRING}log = {{ bytes = 65536 }}\n"))
}

#[test]
fn a_flood_slows_the_plugin_not_the_host() {
    let lab = Lab::new();
    let Some(host) = start(&lab) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    for name in ["log-flood", "print-flood", "error-flood", "print-line"] {
        host.text("attacks", name);
        neighbour.goes_on(&host, name);
    }
    assert!(
        host.worker("attacks").log_dropped > 0,
        "nothing was dropped"
    );
    neighbour.unharmed(host);
}

/// The host takes at most so much of one source in half a second; a record counts as 64 bytes.
const RECORDS: usize = (256 << 10) / 64;

#[test]
fn an_endless_flood_keeps_the_log_bounded() {
    let lab = Lab::new();
    let Some(host) = start(&lab) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    let (began, logged) = (Instant::now(), host.log().len());
    for name in ["log-for-ever", "print-for-ever", "drip-log-for-ever"] {
        host.text("attacks", name);
    }
    for _ in 0..100 {
        neighbour.goes_on(&host, "a flood");
        assert_eq!(host.text("attacks", "echo"), "");
    }
    let records = host.log().len() - logged;
    let halves = began.elapsed().as_millis() as usize / 500 + 2;
    assert!(records <= 3 * halves * RECORDS, "{records} records");
    host.call("attacks", "exit-raw", b"").expect_err("it ends");
    host.replaced("attacks", 1);
    neighbour.goes_on(&host, "floods");
    neighbour.unharmed(host);
}

#[test]
fn endless_forged_reports_cost_no_memory() {
    let lab = Lab::new();
    let Some(host) = start(&lab) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    for (number, name) in ["forge-for-ever", "garbage-for-ever", "panics-for-ever"]
        .iter()
        .enumerate()
    {
        // The answer and the end of the worker race.
        let _ = host.call("attacks", name, b"");
        host.replaced("attacks", number as u64 + 1);
        host.answers_again("attacks");
        neighbour.goes_on(&host, name);
    }
    neighbour.unharmed(host);
}

#[test]
fn control_characters_are_escaped_in_the_log() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    lab.package("good").put(&[&actor("mark=1")]);
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
    keep_one_heap(&mut command);
    let host = lab.start_by(command);
    let neighbour = Neighbour::of(&host, "actor", "mark");
    for name in ["log-escape", "print-escape", "forge-text", "panic-escape"] {
        let _ = host.call("attacks", name, b"");
    }
    host.replaced("attacks", 1);
    let log = neighbour.unharmed(host);
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
    let neighbour = Neighbour::of(&host, "actor", "mark");
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
    neighbour.unharmed(host);
}

/// As many plugins as there are reasons of this length in one frame, and more.
#[test]
fn many_long_reasons_leave_every_answer_whole() {
    let lab = Lab::new();
    lab.package("good").put(&[&actor("mark=1")]);
    let Some(host) = lab.start_sandboxed("") else {
        return;
    };
    let mut neighbour = Neighbour::of(&host, "actor", "mark");
    let names: Vec<_> = (0..60).map(|number| format!("long-{number}")).collect();
    let package = lab.package("hostile");
    for round in 0..2 {
        let script = format!("start=fail-long round={round}");
        let variants: Vec<_> = names
            .iter()
            .map(|name| attacks_at(&script).named(name))
            .collect();
        package.put(&variants.iter().collect::<Vec<_>>());
        for arguments in [
            &["reload"][..],
            &["status"],
            &["history"],
            &["reload", "long-7"],
        ] {
            let said = lab.hotmerge(arguments.iter().copied());
            let said = said.text() + &said.stderr;
            assert!(said.contains("long-7"), "{arguments:?}: {said}");
            assert!(said.len() < 4 << 20, "{arguments:?}: {} bytes", said.len());
        }
        let refused = host.plugin("long-7").refused.expect("it is refused").reason;
        assert!(refused.contains("bytes left out"), "{refused}");
        package.remove();
        host.reload();
        if round == 0 {
            neighbour.remember(&host);
        }
    }
    neighbour.unharmed(host);
}

/// The names of a stack are looked up in the file, however much lies behind what is loaded.
#[test]
fn a_panic_of_a_huge_file_costs_little() {
    const HUGE: u64 = 1 << 30;
    let lab = Lab::new();
    lab.package("good").put(&[&actor("mark=1")]);
    let Some(host) = lab.start_sandboxed(UNTIRING) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    let package = lab.package("hostile");
    let variant = attacks();
    package.put(&[&variant]);
    let file = std::fs::File::options()
        .write(true)
        .open(package.file_path(&variant));
    file.and_then(|file| file.set_len(HUGE))
        .expect("the test's own directory");
    host.reload();
    host.answers_again("attacks");
    // Loading a file reads all of it.
    let loaded = Vitals::most_kib(&host);
    for round in 1..=3 {
        host.call("attacks", "panic", b"").expect_err("it panics");
        host.replaced("attacks", round);
        host.answers_again("attacks");
    }
    let most = Vitals::most_kib(&host);
    assert!(most < loaded + (64 << 10), "{loaded} KiB became {most}");
    package.remove();
    host.reload();
    neighbour.unharmed(host);
}

//! `hotmerge top` shows on a terminal what happens, and restores the terminal.

use std::os::unix::process::ExitStatusExt as _;

use hotmerge_tests::{Lab, Screen, TestHost, actor};
use rustix::process::Signal;

fn observed() -> (Lab, TestHost, Screen) {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    lab.put(&actor("mark=one").named("other"));
    let host = lab.start();
    let screen = Screen::run(lab.command().env_remove("NO_COLOR").arg("top"));
    screen.wait_for_text("2 plugins: 2 active");
    (lab, host, screen)
}

#[test]
fn top_shows_reloads_as_they_happen() {
    let (lab, host, mut screen) = observed();
    let hash = host.plugin("actor").hash.expect("it is live").short();
    screen.wait_for_text(&hash);
    host.reload_after(|| lab.put(&actor("mark=two")));
    let hash = host.plugin("actor").hash.expect("it is live").short();
    screen.wait_for_text(&hash);
    host.text("actor", "mark");
    screen.press("\r");
    let shown = screen.wait_for_text("1 call, 0 failed");
    assert!(shown.contains("HISTORY, newest first"), "{shown}");
    screen.wait_for_text("detecting");
    screen.press("q");
    assert!(screen.ended().success());
}

#[test]
fn top_sorts_by_the_chosen_column() {
    let (_lab, _host, mut screen) = observed();
    let is_first = |name: &'static str| {
        move |screen: &vt100::Screen| {
            let shown = screen.contents();
            shown
                .lines()
                .nth(4)
                .is_some_and(|line| line.starts_with(name))
        }
    };
    screen.wait_for("by name", is_first("actor"));
    screen.press("r");
    screen.wait_for("the other way round", is_first("other"));
}

#[test]
fn a_signal_restores_the_terminal() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let (_lab, _host, mut screen) = observed();
        screen.signal(signal);
        let status = screen.ended();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
    }
}

#[test]
fn top_waits_for_a_host_that_restarts() {
    let (lab, host, mut screen) = observed();
    host.stop();
    screen.wait_for_text("no host is running");
    let _host = lab.start();
    screen.wait_for("the host again", |screen| {
        let shown = screen.contents();
        !shown.contains("no host is running") && shown.contains("2 plugins: 2 active")
    });
    screen.press("\u{3}");
    assert!(screen.ended().success(), "Ctrl-C is a way to quit");
}

#[test]
fn without_a_terminal_top_says_so() {
    let lab = Lab::new();
    let ran = lab.hotmerge(["top"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("needs a terminal"), "{ran:?}");
}

//! A plugin in Go: in workers only, with all that its runtime needs there.

use std::fs;

use hotmerge_tests::{Lab, TestHost, actions};

use crate::sample::{Sample, has_go};

const SOURCE: &str = "ticker.go";
/// Where methods are added.
const METHOD: &str = "\tcase \"share\":";

fn ticker() -> Sample {
    Sample::new(&["plugins/samples/ticker", "plugins/go"])
}

/// A host with the sample in a worker; `None` where one of the two cannot be had.
fn start(lab: &Lab, ticker: &Sample) -> Option<TestHost> {
    if !has_go() {
        return None;
    }
    ticker.driver(lab).run().ok();
    lab.start_sandboxed("watch = false\nrestart = { pause_ms = 0 }\n")
}

fn ticks(host: &TestHost, method: &str) -> u64 {
    host.text("ticker", method).parse().expect("it counts")
}

#[test]
fn a_go_plugin_hands_its_state_over() {
    let (lab, ticker) = (Lab::new(), ticker());
    let Some(host) = start(&lab, &ticker) else {
        return;
    };
    let first = ticks(&host, "wait");
    let before = ticks(&host, "wait");
    assert!(first < before);
    let sum = host.call("ticker", "share", b"100").expect("it adds up");
    assert_eq!(sum.output_base64.0, b"5050");
    let refused = host.call("ticker", "share", b"x").unwrap_err().to_string();
    assert!(refused.contains("takes a decimal number"), "{refused}");

    ticker.edit(SOURCE, "10 * time.Millisecond", "time.Hour");
    let told = ticker.driver(&lab).arguments(["--notify", "require"]);
    let lines = told.run().ok().lines();
    assert_eq!(actions(&lines), [("ticker", "reloaded")].into());
    let after = ticks(&host, "ticks");
    assert!(after >= before, "{before} became {after}");
    assert_eq!(ticks(&host, "ticks"), after, "this one ticks hourly");
    host.stop();
}

#[test]
fn the_hosts_process_refuses_go() {
    if !has_go() {
        return;
    }
    let lab = Lab::new();
    ticker().driver(&lab).run().ok();
    let host = lab.start_with("symbols = \"enforce\"\nisolation = \"host\"\n");
    let refused = host.plugin("ticker").refused.expect("it is refused");
    let reason = refused.reason;
    assert!(reason.contains("can never be unloaded"), "{reason}");
    assert!(reason.contains("isolation = \"process\""), "{reason}");
    host.stop();
}

#[test]
fn a_go_panic_is_named_with_its_stack() {
    let (lab, ticker) = (Lab::new(), ticker());
    let methods = "\tcase \"panic\":\n\t\tfall()\n\
                   \tcase \"nil\":\n\t\tvar none *ticker\n\t\tnone.ticks++\n\tcase \"share\":";
    ticker.edit(SOURCE, METHOD, methods);
    ticker.edit(
        SOURCE,
        "func main() {}",
        "//go:noinline\nfunc fall() { panic(\"it was asked to\") }\n\nfunc main() {}",
    );
    let Some(host) = start(&lab, &ticker) else {
        return;
    };
    for (restarts, (method, words)) in [
        (
            "panic",
            &[
                "panicked: it was asked to",
                "in main.fall (ticker.go:",
                "main.(*ticker).Call (ticker.go:",
            ][..],
        ),
        ("nil", &["nil pointer dereference", "main.(*ticker).Call"]),
    ]
    .into_iter()
    .enumerate()
    {
        let error = host.call("ticker", method, b"").unwrap_err().to_string();
        let failure = host.replaced("ticker", restarts as u64 + 1);
        for word in words {
            assert!(error.contains(word), "no `{word}` in: {error}");
            assert!(failure.contains(word), "no `{word}` in: {failure}");
        }
        assert!(failure.contains(&format!("in `{method}`")), "{failure}");
        ticks(&host, "wait");
    }
    host.stop();
}

#[test]
fn a_fault_in_c_beside_go_is_named() {
    let (lab, ticker) = (Lab::new(), ticker());
    ticker.edit(
        SOURCE,
        METHOD,
        "\tcase \"crash\":\n\t\tcrash()\n\tcase \"share\":",
    );
    ticker.write(
        "crash.go",
        "package main\n\n// static void crash(void) { *(volatile int *)8 = 0; }\nimport \"C\"\n\n\
         func crash() { C.crash() }\n",
    );
    let Some(host) = start(&lab, &ticker) else {
        return;
    };
    let error = host.call("ticker", "crash", b"").unwrap_err().to_string();
    assert!(error.contains("was killed by SIGSEGV at 0x8"), "{error}");
    let failure = host.replaced("ticker", 1);
    assert!(failure.contains("in `crash`"), "{failure}");
    ticks(&host, "wait");
    host.stop();
}

#[test]
fn a_panic_of_a_goroutine_is_logged() {
    let (lab, ticker) = (Lab::new(), ticker());
    ticker.edit(
        SOURCE,
        METHOD,
        "\tcase \"alone\":\n\t\tgo panic(\"nobody recovers\")\n\t\tselect {}\n\tcase \"share\":",
    );
    let Some(host) = start(&lab, &ticker) else {
        return;
    };
    let error = host.call("ticker", "alone", b"").unwrap_err().to_string();
    assert!(error.contains("exited with status 2"), "{error}");
    host.log().wait("panic: nobody recovers");
    host.log().wait("goroutine ");
    host.replaced("ticker", 1);
    ticks(&host, "wait");
    host.stop();
}

#[test]
fn go_without_its_timers_never_starts() {
    if !has_go() {
        return;
    }
    let lab = Lab::new();
    ticker().driver(&lab).run().ok();
    let path = lab.path("syscalls.toml");
    let text = lab.hotmerge(["policy", "syscalls"]).ok().text();
    let (run, rest) = text.split_once("\n[load]\n").expect("it has groups");
    let run: Vec<_> = run
        .lines()
        .filter(|line| !line.starts_with("epoll_"))
        .collect();
    fs::write(&path, format!("{}\n[load]\n{rest}", run.join("\n"))).unwrap();
    let workers = lab.living_in("process");
    let host = lab.start_with(&format!("{workers}syscall_policy = {path:?}\n"));
    let refused = host.plugin("ticker").refused.expect("it is refused");
    let reason = refused.reason;
    assert!(reason.contains("exited with status 2"), "{reason}");
    host.log().wait("netpollinit");
    host.stop();
}

#[test]
fn a_go_plugin_is_the_same_everywhere() {
    if !has_go() {
        return;
    }
    let hash = || {
        let lab = Lab::new();
        let lines = ticker().driver(&lab).run().ok().lines();
        lines[0]["hash"].as_str().expect("it is told").to_owned()
    };
    assert_eq!(hash(), hash());
}

//! A plugin in C: the same life as one in Rust.

use hotmerge_tests::{Lab, actions};

use crate::sample::Sample;

const SOURCE: &str = "tally.c";

fn tally() -> Sample {
    Sample::new(&["plugins/samples/tally"])
}

#[test]
fn a_c_plugin_hands_its_state_over() {
    for way in ["host", "process"] {
        let (lab, tally) = (Lab::new(), tally());
        tally.driver(&lab).run().ok();
        let more = format!("watch = false\n{}", lab.living_in(way));
        let host = lab.start_with(&more);
        let added = host.call("tally", "add", b"40").expect("it adds");
        assert_eq!(added.output_base64.0, b"40", "{way}");
        assert_eq!(added.content_type, "text/plain; charset=utf-8");
        let refused = host.call("tally", "add", b"four").unwrap_err().to_string();
        assert!(refused.contains("takes a decimal number"), "{refused}");

        tally.edit(SOURCE, "*step = 1;", "*step = 2;");
        let told = tally.driver(&lab).arguments(["--notify", "require"]);
        let lines = told.run().ok().lines();
        assert_eq!(actions(&lines), [("tally", "reloaded")].into(), "{way}");
        assert_eq!(host.text("tally", "add"), "42", "{way}");
        host.stop();
    }
}

#[test]
fn a_crash_in_c_is_named_and_survived() {
    let (lab, tally) = (Lab::new(), tally());
    tally.edit(
        SOURCE,
        "    } else if (!is(method, \"get\")) {",
        "    } else if (is(method, \"crash\")) {\n\
         \x20       volatile uintptr_t nowhere = 8;\n\
         \x20       *(volatile int *)nowhere = 0;\n\
         \x20   } else if (is(method, \"abort\")) {\n\
         \x20       abort();\n\
         \x20   } else if (!is(method, \"get\")) {",
    );
    tally.driver(&lab).run().ok();
    let Some(host) = lab.start_sandboxed("restart = { pause_ms = 0 }\n") else {
        return;
    };
    for (crash, (method, what)) in [
        ("crash", "was killed by SIGSEGV at 0x8"),
        ("abort", "aborted"),
    ]
    .into_iter()
    .enumerate()
    {
        let error = host.call("tally", method, b"").unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        let failure = host.replaced("tally", crash as u64 + 1);
        assert!(failure.contains(&format!("in `{method}`")), "{failure}");
        host.text("tally", "get");
    }
    host.stop();
}

//! The operator's configuration: any text; no panic, a mistake has a sentence on one line, and what
//! is read is sound.

#![no_main]

use hotmerge_daemon::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Config::parse(text) {
        Ok(config) => {
            assert!(config.keep_versions > 0);
            for allow in &config.door.allow {
                assert_ne!(allow.plugins.as_deref(), Some(&[][..]));
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

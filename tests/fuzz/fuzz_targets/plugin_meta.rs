//! `plugin.meta` from a stranger: no panic, one line of refusal, and what is accepted is
//! written and read back the same.

#![no_main]

use hotmerge_meta::Meta;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| match Meta::from_bytes(bytes) {
    Ok(meta) => {
        let text = meta.to_toml();
        let again = Meta::parse(&text).expect("what was written is accepted");
        assert_eq!(again, meta);
        assert_eq!(again.to_toml(), text);
    }
    Err(error) => assert!(!error.to_string().contains(char::is_control)),
});

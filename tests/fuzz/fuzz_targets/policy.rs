//! An image from a stranger as the dynamic loader would read it: no panic, the same verdict
//! twice, and stricter rules never forgive.

#![no_main]

use std::sync::LazyLock;

use hotmerge_policy::{File, Groups, Rules, judge};
use libfuzzer_sys::fuzz_target;

static GROUPS: LazyLock<Groups> =
    LazyLock::new(|| Groups::parse(Groups::BUILTIN).expect("the built-in groups are sound"));

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = File::read(bytes) else {
        return;
    };
    assert_eq!(Some(&file), File::read(bytes).ok().as_ref());
    let rules = |strict| Rules {
        fs: false,
        net: false,
        strict,
    };
    let lenient = judge(&file, &GROUPS, rules(false));
    let strict = judge(&file, &GROUPS, rules(true));
    assert!(lenient.iter().all(|objection| strict.contains(objection)));
});

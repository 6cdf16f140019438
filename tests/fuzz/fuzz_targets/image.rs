//! A plugin file from a stranger: no panic, and an image that is its own image, says the
//! same about its entry, and hides nothing behind its hash.

#![no_main]

use hotmerge_meta::{Digest, Image};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = Image::normalise(bytes.to_vec()) else {
        return;
    };
    assert!(image.len() <= bytes.len());
    assert_eq!(image.digest(), Digest::of(image.bytes()));
    // Nothing is invented: each byte is the file's or zero.
    let kept = |(image, file): (&u8, &u8)| *image == *file || *image == 0;
    assert!(image.bytes().iter().zip(bytes).all(kept));
    let again = Image::normalise(image.bytes().to_vec()).expect("an image is accepted");
    assert_eq!(again.bytes(), image.bytes());
    assert_eq!(again.machine(), image.machine());
    assert_eq!(again.header(), image.header());
});

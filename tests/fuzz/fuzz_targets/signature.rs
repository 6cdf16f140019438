//! Signatures and keys from a stranger: no panic, one line of refusal, nothing for a terminal in what
//! is accepted, and no stranger's signature is that of a known key.

#![no_main]

use std::sync::LazyLock;

use hotmerge_meta::signature::{PublicKey, Signature};
use libfuzzer_sys::fuzz_target;

static KEY: LazyLock<PublicKey> = LazyLock::new(|| {
    let line = b"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    PublicKey::parse(line).expect("it is a key")
});

fuzz_target!(|bytes: &[u8]| {
    let key = PublicKey::parse(bytes);
    if let Err(error) = &key {
        assert!(!error.to_string().contains(char::is_control));
    }
    match Signature::parse(bytes) {
        Ok(signature) => {
            let control = |sign: char| sign != '\t' && sign.is_control();
            assert!(!signature.comment().contains(control));
            let _ = signature.time();
            assert!(KEY.verify(b"what nobody has signed", &signature).is_err());
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
});

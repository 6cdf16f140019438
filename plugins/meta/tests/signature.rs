//! Signatures and keys, made by minisign's own library and then spoilt.

use std::{io::Cursor, sync::LazyLock};

use hotmerge_meta::signature::{PublicKey, Signature, SignatureError, comment};
use minisign::KeyPair;
use proptest::prelude::*;

const TEXT: &[u8] = b"what is signed\n";

fn made(comment: &str) -> (PublicKey, String) {
    let pair = KeyPair::generate_unencrypted_keypair().unwrap();
    let signed = minisign::sign(
        Some(&pair.pk),
        &pair.sk,
        Cursor::new(TEXT),
        Some(comment),
        None,
    );
    let key = pair.pk.to_box().unwrap().into_string();
    let key = PublicKey::parse(key.as_bytes()).unwrap();
    (key, signed.unwrap().into_string())
}

#[test]
fn a_signature_of_minisign_is_verified() {
    let (key, text) = made(&comment(1_700_000_000, "plugin.meta"));
    let signature = Signature::parse(text.as_bytes()).unwrap();
    assert_eq!(signature.key(), key.id());
    assert_eq!(
        signature.comment(),
        "timestamp:1700000000\tfile:plugin.meta"
    );
    assert_eq!(signature.time(), Some(1_700_000_000));
    key.verify(TEXT, &signature).unwrap();
}

#[test]
fn a_signature_of_another_text_is_refused() {
    let (key, text) = made("timestamp:1");
    let signature = Signature::parse(text.as_bytes()).unwrap();
    let other = key.verify(b"what is not signed", &signature);
    assert_eq!(other, Err(SignatureError::Other));
    let (stranger, _) = made("timestamp:1");
    assert_eq!(
        stranger.verify(TEXT, &signature),
        Err(SignatureError::Other)
    );
}

#[test]
fn the_comment_is_signed_too() {
    let (key, text) = made("timestamp:1");
    let later = text.replace("timestamp:1", "timestamp:2");
    let signature = Signature::parse(later.as_bytes()).unwrap();
    assert_eq!(signature.time(), Some(2));
    assert_eq!(key.verify(TEXT, &signature), Err(SignatureError::Other));
}

#[test]
fn a_key_may_be_a_line_alone() {
    let (key, _) = made("");
    let pair = KeyPair::generate_unencrypted_keypair().unwrap();
    let line = pair.pk.to_base64();
    let alone = PublicKey::parse(line.as_bytes()).unwrap();
    assert_ne!(alone, key);
    for text in ["", "\n", "untrusted comment: x\n", "RWQ", "x\ny\nz\n"] {
        let refused = PublicKey::parse(text.as_bytes()).unwrap_err();
        assert_eq!(refused.to_string(), "it is not a minisign public key");
    }
}

#[test]
fn an_unfinished_signature_is_none() {
    let (_, text) = made("timestamp:1");
    for len in 0..text.len() {
        Signature::parse(&text.as_bytes()[..len]).unwrap_err();
    }
    Signature::parse(format!("{text}more\n").as_bytes()).unwrap_err();
}

#[test]
fn a_legacy_signature_is_refused() {
    let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let key = PublicKey::parse(key.as_bytes()).unwrap();
    let text = "untrusted comment: signature from minisign secret key\n\
                RWQf6LRCGA9i59SLOFxz6NxvASXDJeRtuZykwQepbDEGt87ig1BNpWaVWuNrm73YiIiJbq71Wi+dP9eKL8OC351vwIasSSbXxwA=\n\
                trusted comment: timestamp:1555779966\tfile:test\n\
                QtKMXWyYcwdpZAlPF7tE2ENJkRd1ujvKjlj1m9RtHTBnZPa5WKU5uWRs5GoP5M/VqE81QFuMKI5k/SfNQUaOAA==\n";
    let signature = Signature::parse(text.as_bytes()).unwrap();
    assert_eq!(key.id().to_string(), "E7620F1842B4E81F");
    assert_eq!(key.verify(b"test", &signature), Err(SignatureError::Legacy));
}

static MADE: LazyLock<(PublicKey, String)> = LazyLock::new(|| made("timestamp:1"));

proptest! {
    #[test]
    fn no_changed_byte_is_accepted(at in 0usize..320, bit in 0u8..8) {
        let (key, text) = &*MADE;
        let mut bytes = text.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        // The first line is the only one that nobody vouches for.
        let first = text.find('\n').unwrap();
        if let Ok(signature) = Signature::parse(&bytes) {
            let is_same = key.verify(TEXT, &signature).is_ok();
            prop_assert!(!is_same || at <= first, "byte {at}");
        }
    }
}

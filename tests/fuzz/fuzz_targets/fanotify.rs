//! What the kernel says of changed files may be anything: no bytes may harm, no walk may go on for
//! ever, and every place lies within the bytes.

#![no_main]

use hotmerge_fanotify::records::records;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let within = |part: &[u8]| {
        let all = bytes.as_ptr_range();
        let part = part.as_ptr_range();
        all.start <= part.start && part.end <= all.end
    };
    let mut length = 0;
    for record in records(bytes) {
        let Ok(record) = record else { break };
        length += 24;
        let _ = record.is_overflow();
        for place in record.places() {
            let Ok(place) = place else { break };
            length += 4;
            assert!(within(place.directory) && place.directory.len() >= 8);
            assert!(
                place
                    .name
                    .is_none_or(|name| within(name) && !name.contains(&0))
            );
        }
    }
    assert!(length <= bytes.len(), "a record was reported twice");
});

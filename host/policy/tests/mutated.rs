//! Whatever the bytes of a file are, it is read or refused: nothing panics, and nothing takes for
//! ever. The file is this very program, which the dynamic loader reads as it does a plugin.

use hotmerge_policy::{File, Groups, Rules, judge};

/// A generator whose numbers are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (self.0 >> 33) as usize % limit
    }
}

/// Where the file's dynamic segment is, so that changes hit what is read.
fn dynamic(bytes: &[u8]) -> usize {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let headers = (0..usize::from(bytes[56])).map(|number| 64 + 56 * number);
    let mut dynamic = headers.filter(|at| bytes[*at..*at + 4] == [2, 0, 0, 0]);
    word(dynamic.next().expect("it is linked dynamically") + 8)
}

#[test]
fn a_changed_file_is_read_or_refused() {
    let exe = std::env::current_exe().expect("it runs");
    let whole = std::fs::read(exe).expect("it is a file");
    let groups = Groups::parse(include_str!("../data/symbols.toml")).expect("it is sound");
    let rules = Rules {
        fs: false,
        net: false,
        strict: true,
    };
    let honest = File::read(&whole).expect("it is sound");
    let (mut numbers, place) = (Numbers(7), dynamic(&whole));
    let (mut bytes, mut noticed) = (whole.clone(), 0);
    for round in 0..1_000 {
        let mut changed = Vec::new();
        for _ in 0..1 + round % 4 {
            let at = match numbers.below(3) {
                0 => numbers.below(64),
                1 => 64 + numbers.below(56 * usize::from(whole[56])),
                _ => place + numbers.below(512),
            };
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, numbers.below(256) as u8][numbers.below(6)];
            changed.push(at);
        }
        let end = if round % 16 == 0 {
            numbers.below(whole.len())
        } else {
            whole.len()
        };
        let is_other = match File::read(&bytes[..end]) {
            Ok(file) => {
                judge(&file, &groups, rules);
                file != honest
            }
            Err(_) => true,
        };
        noticed += usize::from(is_other);
        for at in changed {
            bytes[at] = whole[at];
        }
    }
    // Most changes are to what the loader reads.
    assert!(noticed > 250, "{noticed} changes were noticed");
}

//! Decodes what a group reads.
//!
//! Records are walked by the length that each one says, and so are the information records in them.
//! Kinds that a later kernel adds are passed over. Bytes that make no sense end the walk with an
//! error: the reader must then assume that anything may have happened.
//!
//! Absent on purpose: unsafe code, and descriptors; a group of this crate has none in its records.

/// The version of the records that this understands; the kernel has had no other.
const VERSION: u8 = 3;

/// Bytes of a record's fixed part.
const HEAD: usize = 24;
/// Bytes before the handle in an information record: kind, padding, length, file system id.
const BEFORE_HANDLE: usize = 12;
/// Bytes of a handle before its own: their number, and the handle's type.
const BEFORE_BYTES: usize = 8;

/// The queue was full, and events are lost.
const OVERFLOW: u64 = libc::FAN_Q_OVERFLOW;

/// What the kernel wrote makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Less than a record's fixed part, or less than the record says.
    #[error("a fanotify record is truncated")]
    CutOff,
    /// Another version.
    #[error("fanotify records have the unknown version {0}")]
    Version(u8),
    /// An information record that is cut off, or contradicts itself.
    #[error("an information record of fanotify is malformed")]
    Information,
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    mask: u64,
    /// Who caused it; 0 if that process is in another namespace.
    pub pid: i32,
    information: &'a [u8],
}

/// Where an event took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The directory, as [`Handle`](crate::Handle) has it.
    pub directory: &'a [u8],
    /// The entry in it; `.` for the directory itself; none if the kernel says none.
    pub name: Option<&'a [u8]>,
}

/// Walks the records of a buffer. Nothing follows an error.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Malformed>> {
    let mut left = bytes;
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let record = Record::split(left);
        left = record.as_ref().map_or(&[], |(_, rest)| rest);
        Some(record.map(|(record, _)| record))
    })
}

impl<'a> Record<'a> {
    fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let head = bytes.get(..HEAD).ok_or(Malformed::CutOff)?;
        let length = u32_at(head, 0).ok_or(Malformed::CutOff)? as usize;
        let version = *head.get(4).ok_or(Malformed::CutOff)?;
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let head_length = usize::from(u16_at(head, 6).ok_or(Malformed::CutOff)?);
        if head_length < HEAD || length < head_length {
            return Err(Malformed::CutOff);
        }
        let (record, rest) = bytes.split_at_checked(length).ok_or(Malformed::CutOff)?;
        let mask = head.get(8..16).and_then(|it| it.try_into().ok());
        let record = Self {
            mask: u64::from_ne_bytes(mask.ok_or(Malformed::CutOff)?),
            pid: u32_at(head, 20).ok_or(Malformed::CutOff)?.cast_signed(),
            information: record.get(head_length..).ok_or(Malformed::CutOff)?,
        };
        Ok((record, rest))
    }

    /// Whether events before this one are lost. Such a record has no place.
    pub fn is_overflow(&self) -> bool {
        self.mask & OVERFLOW != 0
    }

    /// What happened, as the kernel's bits.
    pub fn mask(&self) -> u64 {
        self.mask
    }

    /// The places that the record names. Nothing follows an error.
    pub fn places(&self) -> impl Iterator<Item = Result<Place<'a>, Malformed>> + use<'a> {
        let mut left = self.information;
        std::iter::from_fn(move || {
            loop {
                if left.is_empty() {
                    return None;
                }
                let split = split_information(left);
                left = split.as_ref().map_or(&[], |(.., rest)| rest);
                let place = split.and_then(|(kind, body, _)| place(kind, body));
                if let Some(place) = place.transpose() {
                    if place.is_err() {
                        left = &[];
                    }
                    return Some(place);
                }
            }
        })
    }
}

/// The kind of the next information record, all of it, and what follows.
fn split_information(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), Malformed> {
    let kind = *bytes.first().ok_or(Malformed::Information)?;
    let length = usize::from(u16_at(bytes, 2).ok_or(Malformed::Information)?);
    if length < 4 {
        return Err(Malformed::Information);
    }
    let split = bytes.split_at_checked(length);
    let (record, rest) = split.ok_or(Malformed::Information)?;
    Ok((kind, record, rest))
}

fn place(kind: u8, record: &[u8]) -> Result<Option<Place<'_>>, Malformed> {
    use libc::{
        FAN_EVENT_INFO_TYPE_DFID, FAN_EVENT_INFO_TYPE_DFID_NAME, FAN_EVENT_INFO_TYPE_NEW_DFID_NAME,
        FAN_EVENT_INFO_TYPE_OLD_DFID_NAME,
    };
    let has_name = match kind {
        FAN_EVENT_INFO_TYPE_DFID => false,
        FAN_EVENT_INFO_TYPE_DFID_NAME
        | FAN_EVENT_INFO_TYPE_OLD_DFID_NAME
        | FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => true,
        _ => return Ok(None),
    };
    let handle = record.get(BEFORE_HANDLE..).ok_or(Malformed::Information)?;
    let length = u32_at(handle, 0).ok_or(Malformed::Information)? as usize;
    let length = length
        .checked_add(BEFORE_BYTES)
        .ok_or(Malformed::Information)?;
    let split = handle.split_at_checked(length);
    let (directory, rest) = split.ok_or(Malformed::Information)?;
    // The name ends in a zero, and is padded with zeros.
    let name = rest.split(|byte| *byte == 0).next();
    let name = name.filter(|name| has_name && !name.is_empty());
    if has_name && !rest.is_empty() && !rest.contains(&0) {
        return Err(Malformed::Information);
    }
    Ok(Some(Place { directory, name }))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIRECTORY: [u8; 12] = [4, 0, 0, 0, 1, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef];

    fn information(kind: u8, body: &[u8]) -> Vec<u8> {
        let padded = (4 + body.len()).next_multiple_of(4);
        let mut record = vec![kind, 0];
        record.extend((padded as u16).to_ne_bytes());
        record.extend(body);
        record.resize(padded, 0);
        record
    }

    fn named(kind: u8, name: &str) -> Vec<u8> {
        let fsid = [7; 8];
        let body = [&fsid[..], &DIRECTORY, name.as_bytes(), &[0]].concat();
        information(kind, &body)
    }

    fn record(mask: u64, information: &[Vec<u8>]) -> Vec<u8> {
        let information = information.concat();
        let mut record = ((HEAD + information.len()) as u32).to_ne_bytes().to_vec();
        record.extend([VERSION, 0]);
        record.extend((HEAD as u16).to_ne_bytes());
        record.extend(mask.to_ne_bytes());
        record.extend((-1_i32).to_ne_bytes());
        record.extend(42_i32.to_ne_bytes());
        record.extend(information);
        record
    }

    fn walk(bytes: &[u8]) -> Result<Vec<(u64, Vec<Place<'_>>)>, Malformed> {
        records(bytes)
            .map(|record| {
                let record = record?;
                let places = record.places().collect::<Result<_, _>>()?;
                Ok((record.mask(), places))
            })
            .collect()
    }

    fn place(name: Option<&str>) -> Place<'_> {
        Place {
            directory: &DIRECTORY,
            name: name.map(str::as_bytes),
        }
    }

    #[test]
    fn records_are_walked_by_their_length() {
        let fid = information(1, &[&[7; 8][..], &DIRECTORY].concat());
        let bytes = [
            record(0x100, &[named(2, "one")]),
            record(OVERFLOW, &[]),
            // An unknown kind, a process descriptor, the object itself, and two names.
            record(
                0x8,
                &[
                    information(99, &[1; 40]),
                    information(4, &[9; 4]),
                    fid,
                    named(10, "old"),
                    named(12, "new"),
                ],
            ),
            record(0x400, &[named(2, "."), named(3, "")]),
        ]
        .concat();
        let walked = walk(&bytes).unwrap();
        assert_eq!(walked[0], (0x100, vec![place(Some("one"))]));
        assert_eq!(walked[1], (OVERFLOW, vec![]));
        assert_eq!(
            walked[2],
            (0x8, vec![place(Some("old")), place(Some("new"))])
        );
        assert_eq!(walked[3], (0x400, vec![place(Some(".")), place(None)]));
        assert!(records(&bytes).nth(1).unwrap().unwrap().is_overflow());
    }

    #[test]
    fn a_longer_head_is_passed_over() {
        let mut bytes = record(0x100, &[named(2, "one")]);
        bytes.splice(HEAD..HEAD, [0xff; 8]);
        bytes[6..8].copy_from_slice(&32_u16.to_ne_bytes());
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(walk(&bytes).unwrap(), [(0x100, vec![place(Some("one"))])]);
    }

    #[test]
    fn damaged_records_end_the_walk() {
        let whole = record(0x100, &[named(2, "one")]);
        for length in 1..whole.len() {
            walk(&whole[..length]).unwrap_err();
        }
        let damaged = |at: usize, byte: u8| {
            let mut bytes = [whole.clone(), whole.clone()].concat();
            bytes[at] = byte;
            let results: Vec<_> = records(&bytes).collect();
            assert!(results.len() <= 2);
            walk(&bytes).unwrap_err()
        };
        assert_eq!(damaged(4, 2), Malformed::Version(2));
        // A length of nothing must not be walked for ever.
        assert_eq!(damaged(0, 0), Malformed::CutOff);
        assert_eq!(damaged(6, 8), Malformed::CutOff);
        assert_eq!(damaged(HEAD + 2, 0), Malformed::Information);
        assert_eq!(damaged(HEAD + 2, 0xff), Malformed::Information);
        // The handle says that it is longer than its record.
        assert_eq!(damaged(HEAD + 12, 0xff), Malformed::Information);
        // A name without an end.
        let end = whole.len() - 1;
        let mut bytes = whole.clone();
        bytes[end - 3..].fill(b'x');
        if bytes[HEAD + 24..].contains(&0) {
            bytes[HEAD + 24..].fill(b'x');
        }
        assert_eq!(walk(&bytes).unwrap_err(), Malformed::Information);
    }

    proptest! {
        #[test]
        fn no_bytes_harm(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = walk(&bytes);
        }

        #[test]
        fn no_changed_byte_harms(at in 0..200_usize, byte: u8) {
            let mut bytes = [
                record(0x100, &[named(2, "one"), information(99, &[1; 40])]),
                record(0x8, &[named(3, "")]),
            ].concat();
            let length = bytes.len();
            bytes[at % length] = byte;
            let _ = walk(&bytes);
        }
    }
}

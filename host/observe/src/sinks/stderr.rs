//! Standard error, with lines that were written down where they were logged.
//!
//! Absent on purpose: how a line looks. A line that cannot be written is lost, because nobody reads there any
//! more or its disk is full, and trying again would only hold up the end of the host.

use std::io::{self, ErrorKind, Write as _};

use super::{
    delivery::{Attempt, Deliver, Failure, SinkError},
    queue::{Body, Item},
};

pub(super) struct Stderr;

impl Deliver for Stderr {
    fn deliver(&mut self, items: &[Item]) -> Attempt {
        for (delivered, item) in items.iter().enumerate() {
            let Body::Line(line) = &item.body else {
                continue;
            };
            if let Err(source) = io::stderr().lock().write_all(line) {
                let failure = match source.kind() {
                    ErrorKind::WouldBlock => Failure::Sink(SinkError {
                        what: "failed to write to standard error".to_owned(),
                        source,
                    }),
                    _ => Failure::Record(source),
                };
                return Attempt {
                    delivered,
                    failure: Some(failure),
                };
            }
        }
        Attempt::done(items.len())
    }
}

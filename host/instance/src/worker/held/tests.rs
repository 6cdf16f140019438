//! Replies that wait, more of them than may.

use std::sync::mpsc::Receiver;

use super::*;
use crate::worker::fixtures::Host;

const LARGE: usize = LARGEST_OUTGOING as usize;

fn name(text: &str) -> PluginName {
    PluginName::new(text).unwrap()
}

fn alone() -> (Arc<dyn Upward>, Receiver<Report>) {
    let (host, reports) = Host::alone();
    (host, reports)
}

fn given_up(held: &[Held<'_>]) -> Vec<bool> {
    let is_set = |it: &Held<'_>| it.is_given_up().load(Ordering::Relaxed);
    held.iter().map(is_set).collect()
}

#[test]
fn the_largest_holder_loses_its_oldest_reply() {
    let replies = HeldReplies::default();
    let (polite, nothing) = alone();
    let (rude, told) = alone();
    let hold = |plugin: &str, upward, count: u32| {
        let hold = |_| replies.hold(&name(plugin), upward, LARGE).unwrap();
        (0..count).map(hold).collect::<Vec<_>>()
    };
    let honest = hold("honest", &polite, 2);
    let hostile = hold("hostile", &rude, MOST_OUTGOING);
    let others = hold("other", &polite, 1);
    assert_eq!(given_up(&honest), [false; 2]);
    assert_eq!(given_up(&others), [false]);
    let lost = [true, true, true, false, false, false, false, false];
    assert_eq!(given_up(&hostile), lost);
    assert_eq!(replies.given_up(), 3);
    // Each power of two is reported, to the plugin that lost the reply.
    let times = |report| match report {
        Report::ReplyDropped { times, .. } => times,
        other => panic!("{other:?}"),
    };
    assert_eq!(told.try_iter().map(times).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(nothing.try_iter().count(), 0);
}

#[test]
fn a_reply_that_was_taken_makes_room() {
    let replies = HeldReplies::default();
    let (upward, _) = alone();
    for _ in 0..3 * MOST_OUTGOING {
        let held = replies.hold(&name("one"), &upward, LARGE).unwrap();
        assert!(!held.is_given_up().load(Ordering::Relaxed));
    }
    assert_eq!(replies.lock().bytes(), 0);
}

#[test]
fn one_worker_may_hold_every_reply_it_requests() {
    let replies = HeldReplies::default();
    let (upward, _) = alone();
    let hold = |_| replies.hold(&name("one"), &upward, LARGE).unwrap();
    let held: Vec<_> = (0..MOST_OUTGOING).map(hold).collect();
    assert!(!given_up(&held).contains(&true));
}

#[test]
fn small_replies_are_not_counted() {
    let replies = HeldReplies::default();
    let (upward, _) = alone();
    assert!(replies.hold(&name("one"), &upward, SMALL_BYTES).is_none());
}

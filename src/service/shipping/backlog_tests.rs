//! Following and behind, and what fits into memory.

use proptest::prelude::*;
use weir_model::{Digest, Op, Window};

use super::*;
use crate::trace::{Hop, StageCount};

fn table(name: &str) -> TableId {
    TableId::new("shop", name)
}

fn origin(name: &str) -> Origin {
    Origin::Table(table(name))
}

fn commit(name: &str, version: i64) -> Shipment {
    Shipment::of_commit(table(name), version, 0, vec![])
}

/// With so many counts.
fn heavy(origin: Origin, version: i64, counts: usize) -> Shipment {
    let count =
        StageCount { hop: Hop::Published, op: Op::Update, window: Window(0), count: 1, digest: Digest::default() };
    Shipment { origin, version, at_ms: 0, counts: vec![(table("a"), count); counts] }
}

/// Of table `a`, of which everything up to `last` is in the trace.
fn following(last: Option<i64>) -> Backlog {
    let mut backlog = Backlog::new(vec![table("a")], false);
    assert_eq!(backlog.next_step(), Some(Step::Read { origin: origin("a"), mark: None }));
    backlog.read(&origin("a"), last, true);
    backlog
}

fn versions(step: Option<Step>) -> Vec<i64> {
    match step {
        Some(Step::Ship(batch)) => batch.iter().map(|shipment| shipment.version).collect(),
        other => panic!("not to be shipped from memory: {other:?}"),
    }
}

#[test]
fn a_table_is_read_from_its_log_first_and_followed_then() {
    let mut backlog = following(Some(4));
    assert!(backlog.is_empty());
    backlog.arrive(commit("a", 5));
    backlog.arrive(commit("a", 6));
    assert!(!backlog.is_urgent());
    assert_eq!(versions(backlog.next_step()), [5, 6]);
    assert!(backlog.is_empty());
    assert_eq!(backlog.next_step(), None);
}

#[test]
fn a_table_without_commits_is_followed_from_its_first() {
    let mut backlog = following(None);
    backlog.arrive(commit("a", 0));
    assert_eq!(versions(backlog.next_step()), [0]);
}

#[test]
fn a_gap_is_read_from_the_log_and_what_was_held_with_it() {
    let mut backlog = following(Some(4));
    backlog.arrive(commit("a", 5));
    backlog.arrive(commit("a", 7));
    assert_eq!(backlog.missing(), [origin("a")]);
    assert_eq!(backlog.next_step(), Some(Step::Read { origin: origin("a"), mark: None }));
    backlog.read(&origin("a"), Some(7), true);
    backlog.arrive(commit("a", 6));
    backlog.arrive(commit("a", 8));
    assert_eq!(versions(backlog.next_step()), [8]);
}

#[test]
fn what_comes_while_a_log_is_read_is_read_there_too() {
    let mut backlog = Backlog::new(vec![table("a")], false);
    backlog.arrive(commit("a", 3));
    backlog.read(&origin("a"), Some(2), true);
    assert_eq!(backlog.next_step(), Some(Step::Read { origin: origin("a"), mark: Some(Some(2)) }));
    backlog.read(&origin("a"), Some(3), true);
    assert!(backlog.is_empty());
}

#[test]
fn a_version_that_no_log_has_does_not_keep_a_table_behind() {
    let mut backlog = Backlog::new(vec![table("a")], false);
    backlog.arrive(commit("a", 9));
    for _ in 0..2 {
        assert!(!backlog.is_empty());
        backlog.read(&origin("a"), Some(2), true);
    }
    assert!(backlog.is_empty());
}

#[test]
fn a_long_log_is_read_by_turns() {
    let mut backlog = Backlog::new(vec![table("a"), table("b")], false);
    backlog.read(&origin("a"), Some(500), false);
    assert_eq!(backlog.next_step(), Some(Step::Read { origin: origin("b"), mark: None }));
    backlog.read_failed(&origin("b"));
    assert_eq!(backlog.next_step(), Some(Step::Read { origin: origin("a"), mark: Some(Some(500)) }));
}

#[test]
fn held_and_behind_have_their_turns() {
    let mut backlog = following(Some(0));
    backlog.arrive(commit("b", 8));
    backlog.arrive(commit("a", 1));
    assert_eq!(versions(backlog.next_step()), [1]);
    backlog.arrive(commit("a", 2));
    assert_eq!(backlog.next_step(), Some(Step::Read { origin: origin("b"), mark: None }));
    assert_eq!(versions(backlog.next_step()), [2]);
}

#[test]
fn what_could_not_be_shipped_is_read_from_the_log() {
    let mut backlog = following(Some(4));
    backlog.arrive(commit("a", 5));
    let Some(Step::Ship(batch)) = backlog.next_step() else { panic!("nothing to ship") };
    backlog.arrive(commit("a", 6));
    backlog.ship_failed(batch);
    assert_eq!(backlog.next_step(), Some(Step::Read { origin: origin("a"), mark: None }));
    backlog.read(&origin("a"), Some(5), true);
    assert!(!backlog.is_empty(), "version 6 is known");
    backlog.read(&origin("a"), Some(6), true);
    assert!(backlog.is_empty());
}

#[test]
fn what_does_not_fit_is_left_to_the_log() {
    let mut backlog = following(Some(0));
    backlog.arrive(heavy(origin("a"), 1, TRACE_HELD_MAX));
    backlog.arrive(heavy(origin("a"), 2, 1));
    assert_eq!(backlog.held, 0);
    assert_eq!(backlog.next_step(), Some(Step::Read { origin: origin("a"), mark: None }));
}

#[test]
fn capture_without_a_log_is_kept_and_tried_again_within_bounds() {
    let mut backlog = Backlog::new(vec![], false);
    backlog.arrive(heavy(Origin::Capture, 10, 1));
    backlog.arrive(heavy(Origin::Capture, 17, 1));
    let Some(Step::Ship(batch)) = backlog.next_step() else { panic!("nothing to ship") };
    backlog.arrive(heavy(Origin::Capture, 19, 1));
    backlog.ship_failed(batch);
    assert_eq!(versions(backlog.next_step()), [10, 17, 19]);
    backlog.arrive(heavy(Origin::Capture, 20, TRACE_HELD_MAX));
    backlog.arrive(heavy(Origin::Capture, 21, 1));
    assert_eq!((versions(backlog.next_step()), backlog.take_dropped(), backlog.take_dropped()), (vec![21], 1, 0));
}

#[test]
fn capture_with_a_log_is_read_there_and_its_offsets_may_have_gaps() {
    let mut backlog = Backlog::new(vec![], true);
    assert_eq!(backlog.next_step(), Some(Step::Read { origin: Origin::Capture, mark: None }));
    backlog.read(&Origin::Capture, Some(7), true);
    backlog.arrive(heavy(Origin::Capture, 7, 1));
    backlog.arrive(heavy(Origin::Capture, 12, 1));
    let Some(Step::Ship(batch)) = backlog.next_step() else { panic!("nothing to ship") };
    assert_eq!(batch.len(), 1);
    backlog.ship_failed(batch);
    assert_eq!(backlog.next_step(), Some(Step::Read { origin: Origin::Capture, mark: None }));
}

/// What happens to a trace and two tables.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// We commit to a table.
    Ours(usize),
    /// Another process does.
    Theirs(usize),
    /// The task takes a step while the trace is there, or away.
    Step { is_there: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0_usize..2).prop_map(Event::Ours),
        1 => (0_usize..2).prop_map(Event::Theirs),
        4 => any::<bool>().prop_map(|is_there| Event::Step { is_there }),
    ]
}

proptest! {
    /// Whatever happens: no version is shipped above one that is not in, and in the end everything is in.
    #[test]
    fn marks_have_no_gaps_and_everything_comes_in(events in prop::collection::vec(event(), 0..200)) {
        let names = ["a", "b"];
        let mut newest: [Option<i64>; 2] = [None; 2];
        let mut marks: [Option<i64>; 2] = [None; 2];
        let mut backlog = Backlog::new(names.map(table).to_vec(), false);
        // What another process committed last is its own to ship; a commit of ours behind it brings it in.
        let end = [Event::Ours(0), Event::Ours(1)].into_iter();
        let end = end.chain(std::iter::repeat_n(Event::Step { is_there: true }, 20));
        for event in events.into_iter().chain(end) {
            match event {
                Event::Ours(i) | Event::Theirs(i) => {
                    let version = newest[i].map_or(0, |newest| newest + 1);
                    newest[i] = Some(version);
                    if matches!(event, Event::Ours(_)) {
                        backlog.arrive(commit(names[i], version));
                    }
                }
                Event::Step { is_there } => match backlog.next_step() {
                    None => {}
                    Some(Step::Ship(batch)) if is_there => {
                        for shipment in batch {
                            let i = usize::from(shipment.origin == origin("b"));
                            prop_assert!(shipment.version <= marks[i].map_or(0, |mark| mark + 1));
                            marks[i] = marks[i].max(Some(shipment.version));
                        }
                    }
                    Some(Step::Ship(batch)) => backlog.ship_failed(batch),
                    Some(Step::Read { origin: of, mark }) if is_there => {
                        let i = usize::from(of == origin("b"));
                        prop_assert!(mark.is_none_or(|mark| mark <= marks[i]));
                        marks[i] = newest[i];
                        backlog.read(&of, newest[i], true);
                    }
                    Some(Step::Read { origin: of, .. }) => backlog.read_failed(&of),
                },
            }
        }
        prop_assert!(backlog.is_empty());
        prop_assert_eq!(marks, newest);
    }
}

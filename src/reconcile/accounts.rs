//! The equations that the counts of one table keep, in count and in digest, for every window and operation.
//!
//! ```text
//! captured = published + filtered
//! consumed = published + copies             (copies are what was dropped as duplicate, and with it the stale or not)
//! consumed = upserted + deleted + duplicate + superseded + stale
//! chunk rows: read = upserted + stale + duplicate
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Add;

use serde::Serialize;
use weir_model::{Digest, Op, Window};

use crate::trace::{Balance, Hop, StageCount};

/// Half-events: how many, and the sum of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    pub count: u64,
    pub digest: Digest,
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { count: self.count + other.count, digest: self.digest + other.digest }
    }
}

/// An equation that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unbalanced {
    /// The hops at the equation's two sides, the earlier one first.
    pub between: [&'static str; 2],
    /// Start of the window, RFC 3339.
    pub window: String,
    pub op: Op,
    /// By how many they differ; 0 if as many passed on both sides and they are not the same ones.
    pub count: u64,
    /// The window.
    #[serde(skip)]
    pub start: Window,
    /// What passed the earlier hop, less what passed the later one.
    #[serde(skip)]
    pub gap: Digest,
}

/// Amounts of one window and operation.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    amounts: BTreeMap<Hop, Amount>,
}

impl Cell {
    fn of(&self, hop: Hop) -> Amount {
        self.amounts.get(&hop).copied().unwrap_or_default()
    }

    fn sum(&self, hops: &[Hop]) -> Amount {
        hops.iter().fold(Amount::default(), |sum, hop| sum + self.of(*hop))
    }
}

/// What the counts of one table add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    pub unbalanced: Vec<Unbalanced>,
    /// Half-events that came twice between published and consumed, and were dropped the second time: no loss if the
    /// equations hold, but worth knowing.
    pub doubled: u64,
}

/// Checks every equation over `counts`, of which a window, operation and hop may occur more than once. In `open` windows
/// changes are on their way between published and consumed.
pub fn audit(counts: &[StageCount], open: &BTreeSet<Window>) -> Audit {
    let mut cells: BTreeMap<(Window, Op), Cell> = BTreeMap::new();
    for count in counts {
        let cell = cells.entry((count.window, count.op)).or_default();
        let amount = cell.amounts.entry(count.hop).or_default();
        amount.count += count.count;
        amount.digest += count.digest;
    }
    let mut audit = Audit::default();
    for ((window, op), cell) in &cells {
        let copies = copies(cell);
        audit.doubled += copies.map_or(0, |copies| copies.count);
        let equations = [
            captured_is_published_or_filtered(cell),
            if open.contains(window) { Ok(()) } else { consumed_is_published_and_copies(cell, copies) },
            consumed_has_one_fate(cell),
            chunk_rows_have_one_fate(cell),
        ];
        let broken = equations.into_iter().filter_map(Result::err);
        audit.unbalanced.extend(broken.map(|Broken { between, count, gap }| Unbalanced {
            between,
            window: rfc3339(window.0),
            op: *op,
            count,
            start: *window,
            gap,
        }));
    }
    audit
}

/// Whether the counts of one window and operation keep every equation, and in which way: what does can be summed with others
/// that do in the same way.
pub fn adds_up(counts: &[StageCount]) -> Option<Balance> {
    let mut cell = Cell::default();
    for count in counts {
        let amount = cell.amounts.entry(count.hop).or_default();
        *amount = *amount + Amount { count: count.count, digest: count.digest };
    }
    let copies = copies(&cell)?;
    captured_is_published_or_filtered(&cell).ok()?;
    consumed_has_one_fate(&cell).ok()?;
    chunk_rows_have_one_fate(&cell).ok()?;
    let without_stale = copies == cell.of(Hop::Duplicate);
    Some(if without_stale { Balance::WithoutStale } else { Balance::WithStale })
}

/// Two hops that differ, and by what.
struct Broken {
    between: [&'static str; 2],
    count: u64,
    gap: Digest,
}

type Equation = Result<(), Broken>;

fn equal(between: [&'static str; 2], earlier: Amount, later: Amount) -> Equation {
    if earlier == later {
        return Ok(());
    }
    Err(Broken { between, count: earlier.count.abs_diff(later.count), gap: earlier.digest - later.digest })
}

fn captured_is_published_or_filtered(cell: &Cell) -> Equation {
    equal(["captured", "published"], cell.of(Hop::Captured), cell.sum(&[Hop::Published, Hop::Filtered]))
}

/// What was consumed beyond the published; `None` if that is neither all the duplicates nor all the duplicates and stale.
///
/// A copy comes behind its original, and finds its key either as the original left it (a duplicate) or changed since (it
/// is stale). An original is never stale in a stream in order: so where there are copies, all the stale are. Where there
/// are none (after a load, say), all the stale are originals. In both cases an event without a twin that was dropped as a
/// copy is lost, and shows, since what was consumed is not the published and the copies then.
fn copies(cell: &Cell) -> Option<Amount> {
    let published = cell.of(Hop::Published);
    let consumed = cell.of(Hop::Consumed);
    let candidates = [cell.of(Hop::Duplicate), cell.sum(&[Hop::Duplicate, Hop::Stale])];
    candidates.into_iter().find(|copies| published + *copies == consumed)
}

fn consumed_is_published_and_copies(cell: &Cell, copies: Option<Amount>) -> Equation {
    match copies {
        Some(_) => Ok(()),
        None => equal(["published", "consumed"], cell.sum(&[Hop::Published, Hop::Duplicate]), cell.of(Hop::Consumed)),
    }
}

fn consumed_has_one_fate(cell: &Cell) -> Equation {
    let fates = [Hop::Upserted, Hop::Deleted, Hop::Duplicate, Hop::Superseded, Hop::Stale];
    equal(["consumed", "upserted"], cell.of(Hop::Consumed), cell.sum(&fates))
}

/// Rows of chunks have no ids, so their digests are all zero.
fn chunk_rows_have_one_fate(cell: &Cell) -> Equation {
    let fates = [Hop::ChunkUpserted, Hop::ChunkStale, Hop::ChunkDuplicate];
    equal(["chunks.read", "chunks.upserted"], cell.of(Hop::ChunkRead), cell.sum(&fates))
}

/// `2026-11-21T03:00:00Z`.
pub fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_model::EventId;

    use super::*;
    use crate::trace::Tally;

    const WINDOW: Window = Window(1_795_226_400_000);

    fn audit_closed(counts: &[StageCount]) -> Audit {
        audit(counts, &BTreeSet::new())
    }

    #[test]
    fn what_is_on_its_way_in_an_open_window_is_no_difference() {
        let mut tally = passed(&[1]);
        tally.event(Hop::Captured, Op::Update, WINDOW, EventId(2));
        tally.event(Hop::Published, Op::Update, WINDOW, EventId(2));
        assert_eq!(audit(&tally.counts(), &BTreeSet::from([WINDOW])).unbalanced, []);
        assert_eq!(audit_closed(&tally.counts()).unbalanced.len(), 1);
    }

    /// `ids` pass all hops and are upserted.
    fn passed(ids: &[u128]) -> Tally {
        let mut tally = Tally::default();
        for id in ids {
            for hop in [Hop::Captured, Hop::Published, Hop::Consumed, Hop::Upserted] {
                tally.event(hop, Op::Update, WINDOW, EventId(*id));
            }
        }
        tally
    }

    fn broken(tally: &Tally) -> Vec<([&'static str; 2], u64)> {
        audit_closed(&tally.counts()).unbalanced.into_iter().map(|u| (u.between, u.count)).collect()
    }

    #[test]
    fn what_passes_every_hop_is_balanced() {
        assert_eq!(audit_closed(&passed(&[1, 2, u128::MAX]).counts()), Audit::default());
        assert_eq!(audit_closed(&[]), Audit::default());
    }

    #[test]
    fn a_lost_event_names_the_hops_the_window_and_the_operation() {
        let mut tally = passed(&[1, 2]);
        tally.event(Hop::Captured, Op::Update, WINDOW, EventId(3));
        tally.event(Hop::Published, Op::Update, WINDOW, EventId(3));
        let window = "2026-11-21T02:00:00Z".to_owned();
        let (between, start, gap) = (["published", "consumed"], WINDOW, Digest(3));
        let lost = Unbalanced { between, window, op: Op::Update, count: 1, start, gap };
        assert_eq!(audit_closed(&tally.counts()).unbalanced, [lost]);
    }

    #[test]
    fn a_swapped_event_shows_in_the_digest_alone() {
        let mut tally = passed(&[1]);
        tally.event(Hop::Captured, Op::Update, WINDOW, EventId(2));
        tally.event(Hop::Published, Op::Update, WINDOW, EventId(2));
        tally.event(Hop::Consumed, Op::Update, WINDOW, EventId(5));
        tally.event(Hop::Upserted, Op::Update, WINDOW, EventId(5));
        assert_eq!(broken(&tally), [(["published", "consumed"], 0)]);
    }

    #[test]
    fn a_copy_that_was_dropped_is_no_loss() {
        let mut tally = passed(&[1, 2]);
        tally.event(Hop::Consumed, Op::Update, WINDOW, EventId(2));
        tally.event(Hop::Duplicate, Op::Update, WINDOW, EventId(2));
        assert_eq!(audit_closed(&tally.counts()), Audit { unbalanced: Vec::new(), doubled: 1 });
    }

    #[test]
    fn a_copy_that_found_its_key_changed_since_is_stale_and_no_loss() {
        let mut tally = passed(&[1, 2]);
        for id in [1, 2] {
            tally.event(Hop::Consumed, Op::Update, WINDOW, EventId(id));
        }
        tally.event(Hop::Stale, Op::Update, WINDOW, EventId(1));
        tally.event(Hop::Duplicate, Op::Update, WINDOW, EventId(2));
        assert_eq!(audit_closed(&tally.counts()), Audit { unbalanced: Vec::new(), doubled: 2 });
    }

    #[test]
    fn an_original_that_is_stale_beside_copies_that_are_is_told() {
        let mut tally = passed(&[1]);
        tally.event(Hop::Consumed, Op::Update, WINDOW, EventId(1));
        for hop in [Hop::Captured, Hop::Published, Hop::Consumed] {
            tally.event(hop, Op::Update, WINDOW, EventId(2));
        }
        for id in [1, 2] {
            tally.event(Hop::Stale, Op::Update, WINDOW, EventId(id));
        }
        assert_eq!(broken(&tally), [(["published", "consumed"], 1)]);
    }

    #[test]
    fn a_copy_that_was_applied_is_told() {
        let mut tally = passed(&[1]);
        tally.event(Hop::Consumed, Op::Update, WINDOW, EventId(1));
        tally.event(Hop::Upserted, Op::Update, WINDOW, EventId(1));
        assert_eq!(broken(&tally), [(["published", "consumed"], 1)]);
    }

    #[test]
    fn an_event_without_a_twin_that_was_dropped_as_a_copy_is_lost() {
        let mut tally = passed(&[1]);
        for hop in [Hop::Captured, Hop::Published, Hop::Consumed, Hop::Duplicate] {
            tally.event(hop, Op::Update, WINDOW, EventId(9));
        }
        assert_eq!(broken(&tally), [(["published", "consumed"], 1)]);
    }

    #[test]
    fn chunk_rows_keep_a_ledger_of_their_own() {
        let mut tally = Tally::default();
        tally.chunk_rows(Hop::ChunkRead, WINDOW, 10);
        tally.chunk_rows(Hop::ChunkUpserted, WINDOW, 7);
        tally.chunk_rows(Hop::ChunkStale, WINDOW, 2);
        tally.chunk_rows(Hop::ChunkRemoved, WINDOW, 99);
        assert_eq!(broken(&tally), [(["chunks.read", "chunks.upserted"], 1)]);
        tally.chunk_rows(Hop::ChunkDuplicate, WINDOW, 1);
        assert_eq!(broken(&tally), []);
    }

    /// An event, and what becomes of a second delivery of it, if there is one.
    type Delivered = (u128, usize, i64, usize, Option<Hop>);

    fn delivered(second: impl Strategy<Value = Option<Hop>>) -> impl Strategy<Value = Delivered> {
        (any::<u128>(), 0_usize..3, 0_i64..3, 0_usize..3, second)
    }

    /// Originals have a fate of their own, in a stream in order; copies are dropped as duplicate or stale.
    fn through_a_broker() -> impl Strategy<Value = Vec<Delivered>> {
        let second = prop_oneof![4 => Just(None), 1 => Just(Some(Hop::Duplicate)), 1 => Just(Some(Hop::Stale))];
        prop::collection::vec(delivered(second), 1..40)
    }

    /// Every count that is made, in order.
    fn counted(events: &[Delivered]) -> Vec<(Hop, Op, Window, EventId)> {
        let mut counts = Vec::new();
        for (id, op, window, fate, second) in events {
            let fate = [Hop::Upserted, Hop::Deleted, Hop::Superseded][*fate];
            let copy: Vec<Hop> = second.iter().flat_map(|second| [Hop::Consumed, *second]).collect();
            for hop in [Hop::Captured, Hop::Published, Hop::Consumed, fate].into_iter().chain(copy) {
                counts.push((hop, Op::STREAM[*op], Window(window * Window::LENGTH_MS), EventId(*id)));
            }
        }
        counts
    }

    fn tally<'a>(counts: impl IntoIterator<Item = &'a (Hop, Op, Window, EventId)>) -> Vec<StageCount> {
        let mut tally = Tally::default();
        for (hop, op, window, id) in counts {
            tally.event(*hop, *op, *window, *id);
        }
        tally.counts()
    }

    proptest! {
        /// Leaving out any one count of any one event is seen.
        #[test]
        fn no_single_omission_is_overlooked(
            events in prop::collection::vec((any::<u128>(), 0_usize..3, 0_i64..3, 0_usize..4), 1..40),
            at in any::<prop::sample::Index>(),
            omitted in 0_usize..4,
        ) {
            let at = at.index(events.len());
            let mut whole = Tally::default();
            let mut lacking = Tally::default();
            for (i, (id, op, window, fate)) in events.iter().enumerate() {
                let fate = [Hop::Upserted, Hop::Deleted, Hop::Superseded, Hop::Stale][*fate];
                for (n, hop) in [Hop::Captured, Hop::Published, Hop::Consumed, fate].into_iter().enumerate() {
                    let window = Window(window * Window::LENGTH_MS);
                    whole.event(hop, Op::STREAM[*op], window, EventId(*id));
                    if (i, n) != (at, omitted) {
                        lacking.event(hop, Op::STREAM[*op], window, EventId(*id));
                    }
                }
            }
            prop_assert_eq!(audit_closed(&whole.counts()), Audit::default());
            prop_assert!(!audit_closed(&lacking.counts()).unbalanced.is_empty());
        }

        #[test]
        fn copies_that_were_dropped_are_balanced_and_counted(events in through_a_broker()) {
            let copies = events.iter().filter(|event| event.4.is_some()).count() as u64;
            prop_assert_eq!(audit_closed(&tally(&counted(&events))), Audit { unbalanced: Vec::new(), doubled: copies });
        }

        /// Minutes that add up say the same once they are summed, by the way in which they do.
        #[test]
        fn sums_of_minutes_that_add_up_are_judged_as_the_minutes_were(events in through_a_broker()) {
            let counts = tally(&counted(&events));
            let mut cells: BTreeMap<(Window, Op), Vec<StageCount>> = BTreeMap::new();
            for count in &counts {
                cells.entry((count.window, count.op)).or_default().push(*count);
            }
            let mut summed = Vec::new();
            for counts in cells.values() {
                let balance = adds_up(counts);
                prop_assert!(balance.is_some());
                let window = balance.unwrap_or(Balance::WithStale).window(0);
                summed.extend(counts.iter().map(|count| StageCount { window, ..*count }));
            }
            prop_assert_eq!(audit_closed(&summed), audit_closed(&counts));
        }

        /// With copies about, leaving out any one count of any one event is seen.
        #[test]
        fn no_single_omission_is_overlooked_among_copies(
            events in through_a_broker(),
            omitted in any::<prop::sample::Index>(),
        ) {
            let mut counts = counted(&events);
            counts.remove(omitted.index(counts.len()));
            prop_assert!(!audit_closed(&tally(&counts)).unbalanced.is_empty());
        }

        /// So is counting it twice.
        #[test]
        fn no_single_doubling_is_overlooked_among_copies(
            events in through_a_broker(),
            doubled in any::<prop::sample::Index>(),
        ) {
            let mut counts = counted(&events);
            counts.push(counts[doubled.index(counts.len())]);
            prop_assert!(!audit_closed(&tally(&counts)).unbalanced.is_empty());
        }

        /// A published event that never came, and a second delivery that was applied, are told whatever else came.
        #[test]
        fn a_loss_and_a_doubled_row_are_told_among_copies(
            events in through_a_broker(),
            one in any::<prop::sample::Index>(),
            is_lost in any::<bool>(),
        ) {
            let mut counts = counted(&events);
            let (id, op, window, ..) = events[one.index(events.len())];
            let (op, window) = (Op::STREAM[op], Window(window * Window::LENGTH_MS));
            // One that nothing else is a copy of.
            let id = EventId(id ^ (1 << 77));
            let hops: &[Hop] = if is_lost {
                &[Hop::Captured, Hop::Published]
            } else {
                &[Hop::Captured, Hop::Published, Hop::Consumed, Hop::Upserted, Hop::Consumed, Hop::Upserted]
            };
            counts.extend(hops.iter().map(|hop| (*hop, op, window, id)));
            let unbalanced = audit_closed(&tally(&counts)).unbalanced;
            prop_assert!(unbalanced.iter().any(|unbalanced| unbalanced.between == ["published", "consumed"]));
        }
    }
}

//! The equations that the counts of one table keep, in count and in digest, for every window and operation.
//!
//! ```text
//! captured = published + filtered
//! consumed = published + duplicate          (only a copy may be dropped as one; `direct` makes none)
//! consumed = upserted + deleted + duplicate + superseded + stale
//! chunk rows: read = upserted + stale + duplicate
//! ```

use std::collections::BTreeMap;

use serde::Serialize;
use weir_model::{Digest, Op, Window};

use crate::trace::{Hop, StageCount};

/// Half-events: how many, and the sum of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    pub count: u64,
    pub digest: Digest,
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
        hops.iter().fold(Amount::default(), |sum, hop| {
            let amount = self.of(*hop);
            Amount { count: sum.count + amount.count, digest: sum.digest + amount.digest }
        })
    }
}

/// What the counts of one table add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    pub unbalanced: Vec<Unbalanced>,
    /// Half-events that were dropped as copies of others: no loss if the equations hold, but worth knowing.
    pub doubled: u64,
}

/// Checks every equation over `counts`, of which a window, operation and hop may occur more than once.
pub fn audit(counts: &[StageCount]) -> Audit {
    let mut cells: BTreeMap<(Window, Op), Cell> = BTreeMap::new();
    for count in counts {
        let cell = cells.entry((count.window, count.op)).or_default();
        let amount = cell.amounts.entry(count.hop).or_default();
        amount.count += count.count;
        amount.digest += count.digest;
    }
    let mut audit = Audit::default();
    for ((window, op), cell) in &cells {
        let equations = [
            captured_is_published_or_filtered(cell),
            consumed_is_published_and_copies(cell),
            consumed_has_one_fate(cell),
            chunk_rows_have_one_fate(cell),
        ];
        audit.doubled += cell.of(Hop::Duplicate).count;
        let broken = equations.into_iter().filter_map(Result::err);
        audit.unbalanced.extend(broken.map(|(between, count)| Unbalanced {
            between,
            window: rfc3339(window.0),
            op: *op,
            count,
        }));
    }
    audit
}

/// `Err` with the hops and by how many they differ.
type Equation = Result<(), ([&'static str; 2], u64)>;

fn equal(between: [&'static str; 2], earlier: Amount, later: Amount) -> Equation {
    if earlier == later { Ok(()) } else { Err((between, earlier.count.abs_diff(later.count))) }
}

fn captured_is_published_or_filtered(cell: &Cell) -> Equation {
    equal(["captured", "published"], cell.of(Hop::Captured), cell.sum(&[Hop::Published, Hop::Filtered]))
}

/// What goes beyond the published are copies, and all that was dropped as a copy goes beyond the published: an event
/// without a twin that was dropped as one is lost.
fn consumed_is_published_and_copies(cell: &Cell) -> Equation {
    let with_copies = cell.sum(&[Hop::Published, Hop::Duplicate]);
    equal(["published", "consumed"], with_copies, cell.of(Hop::Consumed))
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
pub(super) fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_model::EventId;

    use super::*;
    use crate::trace::Tally;

    const WINDOW: Window = Window(1_795_226_400_000);

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
        audit(&tally.counts()).unbalanced.into_iter().map(|u| (u.between, u.count)).collect()
    }

    #[test]
    fn what_passes_every_hop_is_balanced() {
        assert_eq!(audit(&passed(&[1, 2, u128::MAX]).counts()), Audit::default());
        assert_eq!(audit(&[]), Audit::default());
    }

    #[test]
    fn a_lost_event_names_the_hops_the_window_and_the_operation() {
        let mut tally = passed(&[1, 2]);
        tally.event(Hop::Captured, Op::Update, WINDOW, EventId(3));
        tally.event(Hop::Published, Op::Update, WINDOW, EventId(3));
        let window = "2026-11-21T02:00:00Z".to_owned();
        let lost = Unbalanced { between: ["published", "consumed"], window, op: Op::Update, count: 1 };
        assert_eq!(audit(&tally.counts()).unbalanced, [lost]);
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
        assert_eq!(audit(&tally.counts()), Audit { unbalanced: Vec::new(), doubled: 1 });
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
            prop_assert_eq!(audit(&whole.counts()), Audit::default());
            prop_assert!(!audit(&lacking.counts()).unbalanced.is_empty());
        }
    }
}

//! Many changes of a batch to one a key: the greatest order wins. Pure.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use foldhash::fast::RandomState;
use weir_model::key::KeyRef;
use weir_model::{ChangeBatch, Op, Order, RecordKeys};

use crate::trace::{Hop, Tally};

/// A change by where it lies in the batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeAt {
    pub batch: u32,
    pub row: u32,
}

/// The one change of each key that is left, in no particular order, and what became of the others.
#[derive(Debug)]
pub struct Reduced {
    pub winners: Vec<ChangeAt>,
    /// `consumed` for every change, and what became of those that are not among the winners.
    pub tally: Tally,
}

/// Tells the copies in a bucket's stream from its originals: originals rise, and a copy comes behind what it is a copy
/// of.
#[derive(Debug, Default)]
pub struct Lateness {
    /// Of each bucket the greatest order that came; empty where there are no copies.
    greatest: BTreeMap<u32, Order>,
    /// The bucket of each batch.
    buckets: Vec<u32>,
    /// Every order so far, once it matters.
    seen: Option<HashSet<Order, RandomState>>,
}

impl Lateness {
    /// For batches of these buckets, whose tables have come to these orders.
    pub fn new(greatest: BTreeMap<u32, Order>, buckets: Vec<u32>) -> Self {
        Self { greatest, buckets, seen: None }
    }

    /// `None` for a change in its order; for one that comes late, how it is counted if it loses.
    fn of(&mut self, batches: &[ChangeBatch], at: ChangeAt) -> Option<Hop> {
        let bucket = *self.buckets.get(at.batch as usize)?;
        let order = order(batches, at);
        let greatest = self.greatest.entry(bucket).or_insert(Order::MIN);
        let late = order <= *greatest;
        *greatest = order.max(*greatest);
        if !late {
            if let Some(seen) = &mut self.seen {
                seen.insert(order);
            }
            return None;
        }
        let seen = self.seen.get_or_insert_with(|| orders_before(batches, at));
        Some(if seen.insert(order) { Hop::Stale } else { Hop::Duplicate })
    }
}

fn orders_before(batches: &[ChangeBatch], at: ChangeAt) -> HashSet<Order, RandomState> {
    let whole = batches[..at.batch as usize].iter().flat_map(|batch| &batch.orders);
    whole.chain(&batches[at.batch as usize].orders[..at.row as usize]).copied().collect()
}

/// Folds `batches`, whose record keys are `keys`, to one change a key.
///
/// A change with the order of one already seen is a copy of it (`duplicate`); one with a lower order is `superseded`, or
/// `stale` if it came late. All are counted and none is applied.
pub fn reduce(batches: &[ChangeBatch], keys: &[RecordKeys], mut lateness: Lateness) -> Reduced {
    let total: usize = batches.iter().map(ChangeBatch::len).sum();
    let mut newest: HashMap<KeyRef<'_>, (ChangeAt, Option<Hop>), RandomState> =
        HashMap::with_capacity_and_hasher(total, RandomState::default());
    let mut tally = Tally::default();
    for (b, (batch, keys)) in batches.iter().zip(keys).enumerate() {
        for row in 0..batch.len() {
            let at = ChangeAt { batch: b as u32, row: row as u32 };
            count(&mut tally, Hop::Consumed, batches, at);
            let late = lateness.of(batches, at);
            match newest.entry(keys.get(row)) {
                Entry::Vacant(entry) => {
                    entry.insert((at, late));
                }
                Entry::Occupied(mut entry) => {
                    let (lost, hop) = match order(batches, at).cmp(&order(batches, entry.get().0)) {
                        std::cmp::Ordering::Equal => (at, Hop::Duplicate),
                        std::cmp::Ordering::Less => (at, late.unwrap_or(Hop::Superseded)),
                        std::cmp::Ordering::Greater => {
                            let (lost, late) = entry.insert((at, late));
                            (lost, late.unwrap_or(Hop::Superseded))
                        }
                    };
                    count(&mut tally, hop, batches, lost);
                }
            }
        }
    }
    Reduced { winners: newest.into_values().map(|(at, _)| at).collect(), tally }
}

/// The order of the change at `at`.
pub fn order(batches: &[ChangeBatch], at: ChangeAt) -> Order {
    batches[at.batch as usize].orders[at.row as usize]
}

/// The operation of the change at `at`.
pub fn op(batches: &[ChangeBatch], at: ChangeAt) -> Op {
    batches[at.batch as usize].ops[at.row as usize]
}

/// Counts the change at `at` for `hop`.
pub fn count(tally: &mut Tally, hop: Hop, batches: &[ChangeBatch], at: ChangeAt) {
    let (batch, row) = (&batches[at.batch as usize], at.row as usize);
    tally.event(hop, batch.ops[row], batch.windows[row], batch.ids[row]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_model::change::Stamp;
    use weir_model::{ChangeBuilder, Column, ColumnType, EventId, Half, TableId, TableSchema, Window, ZeroDates};

    use super::*;

    /// Updates of `(key, seq)`, in one batch.
    fn batch(changes: &[(i64, i64)]) -> ChangeBatch {
        let columns = vec![Column { name: "id".into(), ty: ColumnType::Int64, nullable: false }];
        let schema = TableSchema {
            table: TableId::new("shop", "orders"),
            columns,
            key: vec![0],
            layout: weir_model::Layout::default(),
        };
        let mut builder = ChangeBuilder::new(Arc::new(schema), ZeroDates::Null);
        for (key, _) in changes {
            builder.columns_mut()[0].push_int(*key).unwrap();
            builder.end_row(Op::Update, Half::First);
        }
        let mut seqs = changes.iter().map(|(_, seq)| *seq);
        builder.stamp(|_, _| {
            let seq = seqs.next().unwrap();
            Stamp { order: Order::new(1, seq), id: EventId(seq as u128), window: Window(0) }
        });
        builder.finish()
    }

    /// Totals of duplicate, stale and superseded, in a bucket that has come to `greatest`.
    fn losers(changes: &[(i64, i64)], greatest: Option<i64>) -> [u64; 3] {
        let batches = [batch(changes)];
        let keys = [RecordKeys::of(&batches[0].rows, &["id"]).unwrap()];
        let lateness = match greatest {
            Some(seq) => Lateness::new(BTreeMap::from([(0, Order::new(1, seq))]), vec![0]),
            None => Lateness::default(),
        };
        let tally = reduce(&batches, &keys, lateness).tally;
        [Hop::Duplicate, Hop::Stale, Hop::Superseded].map(|hop| tally.total(hop))
    }

    #[test]
    fn a_copy_is_told_from_what_it_is_a_copy_of_whatever_came_between() {
        // The copy of 5 comes behind 6, which has superseded it.
        assert_eq!(losers(&[(1, 5), (1, 6), (1, 5)], Some(4)), [1, 0, 1]);
        // 3 was taken in before; its copy is displaced by what is newer, or loses to it.
        assert_eq!(losers(&[(1, 3), (1, 6)], Some(4)), [0, 1, 0]);
        assert_eq!(losers(&[(1, 6), (1, 3)], Some(4)), [0, 1, 0]);
    }

    #[test]
    fn what_comes_in_order_is_superseded() {
        assert_eq!(losers(&[(1, 5), (2, 6), (1, 7)], Some(4)), [0, 0, 1]);
        assert_eq!(losers(&[(1, 5), (1, 7), (1, 6)], None), [0, 0, 2]);
    }
}

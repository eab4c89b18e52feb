//! Many changes of a batch to one a key: the greatest order wins. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};

use foldhash::fast::RandomState;
use weir_model::key::KeyRef;
use weir_model::{ChangeBatch, Op, Order, RecordKeys};

use crate::trace::{Hop, Tally};

/// A change by where it lies in the batches; they come in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeAt {
    pub batch: u32,
    pub row: u32,
}

/// The one change of each key that is left, ascending by key, and what became of the others.
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
    let mut tally = Tally::default();
    let mut late: HashMap<ChangeAt, Hop, RandomState> = HashMap::default();
    for at in (0..batches.len() as u32).flat_map(|batch| changes_of(batches, batch)) {
        count(&mut tally, Hop::Consumed, batches, at);
        if let Some(hop) = lateness.of(batches, at) {
            late.insert(at, hop);
        }
    }
    let lost = |at: ChangeAt| late.get(&at).copied().unwrap_or(Hop::Superseded);
    let mut winners: Vec<ChangeAt> = Vec::new();
    let mut fold = |is_of_last: bool, at: ChangeAt| {
        let Some(best) = winners.last_mut().filter(|_| is_of_last) else { return winners.push(at) };
        let (loser, hop) = match order(batches, at).cmp(&order(batches, *best)) {
            Ordering::Equal => (at, Hop::Duplicate),
            Ordering::Less => (at, lost(at)),
            Ordering::Greater => {
                let before = std::mem::replace(best, at);
                (before, lost(before))
            }
        };
        count(&mut tally, hop, batches, loser);
    };
    // By numbers where keys are numbers: what is sorted is half as large then.
    if keys.iter().all(|keys| matches!(keys, RecordKeys::Int(_))) {
        fold_by_key(batches, keys, |key| if let KeyRef::Int(value) = key { value } else { 0 }, &mut fold);
    } else {
        fold_by_key(batches, keys, |key| key, &mut fold);
    }
    Reduced { winners, tally }
}

/// Gives every change to `fold`, ascending by key and in the order in which they came, and whether the one before has the
/// same key.
fn fold_by_key<'a, K: Ord + Copy>(
    batches: &[ChangeBatch],
    keys: &'a [RecordKeys],
    sort_key: impl Fn(KeyRef<'a>) -> K,
    fold: &mut impl FnMut(bool, ChangeAt),
) {
    let mut all: Vec<(K, ChangeAt)> = Vec::with_capacity(batches.iter().map(ChangeBatch::len).sum());
    for (batch, keys) in keys.iter().enumerate() {
        all.extend(changes_of(batches, batch as u32).map(|at| (sort_key(keys.get(at.row as usize)), at)));
    }
    all.sort_unstable();
    let mut last = None;
    for (key, at) in all {
        fold(last == Some(key), at);
        last = Some(key);
    }
}

fn changes_of(batches: &[ChangeBatch], batch: u32) -> impl Iterator<Item = ChangeAt> {
    (0..batches[batch as usize].len() as u32).map(move |row| ChangeAt { batch, row })
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

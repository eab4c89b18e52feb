//! Many changes of a batch to one a key: the greatest order wins. Pure.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

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
    /// `consumed` for every change, `duplicate` and `superseded` for those that are not among the winners.
    pub tally: Tally,
}

/// Folds `batches`, whose record keys are `keys`, to one change a key.
///
/// A change with the order of one already seen is a copy of it (`duplicate`); one with a lower order is
/// `superseded`. Both are counted and neither is applied.
pub fn reduce(batches: &[ChangeBatch], keys: &[RecordKeys]) -> Reduced {
    let total: usize = batches.iter().map(ChangeBatch::len).sum();
    let mut newest: HashMap<KeyRef<'_>, ChangeAt, RandomState> =
        HashMap::with_capacity_and_hasher(total, RandomState::default());
    let mut tally = Tally::default();
    for (b, (batch, keys)) in batches.iter().zip(keys).enumerate() {
        for row in 0..batch.len() {
            let at = ChangeAt { batch: b as u32, row: row as u32 };
            count(&mut tally, Hop::Consumed, batches, at);
            match newest.entry(keys.get(row)) {
                Entry::Vacant(entry) => {
                    entry.insert(at);
                }
                Entry::Occupied(mut entry) => {
                    let (lost, hop) = match order(batches, at).cmp(&order(batches, *entry.get())) {
                        std::cmp::Ordering::Equal => (at, Hop::Duplicate),
                        std::cmp::Ordering::Less => (at, Hop::Superseded),
                        std::cmp::Ordering::Greater => (entry.insert(at), Hop::Superseded),
                    };
                    count(&mut tally, hop, batches, lost);
                }
            }
        }
    }
    Reduced { winners: newest.into_values().collect(), tally }
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

//! Which changes of a batch the table takes. Pure but for asking the index, and for orders when a change could lose.

use weir_model::key::KeyRef;
use weir_model::layout::Deletes;
use weir_model::{ChangeBatch, Op, Order, RecordKey, RecordKeys};

use super::reduce::{ChangeAt, Reduced, count, op, order};
use crate::trace::{Hop, Tally};

/// What a table knows of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A live row whose order is this one.
    Live(Order),
    /// A live row whose order is below every order in question: none needs to be read.
    LiveBelow,
    /// Deleted by a change of this order.
    Deleted(Order),
    /// No row, and no delete above the floor.
    Absent,
}

/// Whether a change enters the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Accepted,
    /// A copy of the change that made the row what it is.
    Duplicate,
    /// Older than what the table has, or than the floor.
    Stale,
}

/// The rule: a change enters only if its order is greater than the key's; of an absent key, than the floor.
pub fn fate(change: Order, known: Known, floor: Order) -> Fate {
    let against = match known {
        Known::LiveBelow => return Fate::Accepted,
        Known::Live(order) | Known::Deleted(order) => order,
        Known::Absent if change > floor => return Fate::Accepted,
        Known::Absent => return Fate::Stale,
    };
    match change.cmp(&against) {
        std::cmp::Ordering::Greater => Fate::Accepted,
        std::cmp::Ordering::Equal => Fate::Duplicate,
        std::cmp::Ordering::Less => Fate::Stale,
    }
}

/// What a commit does with the stream's changes.
#[derive(Debug, Default)]
pub struct StreamPlan {
    /// Rows that become live, ascending by record key; with soft deletes those of deleted keys, too. In a table that is
    /// appended to every change, as they came.
    pub upserts: Vec<ChangeAt>,
    /// Keys whose row goes, with the order of the delete; none with soft deletes.
    pub deletes: Vec<(RecordKey, Order)>,
    pub tally: Tally,
}

/// Sorts the winners of `reduced` into upserts, deletes and losers; `known` says what the table has of each winner's key, one
/// after another, `floor` the order at and below which it has forgotten deletes of a key. A soft delete is a row like others: the
/// last image, marked.
pub fn plan(
    batches: &[ChangeBatch],
    keys: &[RecordKeys],
    reduced: Reduced,
    deletes: Deletes,
    floor: impl Fn(KeyRef<'_>) -> Order,
    known: impl Iterator<Item = Known>,
) -> StreamPlan {
    let mut result = StreamPlan { tally: reduced.tally, ..StreamPlan::default() };
    for (at, known) in reduced.winners.into_iter().zip(known) {
        let key = keys[at.batch as usize].get(at.row as usize);
        let change = order(batches, at);
        let hop = match fate(change, known, floor(key)) {
            Fate::Duplicate => Hop::Duplicate,
            Fate::Stale => Hop::Stale,
            Fate::Accepted if op(batches, at) == Op::Delete => {
                match deletes {
                    Deletes::Hard => result.deletes.push((key.to_owned(), change)),
                    Deletes::Soft => result.upserts.push(at),
                }
                Hop::Deleted
            }
            Fate::Accepted => {
                result.upserts.push(at);
                Hop::Upserted
            }
        };
        count(&mut result.tally, hop, batches, at);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_greater_order_enters() {
        let (low, mid, high) = (Order::new(1, 1), Order::new(1, 2), Order::new(2, 3));
        for known in [Known::Live(mid), Known::Deleted(mid)] {
            assert_eq!(fate(high, known, Order::MIN), Fate::Accepted);
            assert_eq!(fate(mid, known, Order::MIN), Fate::Duplicate);
            assert_eq!(fate(low, known, Order::MIN), Fate::Stale);
        }
    }

    #[test]
    fn an_absent_key_is_judged_by_the_floor() {
        assert_eq!(fate(Order::new(5, 5), Known::Absent, Order::new(5, 5)), Fate::Stale);
        assert_eq!(fate(Order::new(5, 6), Known::Absent, Order::new(5, 5)), Fate::Accepted);
    }
}

//! What an own commit says of itself, so that the newest one alone tells where the table stands.

use serde::{Deserialize, Serialize};
use weir_model::{Gtid, GtidSet, Order, OrderState, TableSchema};

use crate::trace::StageCount;

/// What every own commit repeats.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableState {
    /// Epoch of the service that wrote the commit.
    pub epoch: u64,
    /// Number of own commits, this one included; the version of the commit's `txn`.
    pub commits: u64,
    /// Transactions whose changes the table holds (or that do not touch it).
    pub gtid_set: GtidSet,
    /// A transaction that is in the table only in part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<PartialTransaction>,
    /// The last order handed out to the table's changes and chunks.
    pub order: OrderState,
    /// Greatest order of a change (deletes included) per bucket.
    pub greatest: Vec<Order>,
    /// Progress of the load that fills the table; none once it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<SeedProgress>,
    /// The source's columns and record key that the table has.
    pub schema: Option<TableSchema>,
}

/// A transaction larger than the memory allowed, of which the first row changes are committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialTransaction {
    pub gtid: Gtid,
    /// Row changes of this table that the commits hold, counted from the transaction's start.
    pub rows_done: u64,
}

/// Which chunks of a load have been merged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SeedProgress {
    /// Number of the plan object that lists the chunks.
    pub plan: u64,
    /// Ordinals of the merged chunks, ascending.
    pub done: Vec<u32>,
    /// Rows below this order, and not touched since, are gone from the source once every chunk is merged.
    pub start: Order,
}

/// The `weir` member of an own commit's `commitInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// Name of the source that the table mirrors.
    pub source: String,
    /// Unique to one attempt at a commit, so that an ambiguous answer can be settled by reading.
    pub commit_id: String,
    pub state: TableState,
    /// What this commit counted.
    pub accounts: Vec<StageCount>,
}

/// A state that may stand behind `before` in the same incarnation: nothing that is held is given up.
///
/// # Errors
/// Names the rule that is broken.
pub fn may_follow(before: &TableState, after: &TableState) -> Result<(), &'static str> {
    if after.epoch < before.epoch {
        return Err("the epoch fell");
    }
    if after.commits != before.commits + 1 {
        return Err("own commits are numbered one by one");
    }
    if after.order < before.order {
        return Err("the order state fell");
    }
    if after.greatest.len() < before.greatest.len() || after.greatest.iter().zip(&before.greatest).any(|(a, b)| a < b) {
        return Err("a bucket's greatest order fell");
    }
    if !before.gtid_set.is_subset(&after.gtid_set) {
        return Err("the set of transactions shrank");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_held_may_be_given_up() {
        let set = |text: &str| format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{text}").parse().unwrap();
        let before = TableState { epoch: 2, commits: 4, gtid_set: set("1-9"), ..TableState::default() };
        let after = TableState { commits: 5, gtid_set: set("1-12"), ..before.clone() };
        assert_eq!(may_follow(&before, &after), Ok(()));
        assert!(may_follow(&before, &TableState { epoch: 1, ..after.clone() }).is_err());
        assert!(may_follow(&before, &TableState { gtid_set: set("2-12"), ..after.clone() }).is_err());
        assert!(may_follow(&before, &TableState { commits: 4, ..after }).is_err());
    }

    #[test]
    fn greatest_orders_neither_fall_nor_go() {
        let greatest = |seqs: &[i64]| seqs.iter().map(|seq| Order::new(1, *seq)).collect();
        let before = TableState { commits: 4, greatest: greatest(&[3, 5]), ..TableState::default() };
        let after = |seqs| TableState { commits: 5, greatest: greatest(seqs), ..before.clone() };
        assert_eq!(may_follow(&before, &after(&[3, 6])), Ok(()));
        assert_eq!(may_follow(&before, &after(&[3, 5, 1])), Ok(()));
        for fallen in [&[3, 4][..], &[9], &[]] {
            assert!(may_follow(&before, &after(fallen)).is_err(), "{fallen:?}");
        }
    }
}

//! The upsert engine: one Delta table, merge-on-read, with a key index. A commit costs what changed.

use serde::{Deserialize, Serialize};
use weir_model::{Gtid, GtidSet, Order, OrderState, TableSchema};

use crate::trace::StageCount;

/// What every own commit repeats, so that the newest one alone says where the table stands.
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
    /// The source's schema that the rows were written with.
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

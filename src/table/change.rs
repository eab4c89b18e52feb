//! What one commit is asked to do, and what came of it.

use arrow_array::RecordBatch;
use weir_model::{Order, RecordKey, RecordKeys, TableSchema};

use super::chunk::StagedChunk;
use super::record::TableState;
use crate::trace::{StageCount, Tally};

/// Everything that one commit changes. Its parts are applied in the order of the members. No key is changed twice, and a
/// chunk comes alone.
#[derive(Debug)]
pub struct TableChange {
    /// Every row goes; deletes at or below this order are forgotten.
    pub clear: Option<Order>,
    /// The table gets these columns. Without `clear` only additions can be.
    pub evolve: Option<TableSchema>,
    /// Rows that become live, in the lake table's columns and ascending by key, with their keys. What was live of a
    /// key goes.
    pub rows: Option<(RecordBatch, RecordKeys)>,
    /// Keys whose row goes, with the order of the delete.
    pub deletes: Vec<(RecordKey, Order)>,
    /// A chunk whose upper bound has been passed: of each key the greater order stays.
    pub staged: Option<StagedChunk>,
    /// Live rows below this order go: what a load of the whole table did not find.
    pub remove_below: Option<Order>,
    /// Where the table stands with this commit; epoch and number of commits are set by the table.
    pub state: TableState,
    /// What was counted on the way; chunk outcomes are added by the table.
    pub accounts: Tally,
}

impl TableChange {
    /// A commit that changes nothing but the state.
    pub fn to(state: TableState) -> Self {
        Self {
            clear: None,
            evolve: None,
            rows: None,
            deletes: Vec::new(),
            staged: None,
            remove_below: None,
            state,
            accounts: Tally::default(),
        }
    }
}

/// How a commit ended, where the caller goes on differently.
#[derive(Debug)]
pub enum CommitOutcome {
    Committed { version: i64, accounts: Vec<StageCount> },
    /// Someone else has written this version: nothing of ours is in, and the table must be opened anew.
    Moved,
    /// A service of a greater epoch has written the table.
    Fenced { epoch: u64 },
}

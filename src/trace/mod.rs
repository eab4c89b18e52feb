//! What passed each hop: counts and digests per table, operation and window of event time, and where they are kept.
//!
//! Commits carry their counts; a [`TraceSink`] gathers them, so that the whole of a table's history can be summed
//! without its log. What a sink lacks or loses is shipped again from the tables' commits. Comparing the sums is
//! `reconcile`'s business.

#[cfg(test)]
mod contract;
pub mod sqlite;
mod tally;

use std::future::Future;

use serde::{Deserialize, Serialize};
use weir_model::{Digest, Op, TableId, Window};

pub use self::tally::Tally;

/// Keeps the counts of commits.
///
/// Identity: a count is `(source, table, version, window, op, hop)`. Shipping a commit again, whole or by another
/// process, changes nothing. Ordering: a table's commits are shipped in ascending order of version, which makes
/// [`Self::shipped_version`] a mark below which nothing is missing. Durability: when `ship` returns, the counts and the
/// mark are durable, both or neither. Cancellation: a dropped `ship` has happened or not; ship again.
pub trait TraceSink: Send + Sync {
    /// Takes in what one commit counted; `at_ms` is the time of the commit, ms since the epoch.
    fn ship(
        &self,
        source: &str,
        table: &TableId,
        version: i64,
        at_ms: i64,
        accounts: &[StageCount],
    ) -> impl Future<Output = Result<(), TraceError>> + Send;

    /// The greatest version of `table` that was shipped, if any was.
    fn shipped_version(
        &self,
        source: &str,
        table: &TableId,
    ) -> impl Future<Output = Result<Option<i64>, TraceError>> + Send;

    /// Sums over every shipped commit, one entry a window, operation and hop; only windows from `since` on.
    fn totals(
        &self,
        source: &str,
        table: &TableId,
        since: Option<Window>,
    ) -> impl Future<Output = Result<Vec<StageCount>, TraceError>> + Send;

    /// Drops all that is known of `table`: its lake table was made anew and counts versions from 0 again.
    fn forget(&self, source: &str, table: &TableId) -> impl Future<Output = Result<(), TraceError>> + Send;
}

/// The trace cannot be reached, read or written.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("trace {place}: {source}")]
    Store { place: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// What it holds was written by a later version or is not a trace.
    #[error("trace {place}: {what}")]
    Foreign { place: String, what: String },
}

impl From<TraceError> for crate::error::Error {
    fn from(error: TraceError) -> Self {
        let (TraceError::Store { place, .. } | TraceError::Foreign { place, .. }) = &error;
        Self::failed("the trace cannot be used")
            .at(place.clone())
            .way_out("make [apply] state_dir writable; a trace file that is removed is filled again from the tables' commits")
            .because(error)
    }
}

/// A place where half-events are counted. The first nine are the stream's, the last four the chunks' (snapshot and
/// backfill), which keep a ledger of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hop {
    Captured,
    Filtered,
    Published,
    Consumed,
    Upserted,
    Deleted,
    Duplicate,
    Superseded,
    Stale,
    ChunkRead,
    ChunkUpserted,
    ChunkStale,
    ChunkDuplicate,
    ChunkRemoved,
}

impl Hop {
    /// Every hop.
    pub const ALL: [Self; 14] = [
        Self::Captured,
        Self::Filtered,
        Self::Published,
        Self::Consumed,
        Self::Upserted,
        Self::Deleted,
        Self::Duplicate,
        Self::Superseded,
        Self::Stale,
        Self::ChunkRead,
        Self::ChunkUpserted,
        Self::ChunkStale,
        Self::ChunkDuplicate,
        Self::ChunkRemoved,
    ];

    /// As in commits and in the trace.
    pub fn name(self) -> &'static str {
        match self {
            Self::Captured => "captured",
            Self::Filtered => "filtered",
            Self::Published => "published",
            Self::Consumed => "consumed",
            Self::Upserted => "upserted",
            Self::Deleted => "deleted",
            Self::Duplicate => "duplicate",
            Self::Superseded => "superseded",
            Self::Stale => "stale",
            Self::ChunkRead => "chunk_read",
            Self::ChunkUpserted => "chunk_upserted",
            Self::ChunkStale => "chunk_stale",
            Self::ChunkDuplicate => "chunk_duplicate",
            Self::ChunkRemoved => "chunk_removed",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hop| hop.name() == name)
    }
}

/// Half-events of one operation and window that passed one hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageCount {
    pub hop: Hop,
    pub op: Op,
    pub window: Window,
    pub count: u64,
    /// Sum of their event ids; zero for chunks, whose rows have none.
    pub digest: Digest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_has_the_same_name_in_commits_and_in_the_trace() {
        for hop in Hop::ALL {
            assert_eq!(serde_json::to_value(hop).unwrap(), hop.name());
            assert_eq!(Hop::from_name(hop.name()), Some(hop));
        }
    }
}

//! What passed each hop: counts and digests per table, operation and window of event time, and where they are kept.
//!
//! Commits carry their counts, and with a broker between capture and apply so do the records of capture's position
//! topic; a [`TraceSink`] gathers both, so that the whole of a table's history can be summed without its log. What a sink
//! lacks or loses is shipped again from where it was counted. Comparing the sums is `reconcile`'s business.

pub mod clickhouse;
#[doc(hidden)]
pub mod contract;
pub mod days;
mod repairs;
pub mod sqlite;
mod tally;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;

use serde::{Deserialize, Serialize};
use weir_model::{Digest, Op, Repair, TableId, Window};

pub use self::days::{AddsUp, Balance};
pub use self::tally::Tally;

/// Counts of one commit of a table, or of one record of capture's position topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipment {
    pub origin: Origin,
    /// The commit's version, or the record's offset; never negative.
    pub version: i64,
    /// When it was written, ms since the epoch.
    pub at_ms: i64,
    /// What was counted, by table: of [`Origin::Table`] all of that table.
    pub counts: Vec<(TableId, StageCount)>,
}

impl Shipment {
    /// What a commit of `table` counted.
    pub fn of_commit(table: TableId, version: i64, at_ms: i64, counts: Vec<StageCount>) -> Self {
        let counts = counts.into_iter().map(|count| (table.clone(), count)).collect();
        Self { origin: Origin::Table(table), version, at_ms, counts }
    }
}

/// Where counts were made durable, and so where they can be read again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The commits of this lake table.
    Table(TableId),
    /// Capture's position topic, one for a source.
    Capture,
}

impl fmt::Display for Origin {
    /// As in the trace: a table's name has a dot, so none is taken for capture.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(table) => table.fmt(f),
            Self::Capture => f.write_str(CAPTURE),
        }
    }
}

impl TryFrom<String> for Origin {
    type Error = String;

    /// As in the trace.
    fn try_from(name: String) -> Result<Self, String> {
        if name == CAPTURE { Ok(Self::Capture) } else { TableId::try_from(name).map(Self::Table) }
    }
}

/// [`Origin::Capture`] in the trace.
const CAPTURE: &str = "capture";

/// Keeps the counts of commits and of capture's records.
///
/// Identity: a count is `(source, origin, table, version, window, op, hop)`. Shipping again, whole or by another process,
/// changes nothing. Ordering: versions of one origin are shipped in ascending order, within a call and from call to
/// call, with none left out; that makes [`Self::shipped_version`] a mark below which nothing is missing. Durability: when
/// `ship` returns, the counts and the marks are durable; after an error some may be, but no mark above its counts.
/// Cancellation: a dropped `ship` has happened, in part or not at all; ship again.
pub trait TraceSink: Send + Sync {
    /// Takes in what was counted, in one round trip for many commits.
    fn ship(&self, source: &str, shipments: &[Shipment]) -> impl Future<Output = Result<(), TraceError>> + Send;

    /// The greatest version of `origin` that was shipped, if any was.
    fn shipped_version(
        &self,
        source: &str,
        origin: &Origin,
    ) -> impl Future<Output = Result<Option<i64>, TraceError>> + Send;

    /// The greatest version shipped of each origin of which any was.
    fn shipped_versions(&self, source: &str) -> impl Future<Output = Result<BTreeMap<Origin, i64>, TraceError>> + Send;

    /// Sums over all that was shipped of each of `tables` from either origin, one entry a window, operation and hop, in this
    /// order; only windows from `since` on. Folded minutes of a day stand under the windows of [`Balance::window`], and count
    /// if any of the day does. Tables without counts may be left out.
    fn totals(
        &self,
        source: &str,
        tables: &[TableId],
        since: Option<Window>,
    ) -> impl Future<Output = Result<BTreeMap<TableId, Vec<StageCount>>, TraceError>> + Send;

    /// Sums the minutes below `before` that add up by day, so that totals need not read them one by one; says how many minutes
    /// or days it was at. What is shipped again, or late, counts once as ever, and a minute that does not add up stays as it
    /// is. Cancellation, and being done by several processes at once, leave some of it undone.
    fn fold(
        &self,
        source: &str,
        before: Window,
        adds_up: AddsUp,
    ) -> impl Future<Output = Result<u64, TraceError>> + Send;

    /// Removes what was folded of days that end at or before `before`: it counts no longer. What was not folded stays.
    fn expire(&self, source: &str, before: Window) -> impl Future<Output = Result<(), TraceError>> + Send;

    /// Drops what the commits of `table` counted, folded or not: its lake table was made anew and counts versions from 0
    /// again. What capture counted stays.
    fn forget(&self, source: &str, table: &TableId) -> impl Future<Output = Result<(), TraceError>> + Send;

    /// Keeps a row of each repair, for good: neither [`Self::forget`] nor age takes it. Identity: `(source, id)`; of one that
    /// is there, and whose end is not known, the end is taken, and nothing else changes. Durable when it returns; after an
    /// error some may be.
    fn note_repairs(&self, source: &str, repairs: &[Repair]) -> impl Future<Output = Result<(), TraceError>> + Send;

    /// The ids of all repairs that were noted, and whether it is known how each ended.
    fn noted_repairs(&self, source: &str) -> impl Future<Output = Result<BTreeMap<String, bool>, TraceError>> + Send;

    /// The `max` newest repairs, newest first.
    fn repairs(&self, source: &str, max: usize) -> impl Future<Output = Result<Vec<Repair>, TraceError>> + Send;
}

/// One entry a window, operation and hop, in this order.
fn summed(counts: impl IntoIterator<Item = StageCount>) -> Vec<StageCount> {
    let mut sums: BTreeMap<(Window, Op, Hop), StageCount> = BTreeMap::new();
    for count in counts {
        sums.entry((count.window, count.op, count.hop))
            .and_modify(|sum| {
                sum.count += count.count;
                sum.digest += count.digest;
            })
            .or_insert(count);
    }
    sums.into_values().collect()
}

/// The trace cannot be reached, read or written. That says nothing of the data: whatever the trace lacks stays in the
/// tables' commits.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("trace {place}: {source}")]
    Store { place: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// A server that does not answer, or refuses.
    #[error("trace {place}: {what}")]
    Server { place: String, what: String },
    /// What it holds was written by a later version or is not a trace.
    #[error("trace {place}: {what}")]
    Foreign { place: String, what: String },
}

impl TraceError {
    fn way_out(&self) -> &'static str {
        match self {
            Self::Store { .. } => {
                "make [apply] state_dir writable; a trace file that is removed is filled again from the tables' commits"
            }
            Self::Server { .. } => {
                "see that [trace] url names a ClickHouse that runs, and a user (WEIR_TRACE_PASSWORD) who may create and \
                 write its database; nothing is lost meanwhile, what the trace lacks is shipped from the tables' commits"
            }
            Self::Foreign { .. } => {
                "use the version of weir that wrote it, or name another trace, which is filled anew"
            }
        }
    }
}

impl From<TraceError> for crate::error::Error {
    fn from(error: TraceError) -> Self {
        let (TraceError::Store { place, .. } | TraceError::Server { place, .. } | TraceError::Foreign { place, .. }) =
            &error;
        Self::failed("the trace cannot be used; this says nothing about the tables")
            .at(place.clone())
            .way_out(error.way_out())
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

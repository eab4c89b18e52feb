//! Does the target hold what the source has? The accounts say what passed each hop; here they are compared.
//!
//! [`judge`] decides and is pure; [`gather`] reads trace, checkpoint and source; [`render`] prints. Reading order: the
//! nouns below, then [`judge`].

pub mod gather;
pub mod judge;
pub mod render;

use serde::Serialize;
use weir_model::{Op, TableId};

/// How a comparison came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that is expected is there.
    Balanced,
    /// Not everything has arrived yet; nothing is known to be lost.
    InFlight,
    /// Something is lost or doubled.
    Different,
}

/// The report of one source; its JSON is a contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub source: String,
    /// RFC 3339.
    pub at: String,
    /// GTID set up to which the tables are.
    pub position: String,
    pub verdict: Verdict,
    pub tables: Vec<TableReport>,
}

/// One table's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableReport {
    pub table: TableId,
    pub verdict: Verdict,
    pub hops: Hops,
    pub chunks: Chunks,
    pub unbalanced: Vec<Unbalanced>,
    pub notices: Vec<String>,
}

/// Half-events of the stream that passed each hop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hops {
    pub captured: u64,
    pub filtered: u64,
    pub published: u64,
    pub consumed: u64,
    pub upserted: u64,
    pub deleted: u64,
    pub duplicate: u64,
    pub superseded: u64,
    pub stale: u64,
}

/// Rows of chunks of loads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Chunks {
    pub read: u64,
    pub upserted: u64,
    pub stale: u64,
    pub duplicate: u64,
    pub removed: u64,
}

/// Two hops that should agree and do not, in one window and operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unbalanced {
    pub between: (&'static str, &'static str),
    /// Start of the window of event time, RFC 3339.
    pub window: String,
    #[serde(serialize_with = "op_letter")]
    pub op: Op,
    /// By how many they differ; 0 if the counts agree and the events are not the same.
    pub count: u64,
}

fn op_letter<S: serde::Serializer>(op: &Op, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_char(char::from(*op))
}

/// Milliseconds since the epoch as RFC 3339 in UTC.
pub fn rfc3339(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(timestamp) => timestamp.to_string(),
        Err(_) => format!("{ms} ms since the epoch"),
    }
}

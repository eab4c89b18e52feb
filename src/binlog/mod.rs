//! The source's binary log as a sequence of events: live from the server, or from archived files.

use std::sync::Arc;

use bytes::Bytes;
use weir_model::{Gtid, LogPosition};

/// One event and where the log stands behind it.
#[derive(Debug, Clone)]
pub struct SourceEvent {
    /// Position behind the event. Inside a compressed transaction: behind the event that holds it.
    pub end: LogPosition,
    pub body: EventBody,
}

/// What an event says. Table maps are folded into the rows that follow them.
#[derive(Debug, Clone)]
pub enum EventBody {
    /// A transaction (or a single DDL statement) begins.
    Begin(TransactionHead),
    /// Row changes of one table.
    Rows(RowsImage),
    /// A statement in the log that is not transaction control: DDL, and in STATEMENT format DML.
    Statement { database: String, sql: String },
    /// The transaction is complete (XID event, COMMIT, or the end of a DDL statement).
    Commit,
    /// Nothing but a new position: heartbeat, rotation, skipped groups.
    Position,
}

/// Identity and time of a transaction (GTID_LOG_EVENT, GTID_TAGGED_LOG_EVENT).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionHead {
    pub gtid: Gtid,
    /// Microseconds since the epoch when the transaction committed on its original server; 0 if not known.
    pub original_commit_us: u64,
    /// Microseconds since the epoch when it committed on the server that is read.
    pub immediate_commit_us: u64,
    /// CRC32 of the GTID event as it stands in this server's log; on a replica every one differs.
    pub checksum: Option<u32>,
}

/// Which row event it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsKind {
    Insert,
    Update,
    Delete,
}

/// An undecoded row event.
#[derive(Debug, Clone)]
pub struct RowsImage {
    pub map: Arc<TableMap>,
    pub kind: RowsKind,
    /// Bitmap of the columns present, least significant bit first; for an update those of the before image.
    pub present: Bytes,
    /// The same for the after image of an update; empty otherwise.
    pub present_after: Bytes,
    /// The row images, one behind the other.
    pub rows: Bytes,
}

pub use row::{RowDecoder, RowError};
pub use table_map::TableMap;

pub mod charset;
pub mod json;
pub mod row;
pub mod table_map;

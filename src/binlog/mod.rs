//! The source's binary log as a sequence of events: live from the server, or from archived files.
//!
//! ```text
//! server ─► connection ─► LiveSource ─┐ raw events               SourceEvents
//!                                     ├───────────► Assembler ───────────────► capture
//! files ──────────────► FileSource ───┘ event, checksum   table_map, rows_event, query, gtid, payload
//! ```
//!
//! Everything is taken apart by our own code, since what is not understood must stop the stream and never vanish. Row
//! images are passed on undecoded; what a statement does to which table is said by [`ddl::classify`].

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use weir_model::{Gtid, LogPosition, Xid};

mod assemble;
pub mod charset;
mod checksum;
mod cursor;
pub mod ddl;
mod event;
mod file;
mod gtid;
pub mod json;
mod mariadb;
mod payload;
mod query;
pub mod row;
mod rows_event;
mod stream;
pub mod table_map;

pub use file::{FileSource, before_file, lacks_gtids, list_binlog_dir, previous_gtids};
pub use row::{RowDecoder, RowError};
pub use stream::{LiveSource, random_server_id};
pub use table_map::TableMap;

/// A reader of the binlog.
///
/// *Order*: events come in binlog order; a transaction is `Begin`, any number of `Rows` and `Statement`, `Commit`, and no
/// two transactions interleave. One of an XA branch has `XaStart` behind `Begin`, and ends with `XaPrepared` or, if it was
/// committed in one phase, `Commit`; the second phase is `Begin`, `XaSettled`, `Commit`. `Position` comes only between transactions.
/// *Duplication*: none within one source. A source opened anew begins at a transaction boundary, so a transaction that
/// was cut off by the end of another source comes again from its `Begin`; the caller drops what it has of it.
/// *Completeness*: nothing is skipped silently. What is not understood is [`SourceError::Fatal`], and the source must not
/// be polled again after an error.
/// *Cancellation*: the future may be dropped at any time; the next call goes on where it was.
pub trait Source {
    /// The next event; `None` when archived files end (a live source never ends).
    fn next(&mut self) -> impl Future<Output = Result<Option<SourceEvent>, SourceError>> + Send;
}

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
    /// The rows that follow are of an XA branch, whose end says whether they are committed.
    XaStart,
    /// The transaction is complete, and its rows wait for the outcome of the branch, which comes in another one (XA PREPARE).
    XaPrepared { xid: Xid },
    /// The outcome of a branch that was prepared: whether its rows are committed or rolled back.
    XaSettled { xid: Xid, commits: bool },
    /// The transaction is complete (XID event, COMMIT, or the end of a DDL statement). It may have changed nothing.
    Commit,
    /// Nothing but a new position: heartbeat, rotation, skipped groups.
    Position,
}

/// Identity and time of a transaction (GTID_LOG_EVENT, GTID_TAGGED_LOG_EVENT, ANONYMOUS_GTID_LOG_EVENT; MariaDB's GTID_EVENT).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionHead {
    pub gtid: Gtid,
    /// Microseconds since the epoch when the transaction committed on its original server; 0 if not known.
    pub original_commit_us: u64,
    /// Microseconds since the epoch when it committed on the server that is read. MySQL 5.7 and MariaDB have whole seconds, of
    /// the statement that ends it, by a clock that a client can set.
    pub immediate_commit_us: u64,
    /// CRC32 of the GTID event as it stands in this server's log; on a replica every one differs.
    pub checksum: Option<u32>,
}

impl TransactionHead {
    /// The time that is the same wherever the transaction is: of servers that keep none of its origin, the only one there is,
    /// since a replica takes it over.
    pub fn identifying_us(&self) -> u64 {
        if self.original_commit_us == 0 { self.immediate_commit_us } else { self.original_commit_us }
    }
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
    /// The same allocation for as long as the table's description stays the same, so pointers can be compared.
    pub map: Arc<TableMap>,
    pub kind: RowsKind,
    /// Bitmap of the columns present, least significant bit first; for an update those of the before image.
    pub present: Bytes,
    /// The same for the after image of an update; empty otherwise.
    pub present_after: Bytes,
    /// Whether after images may have differences in place of JSON documents (PARTIAL_UPDATE_ROWS_EVENT).
    pub has_differences: bool,
    /// The row images, one behind the other.
    pub rows: Bytes,
    /// The body of the TABLE_MAP_EVENT that `map` was read from, for those who keep the image.
    pub described: Bytes,
}

/// Why a source cannot go on. The kinds differ by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The connection is gone, or the server is busy or going down: connect again, with backoff.
    #[error("the binlog connection broke: {why}")]
    Retryable { why: String },
    /// The log holds something that is damaged or not understood. Stays so until somebody acts.
    #[error("{0}")]
    Fatal(#[from] LogError),
    /// The server no longer has what we need.
    #[error(
        "the source has purged binlogs that are still needed: {message}. Feed the missing files with \
         `weir run --binlog-dir DIR` if they were archived, otherwise seed the tables anew with `weir snapshot`, and keep \
         binlogs longer (binlog_expire_logs_seconds)"
    )]
    Purged {
        /// The server's own words, which name the missing GTIDs.
        message: String,
    },
    /// The server refuses us, or is set up in a way that cannot work.
    #[error("{why}")]
    AuthOrConfig { why: String },
}

/// An event that cannot be taken, and where it begins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {event}: {why}")]
pub struct LogError {
    pub at: LogPosition,
    /// Name of the event's type as MySQL writes it.
    pub event: String,
    /// What is wrong and the way out.
    pub why: String,
}

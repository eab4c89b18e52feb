//! What others ask of capture, and what it tells them. Requests are answered between two transactions.

use std::sync::Arc;

use tokio::sync::oneshot;
use weir_model::{Gtid, GtidSet, LogPosition, Order, TableId, TableSchema};
use weir_mysql::TableDescription;

use super::lane::LaneKey;
use crate::transport::{Boundary, ChunkContent, ChunkId, PublishNumber};

/// The bounds of a chunk attempt below which everything must be visible to its SELECT.
#[derive(Debug, Clone)]
pub struct ChunkOpening {
    /// The order that every row of the attempt gets.
    pub order0: Order,
    /// Transactions that may have a lower order: the SELECT waits until its server has executed them.
    pub below: GtidSet,
    /// Where the streamed server's log ends behind them, if that is known.
    pub below_log: Option<LogPosition>,
    /// The table's generation; another one at the end voids the attempt.
    pub generation: u64,
}

/// A chunk that has been read and written, waiting for the stream to pass its upper bound.
#[derive(Debug)]
pub struct ReadChunk {
    pub table: TableId,
    pub chunk: ChunkId,
    pub generation: u64,
    /// End of the binlog, read after the SELECT, on the server whose uuid is `server_uuid`.
    pub upper: LogPosition,
    pub server_uuid: String,
    /// Where its rows are, for whoever merges them.
    pub content: ChunkContent,
    /// None at once if the attempt is void; the publish of its marker when that has been sent.
    pub sent: oneshot::Sender<Option<PublishNumber>>,
}

/// Asked of capture.
#[derive(Debug)]
pub enum Request {
    /// A load begins.
    BeginSeed(SeedOpening),
    /// A chunk attempt begins; `None` if the table is not captured. With `settles` all changes that have a lower order are
    /// sent first: they keep it, even if the source is lost and read again from what was sent.
    OpenChunk { table: TableId, settles: bool, reply: oneshot::Sender<Option<ChunkOpening>> },
    /// A chunk attempt has been read.
    CloseChunk(ReadChunk),
    /// Every chunk of the load has been merged, or a load of a part is given up. Answered with the publish of the marker;
    /// `None` if the table is not captured.
    EndSeed { table: TableId, plan: u64, part: bool, reply: oneshot::Sender<Option<PublishNumber>> },
    /// The table has stopped; its changes are dropped from here on.
    Stop { table: TableId, error: String },
}

/// The beginning of a load.
#[derive(Debug)]
pub struct SeedOpening {
    pub table: TableId,
    /// Number of its plan.
    pub plan: u64,
    /// The source's columns.
    pub schema: Arc<TableSchema>,
    /// A table that cannot take such rows becomes empty and gets these columns.
    pub reset: bool,
    /// It is of a part of the table, which goes on as it stands.
    pub part: bool,
    /// Answered once the marker is sent; `None` if the table is not captured.
    pub reply: oneshot::Sender<Option<SeedBegun>>,
}

/// A load that has been announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeedBegun {
    /// The publish of its marker.
    pub number: PublishNumber,
    /// Everything before it has a lower order, and everything that it loads or that comes after it a greater one.
    pub start: Order,
}

/// Told by capture, in the order in which it happened.
#[derive(Debug)]
pub enum Told {
    /// `tables` got items with this publish.
    Published { number: PublishNumber, boundary: Arc<Boundary>, tables: Vec<TableId> },
    /// The table must be loaded: it is new, or rows moved without row events.
    NeedsSeed { table: TableId, reason: &'static str },
    /// The table cannot go on; the others do.
    Stopped { table: TableId, error: String },
}

/// What the registrar found for a table that capture saw for the first time.
#[derive(Debug)]
pub enum Registration {
    /// Captured from here on.
    Lane(Box<super::lane::LaneStart>),
    /// It is gone from the source.
    Gone,
    /// It cannot be mirrored; says why and the way out.
    Refused(String),
}

/// A table as the source's catalogue describes it.
#[derive(Debug, Clone)]
pub struct Catalogued {
    pub description: TableDescription,
    /// What the source had executed behind the answer: the answer is from before every statement that is not in it.
    pub executed: GtidSet,
}

/// What became of a question about a table that is captured.
#[derive(Debug)]
pub enum Described {
    Found {
        /// What the lake gets of its columns.
        schema: Arc<TableSchema>,
        key: LaneKey,
        /// What the source had executed behind the answer.
        executed: GtidSet,
    },
    Gone,
    /// It cannot be mirrored; says why and the way out.
    Refused(String),
}

/// Opens or creates the lake table of a source table and starts its worker.
pub trait Registrar: Send + Sync {
    /// Called between two row events, with the position that the table's own transaction set starts at.
    fn register(
        &self,
        table: &TableId,
        start: &GtidSet,
    ) -> impl std::future::Future<Output = Result<Registration, RegisterError>> + Send;

    /// Waits until the source shows what a statement, which is transaction `gtid`, did to `tables`.
    fn wait_until_visible(
        &self,
        gtid: &Gtid,
        tables: &[TableId],
    ) -> impl std::future::Future<Output = Result<(), RegisterError>> + Send;

    /// The table as the source's catalogue describes it at this moment, for a binlog that does not describe its tables; `None` if
    /// it is gone, and why if it cannot be mirrored.
    fn catalogued(
        &self,
        table: &TableId,
    ) -> impl std::future::Future<Output = Result<Result<Option<Catalogued>, String>, RegisterError>> + Send;

    /// The table as it is mirrored at this moment.
    fn describe(&self, table: &TableId) -> impl std::future::Future<Output = Result<Described, RegisterError>> + Send;
}

/// The source or the warehouse could not be asked; trying again may help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RegisterError(pub String);

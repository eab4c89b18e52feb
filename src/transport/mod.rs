//! How batches travel from capture to the tables: a [`Publisher`] at one end, a [`Subscription`] a table at the other.
//!
//! The nouns here are what travels; [`direct`] is the way within one process, [`kafka`] the one between machines, and
//! `contract` what both must do. Nothing here decides anything about the changes themselves.

#[doc(hidden)]
pub mod contract;
pub mod direct;
pub mod kafka;
mod memory;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_model::{ChangeBatch, Gtid, GtidSet, LogPosition, Order, OrderState, TableId, TableSchema};

pub use self::memory::Memory;
use crate::state::{LastTransaction, TableStanding};
use crate::trace::Tally;

/// Number of a publish; it rises. `direct` counts from 1 in each incarnation of a service, `kafka` over the life of its
/// position topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PublishNumber(pub u64);

/// Number of a chunk attempt; dies with the incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkId(pub u64);

/// Where the source stands behind a publish: everything in `gtid_set` and nothing else has been sent, but for the
/// leading part of `partial`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Boundary {
    pub gtid_set: GtidSet,
    /// A transaction that is larger than a batch may grow, sent in part.
    pub partial: Option<Gtid>,
    pub last: Option<LastTransaction>,
    pub log: LogPosition,
}

/// Everything that enters the transport at once.
#[derive(Debug)]
pub struct Publish {
    pub number: PublishNumber,
    pub boundary: Arc<Boundary>,
    /// In order; a table may occur more than once.
    pub items: Vec<(TableId, Item)>,
    /// The greatest order that capture has handed out, for any table.
    pub order: OrderState,
    /// Row changes of the boundary's partial transaction that each table has been sent.
    pub partial_rows: BTreeMap<TableId, u64>,
    /// Tables whose standing has changed since the last publish: it is durable together with the position, or a table
    /// could be passed by whose stop, or whose need of a load, nobody remembers.
    pub standings: Vec<(TableId, TableStanding)>,
}

/// What a table receives.
#[derive(Debug)]
pub enum Item {
    Changes(Changes),
    /// A transaction of which the table was sent a part has ended without further changes of it.
    TransactionEnd,
    Marker(Marker),
    /// A message that asks for nothing: a marker that came twice.
    Nothing,
    /// A message that cannot be understood; says why.
    Unreadable(String),
}

/// A batch with what its sender says of it.
#[derive(Debug)]
pub struct Changes {
    pub batch: ChangeBatch,
    /// What capture counted: `captured` and `published`.
    pub sent: Tally,
    /// Row changes of the boundary's partial transaction that this table has with this batch.
    pub partial_rows: u64,
}

/// A control message; its place in the stream is its meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Marker {
    /// The source's columns, as they were when capture came here or later.
    Schema(Arc<TableSchema>),
    /// The source dropped these columns; `at` is above every change that has them, and below every one that has others of
    /// these names.
    ColumnsDropped { at: Order, names: Vec<String> },
    /// The table was emptied without row events; `at` is above everything before.
    Clear { at: Order },
    /// A load begins. Of the whole table: rows below `start` that it does not find will go at its end; of a `part`, those
    /// stay. `schema` is the source's; with `reset` a table that cannot take its rows becomes empty and gets those columns.
    SeedBegin {
        plan: u64,
        start: Order,
        schema: Arc<TableSchema>,
        reset: bool,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        part: bool,
    },
    /// The stream has passed this chunk's upper bound.
    Chunk { chunk: ChunkId, content: ChunkContent },
    /// Every chunk of the load has been merged, or it has been given up.
    SeedEnd { plan: u64 },
}

/// Where the rows of a chunk are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChunkContent {
    /// Left at the desk of this process.
    Desk,
    /// In files of the table's folder, which are described here for whoever merges them. The transport does not look
    /// inside.
    Files(Arc<serde_json::Value>),
}

/// One item as it reaches its table.
#[derive(Debug)]
pub struct Delivery {
    pub number: PublishNumber,
    pub boundary: Arc<Boundary>,
    pub item: Item,
    /// Whether this is the table's last item of the publish: only then does the boundary hold for the table.
    pub last: bool,
    /// Where the bucket stands that the item belongs to; none on `direct`, where the boundary says it all.
    pub share: Option<Share>,
    /// Memory held for the item until it is dropped.
    pub hold: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// Where a bucket stands behind an item: what the table's commit says of its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub bucket: u32,
    /// Incarnation of the topic.
    pub topic: Arc<str>,
    /// The next offset to read.
    pub offset: i64,
    /// The last publish of which the bucket has its whole part; none if the item is in the midst of one.
    pub publish: Option<PublishNumber>,
}

/// Why a publish did not go out.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The process is shutting down.
    #[error("the transport is closed")]
    Closed,
    /// An item of `table` cannot travel; nothing was sent, and the publish comes back so that it can go without it.
    #[error("{table}: {why}")]
    Refused { table: TableId, why: String, publish: Box<Publish> },
    /// Another publisher has taken over, or the broker has given this one up; our own state tells which.
    #[error("this publisher is fenced off: {0}")]
    Fenced(String),
    /// The publisher cannot go on; a new one begins from what is durable.
    #[error("{0}")]
    Failed(String),
}

/// The sending end. Owned by capture.
///
/// Ordering: items of one table arrive in the order of publishes. Duplication: none. Durability: that of the
/// implementation; `direct` has none, the binlog is the log; `kafka` makes batches and position durable together, some
/// time after `publish` returns. Cancellation: a cancelled `publish` may have delivered a part, so a publisher is not
/// used again after one.
pub trait Publisher: Send {
    /// Sends all of `publish`; waits while the receivers hold as much memory as allowed.
    fn publish(&mut self, publish: Publish) -> impl Future<Output = Result<(), PublishError>> + Send;
}

/// The receiving end of one table.
///
/// Cancellation: `next` loses nothing when dropped before it is ready.
pub trait Subscription: Send {
    /// The next item, or `None` once the publisher is gone and everything has been received.
    fn next(&mut self) -> impl Future<Output = Option<Delivery>> + Send;
}

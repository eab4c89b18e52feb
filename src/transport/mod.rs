//! How batches travel from capture to the tables: a [`Publisher`] at one end, a [`Subscription`] a table at the other.
//!
//! The nouns here are what travels; [`direct`] is the way within one process. Nothing here decides anything about the
//! changes themselves.

pub mod direct;

use std::future::Future;
use std::sync::Arc;

use weir_model::{ChangeBatch, Gtid, GtidSet, LogPosition, Order, TableId, TableSchema};

use crate::state::LastTransaction;
use crate::trace::Tally;

/// Number of a publish, counted from 1 in each incarnation of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PublishNumber(pub u64);

/// Number of a chunk attempt; dies with the incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}

/// What a table receives.
#[derive(Debug)]
pub enum Item {
    Changes(Changes),
    /// A transaction of which the table was sent a part has ended without further changes of it.
    TransactionEnd,
    Marker(Marker),
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
#[derive(Debug, Clone)]
pub enum Marker {
    /// The source's columns from here on.
    Schema(Arc<TableSchema>),
    /// The table was emptied without row events; `at` is above everything before.
    Clear { at: Order },
    /// A load of the whole table begins; rows below `start` that it does not find will go at its end.
    SeedBegin { plan: u64, start: Order },
    /// The stream has passed this chunk's upper bound.
    Chunk { chunk: ChunkId },
    /// Every chunk of the load has been merged.
    SeedEnd,
}

/// One item as it reaches its table.
#[derive(Debug)]
pub struct Delivery {
    pub number: PublishNumber,
    pub boundary: Arc<Boundary>,
    pub item: Item,
    /// Whether this is the table's last item of the publish: only then does the boundary hold for the table.
    pub last: bool,
    /// Memory held for the item until it is dropped.
    pub hold: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// The transport is closed: the process is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the transport is closed")]
pub struct Closed;

/// The sending end. Owned by capture.
///
/// Ordering: items of one table arrive in the order of publishes. Duplication: none. Durability: that of the
/// implementation; `direct` has none, the binlog is the log. Cancellation: a cancelled `publish` may have delivered a
/// part, so a publisher is not used again after one.
pub trait Publisher: Send {
    /// Sends all of `publish`; waits while the receivers hold as much memory as allowed.
    fn publish(&mut self, publish: Publish) -> impl Future<Output = Result<(), Closed>> + Send;
}

/// The receiving end of one table.
///
/// Cancellation: `next` loses nothing when dropped before it is ready.
pub trait Subscription: Send {
    /// The next item, or `None` once the publisher is gone and everything has been received.
    fn next(&mut self) -> impl Future<Output = Option<Delivery>> + Send;
}

//! XA branches: rows that one transaction prepares and another one commits or rolls back, hours or restarts later.
//!
//! XA PREPARE changes nothing that a reader of the source sees, so its GTID stands in the position without its rows; they are
//! kept as bytes, and are durable beside the tables before a position that has passed them is. XA COMMIT brings them into
//! the stream: with orders and windows of the commit, and with ids of the PREPARE, in whose transaction they were changed.
//! Both transactions are read again or passed together with the position, so that nothing is lost or doubled.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use weir_model::{Gtid, GtidSet, LogPosition, TableId, Xid};

use super::held_rows::{RowsReader, RowsWriter};
use super::request::Registrar;
use super::{Capture, CaptureError, stop};
use crate::binlog::RowsImage;
use crate::limits::{PREPARED_PART_BYTES, PREPARED_PUT_TOGETHER};
use crate::state::{PreparedHead, PreparedPart, PreparedStore, StateError};
use crate::transport::Publisher;

/// What capture holds of branches whose outcome has not come.
#[derive(Debug)]
pub struct Prepared {
    store: PreparedStore,
    held: BTreeMap<Xid, Held>,
    /// Branches whose outcome has come since the last publish.
    settled: Vec<Settled>,
    /// Prepared transactions that are durable, and that the position has not passed, so that they are read again: one that has
    /// ended by then, before it is put once more, leaves objects all the same.
    again: BTreeSet<Gtid>,
    /// Transactions that lie before every load: what they commit of branches from before the stream is read by the loads.
    pub(super) behind: GtidSet,
}

/// A branch that is prepared.
#[derive(Debug, Clone)]
struct Held {
    head: PreparedHead,
    /// Rows behind those of the parts that have been put.
    tail: Bytes,
    durable: bool,
}

#[derive(Debug)]
struct Settled {
    held: Held,
    /// The transaction that said so.
    by: Gtid,
}

/// Rows of the branch that is being read.
#[derive(Debug, Default)]
pub(super) struct Branch {
    parts: Vec<PreparedPart>,
    rows: RowsWriter,
    passed_over: BTreeSet<TableId>,
}

impl Prepared {
    /// Goes on from `position`, of the history that was `begun` by this epoch, with what is durable.
    pub async fn open(store: PreparedStore, position: &GtidSet, begun: u64) -> Result<Self, StateError> {
        let behind = store.begins_behind(begun).await?;
        let heads = store.open(position, begun).await?;
        let again = store.held_beyond(position).await?;
        store.clean(weir_model::clock::now_ms()).await?;
        let held = heads.into_iter().map(|head| (head.xid.clone(), Held { head, tail: Bytes::new(), durable: true }));
        Ok(Self { store, held: held.collect(), settled: Vec::new(), again, behind })
    }

    /// The stream goes on from `published`: what was read behind it comes again.
    pub(super) fn rewind(&mut self, published: &GtidSet) {
        let settled = std::mem::take(&mut self.settled).into_iter().filter(|settled| !published.contains(&settled.by));
        let settled: Vec<Held> = settled.map(|settled| settled.held).collect();
        let (passed, unpassed): (Vec<Held>, Vec<Held>) = std::mem::take(&mut self.held)
            .into_values()
            .chain(settled)
            .partition(|held| published.contains(&held.head.gtid));
        self.held = passed.into_iter().map(|held| (held.head.xid.clone(), held)).collect();
        self.again.extend(unpassed.into_iter().filter(|held| held.durable).map(|held| held.head.gtid));
    }

    /// Forgets what a publish has passed the end of.
    pub(super) fn published(&mut self, set: &GtidSet) {
        self.settled.retain(|settled| !set.contains(&settled.by));
        self.again.retain(|gtid| !set.contains(gtid));
    }

    /// Puts what a position that is about to be published relies on.
    pub(super) async fn make_durable(&mut self) -> Result<(), StateError> {
        let store = &self.store;
        let lies_there = |held: &Held| held.durable || self.again.contains(&held.head.gtid);
        let ended = self.settled.iter().filter(|settled| lies_there(&settled.held));
        let ended: Vec<(Gtid, Gtid)> = ended.map(|s| (s.held.head.gtid.clone(), s.by.clone())).collect();
        stream::iter(ended)
            .map(Ok)
            .try_for_each_concurrent(PREPARED_PUT_TOGETHER, |(prepared, by)| async move {
                store.note_end(&prepared, &by).await
            })
            .await?;
        let young: Vec<Held> = self.held.values().filter(|held| !held.durable).cloned().collect();
        let put: Vec<Held> = stream::iter(young)
            .map(|held| put(store, held))
            .buffer_unordered(PREPARED_PUT_TOGETHER)
            .try_collect()
            .await?;
        self.held.extend(put.into_iter().map(|held| (held.head.xid.clone(), held)));
        Ok(())
    }
}

/// Makes a branch durable; its rows are no longer in memory then.
async fn put(store: &PreparedStore, held: Held) -> Result<Held, StateError> {
    let Held { mut head, tail, .. } = held;
    if !tail.is_empty() {
        let part = store.put_part(&head.gtid, tail).await?;
        head.parts.push(part);
    }
    let head = store.hold(head).await?;
    Ok(Held { head, tail: Bytes::new(), durable: true })
}

impl<P: Publisher, R: Registrar> Capture<P, R> {
    /// The rows that follow are of a branch: they are kept until it is known what becomes of them.
    pub(super) fn begin_branch(&mut self) {
        if let Some(open) = self.open.as_mut().filter(|open| !open.skip) {
            open.branch = Some(Branch::default());
        }
    }

    /// Keeps row changes of the branch that is being read.
    pub(super) async fn keep_rows(&mut self, image: &RowsImage) -> Result<(), CaptureError> {
        let Some((open, branch)) = self.open.as_mut().and_then(|open| Some((&open.head, open.branch.as_mut()?))) else {
            return Ok(());
        };
        let table = image.map.id();
        if !(self.settings.filter)(&table) {
            branch.passed_over.insert(table);
            return Ok(());
        }
        branch.rows.push(image);
        if branch.rows.len() >= PREPARED_PART_BYTES {
            let part = self.prepared.store.put_part(&open.gtid, branch.rows.take()).await?;
            branch.parts.push(part);
        }
        Ok(())
    }

    /// The transaction under way prepares its branch.
    pub(super) fn prepare(&mut self, xid: Xid) {
        let Some(open) = self.open.as_mut() else { return };
        let Some(Branch { parts, mut rows, passed_over }) = open.branch.take() else { return };
        let mut head = PreparedHead::new(open.head.gtid.clone(), xid.clone(), open.event_ms);
        (head.parts, head.passed_over) = (parts, passed_over);
        self.pending_bytes += rows.len();
        let held = Held { head, tail: rows.take(), durable: false };
        if let Some(held) = self.prepared.held.insert(xid, held) {
            // A name is in use once at a time, so that one has ended without our hearing of it.
            let by = open.head.gtid.clone();
            self.prepared.settled.push(Settled { held, by });
        }
    }

    /// A branch that was committed in one phase: its rows are those of the transaction under way.
    pub(super) async fn commit_at_once(&mut self, at: &LogPosition) -> Result<(), CaptureError> {
        let Some(Branch { parts, mut rows, .. }) = self.open.as_mut().and_then(|open| open.branch.take()) else {
            return Ok(());
        };
        self.bring_in(&parts, rows.take(), None, at).await
    }

    /// The transaction under way says what becomes of a branch that was prepared.
    pub(super) async fn settle(&mut self, xid: &Xid, commits: bool, at: &LogPosition) -> Result<(), CaptureError> {
        let Some(open) = self.open.as_ref().filter(|open| !open.skip) else { return Ok(()) };
        let by = open.head.gtid.clone();
        let Some(held) = self.prepared.held.get(xid).cloned() else {
            if commits && !self.prepared.behind.contains(&by) {
                return Err(stop(at, &unknown(xid, &by)));
            }
            return Ok(());
        };
        if commits {
            let origin = held.head.gtid.clone();
            self.bring_in(&held.head.parts, held.tail.clone(), Some(&origin), at).await?;
            self.load_what_was_passed_over(&held.head.passed_over, at).await?;
        }
        // A publish in between may have made it durable.
        let held = self.prepared.held.remove(xid).unwrap_or(held);
        self.prepared.settled.push(Settled { held, by });
        Ok(())
    }

    async fn bring_in(
        &mut self,
        parts: &[PreparedPart],
        tail: Bytes,
        origin: Option<&Gtid>,
        at: &LogPosition,
    ) -> Result<(), CaptureError> {
        for part in parts {
            let bytes = self.prepared.store.read_part(part).await?;
            self.bring_in_part(bytes, origin, at).await?;
        }
        self.bring_in_part(tail, origin, at).await
    }

    async fn bring_in_part(
        &mut self,
        part: Bytes,
        origin: Option<&Gtid>,
        at: &LogPosition,
    ) -> Result<(), CaptureError> {
        let mut images = RowsReader::new(part);
        loop {
            let image = images.next().map_err(|why| stop(at, &format!("rows of a prepared XA transaction: {why}")))?;
            let Some(image) = image else { return Ok(()) };
            self.take_rows(&image, origin, at).await?;
        }
    }

    /// Tables that were not captured when the branch was prepared, and are now: their loads may have been too early for its
    /// rows.
    async fn load_what_was_passed_over(
        &mut self,
        tables: &BTreeSet<TableId>,
        at: &LogPosition,
    ) -> Result<(), CaptureError> {
        for table in tables {
            if (self.settings.filter)(table) {
                tracing::info!(%table, position = %at, "rows of a prepared XA transaction were not kept for it");
                self.reload_or_meet(table, "rows of a prepared XA transaction were not kept").await?;
            }
        }
        Ok(())
    }
}

fn unknown(xid: &Xid, by: &Gtid) -> String {
    format!(
        "transaction {by} is XA COMMIT {xid}, and the rows that were prepared under this name are not known: they were \
         prepared before this source was mirrored, or [warehouse] has lost its _weir folder. `weir snapshot` seeds every table \
         anew; GRANT XA_RECOVER_ADMIN lets weir wait for such transactions before it begins"
    )
}

#[cfg(test)]
mod tests;

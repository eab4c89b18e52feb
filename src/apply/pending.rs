//! Changes received and not committed, and how far they bring the table.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_model::{ChangeBatch, Order};

use super::state::is_in;
use crate::table::TableState;
use crate::trace::Tally;
use crate::transport::{Boundary, Changes, PublishNumber, Share};

/// The newest publish that a table has whole.
pub(super) type Complete = (PublishNumber, Arc<Boundary>);

/// The bucket of a table that is not shared.
const WHOLE: u32 = 0;

#[derive(Debug, Default)]
pub(super) struct Pending {
    pub batches: Vec<ChangeBatch>,
    /// Of each batch, where its bucket stands behind it; none on `direct`.
    behind: Vec<Option<Share>>,
    pub sent: Tally,
    pub holds: Vec<tokio::sync::OwnedSemaphorePermit>,
    pub bytes: usize,
    pub partial_rows: u64,
    /// Where each bucket stands behind everything received.
    pub shares: BTreeMap<u32, Share>,
    /// The newest publish received whole; its boundary is the table's when `batches` are committed.
    pub complete: Option<Complete>,
    /// Items of a publish have been received, but not its last.
    pub inside_publish: bool,
}

impl Pending {
    pub(super) fn receive(&mut self, changes: Changes, share: Option<Share>) {
        self.bytes += changes.batch.bytes();
        self.sent.add(&changes.sent);
        self.partial_rows = changes.partial_rows;
        self.batches.push(changes.batch);
        self.behind.push(share);
    }

    /// The place of an item in its publish.
    pub(super) fn place(&mut self, number: PublishNumber, boundary: Arc<Boundary>, last: bool, share: Option<Share>) {
        self.inside_publish = !last;
        if last {
            self.complete = Some((number, boundary));
        }
        if let Some(share) = share {
            note(&mut self.shares, share);
        }
    }

    /// Forgets what `state` says is in the table: another owner of a bucket got it in.
    pub(super) fn drop_applied(&mut self, state: &TableState) {
        let applied: Vec<bool> =
            self.behind.iter().map(|share| share.as_ref().is_some_and(|share| is_in(state, share))).collect();
        let mut left = applied.iter();
        self.batches.retain(|_| left.next().is_some_and(|applied| !applied));
        let mut left = applied.iter();
        self.behind.retain(|_| left.next().is_some_and(|applied| !applied));
        self.shares.retain(|_, share| !is_in(state, share));
    }

    /// The bucket of a batch.
    pub(super) fn bucket(&self, batch: u32) -> u32 {
        self.behind[batch as usize].as_ref().map_or(WHOLE, |share| share.bucket)
    }

    /// The greatest order of each bucket's changes. Not each batch's last: copies may come behind what is newer.
    pub(super) fn newest(&self) -> BTreeMap<u32, Order> {
        let mut newest: BTreeMap<u32, Order> = BTreeMap::new();
        for (n, batch) in self.batches.iter().enumerate() {
            if let Some(order) = batch.orders.iter().max() {
                let greatest = newest.entry(self.bucket(n as u32)).or_insert(*order);
                *greatest = (*greatest).max(*order);
            }
        }
        newest
    }
}

/// The share of a bucket follows the last item; whole publishes are not unlearned by the parts of the next.
pub(super) fn note(shares: &mut BTreeMap<u32, Share>, share: Share) {
    let before = shares.get(&share.bucket);
    let publish = share.publish.max(before.and_then(|before| before.publish));
    let offset =
        before.filter(|before| before.topic == share.topic).map_or(share.offset, |b| b.offset.max(share.offset));
    shares.insert(share.bucket, Share { publish, offset, ..share });
}

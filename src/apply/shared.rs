//! A table that others write, too: opened anew when it has moved, and taken up again by a load when it had to stop.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use weir_model::{Order, TableId};

use super::markers::MarkerAt;
use super::pending::Pending;
use super::{Worker, WorkerError};
use crate::limits::{APPEAL_REPEATED_EVERY, SHARED_RETRIES_MAX, SHARED_RETRY_DELAY};
use crate::state::{Appeal, AppealKind, Appeals};
use crate::table::{Absorbed, Table, TableError, Warehouse, Writer};
use crate::trace::{Hop, Tally};
use crate::transport::{Changes, Item, Subscription};

/// What it takes to open a table again, and to ask capture for something.
#[derive(Debug, Clone)]
pub struct SharedTable {
    pub warehouse: Warehouse,
    pub writer: Writer,
    pub appeals: Appeals,
}

impl SharedTable {
    pub(super) async fn appeal(&self, appeal: &Appeal) -> Result<(), WorkerError> {
        let mut tries = 0;
        loop {
            match self.appeals.put(appeal).await {
                Ok(()) => return Ok(()),
                Err(error) if tries >= SHARED_RETRIES_MAX => return Err(WorkerError::Rows(error.to_string())),
                Err(error) => {
                    tracing::warn!(%error, "capture cannot be asked yet");
                    tries += 1;
                    tokio::time::sleep(SHARED_RETRY_DELAY).await;
                }
            }
        }
    }
}

impl<S: Subscription> Worker<S> {
    /// The table as it stands by now: another owner of one of our buckets, or a foreign hand, has written it.
    pub(super) async fn open_anew(&mut self) -> Result<(), WorkerError> {
        let Some(shared) = &self.shared else { return Err(WorkerError::Moved) };
        let id = self.table.schema().table.clone();
        tracing::info!(table = %id, "the table has moved; it is opened anew");
        let buckets = self.table.buckets().clone();
        let opened = Table::open(&shared.warehouse, &id, shared.writer.clone(), buckets).await?;
        self.table = opened.ok_or(TableError::NoTable(id))?;
        Ok(())
    }

    /// Takes in what someone else has committed to the table.
    pub(super) async fn absorb(&mut self) -> Result<(), WorkerError> {
        match self.table.absorb().await {
            Ok(Absorbed::Beside) => Ok(()),
            Ok(Absorbed::Moved) => Err(WorkerError::Moved),
            Err(TableError::Fenced { epoch, .. }) => Err(WorkerError::Fenced { epoch }),
            // The next incarnation tries again, at once unless the store is away, which it must wait for.
            Err(error) if self.shared.is_none() && is_passing(&error) && !error.is_away() => Err(WorkerError::Moved),
            Err(error) => self.open_after(error).await,
        }
    }

    /// After an error that may pass, such as a store that is away, the table is opened anew; whether the commit became
    /// visible is seen there. Any other error is given back.
    pub(super) async fn open_after(&mut self, error: TableError) -> Result<(), WorkerError> {
        if self.shared.is_none() || !is_passing(&error) {
            return Err(error.into());
        }
        let mut last = error;
        for _ in 0..SHARED_RETRIES_MAX {
            tracing::warn!(table = %self.table.schema().table, error = %last, "the commit is tried again");
            tokio::time::sleep(SHARED_RETRY_DELAY).await;
            match self.open_anew().await {
                Err(WorkerError::Table(error)) if is_passing(&error) => last = error,
                other => return other,
            }
        }
        Err(last.into())
    }

    /// Says that the table has stopped, and passes over what comes until a load makes up for it. What is passed over is
    /// counted: it loses to the load, whose order is greater. False when the stream ends.
    pub(super) async fn wait_for_a_load(&mut self, error: WorkerError) -> Result<bool, WorkerError> {
        let table = self.table.schema().table.clone();
        let mut why = error;
        let mut passed = Passed::default();
        passed.all_of(std::mem::take(&mut self.pending));
        // A load that has come already makes up for it; the rest of its copies are on their way.
        let mut begun = self.marker.take().filter(MarkerAt::begins_a_load);
        if let Some(marker) = begun.take_if(|marker| marker.is_whole()) {
            match self.take_up(&marker, &passed).await {
                Ok(()) => return Ok(true),
                Err(error) => why = error,
            }
        }
        let mut told: Option<Instant> = None;
        loop {
            if begun.is_none() && told.is_none_or(|told| told.elapsed() >= APPEAL_REPEATED_EVERY) {
                self.tell_stopped(&table, &why).await?;
                told = Some(Instant::now());
            }
            let next = tokio::time::timeout(Duration::from_secs(1), self.subscription.next()).await;
            let delivery = match next {
                Err(_) => continue,
                Ok(None) => return Ok(false),
                Ok(Some(delivery)) => delivery,
            };
            self.seen = self.seen.max(delivery.number);
            match delivery.item {
                Item::Marker(_) => {
                    let Some(marker) = MarkerAt::gather(&mut begun, delivery) else { continue };
                    if !marker.begins_a_load() {
                        continue;
                    }
                    match self.take_up(&marker, &passed).await {
                        Ok(()) => return Ok(true),
                        Err(error) => (why, told) = (error, None),
                    }
                }
                Item::Changes(changes) => {
                    let bucket = delivery.share.as_ref().map_or(0, |share| share.bucket);
                    passed.changes(bucket, &changes);
                }
                Item::TransactionEnd | Item::Nothing | Item::Unreadable(_) => {}
            }
        }
    }

    /// Goes on with the load that `marker` begins.
    async fn take_up(&mut self, marker: &MarkerAt, passed: &Passed) -> Result<(), WorkerError> {
        self.open_anew().await?;
        loop {
            if self.begin_anew(marker, passed.tally.clone(), &passed.greatest).await?
                || marker.is_in(self.table.state())
            {
                break;
            }
        }
        tracing::info!(table = %self.table.schema().table, "the table goes on with a load");
        Ok(())
    }

    async fn tell_stopped(&self, table: &TableId, why: &WorkerError) -> Result<(), WorkerError> {
        tracing::error!(%table, error = %why, "table stopped; the others go on");
        let Some(shared) = &self.shared else { return Ok(()) };
        let other_key = matches!(why, WorkerError::OtherKey(_));
        let kind = AppealKind::Stopped { error: why.to_string(), publish: self.seen.0, other_key };
        shared.appeal(&Appeal { table: table.clone(), kind }).await?;
        Ok(())
    }
}

/// Changes that were passed over.
#[derive(Debug, Default)]
struct Passed {
    tally: Tally,
    greatest: BTreeMap<u32, Order>,
}

impl Passed {
    fn all_of(&mut self, pending: Pending) {
        self.greatest = pending.newest();
        for batch in &pending.batches {
            self.count(batch);
        }
    }

    fn changes(&mut self, bucket: u32, changes: &Changes) {
        if let Some(newest) = changes.batch.orders.iter().max() {
            let greatest = self.greatest.entry(bucket).or_insert(*newest);
            *greatest = (*greatest).max(*newest);
        }
        self.count(&changes.batch);
    }

    fn count(&mut self, batch: &weir_model::ChangeBatch) {
        for row in 0..batch.len() {
            for hop in [Hop::Consumed, Hop::Superseded] {
                self.tally.event(hop, batch.ops[row], batch.windows[row], batch.ids[row]);
            }
        }
    }
}

/// Whether trying again may help.
fn is_passing(error: &TableError) -> bool {
    matches!(error, TableError::Store(_) | TableError::Disk(_))
}

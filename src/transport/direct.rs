//! The transport within one process: a channel a table, bounded by the bytes under way.
//!
//! Durable is only the binlog: a table's commits say how far it is, and a restart reads again from the checkpoint.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Semaphore, mpsc, watch};
use weir_model::TableId;

use super::{Closed, Delivery, Item, Publish, Publisher, Subscription};
use crate::limits::PUBLISHES_IN_FLIGHT_MAX;

/// Memory is counted in steps of this many bytes.
const PERMIT_BYTES: usize = 1 << 10;

/// Connects one publisher with the subscriptions of many tables, which may join and leave.
#[derive(Debug, Clone)]
pub struct Direct {
    inboxes: Arc<Mutex<HashMap<TableId, mpsc::Sender<Delivery>>>>,
    memory: Arc<Semaphore>,
    permits: u32,
    pressure: Arc<watch::Sender<bool>>,
}

impl Direct {
    /// A transport whose undelivered and unreleased items stay within `memory_bytes`.
    pub fn new(memory_bytes: usize) -> Self {
        let permits = u32::try_from((memory_bytes / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS.min(1 << 30)))
            .expect("clamped to 2^30");
        Self {
            inboxes: Arc::default(),
            memory: Arc::new(Semaphore::new(permits as usize)),
            permits,
            pressure: Arc::new(watch::Sender::new(false)),
        }
    }

    /// The receiving end for `table`; a later one for the same table replaces it.
    pub fn subscribe(&self, table: &TableId) -> DirectSubscription {
        let (sender, inbox) = mpsc::channel(PUBLISHES_IN_FLIGHT_MAX);
        self.lock().insert(table.clone(), sender);
        DirectSubscription { inbox }
    }

    /// True while the publisher waits for memory: whoever holds some should let it go.
    pub fn pressure(&self) -> watch::Receiver<bool> {
        self.pressure.subscribe()
    }

    /// Items for `table` are dropped from here on.
    pub fn unsubscribe(&self, table: &TableId) {
        self.lock().remove(table);
    }

    /// Closes every inbox: subscriptions end after what they have been sent.
    pub fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TableId, mpsc::Sender<Delivery>>> {
        self.inboxes.lock().expect("no code panics while holding the inboxes")
    }

    async fn hold(&self, item: &Item) -> Result<Option<tokio::sync::OwnedSemaphorePermit>, Closed> {
        let Item::Changes(changes) = item else { return Ok(None) };
        let wanted = u32::try_from(changes.batch.bytes() / PERMIT_BYTES + 1).unwrap_or(u32::MAX).min(self.permits);
        if let Ok(hold) = self.memory.clone().try_acquire_many_owned(wanted) {
            return Ok(Some(hold));
        }
        self.pressure.send_replace(true);
        let hold = self.memory.clone().acquire_many_owned(wanted).await;
        self.pressure.send_replace(false);
        hold.map(Some).map_err(|_| Closed)
    }
}

impl Publisher for Direct {
    async fn publish(&mut self, publish: Publish) -> Result<(), Closed> {
        let mut left: HashMap<TableId, usize> = HashMap::new();
        for (table, _) in &publish.items {
            *left.entry(table.clone()).or_default() += 1;
        }
        for (table, item) in publish.items {
            let left = left.get_mut(&table).expect("counted above");
            *left -= 1;
            let last = *left == 0;
            let hold = self.hold(&item).await?;
            let Some(inbox) = self.lock().get(&table).cloned() else { continue };
            let delivery = Delivery { number: publish.number, boundary: publish.boundary.clone(), item, last, hold };
            // A table that stopped has dropped its inbox; the others go on.
            let _ = inbox.send(delivery).await;
        }
        Ok(())
    }
}

/// The receiving end of one table.
#[derive(Debug)]
pub struct DirectSubscription {
    inbox: mpsc::Receiver<Delivery>,
}

impl Subscription for DirectSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        self.inbox.recv().await
    }
}

//! Memory that items under way may take, counted where they enter the transport and given back when they are
//! committed.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Item;

/// Memory is counted in steps of this many bytes.
const PERMIT_BYTES: usize = 1 << 10;

/// A bound on bytes, and a sign that somebody waits for some. Clones share it.
#[derive(Debug, Clone)]
pub struct Memory {
    semaphore: Arc<Semaphore>,
    permits: u32,
    pressure: Arc<watch::Sender<bool>>,
}

impl Memory {
    pub fn new(bytes: usize) -> Self {
        let permits = u32::try_from((bytes / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS.min(1 << 30)))
            .expect("clamped to 2^30");
        Self {
            semaphore: Arc::new(Semaphore::new(permits as usize)),
            permits,
            pressure: Arc::new(watch::Sender::new(false)),
        }
    }

    /// True while somebody waits: whoever holds some should let it go.
    pub fn pressure(&self) -> watch::Receiver<bool> {
        self.pressure.subscribe()
    }

    /// Bytes that are held, in steps of a KiB.
    pub fn held(&self) -> usize {
        (self.permits as usize).saturating_sub(self.semaphore.available_permits()) * PERMIT_BYTES
    }

    /// Takes `bytes` at once, waiting until they are free; more than all there is counts as all there is, so that it
    /// passes alone.
    ///
    /// # Panics
    /// Never: the semaphore is not closed.
    pub async fn hold(&self, bytes: usize) -> OwnedSemaphorePermit {
        let wanted = permits_for(bytes).min(self.permits);
        if let Ok(hold) = self.semaphore.clone().try_acquire_many_owned(wanted) {
            return hold;
        }
        self.pressure.send_replace(true);
        let hold = self.semaphore.clone().acquire_many_owned(wanted).await;
        self.pressure.send_replace(false);
        hold.expect("nobody closes the semaphore")
    }

    /// The part of `hold` that stands for `bytes`, as far as it goes.
    pub fn share(hold: &mut OwnedSemaphorePermit, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let share = (permits_for(bytes) as usize).min(hold.num_permits());
        hold.split(share)
    }
}

fn permits_for(bytes: usize) -> u32 {
    u32::try_from(bytes / PERMIT_BYTES + usize::from(bytes > 0)).unwrap_or(u32::MAX)
}

/// Bytes that an item takes in memory; what is not a batch is not worth counting.
pub fn bytes_of(item: &Item) -> usize {
    match item {
        Item::Changes(changes) => changes.batch.bytes(),
        Item::TransactionEnd | Item::Marker(_) | Item::Nothing | Item::Unreadable(_) => 0,
    }
}

//! What has been proven, as the tasks that prove share it, and what they are told of the tables.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use tokio::time::Instant;
use weir_model::TableId;

use crate::limits::PROOFS_WRITTEN_EVERY;
use crate::state::StateError;
use crate::state::proofs::{ProofLog, Proofs};

/// Shared by what proves rows and what proves hops.
#[derive(Debug)]
pub struct Book {
    written: tokio::sync::Mutex<Written>,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Written {
    log: ProofLog,
    /// None until the store has been asked.
    proofs: Option<Proofs>,
    at: Option<Instant>,
    is_dirty: bool,
}

/// What the supervisor knows.
#[derive(Debug, Default)]
struct Told {
    streaming: BTreeSet<TableId>,
    /// Every table of ours; what was proven of others is forgotten.
    known: BTreeSet<TableId>,
    /// Tables with commits since their hops were compared.
    changed: BTreeSet<TableId>,
}

impl Book {
    pub fn new(log: ProofLog) -> Self {
        let written = Written { log, proofs: None, at: None, is_dirty: false };
        Self { written: tokio::sync::Mutex::new(written), told: Mutex::default() }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("no code panics while holding it")
    }

    /// These tables are ours, and these of them follow the stream; no other.
    pub fn note_tables(&self, known: BTreeSet<TableId>, streaming: BTreeSet<TableId>) {
        let mut told = self.told();
        told.changed.retain(|table| known.contains(table));
        (told.known, told.streaming) = (known, streaming);
    }

    pub fn note_change(&self, table: &TableId) {
        let mut told = self.told();
        if !told.changed.contains(table) {
            told.changed.insert(table.clone());
        }
    }

    pub fn streaming(&self) -> BTreeSet<TableId> {
        self.told().streaming.clone()
    }

    /// Tables that follow the stream and have changed; they count as looked at from now on.
    pub fn take_changed(&self) -> BTreeSet<TableId> {
        let mut told = self.told();
        let (due, rest) = std::mem::take(&mut told.changed).into_iter().partition(|t| told.streaming.contains(t));
        told.changed = rest;
        due
    }

    /// Looks at what has been proven, or changes it.
    ///
    /// # Errors
    /// When the store cannot be had.
    pub async fn with<R>(&self, look: impl FnOnce(&mut Proofs, &mut bool) -> R) -> Result<R, StateError> {
        let mut written = self.written.lock().await;
        let written = &mut *written;
        let proofs = match &mut written.proofs {
            Some(proofs) => proofs,
            None => written.proofs.insert(written.log.read().await?),
        };
        Ok(look(proofs, &mut written.is_dirty))
    }

    /// Makes durable what has been proven, if it is time or `now`. Tables that are not ours any more are forgotten.
    ///
    /// # Errors
    /// When the store cannot be had; it is tried again the next time.
    pub async fn write(&self, now: bool) -> Result<(), StateError> {
        let mut written = self.written.lock().await;
        let Written { log, proofs: Some(proofs), at, is_dirty } = &mut *written else { return Ok(()) };
        if !*is_dirty || !now && at.is_some_and(|at| at.elapsed() < PROOFS_WRITTEN_EVERY) {
            return Ok(());
        }
        {
            let told = self.told();
            proofs.tables.retain(|table, _| told.known.contains(table));
        }
        log.write(proofs).await?;
        (*at, *is_dirty) = (Some(Instant::now()), false);
        Ok(())
    }
}

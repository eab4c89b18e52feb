//! Chunks that have been read and written and wait for their marker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use weir_model::{Order, TableId};

use crate::table::{StagedChunk, StagedFile};
use crate::transport::ChunkId;

/// What became of a chunk whose marker was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkOutcome {
    /// Its rows are in a commit.
    Merged,
    /// The table cannot tell whether its rows are newer: read it again.
    Refused,
}

/// A chunk to be merged by its table's worker.
#[derive(Debug)]
pub struct WaitingChunk {
    /// Number of the load's plan, and of the chunk in it.
    pub plan: u64,
    pub ordinal: u32,
    /// The order of every row of it.
    pub order0: Order,
    /// Empty if the range holds no row.
    pub staged: Vec<StagedChunk>,
    pub outcome: oneshot::Sender<ChunkOutcome>,
}

/// A chunk whose parts, one a partition of a bucket, lie in the table's folder; the content of its marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkFiles {
    /// Number of the load's plan, and of the chunk in it.
    pub plan: u64,
    pub ordinal: u32,
    /// The order of every row of it.
    pub order0: Order,
    pub files: Vec<StagedFile>,
}

/// Where the loader leaves chunks for the workers; a marker in the stream says when to take one.
#[derive(Debug, Clone, Default)]
pub struct ChunkDesk {
    waiting: Arc<Mutex<HashMap<(TableId, ChunkId), WaitingChunk>>>,
}

impl ChunkDesk {
    pub fn leave(&self, table: &TableId, chunk: ChunkId, waiting: WaitingChunk) {
        self.lock().insert((table.clone(), chunk), waiting);
    }

    pub fn take(&self, table: &TableId, chunk: ChunkId) -> Option<WaitingChunk> {
        self.lock().remove(&(table.clone(), chunk))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(TableId, ChunkId), WaitingChunk>> {
        self.waiting.lock().expect("no code panics while holding the desk")
    }
}

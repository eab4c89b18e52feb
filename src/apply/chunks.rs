//! Chunks that have been read and written and wait for their marker.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use weir_model::{Order, RecordKey, TableId};

use crate::table::{AbsentKeys, StagedChunk, StagedFile};
use crate::transport::ChunkId;

/// Ordinal of a chunk that no plan lists: whether it is in need not be remembered.
pub const UNPLANNED: u32 = u32::MAX;

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
    /// Keys that were looked for and not found.
    pub absent: Vec<RecordKey>,
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
    /// Keys that were looked for and not found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<RecordKey>,
}

/// Keys that a chunk did not find, by their buckets in a table of `count`, each key once.
pub fn absent_by_bucket(keys: &[RecordKey], order0: Order, count: u32) -> Vec<AbsentKeys> {
    let mut buckets: BTreeMap<u32, HashSet<&RecordKey>> = BTreeMap::new();
    for key in keys {
        buckets.entry(key.as_ref().bucket(count)).or_default().insert(key);
    }
    let of_bucket = |(bucket, keys): (u32, HashSet<&RecordKey>)| AbsentKeys {
        bucket,
        order0,
        keys: keys.into_iter().cloned().collect(),
    };
    buckets.into_iter().map(of_bucket).collect()
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

//! What passed each hop: counts and digests per table, operation and window of event time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_model::{Digest, EventId, Op, Window};

/// A place where half-events are counted. The first nine are the stream's, the last four the chunks' (snapshot and
/// backfill), which keep a ledger of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hop {
    Captured,
    Filtered,
    Published,
    Consumed,
    Upserted,
    Deleted,
    Duplicate,
    Superseded,
    Stale,
    ChunkRead,
    ChunkUpserted,
    ChunkStale,
    ChunkDuplicate,
    ChunkRemoved,
}

/// Half-events of one operation and window that passed one hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageCount {
    pub hop: Hop,
    pub op: Op,
    pub window: Window,
    pub count: u64,
    /// Sum of their event ids; zero for chunks, whose rows have none.
    pub digest: Digest,
}

/// Sums counts of one table while a batch or a commit is made.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    counts: BTreeMap<(Window, Op, Hop), (u64, Digest)>,
}

impl Tally {
    /// Counts one half-event.
    pub fn event(&mut self, hop: Hop, op: Op, window: Window, id: EventId) {
        let (count, digest) = self.counts.entry((window, op, hop)).or_default();
        *count += 1;
        *digest += id;
    }

    /// Counts `rows` rows of a chunk.
    pub fn chunk_rows(&mut self, hop: Hop, window: Window, rows: u64) {
        if rows > 0 {
            self.counts.entry((window, Op::Read, hop)).or_default().0 += rows;
        }
    }

    /// Adds everything in `other`.
    pub fn add(&mut self, other: &Self) {
        for (key, (count, digest)) in &other.counts {
            let mine = self.counts.entry(*key).or_default();
            mine.0 += count;
            mine.1 += *digest;
        }
    }

    /// Sum over all windows and operations of one hop.
    pub fn total(&self, hop: Hop) -> u64 {
        self.counts.iter().filter(|((_, _, h), _)| *h == hop).map(|(_, (count, _))| count).sum()
    }

    pub fn counts(&self) -> Vec<StageCount> {
        self.counts
            .iter()
            .map(|(&(window, op, hop), &(count, digest))| StageCount { hop, op, window, count, digest })
            .collect()
    }
}

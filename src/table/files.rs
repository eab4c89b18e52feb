//! The data files of a table as its writer holds them.

use roaring::RoaringBitmap;

use super::delta::{Add, DeletionVector, Remove};
use super::statistics::{whole_bounds, with_dead_rows};
use super::writer::FileOrders;

/// A data file and which of its rows are dead.
#[derive(Debug, Clone)]
pub struct DataFile {
    pub add: Add,
    /// The bucket of all its rows; none if it may hold several, as a foreign writer's may.
    pub bucket: Option<u32>,
    pub rows: u32,
    pub dead: RoaringBitmap,
    pub orders: FileOrders,
}

impl DataFile {
    pub fn live_rows(&self) -> u64 {
        u64::from(self.rows) - self.dead.len()
    }

    /// Bounds of an integer column, dead rows included; none if its entry is not of ours, or has none.
    pub fn bounds_of(&self, column: &str) -> Option<(i64, i64)> {
        let is_ours = self.orders != FileOrders::UNKNOWN;
        is_ours.then(|| whole_bounds(self.add.stats.as_deref(), column)).flatten()
    }

    /// The action that takes the file, as it stands, out of the table.
    pub fn remove(&self, at_ms: i64) -> Remove {
        removal(&self.add, at_ms)
    }

    /// The action that puts it back with another vector.
    pub fn with_vector(&self, vector: DeletionVector) -> Add {
        Add {
            stats: Some(with_dead_rows(self.add.stats.as_deref(), u64::from(self.rows))),
            deletion_vector: Some(vector),
            ..self.add.clone()
        }
    }
}

/// The action that takes a file of this entry out of the table.
pub(super) fn removal(add: &Add, at_ms: i64) -> Remove {
    Remove {
        path: add.path.clone(),
        deletion_timestamp: Some(at_ms),
        data_change: true,
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
        deletion_vector: add.deletion_vector.clone(),
    }
}

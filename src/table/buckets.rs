//! How the record keys of a table are shared out, and which of them a writer has.

use std::collections::BTreeSet;

use weir_model::key::KeyRef;

/// How a table is sharded and which shards this writer has.
///
/// The number of buckets is fixed when the table is created. Every key belongs to one of them, and each bucket has at
/// most one writer that means to change it; if two do, for a moment, their commits tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    pub count: u32,
    pub owned: BTreeSet<u32>,
}

impl Buckets {
    /// A table that is not sharded, and has one writer.
    pub fn whole() -> Self {
        Self::all(1)
    }

    /// Every bucket of a table that has `count`.
    pub fn all(count: u32) -> Self {
        Self { count, owned: (0..count).collect() }
    }

    /// The bucket that `key` belongs to.
    #[inline]
    pub fn of(&self, key: KeyRef<'_>) -> u32 {
        key.bucket(self.count)
    }

    /// Whether `bucket` is this writer's.
    pub fn owns(&self, bucket: u32) -> bool {
        self.owned.contains(&bucket)
    }

    /// Whether the writer's buckets exist: at least one does.
    pub(super) fn is_sound(&self) -> bool {
        self.count > 0 && self.owned.iter().all(|bucket| *bucket < self.count)
    }
}

//! The deletes that a chunk under way could still lose to, of each bucket above its floor. In memory.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use weir_model::key::KeyRef;
use weir_model::{Order, RecordKey};

use super::super::buckets::Buckets;
use crate::limits::DELETES_REMEMBERED_MAX;

/// Remembered deletes of the writer's buckets: they stand at different places of the stream, so a floor of one would
/// make changes of another look old.
#[derive(Debug)]
pub struct Deletes {
    by_bucket: BTreeMap<u32, BucketDeletes>,
    /// In all buckets.
    remembered: usize,
}

#[derive(Debug)]
struct BucketDeletes {
    orders: HashMap<RecordKey, Order, RandomState>,
    by_order: BTreeMap<Order, RecordKey>,
    floor: Order,
}

impl Deletes {
    /// None, with nothing to be remembered at or below a bucket's `floor`.
    pub fn new(buckets: &Buckets, floor: impl Fn(u32) -> Order) -> Self {
        let none = |floor| BucketDeletes { orders: HashMap::default(), by_order: BTreeMap::new(), floor };
        Self { by_bucket: buckets.owned.iter().map(|bucket| (*bucket, none(floor(*bucket)))).collect(), remembered: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.remembered == 0
    }

    pub fn floor(&self, bucket: u32) -> Option<Order> {
        self.by_bucket.get(&bucket).map(|deletes| deletes.floor)
    }

    pub fn order_of(&self, bucket: u32, key: KeyRef<'_>) -> Option<Order> {
        self.by_bucket.get(&bucket)?.orders.get(&key.to_owned()).copied()
    }

    pub fn forget(&mut self, bucket: u32, key: KeyRef<'_>) {
        if let Some(deletes) = self.by_bucket.get_mut(&bucket) {
            self.remembered -= usize::from(deletes.forget(&key.to_owned()));
        }
    }

    /// Remembers a delete that is above the bucket's floor. The oldest ones go, and the floor rises, if there are too many.
    pub fn remember(&mut self, bucket: u32, key: &RecordKey, order: Order) {
        let of_each = DELETES_REMEMBERED_MAX / self.by_bucket.len().max(1);
        let Some(deletes) = self.by_bucket.get_mut(&bucket).filter(|deletes| order > deletes.floor) else { return };
        let before = deletes.orders.len();
        deletes.remember(key, order);
        while deletes.orders.len() > of_each {
            deletes.forget_oldest();
        }
        self.remembered = self.remembered + deletes.orders.len() - before;
    }

    pub fn raise_floor(&mut self, bucket: u32, floor: Order) {
        let Some(deletes) = self.by_bucket.get_mut(&bucket) else { return };
        let before = deletes.orders.len();
        deletes.raise_floor(floor);
        self.remembered -= before - deletes.orders.len();
    }

    /// Bytes in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.remembered * 2 * size_of::<(RecordKey, Order)>()
    }
}

impl BucketDeletes {
    fn remember(&mut self, key: &RecordKey, order: Order) {
        if let Some(old) = self.orders.insert(key.clone(), order) {
            self.by_order.remove(&old);
        }
        self.by_order.insert(order, key.clone());
    }

    /// Whether there was something to forget.
    fn forget(&mut self, key: &RecordKey) -> bool {
        let Some(order) = self.orders.remove(key) else { return false };
        self.by_order.remove(&order);
        true
    }

    fn forget_oldest(&mut self) {
        if let Some((order, key)) = self.by_order.pop_first() {
            self.orders.remove(&key);
            self.floor = self.floor.max(order);
        }
    }

    fn raise_floor(&mut self, floor: Order) {
        self.floor = self.floor.max(floor);
        while self.by_order.first_key_value().is_some_and(|(order, _)| *order <= self.floor) {
            self.forget_oldest();
        }
    }
}

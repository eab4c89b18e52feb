//! Record key → where its live row is. In memory; rebuilt from the table, never the source of truth.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use weir_model::key::KeyRef;
use weir_model::{Order, RecordKey};

use super::addresses::AddressMap;
use super::buckets::Buckets;
use crate::limits::DELETES_REMEMBERED_MAX;

/// A row by its data file (numbered within one [`super::Table`]) and its place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowAddress {
    pub file: u32,
    pub row: u32,
}

/// What the index knows of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Located {
    Live(RowAddress),
    /// Deleted by a change of this order, which is above the floor.
    Deleted(Order),
    Absent,
}

/// Live rows of a writer's buckets, and the deletes that a chunk under way could still lose to.
#[derive(Debug)]
pub struct Index {
    buckets: Buckets,
    /// Keys of a single integer column.
    ints: AddressMap,
    bytes: HashMap<Box<[u8]>, RowAddress, RandomState>,
    /// Of each of the writer's buckets: they stand at different places of the stream, so a floor of one would make
    /// changes of another look old.
    deletes: BTreeMap<u32, Deletes>,
    /// Deletes remembered in all buckets.
    remembered: usize,
}

/// What is remembered of one bucket's deletes.
#[derive(Debug)]
struct Deletes {
    orders: HashMap<RecordKey, Order, RandomState>,
    by_order: BTreeMap<Order, RecordKey>,
    floor: Order,
}

impl Index {
    /// An empty index that remembers no delete at or below a bucket's `floor`.
    pub fn new(buckets: Buckets, floor: impl Fn(u32) -> Order) -> Self {
        let none = |floor| Deletes { orders: HashMap::default(), by_order: BTreeMap::new(), floor };
        let deletes = buckets.owned.iter().map(|bucket| (*bucket, none(floor(*bucket)))).collect();
        Self { buckets, ints: AddressMap::default(), bytes: HashMap::default(), deletes, remembered: 0 }
    }

    pub fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    pub fn len(&self) -> usize {
        self.ints.len() + self.bytes.len()
    }

    /// The order at and below which deletes of the bucket are forgotten; `None` if it is not the writer's.
    pub fn floor(&self, bucket: u32) -> Option<Order> {
        self.deletes.get(&bucket).map(|deletes| deletes.floor)
    }

    #[inline]
    pub fn live(&self, key: KeyRef<'_>) -> Option<RowAddress> {
        match key {
            KeyRef::Int(value) => self.ints.get(value),
            KeyRef::Bytes(bytes) => self.bytes.get(bytes).copied(),
        }
    }

    pub fn locate(&self, key: KeyRef<'_>) -> Located {
        if let Some(address) = self.live(key) {
            return Located::Live(address);
        }
        if self.remembered == 0 {
            return Located::Absent;
        }
        let deletes = self.deletes.get(&self.buckets.of(key));
        let order = deletes.and_then(|deletes| deletes.orders.get(&key.to_owned()));
        order.map_or(Located::Absent, |order| Located::Deleted(*order))
    }

    /// The key's live row is at `address` from here on; gives where it was.
    pub fn put(&mut self, key: KeyRef<'_>, address: RowAddress) -> Option<RowAddress> {
        if self.remembered > 0
            && let Some(deletes) = self.deletes.get_mut(&self.buckets.of(key))
        {
            self.remembered -= usize::from(deletes.forget(&key.to_owned()));
        }
        match key {
            KeyRef::Int(value) => self.ints.insert(value, address),
            KeyRef::Bytes(bytes) => self.bytes.insert(bytes.into(), address),
        }
    }

    /// The key has no row from here on. The delete is remembered if a chunk under way in its bucket could be older,
    /// as `remember` says, and it is above the floor.
    pub fn delete(&mut self, key: &RecordKey, order: Order, remember: impl Fn(u32) -> bool) {
        match key {
            RecordKey::Int(value) => self.ints.remove(*value),
            RecordKey::Bytes(bytes) => self.bytes.remove(bytes),
        };
        let bucket = self.buckets.of(key.as_ref());
        let Some(deletes) = self.deletes.get_mut(&bucket).filter(|_| remember(bucket)) else { return };
        if order <= deletes.floor {
            return;
        }
        let before = deletes.orders.len();
        deletes.remember(key, order);
        while deletes.orders.len() > DELETES_REMEMBERED_MAX / self.buckets.owned.len() {
            deletes.forget_oldest();
        }
        self.remembered = self.remembered + deletes.orders.len() - before;
    }

    /// Forgets every delete of the bucket at or below `floor`.
    pub fn raise_floor(&mut self, bucket: u32, floor: Order) {
        let Some(deletes) = self.deletes.get_mut(&bucket) else { return };
        let before = deletes.orders.len();
        deletes.raise_floor(floor);
        self.remembered -= before - deletes.orders.len();
    }

    /// Live rows for which `picked` holds, by their address and then by their key.
    pub fn pick(
        &self,
        in_file: impl Fn(RowAddress) -> bool,
        picked: impl Fn(KeyRef<'_>) -> bool,
    ) -> impl Iterator<Item = RowAddress> {
        let ints = self.ints.iter().map(|(key, address)| (KeyRef::Int(key), address));
        let bytes = self.bytes.iter().map(|(key, address)| (KeyRef::Bytes(key), *address));
        ints.chain(bytes).filter(move |(key, address)| in_file(*address) && picked(*key)).map(|(_, address)| address)
    }

    /// Drops the rows for which `gone` holds.
    pub fn drop_rows(&mut self, mut gone: impl FnMut(RowAddress) -> bool) {
        self.ints.retain(|address| !gone(address));
        self.bytes.retain(|_, address| !gone(*address));
    }

    /// Bytes in memory, roughly.
    pub fn bytes(&self) -> usize {
        let entry = size_of::<(Box<[u8]>, RowAddress)>() + 1;
        let heap: usize = self.bytes.keys().map(|key| key.len().next_multiple_of(16)).sum();
        let deletes = self.remembered * 2 * size_of::<(RecordKey, Order)>();
        self.ints.bytes() + self.bytes.capacity() * entry + heap + deletes
    }
}

impl Deletes {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn index(count: u32, floor: Order) -> Index {
        Index::new(Buckets::all(count), |_| floor)
    }

    #[test]
    fn deletes_above_the_floor_are_remembered_until_the_key_returns() {
        let mut index = index(1, Order::new(1, 1));
        let key = RecordKey::Int(5);
        index.delete(&key, Order::new(1, 2), |_| true);
        assert_eq!(index.locate(key.as_ref()), Located::Deleted(Order::new(1, 2)));
        index.put(key.as_ref(), RowAddress { file: 0, row: 0 });
        index.delete(&key, Order::new(1, 1), |_| true);
        assert_eq!(index.locate(key.as_ref()), Located::Absent);
    }

    #[test]
    fn a_raised_floor_forgets_what_lies_below() {
        let mut index = index(1, Order::MIN);
        for seq in 1..4 {
            index.delete(&RecordKey::Int(seq), Order::new(1, seq), |_| true);
        }
        index.raise_floor(0, Order::new(1, 2));
        assert_eq!(index.locate(KeyRef::Int(2)), Located::Absent);
        assert_eq!(index.locate(KeyRef::Int(3)), Located::Deleted(Order::new(1, 3)));
    }

    #[test]
    fn each_bucket_remembers_its_own_deletes_above_its_own_floor() {
        let mut index = index(4, Order::MIN);
        let buckets = Buckets::all(4);
        for id in 1..40 {
            index.delete(&RecordKey::Int(id), Order::new(1, id), |bucket| bucket != 3);
        }
        index.raise_floor(1, Order::new(1, 100));
        for id in 1..40 {
            let expected = match buckets.of(KeyRef::Int(id)) {
                0 | 2 => Located::Deleted(Order::new(1, id)),
                _ => Located::Absent,
            };
            assert_eq!(index.locate(KeyRef::Int(id)), expected);
            index.put(KeyRef::Int(id), RowAddress { file: 0, row: 0 });
        }
        assert_eq!((index.floor(0), index.floor(1)), (Some(Order::MIN), Some(Order::new(1, 100))));
        assert_eq!(index.remembered, 0);
    }
}

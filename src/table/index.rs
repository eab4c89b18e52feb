//! Record key → where its live row is. In memory; rebuilt from the table, never the source of truth.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use weir_model::key::KeyRef;
use weir_model::{Order, RecordKey};

use super::addresses::AddressMap;
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

/// Live rows, and the deletes that a chunk under way could still lose to.
#[derive(Debug, Default)]
pub struct Index {
    /// Keys of a single integer column.
    ints: AddressMap,
    bytes: HashMap<Box<[u8]>, RowAddress, RandomState>,
    deletes: HashMap<RecordKey, Order, RandomState>,
    by_order: BTreeMap<Order, RecordKey>,
    floor: Order,
}

impl Index {
    /// An empty index that remembers no delete at or below `floor`.
    pub fn new(floor: Order) -> Self {
        Self { floor, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.ints.len() + self.bytes.len()
    }

    /// The order at and below which deletes are forgotten.
    pub fn floor(&self) -> Order {
        self.floor
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
        if self.deletes.is_empty() {
            return Located::Absent;
        }
        self.deletes.get(&key.to_owned()).map_or(Located::Absent, |order| Located::Deleted(*order))
    }

    /// The key's live row is at `address` from here on; gives where it was.
    pub fn put(&mut self, key: KeyRef<'_>, address: RowAddress) -> Option<RowAddress> {
        if !self.deletes.is_empty()
            && let Some(order) = self.deletes.remove(&key.to_owned())
        {
            self.by_order.remove(&order);
        }
        match key {
            KeyRef::Int(value) => self.ints.insert(value, address),
            KeyRef::Bytes(bytes) => self.bytes.insert(bytes.into(), address),
        }
    }

    /// The key has no row from here on. The delete is remembered if `remember` and it is above the floor.
    pub fn delete(&mut self, key: &RecordKey, order: Order, remember: bool) {
        match key {
            RecordKey::Int(value) => self.ints.remove(*value),
            RecordKey::Bytes(bytes) => self.bytes.remove(bytes),
        };
        if remember && order > self.floor {
            if let Some(old) = self.deletes.insert(key.clone(), order) {
                self.by_order.remove(&old);
            }
            self.by_order.insert(order, key.clone());
            while self.deletes.len() > DELETES_REMEMBERED_MAX {
                self.forget_oldest_delete();
            }
        }
    }

    fn forget_oldest_delete(&mut self) {
        if let Some((order, key)) = self.by_order.pop_first() {
            self.deletes.remove(&key);
            self.floor = self.floor.max(order);
        }
    }

    /// Forgets every delete at or below `floor`.
    pub fn raise_floor(&mut self, floor: Order) {
        self.floor = self.floor.max(floor);
        while self.by_order.first_key_value().is_some_and(|(order, _)| *order <= self.floor) {
            self.forget_oldest_delete();
        }
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
        let deletes = self.deletes.len() * 2 * size_of::<(RecordKey, Order)>();
        self.ints.bytes() + self.bytes.capacity() * entry + heap + deletes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletes_above_the_floor_are_remembered_until_the_key_returns() {
        let mut index = Index::new(Order::new(1, 1));
        let key = RecordKey::Int(5);
        index.delete(&key, Order::new(1, 2), true);
        assert_eq!(index.locate(key.as_ref()), Located::Deleted(Order::new(1, 2)));
        index.put(key.as_ref(), RowAddress { file: 0, row: 0 });
        index.delete(&key, Order::new(1, 1), true);
        assert_eq!(index.locate(key.as_ref()), Located::Absent);
    }

    #[test]
    fn a_raised_floor_forgets_what_lies_below() {
        let mut index = Index::new(Order::MIN);
        for seq in 1..4 {
            index.delete(&RecordKey::Int(seq), Order::new(1, seq), true);
        }
        index.raise_floor(Order::new(1, 2));
        assert_eq!(index.locate(KeyRef::Int(2)), Located::Absent);
        assert_eq!(index.locate(KeyRef::Int(3)), Located::Deleted(Order::new(1, 3)));
    }
}

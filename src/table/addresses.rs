//! Integer keys → row addresses, in about 20 bytes a key: what decides how large a table fits in memory.
//!
//! Open addressing in slots of 16 bytes. A hash becomes a place by multiplication, so that a shard need not be a power
//! of two and grows by a quarter; there are many shards, so that growing never holds two copies of all.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::index::RowAddress;

const SHARD_BITS: u32 = 6;
/// Slots of a shard's first allocation.
const SLOTS_MIN: usize = 8;

/// A hash map from `i64` to [`RowAddress`].
#[derive(Debug)]
pub struct AddressMap {
    shards: Vec<Shard>,
    hasher: RandomState,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: i64,
    address: RowAddress,
}

/// No row has this file number: they are counted from 0, one a file.
const EMPTY: Slot = Slot { key: 0, address: RowAddress { file: u32::MAX, row: 0 } };

impl Slot {
    fn is_empty(self) -> bool {
        self.address.file == EMPTY.address.file
    }
}

/// Linear probing; a slot is empty only if no key's probe passes it.
#[derive(Debug, Default)]
struct Shard {
    slots: Vec<Slot>,
    len: usize,
}

impl Default for AddressMap {
    fn default() -> Self {
        let shards = (0..1 << SHARD_BITS).map(|_| Shard::default()).collect();
        Self { shards, hasher: RandomState::default(), len: 0 }
    }
}

impl AddressMap {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, key: i64) -> Option<RowAddress> {
        let (shard, hash) = self.place(key);
        let shard = &self.shards[shard];
        shard.find(key, hash).map(|at| shard.slots[at].address)
    }

    /// Gives the address that the key had.
    pub fn insert(&mut self, key: i64, address: RowAddress) -> Option<RowAddress> {
        let (shard, hash) = self.place(key);
        let hasher = &self.hasher;
        let old = self.shards[shard].insert(Slot { key, address }, hash, |key| place(hasher, key).1);
        self.len += usize::from(old.is_none());
        old
    }

    pub fn remove(&mut self, key: i64) -> Option<RowAddress> {
        let (shard, hash) = self.place(key);
        let hasher = &self.hasher;
        let old = self.shards[shard].remove(key, hash, |key| place(hasher, key).1)?;
        self.len -= 1;
        Some(old)
    }

    /// Keeps the entries for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(RowAddress) -> bool) {
        let hasher = &self.hasher;
        self.len = 0;
        for shard in &mut self.shards {
            let slots = std::mem::take(shard).slots;
            let kept: Vec<Slot> = slots.into_iter().filter(|slot| !slot.is_empty() && keep(slot.address)).collect();
            self.len += kept.len();
            // Room for all at once: they come in the order of their hashes, and in a smaller table that grows they
            // would pile up at its end.
            shard.slots = vec![EMPTY; kept.len() + kept.len() / 4];
            for slot in kept {
                shard.insert(slot, place(hasher, slot.key).1, |key| place(hasher, key).1);
            }
        }
    }

    /// Every key and its address, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (i64, RowAddress)> {
        let slots = self.shards.iter().flat_map(|shard| &shard.slots).filter(|slot| !slot.is_empty());
        slots.map(|slot| (slot.key, slot.address))
    }

    /// Bytes of all slots.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.slots.capacity() * size_of::<Slot>()).sum()
    }

    fn place(&self, key: i64) -> (usize, u64) {
        place(&self.hasher, key)
    }
}

/// A key's shard, and the hash that is left to place it there.
fn place(hasher: &RandomState, key: i64) -> (usize, u64) {
    let hash = hasher.hash_one(key);
    ((hash >> (64 - SHARD_BITS)) as usize, hash << SHARD_BITS)
}

impl Shard {
    /// The slot that a probe for `hash` begins at.
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.slots.len() as u128) >> 64) as usize
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    fn find(&self, key: i64, hash: u64) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        let mut at = self.home(hash);
        while !self.slots[at].is_empty() {
            if self.slots[at].key == key {
                return Some(at);
            }
            at = self.next(at);
        }
        None
    }

    fn insert(&mut self, slot: Slot, hash: u64, hash_of: impl Fn(i64) -> u64) -> Option<RowAddress> {
        if let Some(at) = self.find(slot.key, hash) {
            return Some(std::mem::replace(&mut self.slots[at], slot).address);
        }
        // Fuller than 85%, probes grow long.
        if (self.len + 1) * 20 > self.slots.len() * 17 {
            self.grow(hash_of);
        }
        self.add(slot, hash);
        None
    }

    /// Puts a key that is not there; there is room.
    fn add(&mut self, slot: Slot, hash: u64) {
        let mut at = self.home(hash);
        while !self.slots[at].is_empty() {
            at = self.next(at);
        }
        self.slots[at] = slot;
        self.len += 1;
    }

    fn grow(&mut self, hash_of: impl Fn(i64) -> u64) {
        let slots = (self.slots.len() + self.slots.len() / 4).max(SLOTS_MIN);
        let old = std::mem::replace(self, Self { slots: vec![EMPTY; slots], len: 0 });
        for slot in old.slots.into_iter().filter(|slot| !slot.is_empty()) {
            self.add(slot, hash_of(slot.key));
        }
    }

    fn remove(&mut self, key: i64, hash: u64, hash_of: impl Fn(i64) -> u64) -> Option<RowAddress> {
        let mut hole = self.find(key, hash)?;
        let removed = self.slots[hole].address;
        let mut at = self.next(hole);
        // A later slot moves into the hole if its probe passes there.
        while !self.slots[at].is_empty() {
            let home = self.home(hash_of(self.slots[at].key));
            if self.distance(home, at) >= self.distance(hole, at) {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.slots[hole] = EMPTY;
        self.len -= 1;
        Some(removed)
    }

    /// Steps of a probe from `from` to `to`.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn address(row: u32) -> RowAddress {
        RowAddress { file: row % 3, row }
    }

    proptest! {
        #[test]
        fn it_holds_what_a_plain_map_holds(steps in prop::collection::vec((0_u8..4, -300_i64..300, any::<u32>()), 0..2_000)) {
            let mut map = AddressMap::default();
            let mut plain = BTreeMap::new();
            for (step, key, row) in steps {
                match step {
                    0 | 1 => prop_assert_eq!(map.insert(key, address(row)), plain.insert(key, address(row))),
                    2 => prop_assert_eq!(map.remove(key), plain.remove(&key)),
                    _ => prop_assert_eq!(map.get(key), plain.get(&key).copied()),
                }
                prop_assert_eq!(map.len(), plain.len());
            }
            prop_assert_eq!(map.iter().collect::<BTreeMap<_, _>>(), plain.clone());
            map.retain(|address| address.file == 1);
            plain.retain(|_, address| address.file == 1);
            prop_assert_eq!(map.len(), plain.len());
            for key in -300..300 {
                prop_assert_eq!(map.get(key), plain.get(&key).copied());
            }
        }
    }

    #[test]
    fn what_is_not_kept_takes_no_room() {
        let mut map = AddressMap::default();
        for key in 0..10_000 {
            map.insert(key, address(key as u32));
        }
        let before = map.bytes();
        map.retain(|address| address.file == 1);
        assert!(map.bytes() < before / 2);
        map.retain(|_| false);
        assert_eq!((map.len(), map.bytes()), (0, 0));
        map.insert(1, address(1));
        assert_eq!(map.get(1), Some(address(1)));
    }

    #[test]
    fn a_key_costs_about_twenty_bytes() {
        for keys in [100_000, 130_000, 160_000] {
            let mut map = AddressMap::default();
            for key in 0..keys {
                map.insert(key * 7, address(key as u32));
            }
            let bytes = map.bytes() as f64 / keys as f64;
            assert!((18.0..24.5).contains(&bytes), "{bytes} bytes a key at {keys} keys");
        }
    }
}

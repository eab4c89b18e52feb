//! All keys of one form, in shards: what grows, is copied for a snapshot or is gone through is one shard at a time.

use std::sync::Arc;

use super::blob::Blob;
use super::form::{Form, Mix, SHARD_BITS};
use super::pages::Pages;
use super::shard::{ArenaFull, Shape, Shard};

const SHARDS: usize = 1 << SHARD_BITS;

/// Key → place.
pub struct Keys<F> {
    mix: Mix,
    /// None until there is a key: of the two forms a table has one.
    shards: Vec<Shard<F>>,
    len: usize,
    bytes_in_memory: usize,
}

impl<F: Form> Keys<F> {
    pub fn new(mix: Mix) -> Self {
        Self { mix, shards: Vec::new(), len: 0, bytes_in_memory: 0 }
    }

    pub fn mix(&self) -> Mix {
        self.mix
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn bytes_in_memory(&self) -> usize {
        // An array in memory has a head of its own.
        let heads = 2 * (size_of::<Vec<u8>>() + 2 * size_of::<usize>());
        self.bytes_in_memory + self.shards.len() * (size_of::<Shard<F>>() + heads)
    }

    #[inline]
    pub fn get(&self, key: &F::Key) -> Option<u64> {
        let (shard, rank) = self.locate(key);
        self.shards.get(shard)?.get(rank, key)
    }

    /// Ascends as slots do in memory, a shard behind the other; the same for keys that lie near each other.
    #[inline]
    pub fn place_in_memory(&self, key: &F::Key) -> u16 {
        (F::mixed(self.mix, key) >> (u64::BITS - u16::BITS)) as u16
    }

    /// A byte of where a search for the key begins.
    #[inline]
    pub fn first_byte(&self, key: &F::Key) -> u8 {
        let (shard, rank) = self.locate(key);
        self.shards.get(shard).map_or(0, |shard| shard.first_byte(rank))
    }

    /// Gives the place that the key had.
    pub fn put(&mut self, key: &F::Key, place: u64, pages: Option<&Arc<Pages>>) -> Result<Option<u64>, ArenaFull> {
        if self.shards.is_empty() {
            self.shards = none(pages);
        }
        let (shard, rank) = self.locate(key);
        let shard = &mut self.shards[shard];
        let before = shard.bytes_in_memory();
        let old = shard.put(rank, key, place)?;
        self.len += usize::from(old.is_none());
        self.bytes_in_memory = self.bytes_in_memory + shard.bytes_in_memory() - before;
        Ok(old)
    }

    /// Gives the place that the key had.
    pub fn remove(&mut self, key: &F::Key) -> Option<u64> {
        let (shard, rank) = self.locate(key);
        let shard = self.shards.get_mut(shard)?;
        let before = shard.bytes_in_memory();
        let old = shard.remove(rank, key)?;
        self.len = self.len.saturating_sub(1);
        self.bytes_in_memory = self.bytes_in_memory + shard.bytes_in_memory() - before;
        Some(old)
    }

    /// Keeps the keys for whose place `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) {
        for shard in &mut self.shards {
            shard.retain(&mut keep);
        }
        self.count();
    }

    /// How many parts there are to go through with [`Self::for_each_in`].
    pub fn parts(&self) -> usize {
        self.shards.len()
    }

    /// Gives every key of a part, and its place, to `each`.
    pub fn for_each_in(&self, part: usize, each: &mut dyn FnMut(&F::Key, u64)) {
        self.shards[part].for_each(self.mix, part as u64, each);
    }

    pub fn move_to(&mut self, pages: &Arc<Pages>) {
        for shard in &mut self.shards {
            shard.move_to(pages);
        }
        self.count();
    }

    /// The same, whatever is written here; `None` on disk.
    pub fn share(&self) -> Option<Self> {
        let shards = self.shards.iter().map(Shard::share).collect::<Option<_>>()?;
        Some(Self { shards, ..*self })
    }

    pub fn shapes(&self) -> Vec<Shape> {
        self.shards.iter().map(Shard::shape).collect()
    }

    /// One after another: the memory of each goes with it.
    pub fn into_shards(self) -> impl Iterator<Item = Shard<F>> {
        self.shards.into_iter()
    }

    pub fn shards(&self) -> &[Shard<F>] {
        &self.shards
    }

    /// Keys of these shards, of which there are all or none.
    pub fn of(mix: Mix, shards: Vec<Shard<F>>) -> Option<Self> {
        let all = shards.is_empty() || shards.len() == SHARDS;
        let mut keys = Self { mix, shards, len: 0, bytes_in_memory: 0 };
        keys.count();
        all.then_some(keys)
    }

    fn count(&mut self) {
        self.len = self.shards.iter().map(Shard::len).sum();
        self.bytes_in_memory = self.shards.iter().map(Shard::bytes_in_memory).sum();
    }

    /// A key's shard and its rank there.
    #[inline]
    fn locate(&self, key: &F::Key) -> (usize, u64) {
        let mixed = F::mixed(self.mix, key);
        ((mixed >> (64 - SHARD_BITS)) as usize, mixed << SHARD_BITS >> (64 - F::RANK_BITS))
    }
}

/// Empty shards.
fn none<F: Form>(pages: Option<&Arc<Pages>>) -> Vec<Shard<F>> {
    let none = Blob::default();
    let mut shards: Vec<Shard<F>> = (0..SHARDS).map(|_| Shard::new(&none)).collect();
    if let Some(pages) = pages {
        shards.iter_mut().for_each(|shard| shard.move_to(pages));
    }
    shards
}

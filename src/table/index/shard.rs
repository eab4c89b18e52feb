//! A part of an index: slots in the order of their ranks, with gaps.
//!
//! A rank has a home among the slots, in proportion. A slot stands at its home or behind it, with no gap between, and
//! ranks rise; so a search begins at the home and ends at a gap, at a greater rank or at what it looked for. What comes
//! in moves its successors up to the next gap; what goes moves them back.

use std::marker::PhantomData;

use super::blob::{Blob, Layout, Slot, put_slot, slots_in};
use super::form::{Form, Mix, SHARD_BITS};
use super::pages::Pages;

/// Fuller than this (slots in so many homes), runs without a gap grow long: a search passes seven slots on average here,
/// and what comes in moves eighty.
const FILL_MAX: (usize, usize) = (23, 25);
/// Homes grow by this part, which with `FILL_MAX` makes them at least 85% full.
const GROWTH_PART: usize = 12;
const HOMES_MIN: usize = 8;
/// Slots added behind the last home when what stands there has no gap.
const TAIL: usize = 8;
/// What processors bring in from memory at once.
const CACHE_LINE_BYTES: usize = 64;
/// Bytes of an arena that no key has are kept up to this part of it.
const GARBAGE_PART: usize = 8;
const GARBAGE_BYTES_MIN: usize = 256;

pub struct Shard<F> {
    slots: Blob,
    arena: Blob,
    homes: usize,
    len: usize,
    /// Bytes of the arena that no slot names.
    garbage: usize,
    form: PhantomData<F>,
}

/// The arena of a shard is full; only keys beside which the slots are nothing come to this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaFull;

/// What a shard is but for its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub homes: u32,
    pub len: u32,
    pub garbage: u32,
    pub slot_bytes: u32,
    pub arena_bytes: u32,
}

enum Probe {
    Found {
        at: usize,
        payload: u64,
    },
    /// Where it would come in.
    Missing {
        at: usize,
    },
}

#[inline]
fn home<L: Layout>(rank: u64, homes: usize) -> usize {
    let rank = u128::from(rank << (64 - L::RANK_BITS));
    ((rank * homes as u128) >> 64) as usize
}

/// Slots in the order of their ranks, each as near to its home as may be.
fn lay_out<L: Layout>(slots: impl Iterator<Item = Slot>, homes: usize) -> Vec<u8> {
    let mut bytes = vec![0xFF; (homes + TAIL) * L::SLOT_BYTES];
    let mut next = 0;
    for slot in slots {
        let at = next.max(home::<L>(slot.rank, homes));
        if (at + 1) * L::SLOT_BYTES > bytes.len() {
            bytes.reserve_exact(TAIL * L::SLOT_BYTES);
            bytes.resize((at + TAIL) * L::SLOT_BYTES, 0xFF);
        }
        put_slot::<L>(&mut bytes, at, slot);
        next = at + 1;
    }
    bytes
}

impl<F: Form> Shard<F> {
    /// An empty one; `none` is an array without bytes, which all that are empty share.
    pub fn new(none: &Blob) -> Self {
        let share = || none.share().unwrap_or_default();
        Self { slots: share(), arena: share(), homes: 0, len: 0, garbage: 0, form: PhantomData }
    }

    /// A shard of this shape and these bytes; `None` if they do not go together.
    pub fn of(shape: Shape, slots: Vec<u8>, arena: Vec<u8>) -> Option<Self> {
        let (homes, len, garbage) = (shape.homes as usize, shape.len as usize, shape.garbage as usize);
        let sound = slots.len().is_multiple_of(F::SLOT_BYTES) && slots.len() / F::SLOT_BYTES >= homes.max(len);
        let blob = |bytes: Vec<u8>| Blob::Memory(bytes.into());
        let (slots, arena) = (blob(slots), blob(arena));
        (sound && garbage <= arena.len()).then_some(Self { slots, arena, homes, len, garbage, form: PhantomData })
    }

    pub fn shape(&self) -> Shape {
        Shape {
            homes: self.homes as u32,
            len: self.len as u32,
            garbage: self.garbage as u32,
            slot_bytes: self.slots.len() as u32,
            arena_bytes: self.arena.len() as u32,
        }
    }

    pub fn slots(&self) -> &Blob {
        &self.slots
    }

    pub fn arena(&self) -> &Blob {
        &self.arena
    }

    /// The same, whatever is written here; `None` on disk.
    pub fn share(&self) -> Option<Self> {
        Some(Self { slots: self.slots.share()?, arena: self.arena.share()?, form: PhantomData, ..*self })
    }

    pub fn move_to(&mut self, pages: &std::sync::Arc<Pages>) {
        self.slots.move_to(pages, F::SLOT_BYTES);
        self.arena.move_to(pages, 1);
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn bytes_in_memory(&self) -> usize {
        self.slots.bytes_in_memory() + self.arena.bytes_in_memory()
    }

    #[inline]
    pub fn get(&self, rank: u64, key: &F::Key) -> Option<u64> {
        match self.find(rank, key) {
            Probe::Found { payload, .. } => F::place(&self.arena, payload),
            Probe::Missing { .. } => None,
        }
    }

    /// A byte of each line of memory that most searches for the rank see, made one; in memory alone.
    #[inline]
    pub fn first_byte(&self, rank: u64) -> u8 {
        let at = home::<F>(rank, self.homes) * F::SLOT_BYTES;
        self.slots.byte_in_memory(at) | self.slots.byte_in_memory(at + CACHE_LINE_BYTES)
    }

    /// Gives the place that the key had.
    pub fn put(&mut self, rank: u64, key: &F::Key, place: u64) -> Result<Option<u64>, ArenaFull> {
        let at = match self.find(rank, key) {
            Probe::Found { at, payload } => {
                let old = F::place(&self.arena, payload);
                let moved = F::moved(&mut self.arena, payload, place);
                if moved != payload {
                    self.slots.set_slot::<F>(at, Slot { rank, payload: moved });
                }
                return Ok(old);
            }
            Probe::Missing { at } => at,
        };
        let payload = F::admit(&mut self.arena, key, place).ok_or(ArenaFull)?;
        let at = if (self.len + 1) * FILL_MAX.1 > self.homes * FILL_MAX.0 {
            self.resize((self.homes + self.homes / GROWTH_PART + 1).max(HOMES_MIN));
            self.place_for(rank)
        } else {
            at
        };
        self.insert(at, Slot { rank, payload });
        self.len += 1;
        Ok(None)
    }

    /// Gives the place that the key had.
    pub fn remove(&mut self, rank: u64, key: &F::Key) -> Option<u64> {
        let Probe::Found { at, payload } = self.find(rank, key) else { return None };
        let old = F::place(&self.arena, payload);
        let homes = self.homes;
        let end = self
            .slots
            .scan::<F, _>(at + 1, |at, slot| (slot.is_empty::<F>() || home::<F>(slot.rank, homes) == at).then_some(at));
        let end = end.unwrap_or(self.slot_count());
        self.slots.copy_slots::<F>(at + 1..end, at);
        self.slots.set_slot::<F>(end - 1, Slot { rank: u64::MAX >> (64 - F::RANK_BITS), payload: F::EMPTY });
        self.len = self.len.saturating_sub(1);
        self.note_garbage(payload);
        if self.homes > 4 * HOMES_MIN && self.len * 2 < self.homes {
            self.resize(self.len + self.len / 5 + HOMES_MIN);
        }
        old
    }

    /// Keeps the keys for whose place `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) {
        let Self { slots, arena, .. } = self;
        let place = |slot: &Slot| F::place(arena, slot.payload);
        let loaded = slots.load();
        let all = slots_in::<F>(&loaded).filter(|slot| !slot.is_empty::<F>());
        let kept: Vec<Slot> = all.filter(|slot| place(slot).is_some_and(&mut keep)).collect();
        if kept.len() == self.len {
            return;
        }
        let homes = kept.len() + kept.len() / 5;
        let laid = lay_out::<F>(kept.iter().copied(), homes);
        drop(loaded);
        (self.len, self.homes) = (kept.len(), homes);
        self.slots.replace(if homes == 0 { Vec::new() } else { laid }, F::SLOT_BYTES);
        self.compact();
    }

    /// Gives every key and its place to `each`; `shard` is the number of this one.
    pub fn for_each(&self, mix: Mix, shard: u64, each: &mut dyn FnMut(&F::Key, u64)) {
        let (slots, arena) = (self.slots.load(), self.arena.load());
        for slot in slots_in::<F>(&slots).filter(|slot| !slot.is_empty::<F>()) {
            let mixed = shard << (64 - SHARD_BITS) | slot.rank << (64 - SHARD_BITS - F::RANK_BITS);
            F::show(mix, mixed, slot.payload, &arena, each);
        }
    }

    fn slot_count(&self) -> usize {
        self.slots.len() / F::SLOT_BYTES
    }

    #[inline]
    fn find(&self, rank: u64, key: &F::Key) -> Probe {
        // No slot behind a gap has a rank below this one: it would stand in the gap.
        let start = self.slots.seek::<F>(home::<F>(rank, self.homes), rank);
        let found = self.slots.scan::<F, _>(start, |at, slot| {
            if slot.is_empty::<F>() || slot.rank > rank {
                return Some(Probe::Missing { at });
            }
            let is_it = slot.rank == rank && F::is_of(&self.arena, slot.payload, key);
            is_it.then_some(Probe::Found { at, payload: slot.payload })
        });
        found.unwrap_or_else(|| Probe::Missing { at: self.slot_count() })
    }

    /// Where a slot of the rank comes in, behind others of the same.
    fn place_for(&self, rank: u64) -> usize {
        let start = self.slots.seek::<F>(home::<F>(rank, self.homes), rank);
        let place = self.slots.scan::<F, _>(start, |at, slot| (slot.is_empty::<F>() || slot.rank > rank).then_some(at));
        place.unwrap_or_else(|| self.slot_count())
    }

    fn insert(&mut self, at: usize, slot: Slot) {
        let gap = self.slots.scan::<F, _>(at, |at, slot| slot.is_empty::<F>().then_some(at));
        let gap = gap.unwrap_or_else(|| {
            let end = self.slot_count();
            self.slots.append(&[0xFF; TAIL * 16][..TAIL * F::SLOT_BYTES], F::SLOT_BYTES);
            end
        });
        self.slots.copy_slots::<F>(at..gap, at + 1);
        self.slots.set_slot::<F>(at, slot);
    }

    fn resize(&mut self, homes: usize) {
        let loaded = self.slots.load();
        let laid = lay_out::<F>(slots_in::<F>(&loaded).filter(|slot| !slot.is_empty::<F>()), homes);
        drop(loaded);
        self.slots.replace(laid, F::SLOT_BYTES);
        self.homes = homes;
    }

    /// The record at `payload` belongs to no slot from here on.
    fn note_garbage(&mut self, payload: u64) {
        if self.arena.len() == 0 {
            return;
        }
        self.garbage += F::arena_bytes(&self.arena.head(payload as usize), 0);
        if self.garbage > GARBAGE_BYTES_MIN && self.garbage * GARBAGE_PART > self.arena.len() {
            self.compact();
        }
    }

    /// Leaves nothing in the arena but what slots name.
    fn compact(&mut self) {
        if self.arena.len() == 0 {
            return;
        }
        let (mut slots, arena) = (self.slots.load().into_owned(), self.arena.load());
        let mut carried = Vec::with_capacity(arena.len().saturating_sub(self.garbage));
        for at in 0..slots.len() / F::SLOT_BYTES {
            let slot = slots_in::<F>(&slots[at * F::SLOT_BYTES..]).next();
            if let Some(slot) = slot.filter(|slot| !slot.is_empty::<F>()) {
                let payload = F::carry(&arena, slot.payload, &mut carried);
                put_slot::<F>(&mut slots, at, Slot { payload, ..slot });
            }
        }
        drop(arena);
        carried.shrink_to_fit();
        self.slots.replace(slots, F::SLOT_BYTES);
        self.arena.replace(carried, 1);
        self.garbage = 0;
    }
}

//! Record key → where its live row is. A cache of the table, never the source of truth.
//!
//! ```text
//! key ─► mix ─► shard ─► slot (rank, place) ─► row space ─► RowAddress
//!                  in memory, or in pages of a scratch file
//! ```
//!
//! In memory an integer key takes 13 to 15 bytes ([`form`]); beyond the budget of its [`IndexHome`] an index moves to local disk.
//! What a table remembers of deletes is beside ([`deletes`]). [`snapshot`] writes an index to a file and reads it.
//!
//! Reading order: [`space`], [`form`], [`blob`], [`shard`], [`keys`], then `home` and `pages`.

mod blob;
mod deletes;
mod form;
mod home;
mod keys;
mod pages;
mod shard;
mod snapshot;
mod space;

#[cfg(test)]
mod tests;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use weir_model::key::KeyRef;
use weir_model::{Order, RecordKey};

pub use self::home::{IndexBudget, IndexHome};
pub use self::snapshot::IndexSnapshot;
pub use self::space::RowSpaceFull;

use self::deletes::Deletes;
use self::form::{Bytes, Ints, Mix};
use self::home::{Health, Reservation};
use self::keys::Keys;
use self::pages::Pages;
use self::shard::ArenaFull;
use self::space::RowSpace;
use super::buckets::Buckets;

/// A row by its data file (numbered within one [`super::Table`]) and its place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowAddress {
    pub file: u32,
    pub row: u32,
}

/// Searches that go together: many enough to hide how long memory takes, and few enough for what they need to stay near.
const LOOKAHEAD: usize = 32;

/// The numbers of `len` keys in blocks, to [`Index::fetch`] each before its keys are searched for.
pub fn lookahead(len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(LOOKAHEAD).map(move |start| start..(start + LOOKAHEAD).min(len))
}

/// From so many keys on they are brought into the order of their slots: what that costs is less then than what it saves.
const IN_PLACE_MIN: usize = 16_384;

/// What the index knows of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Located {
    Live(RowAddress),
    /// Deleted by a change of this order, which is above the floor.
    Deleted(Order),
    Absent,
}

/// Live rows of a writer's buckets, and the deletes that a chunk under way could still lose to.
///
/// Its operations never fail; one whose disk did, or that was told of a row of no file, may give any answer from then on
/// and says so in [`Index::health`], which is to be asked before anything durable follows from an answer.
pub struct Index {
    buckets: Buckets,
    space: RowSpace,
    ints: Keys<Ints>,
    bytes: Keys<Bytes>,
    deletes: Deletes,
    home: IndexHome,
    /// On disk, the pages of all keys.
    pages: Option<Arc<Pages>>,
    /// For what is in memory.
    reservation: Reservation,
    health: Arc<Health>,
}

impl Index {
    /// An empty index that remembers no delete at or below a bucket's `floor`.
    pub fn new(buckets: Buckets, floor: impl Fn(u32) -> Order, home: IndexHome) -> Self {
        let mix = Mix { seed: RandomState::new().hash_one(0) };
        Self::of(buckets, floor, home, RowSpace::default(), Keys::new(mix), Keys::new(mix))
    }

    fn of(
        buckets: Buckets,
        floor: impl Fn(u32) -> Order,
        home: IndexHome,
        space: RowSpace,
        ints: Keys<Ints>,
        bytes: Keys<Bytes>,
    ) -> Self {
        let deletes = Deletes::new(&buckets, floor);
        let (reservation, health) = (Reservation::new(&home), Arc::default());
        Self { buckets, space, ints, bytes, deletes, home, pages: None, reservation, health }
    }

    pub fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    pub fn len(&self) -> usize {
        self.ints.len() + self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The order at and below which deletes of the bucket are forgotten; `None` if it is not the writer's.
    pub fn floor(&self, bucket: u32) -> Option<Order> {
        self.deletes.floor(bucket)
    }

    /// Whether the index can be believed.
    ///
    /// # Errors
    /// The first failure since it was made. It does not pass.
    pub fn health(&self) -> io::Result<()> {
        self.health.check()
    }

    /// Makes room for the rows of a data file, before any of them is put.
    ///
    /// # Errors
    /// When a table has had more rows since it was opened than the index can number.
    pub fn add_file(&mut self, file: u32, rows: u32) -> Result<(), RowSpaceFull> {
        self.space.add(file, rows)
    }

    /// The file is gone. Keys that are said to have a row in it have none: whoever takes a file away need not know them.
    pub fn remove_file(&mut self, file: u32) {
        self.space.remove(file);
    }

    /// Brings near what a search for each of `keys` begins with, of so many as [`lookahead`] says. An index is larger than
    /// the processor's caches: searches one by one each wait for memory, and this waits once for all of them.
    pub fn fetch<'a>(&self, keys: impl Iterator<Item = KeyRef<'a>>) {
        let first = |key: KeyRef<'a>| match key {
            KeyRef::Int(value) => self.ints.first_byte(&value),
            KeyRef::Bytes(bytes) => self.bytes.first_byte(bytes),
        };
        std::hint::black_box(keys.map(first).fold(0, |all, byte| all | byte));
    }

    /// The numbers of `len` keys in about the order in which their slots lie in memory, so that searching for or putting many
    /// goes through the index from its beginning to its end. In any other order each key waits for memory by itself. Few keys
    /// stay in the order they are in.
    pub fn in_place<'a>(&self, len: usize, key: impl Fn(usize) -> KeyRef<'a>) -> Vec<u32> {
        let numbers: Vec<u32> = (0..len as u32).collect();
        if len < IN_PLACE_MIN {
            return numbers;
        }
        let place = |nth: usize| match key(nth) {
            KeyRef::Int(value) => self.ints.place_in_memory(&value),
            KeyRef::Bytes(bytes) => self.bytes.place_in_memory(bytes),
        };
        let places: Vec<u16> = (0..len).map(place).collect();
        let by_low = sorted_by(numbers, |nth| places[nth as usize] as u8);
        sorted_by(by_low, |nth| (places[nth as usize] >> 8) as u8)
    }

    #[inline]
    pub fn live(&self, key: KeyRef<'_>) -> Option<RowAddress> {
        let place = match key {
            KeyRef::Int(value) => self.ints.get(&value),
            KeyRef::Bytes(bytes) => self.bytes.get(bytes),
        };
        self.address_of(place?)
    }

    /// Whether there is a delete that a chunk could lose to.
    pub fn remembers_deletes(&self) -> bool {
        !self.deletes.is_empty()
    }

    pub fn locate(&self, key: KeyRef<'_>) -> Located {
        if let Some(address) = self.live(key) {
            return Located::Live(address);
        }
        if self.deletes.is_empty() {
            return Located::Absent;
        }
        self.deletes.order_of(self.buckets.of(key), key).map_or(Located::Absent, Located::Deleted)
    }

    /// The key's live row is at `address` from here on; gives where it was. The file has been added.
    pub fn put(&mut self, key: KeyRef<'_>, address: RowAddress) -> Option<RowAddress> {
        if !self.deletes.is_empty() {
            self.deletes.forget(self.buckets.of(key), key);
        }
        let Some(place) = self.space.place_of(address) else {
            self.health.fail(&io::Error::other(format!("row {} of file {} is of no file", address.row, address.file)));
            return None;
        };
        let old = match key {
            KeyRef::Int(value) => self.ints.put(&value, place, self.pages.as_ref()),
            KeyRef::Bytes(bytes) => self.bytes.put(bytes, place, self.pages.as_ref()),
        };
        self.account();
        match old {
            Ok(old) => self.address_of(old?),
            Err(ArenaFull) => {
                self.health.fail(&io::Error::new(io::ErrorKind::OutOfMemory, "its keys are too long and too many"));
                None
            }
        }
    }

    /// The key has no row from here on. The delete is remembered if a chunk under way in its bucket could be older,
    /// as `remember` says, and it is above the floor.
    pub fn delete(&mut self, key: &RecordKey, order: Order, remember: impl Fn(u32) -> bool) {
        match key {
            RecordKey::Int(value) => self.ints.remove(value),
            RecordKey::Bytes(bytes) => self.bytes.remove(bytes),
        };
        self.account();
        let bucket = self.buckets.of(key.as_ref());
        if remember(bucket) {
            self.deletes.remember(bucket, key, order);
        }
    }

    /// Forgets every delete of the bucket at or below `floor`.
    pub fn raise_floor(&mut self, bucket: u32, floor: Order) {
        self.deletes.raise_floor(bucket, floor);
    }

    /// Gives every key that has a live row, and where that is, to `each`; in no order.
    pub fn for_each(&self, mut each: impl FnMut(KeyRef<'_>, RowAddress)) {
        for part in 0..self.parts() {
            self.for_each_in(part, &mut each);
        }
    }

    /// Live rows for which `picked` holds, by their address and then by their key.
    pub fn pick(
        &self,
        in_file: impl Fn(RowAddress) -> bool,
        picked: impl Fn(KeyRef<'_>) -> bool,
    ) -> impl Iterator<Item = RowAddress> {
        (0..self.parts()).flat_map(move |part| {
            let mut rows = Vec::new();
            self.for_each_in(part, &mut |key, address| {
                if in_file(address) && picked(key) {
                    rows.push(address);
                }
            });
            rows
        })
    }

    /// Drops the rows for which `gone` holds.
    pub fn drop_rows(&mut self, mut gone: impl FnMut(RowAddress) -> bool) {
        let space = &self.space;
        let mut keep = |place| space.address_of(place).is_some_and(|address| !gone(address));
        self.ints.retain(&mut keep);
        self.bytes.retain(&mut keep);
        self.account();
    }

    /// Bytes in memory and on disk, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes_in_memory() + self.pages.as_ref().map_or(0, |pages| pages.bytes_on_disk())
    }

    /// Bytes in memory, roughly: of an index on disk, the pages that are kept.
    pub fn bytes_in_memory(&self) -> usize {
        let pages = self.pages.as_ref().map_or(0, |pages| pages.bytes_in_memory());
        self.bytes_of_keys() + pages + self.space.bytes() + self.deletes.bytes()
    }

    /// Whether it has moved to local disk.
    pub fn on_disk(&self) -> bool {
        self.pages.is_some()
    }

    /// A copy that stays as it is, for whoever writes it. In memory it costs nothing at first: what is written meanwhile
    /// is copied, a shard at a time. On disk it is copied here.
    ///
    /// # Errors
    /// When the index has failed, or the disk does.
    pub fn snapshot(&self) -> io::Result<IndexSnapshot> {
        self.health()?;
        let shared = self.ints.share().zip(self.bytes.share());
        let snapshot = match shared {
            Some((ints, bytes)) => IndexSnapshot::shared(&self.space, self.ints.mix(), ints, bytes),
            None => {
                let file = self.home.scratch_file()?;
                IndexSnapshot::copied(&self.space, self.ints.mix(), &self.ints, &self.bytes, file)?
            }
        };
        self.health()?;
        Ok(snapshot)
    }

    fn parts(&self) -> usize {
        self.ints.parts() + self.bytes.parts()
    }

    fn for_each_in(&self, part: usize, each: &mut dyn FnMut(KeyRef<'_>, RowAddress)) {
        let mut show = |key: KeyRef<'_>, place| {
            if let Some(address) = self.address_of(place) {
                each(key, address);
            }
        };
        match part.checked_sub(self.ints.parts()) {
            None => self.ints.for_each_in(part, &mut |key, place| show(KeyRef::Int(*key), place)),
            Some(part) => self.bytes.for_each_in(part, &mut |key, place| show(KeyRef::Bytes(key), place)),
        }
    }

    #[inline]
    fn address_of(&self, place: u64) -> Option<RowAddress> {
        self.space.address_of(place)
    }

    fn bytes_of_keys(&self) -> usize {
        self.ints.bytes_in_memory() + self.bytes.bytes_in_memory()
    }

    /// Tells the budget what the keys take; an index that would go beyond it moves to disk.
    #[inline]
    fn account(&mut self) {
        let bytes = self.bytes_of_keys();
        if bytes != self.reservation.bytes() {
            let is_over = self.reservation.set(bytes);
            if is_over && self.pages.is_none() && self.home.moves(bytes) {
                self.move_to_disk();
            }
        }
    }

    #[cold]
    fn move_to_disk(&mut self) {
        if self.health.has_failed() {
            return;
        }
        match Pages::create(&self.home, self.health.clone()) {
            Ok(pages) => {
                tracing::info!(
                    keys = self.len(),
                    "a key index moves to local disk: [apply] index_memory_max is reached"
                );
                self.ints.move_to(&pages);
                self.bytes.move_to(&pages);
                self.pages = Some(pages);
                self.reservation.set(self.bytes_of_keys());
            }
            Err(error) => self.health.fail(&error),
        }
    }
}

/// `numbers` by a byte of each; those of one byte keep their order.
fn sorted_by(numbers: Vec<u32>, byte: impl Fn(u32) -> u8) -> Vec<u32> {
    let mut ends = [0_usize; 1 << u8::BITS];
    numbers.iter().for_each(|&number| ends[usize::from(byte(number))] += 1);
    let mut before = 0;
    for end in &mut ends {
        before += std::mem::replace(end, before);
    }
    let mut sorted = vec![0; numbers.len()];
    for number in numbers {
        let next = &mut ends[usize::from(byte(number))];
        sorted[*next] = number;
        *next += 1;
    }
    sorted
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("len", &self.len()).field("on_disk", &self.on_disk()).finish_non_exhaustive()
    }
}

//! Which live rows die with a commit: by a chunk, a clear, the end of a load, or another row of their key.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use roaring::RoaringBitmap;
use weir_model::key::KeyRef;
use weir_model::{Order, RecordKey};

use super::change::{AbsentKeys, Clear, RemoveBelow, all_in};
use super::chunk::StagedChunk;
use super::files::DataFile;
use super::index::{Located, RowAddress, lookahead};
use super::{Table, TableError};
use crate::trace::{Hop, Tally};

/// Bounds of so many files cost less than searching for the keys of a chunk.
const FILES_LOOKED_AT_MAX: usize = 1_000;

/// Rows of existing files that die, and files that go as a whole.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    pub rows: BTreeMap<u32, RoaringBitmap>,
    pub files: BTreeSet<u32>,
}

impl Deaths {
    pub(super) fn row(&mut self, address: RowAddress) {
        self.rows.entry(address.file).or_default().insert(address.row);
    }

    /// Whether a live row dies.
    pub(super) fn covers(&self, address: RowAddress) -> bool {
        self.files.contains(&address.file)
            || self.rows.get(&address.file).is_some_and(|rows| rows.contains(address.row))
    }
}

impl Table {
    /// Of each key of the chunk the greater order stays: the chunk's row, or what the table has. Returns the chunk's
    /// rows that lose. In a table that is appended to there are none.
    pub(super) async fn stage_chunk(
        &mut self,
        chunk: &StagedChunk,
        deaths: &mut Deaths,
        tally: &mut Tally,
    ) -> Result<RoaringBitmap, TableError> {
        if self.schema.layout.is_append() {
            tally.chunk_rows(Hop::ChunkRead, chunk.file.window, chunk.rows());
            tally.chunk_rows(Hop::ChunkUpserted, chunk.file.window, chunk.rows());
            return Ok(RoaringBitmap::new());
        }
        if !all_in(&chunk.keys, chunk.file.bucket, self.buckets()) {
            return Err(self.rule("a chunk has a row of another bucket than its own"));
        }
        if !self.may_merge(chunk.file.bucket, chunk.file.order0) {
            return Err(self.rule("a chunk is not above the floor, so deletes that it loses to may be forgotten"));
        }
        let by_key = chunk.keys.sorted_rows();
        if by_key.windows(2).any(|pair| chunk.keys.get(pair[0] as usize) == chunk.keys.get(pair[1] as usize)) {
            return Err(self.rule("a chunk has two rows of one key"));
        }
        let located = if self.may_know(chunk, &by_key) {
            let keys: Vec<KeyRef<'_>> = (0..chunk.keys.len()).map(|row| chunk.keys.get(row)).collect();
            self.locate_all(&keys)
        } else {
            Vec::new()
        };
        let could_win = |located: &Located| match located {
            Located::Live(address) if self.file_greatest(*address) >= chunk.file.order0 => Some(*address),
            _ => None,
        };
        let doubtful: Vec<RowAddress> = located.iter().filter_map(could_win).collect();
        let orders = self.orders_of(&doubtful).await?;
        let orders: HashMap<RowAddress, Order> = doubtful.into_iter().zip(orders).collect();
        let (mut dead, mut duplicate) = (RoaringBitmap::new(), 0);
        for (row, located) in located.into_iter().enumerate() {
            let against = match located {
                Located::Absent => continue,
                // Gone before the chunk was opened, and there when it was read: rows come without events when another
                // table takes this one's name.
                Located::Deleted(order) if order < chunk.file.order0 => continue,
                Located::Deleted(order) => order,
                Located::Live(address) => match orders.get(&address) {
                    Some(order) if *order >= chunk.file.order0 => *order,
                    _ => {
                        deaths.row(address);
                        continue;
                    }
                },
            };
            dead.insert(row as u32);
            duplicate += u64::from(against == chunk.file.order0);
        }
        let rows = chunk.rows();
        tally.chunk_rows(Hop::ChunkRead, chunk.file.window, rows);
        tally.chunk_rows(Hop::ChunkUpserted, chunk.file.window, rows - dead.len());
        tally.chunk_rows(Hop::ChunkStale, chunk.file.window, dead.len() - duplicate);
        tally.chunk_rows(Hop::ChunkDuplicate, chunk.file.window, duplicate);
        Ok(dead)
    }

    /// The keys of `absent` that have a live row, with its address, if the row is older than the chunk that looked for them.
    pub(super) async fn rows_of_absent(
        &mut self,
        absent: &AbsentKeys,
    ) -> Result<Vec<(RecordKey, RowAddress)>, TableError> {
        let AbsentKeys { bucket, order0, keys } = absent;
        if !self.may_merge(*bucket, *order0) {
            return Err(self.rule("a chunk is not above the floor, so changes that it loses to may be forgotten"));
        }
        let refs: Vec<KeyRef<'_>> = keys.iter().map(RecordKey::as_ref).collect();
        let located = self.locate_all(&refs);
        let live: Vec<(usize, RowAddress)> = located
            .into_iter()
            .enumerate()
            .filter_map(|(nth, located)| if let Located::Live(address) = located { Some((nth, address)) } else { None })
            .collect();
        let addresses: Vec<RowAddress> = live.iter().map(|(_, address)| *address).collect();
        let orders = self.orders_of(&addresses).await?;
        let older = live.into_iter().zip(orders).filter(|(_, order)| order < order0);
        Ok(older.map(|((nth, address), _)| (keys[nth].clone(), address)).collect())
    }

    /// Whether the table may have a row, or remember a delete, of a key of the chunk, whose rows in the order of their keys are
    /// `by_key`. A first load meets neither, and need not search for its keys one by one.
    fn may_know(&self, chunk: &StagedChunk, by_key: &[u32]) -> bool {
        let schema = &chunk.file.schema;
        let (Some(first), Some(last), &[key]) = (by_key.first(), by_key.last(), &schema.key[..]) else { return true };
        let bound = |row: u32| match chunk.keys.get(row as usize) {
            KeyRef::Int(value) => Some(value),
            KeyRef::Bytes(_) => None,
        };
        let (Some(least), Some(greatest)) = (bound(*first), bound(*last)) else { return true };
        let name = &schema.columns[key].name;
        let is_apart = |file: &DataFile| {
            file.bucket.is_some_and(|bucket| bucket != chunk.file.bucket)
                || file.bounds_of(name).is_some_and(|(from, to)| greatest < from || to < least)
        };
        self.index.remembers_deletes() || self.files.len() > FILES_LOOKED_AT_MAX || !self.files.values().all(is_apart)
    }

    /// Every live row of the cleared buckets dies.
    pub(super) fn stage_clear(&self, clear: &Clear, deaths: &mut Deaths) {
        let all = clear.buckets.len() == self.buckets().count as usize;
        let cleared = |file: &DataFile| all || file.bucket.is_some_and(|bucket| clear.buckets.contains(&bucket));
        deaths.files.extend(self.files.iter().filter(|(_, file)| cleared(file)).map(|(number, _)| *number));
        self.rows_in_mixed_files(&clear.buckets).for_each(|address| deaths.row(address));
    }

    /// Every live row of the buckets below the order dies. Returns how many.
    pub(super) async fn stage_remove_below(
        &mut self,
        remove: &RemoveBelow,
        deaths: &mut Deaths,
    ) -> Result<u64, TableError> {
        let RemoveBelow { order, buckets } = remove;
        let mut removed = 0;
        for number in self.files_with_orders_below(*order) {
            let file = &self.files[&number];
            if !file.bucket.is_some_and(|bucket| buckets.contains(&bucket)) {
                continue;
            }
            if file.orders.greatest < *order {
                removed += file.live_rows();
                deaths.files.insert(number);
                continue;
            }
            let orders = self.file_orders(number).await?;
            let file = &self.files[&number];
            let below: RoaringBitmap =
                (0..file.rows).filter(|row| !file.dead.contains(*row) && orders.get(*row) < *order).collect();
            removed += below.len();
            if !below.is_empty() {
                deaths.rows.insert(number, below);
            }
        }
        let mixed: Vec<RowAddress> = self.rows_in_mixed_files(buckets).collect();
        let orders = self.orders_of(&mixed).await?;
        for (address, _) in mixed.into_iter().zip(orders).filter(|(_, row)| row < order) {
            removed += 1;
            deaths.row(address);
        }
        Ok(removed)
    }

    fn files_with_orders_below(&self, order: Order) -> Vec<u32> {
        self.files.iter().filter(|(_, file)| file.orders.least < order).map(|(number, _)| *number).collect()
    }

    /// Live rows of `buckets` that lie in files of no one bucket.
    pub(super) fn rows_in_mixed_files(&self, buckets: &BTreeSet<u32>) -> impl Iterator<Item = RowAddress> {
        let mixed: BTreeSet<u32> =
            self.files.iter().filter(|(_, file)| file.bucket.is_none()).map(|(number, _)| *number).collect();
        // Without such files the index need not be gone through.
        let index = (!mixed.is_empty()).then_some(&self.index);
        index.into_iter().flat_map(move |index| {
            let mixed = mixed.clone();
            index.pick(
                move |address| mixed.contains(&address.file) && self.is_live(address),
                |key| buckets.contains(&self.buckets().of(key)),
            )
        })
    }

    /// The live row of each of `count` keys dies, if there is one.
    pub(super) fn stage_deaths_of<'a>(&self, count: usize, key: impl Fn(usize) -> KeyRef<'a>, deaths: &mut Deaths) {
        for block in lookahead(count) {
            self.index.fetch(block.clone().map(&key));
            block.filter_map(|nth| self.live(key(nth))).for_each(|address| deaths.row(address));
        }
    }
}

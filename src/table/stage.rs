//! What a commit will do, worked out before anything is written: which rows die, which files come and go.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use roaring::RoaringBitmap;
use weir_model::key::KeyRef;
use weir_model::schema::{Evolution, evolution};
use weir_model::{Order, RecordKey, RecordKeys, TableSchema};

use super::change::TableChange;
use super::chunk::StagedChunk;
use super::index::{Located, RowAddress};
use super::{Table, TableError};
use crate::trace::{Hop, Tally};

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

/// What becomes of a chunk's rows.
#[derive(Debug, Default)]
pub(super) struct ChunkFate {
    /// Rows of the chunk's own file that lose.
    pub dead: RoaringBitmap,
    pub stale: u64,
    pub duplicate: u64,
}

impl Table {
    /// What the parts of a change must hold to, each by itself and beside the others.
    pub(super) fn may_change(&self, change: &TableChange) -> Result<(), &'static str> {
        let added_only = |evolved: &TableSchema| evolution(evolved, &self.schema) == Evolution::None;
        if change.clear.is_none() && change.evolve.as_ref().is_some_and(|evolved| !added_only(evolved)) {
            return Err("columns of rows that stay can only be added");
        }
        if change.rows.as_ref().is_some_and(|(_, keys)| !each_key_once(keys, &change.deletes)) {
            return Err("a commit changes a key once, in ascending order");
        }
        let Some(chunk) = &change.staged else { return Ok(()) };
        if !self.may_merge(chunk.order0) {
            return Err("a chunk is not above the floor, so deletes that it lost to may have been forgotten");
        }
        // What a chunk loses to is looked up in the index, which knows nothing of the same commit's other changes.
        let alone = change.rows.as_ref().is_none_or(|(rows, _)| rows.num_rows() == 0)
            && change.deletes.is_empty()
            && change.clear.is_none()
            && change.remove_below.is_none();
        if alone { Ok(()) } else { Err("a chunk is merged in a commit of its own") }
    }

    /// Of each key of the chunk the greater order stays: the chunk's row, or what the table has.
    pub(super) async fn stage_chunk(
        &mut self,
        chunk: &StagedChunk,
        deaths: &mut Deaths,
        tally: &mut Tally,
    ) -> Result<ChunkFate, TableError> {
        let could_win = |address: &RowAddress| self.file_greatest(*address) >= chunk.order0;
        let live = (0..chunk.keys.len()).filter_map(|row| self.index.live(chunk.keys.get(row)));
        let doubtful: Vec<RowAddress> = live.filter(could_win).collect();
        let orders = self.orders_of(&doubtful).await?;
        let orders: HashMap<RowAddress, Order> = doubtful.into_iter().zip(orders).collect();
        let mut fate = ChunkFate::default();
        for row in 0..chunk.keys.len() {
            let against = match self.index.locate(chunk.keys.get(row)) {
                Located::Absent => continue,
                // Gone before the chunk was read, and there when it was: rows come without events when another table
                // takes this one's name.
                Located::Deleted(order) if order < chunk.order0 => continue,
                Located::Deleted(order) => order,
                Located::Live(address) => match orders.get(&address) {
                    Some(order) if *order >= chunk.order0 => *order,
                    _ => {
                        deaths.row(address);
                        continue;
                    }
                },
            };
            fate.dead.insert(row as u32);
            if against == chunk.order0 {
                fate.duplicate += 1;
            } else {
                fate.stale += 1;
            }
        }
        let rows = chunk.rows();
        tally.chunk_rows(Hop::ChunkRead, chunk.window, rows);
        tally.chunk_rows(Hop::ChunkUpserted, chunk.window, rows - fate.stale - fate.duplicate);
        tally.chunk_rows(Hop::ChunkStale, chunk.window, fate.stale);
        tally.chunk_rows(Hop::ChunkDuplicate, chunk.window, fate.duplicate);
        Ok(fate)
    }

    /// Every live row below `order` dies. Returns how many.
    pub(super) async fn stage_remove_below(&mut self, order: Order, deaths: &mut Deaths) -> Result<u64, TableError> {
        let numbers: Vec<u32> =
            self.files.iter().filter(|(_, file)| file.orders.least < order).map(|(number, _)| *number).collect();
        let mut removed = 0;
        for number in numbers {
            if self.files[&number].orders.greatest < order {
                removed += self.files[&number].live_rows();
                deaths.files.insert(number);
                continue;
            }
            let orders = self.file_orders(number).await?;
            let file = &self.files[&number];
            let below: RoaringBitmap =
                (0..file.rows).filter(|row| !file.dead.contains(*row) && orders.get(*row) < order).collect();
            removed += below.len();
            if !below.is_empty() {
                deaths.rows.insert(number, below);
            }
        }
        Ok(removed)
    }

    /// The live row of a key dies, if there is one.
    pub(super) fn stage_death_of(&self, key: KeyRef<'_>, deaths: &mut Deaths) {
        if let Some(address) = self.index.live(key) {
            deaths.row(address);
        }
    }
}

/// Whether no key of the rows comes twice or is deleted as well; the rows ascend by key.
fn each_key_once(keys: &RecordKeys, deletes: &[(RecordKey, Order)]) -> bool {
    let ascending = (1..keys.len()).all(|row| keys.get(row - 1) < keys.get(row));
    let has = |key: KeyRef<'_>| {
        let from = partition_point(keys.len(), |row| keys.get(row) < key);
        from < keys.len() && keys.get(from) == key
    };
    ascending && !deletes.iter().any(|(key, _)| has(key.as_ref()))
}

/// The first of `len` places for which `below` no longer holds.
fn partition_point(len: usize, below: impl Fn(usize) -> bool) -> usize {
    let (mut from, mut to) = (0, len);
    while from < to {
        let middle = from + (to - from) / 2;
        if below(middle) { from = middle + 1 } else { to = middle }
    }
    from
}

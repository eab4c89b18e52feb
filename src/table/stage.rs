//! What a commit will do, worked out before anything is written: which rows die, which files come and go.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use roaring::RoaringBitmap;
use weir_model::Order;
use weir_model::key::KeyRef;

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

impl Table {
    /// Of each key of the chunk the greater order stays: the chunk's row, or what the table has. Returns the chunk's
    /// rows that lose.
    pub(super) async fn stage_chunk(
        &mut self,
        chunk: &StagedChunk,
        deaths: &mut Deaths,
        tally: &mut Tally,
    ) -> Result<RoaringBitmap, TableError> {
        if !self.may_merge(chunk.order0) {
            return Err(self.rule("a chunk is not above the floor, so deletes that it loses to may be forgotten"));
        }
        let by_key = chunk.keys.sorted_rows();
        if by_key.windows(2).any(|pair| chunk.keys.get(pair[0] as usize) == chunk.keys.get(pair[1] as usize)) {
            return Err(self.rule("a chunk has two rows of one key"));
        }
        let could_win = |address: &RowAddress| self.file_greatest(*address) >= chunk.order0;
        let live = (0..chunk.keys.len()).filter_map(|row| self.index.live(chunk.keys.get(row)));
        let doubtful: Vec<RowAddress> = live.filter(could_win).collect();
        let orders = self.orders_of(&doubtful).await?;
        let orders: HashMap<RowAddress, Order> = doubtful.into_iter().zip(orders).collect();
        let (mut dead, mut duplicate) = (RoaringBitmap::new(), 0);
        for row in 0..chunk.keys.len() {
            let against = match self.index.locate(chunk.keys.get(row)) {
                Located::Absent => continue,
                // Gone before the chunk was opened, and there when it was read: rows come without events when another
                // table takes this one's name.
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
            dead.insert(row as u32);
            duplicate += u64::from(against == chunk.order0);
        }
        let rows = chunk.rows();
        tally.chunk_rows(Hop::ChunkRead, chunk.window, rows);
        tally.chunk_rows(Hop::ChunkUpserted, chunk.window, rows - dead.len());
        tally.chunk_rows(Hop::ChunkStale, chunk.window, dead.len() - duplicate);
        tally.chunk_rows(Hop::ChunkDuplicate, chunk.window, duplicate);
        Ok(dead)
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

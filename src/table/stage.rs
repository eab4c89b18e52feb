//! What a commit will do, worked out before anything is written: which rows die, which files come and go.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;
use weir_model::Order;
use weir_model::key::KeyRef;

use super::chunk::StagedChunk;
use super::index::{Located, RowAddress};
use super::{Table, TableError};
use crate::limits::ORDERS_KEPT_MAX;
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
    /// Orders of the rows at `addresses`; each file's are read at most once.
    pub async fn orders_of(&mut self, addresses: &[RowAddress]) -> Result<Vec<Order>, TableError> {
        let wanted: BTreeSet<u32> = addresses.iter().map(|address| address.file).collect();
        for file in wanted {
            self.load_orders(file).await?;
        }
        Ok(addresses.iter().map(|address| self.known_order(*address)).collect())
    }

    /// Reads the order columns of a file, unless every row's order is known.
    async fn load_orders(&mut self, number: u32) -> Result<(), TableError> {
        let Some(file) = self.files.get(&number) else { return Ok(()) };
        if file.orders.uniform().is_some() || file.row_orders.is_some() {
            return Ok(());
        }
        let orders = self.folder().orders(&file.add).await?;
        if orders.len() != file.rows as usize {
            return Err(TableError::Damaged(format!("{} does not hold the rows its entry says", file.add.path)));
        }
        if let Some(file) = self.files.get_mut(&number) {
            file.row_orders = Some(orders);
        }
        Ok(())
    }

    /// The order of a row whose file's orders have been loaded.
    fn known_order(&self, address: RowAddress) -> Order {
        let orders = self.files.get(&address.file).and_then(|file| {
            file.orders.uniform().or_else(|| file.row_orders.as_ref()?.get(address.row as usize).copied())
        });
        orders.expect("a row's orders are loaded before they are asked for")
    }

    /// Keeps what has been read of orders from growing without bound; not while a commit is worked out.
    pub(super) fn forget_orders(&mut self) {
        let kept: usize = self.files.values().filter_map(|file| Some(file.row_orders.as_ref()?.len())).sum();
        if kept > ORDERS_KEPT_MAX {
            self.files.values_mut().for_each(|file| file.row_orders = None);
        }
    }

    /// Of each key of the chunk the greater order stays: the chunk's row, or what the table has. Returns the chunk's
    /// rows that lose.
    pub(super) async fn stage_chunk(
        &mut self,
        chunk: &StagedChunk,
        deaths: &mut Deaths,
        tally: &mut Tally,
    ) -> Result<RoaringBitmap, TableError> {
        let by_key = chunk.keys.sorted_rows();
        if by_key.windows(2).any(|pair| chunk.keys.get(pair[0] as usize) == chunk.keys.get(pair[1] as usize)) {
            return Err(self.rule("a chunk has two rows of one key"));
        }
        let doubtful: BTreeSet<u32> = (0..chunk.keys.len())
            .filter_map(|row| self.index.live(chunk.keys.get(row)))
            .map(|address| address.file)
            .filter(|file| self.files.get(file).is_some_and(|file| file.orders.greatest >= chunk.order0))
            .collect();
        for file in doubtful {
            self.load_orders(file).await?;
        }
        let (mut dead, mut duplicate) = (RoaringBitmap::new(), 0);
        for row in 0..chunk.keys.len() {
            let against = match self.index.locate(chunk.keys.get(row)) {
                Located::Absent => continue,
                Located::Deleted(order) => order,
                Located::Live(address) => {
                    let order = self.row_order_or_below(address, chunk.order0);
                    if order < chunk.order0 {
                        deaths.row(address);
                        continue;
                    }
                    order
                }
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

    /// A row's order, or something below `order` if its whole file is.
    fn row_order_or_below(&self, address: RowAddress, order: Order) -> Order {
        match self.files.get(&address.file) {
            Some(file) if file.orders.greatest < order => Order::MIN,
            _ => self.known_order(address),
        }
    }

    /// Every live row below `order` dies. Returns how many.
    pub(super) async fn stage_remove_below(&mut self, order: Order, deaths: &mut Deaths) -> Result<u64, TableError> {
        let mixed: Vec<u32> = self
            .files
            .iter()
            .filter(|(_, file)| file.orders.least < order && file.orders.greatest >= order)
            .map(|(number, _)| *number)
            .collect();
        for number in mixed {
            self.load_orders(number).await?;
        }
        let mut removed = 0;
        for (number, file) in &self.files {
            if file.orders.least >= order {
                continue;
            }
            if file.orders.greatest < order {
                removed += file.live_rows();
                deaths.files.insert(*number);
                continue;
            }
            let below = (0..file.rows)
                .filter(|row| !file.dead.contains(*row))
                .filter(|row| self.known_order(RowAddress { file: *number, row: *row }) < order);
            let below: RoaringBitmap = below.collect();
            removed += below.len();
            if !below.is_empty() {
                deaths.rows.insert(*number, below);
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

//! Orders of rows, read from the data files only where a change could lose to what is there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use weir_model::Order;

use super::index::RowAddress;
use super::writer::FileOrders;
use super::{Table, TableError};
use crate::limits::ORDERS_KEPT_MAX;

/// Orders of the rows of one file.
#[derive(Debug, Clone)]
pub(super) enum RowOrders {
    /// Every row has this one.
    All(Order),
    /// By row.
    Each(Arc<[Order]>),
}

impl RowOrders {
    pub(super) fn get(&self, row: u32) -> Order {
        match self {
            Self::All(order) => *order,
            Self::Each(orders) => orders[row as usize],
        }
    }
}

/// Orders that have been read, so that the chunks of a load do not read the stream's files again and again.
#[derive(Debug, Default)]
pub(super) struct OrderCache {
    files: HashMap<u32, Arc<[Order]>>,
    rows: usize,
}

impl OrderCache {
    fn insert(&mut self, file: u32, orders: Arc<[Order]>) {
        if self.rows + orders.len() > ORDERS_KEPT_MAX {
            self.clear();
        }
        self.rows += orders.len();
        self.files.insert(file, orders);
    }

    /// The file has gone.
    pub(super) fn forget(&mut self, file: u32) {
        if let Some(orders) = self.files.remove(&file) {
            self.rows -= orders.len();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Table {
    /// Orders of the rows at `addresses`; each file is read at most once.
    pub async fn orders_of(&mut self, addresses: &[RowAddress]) -> Result<Vec<Order>, TableError> {
        let mut by_file: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (place, address) in addresses.iter().enumerate() {
            by_file.entry(address.file).or_default().push(place);
        }
        let mut found = vec![Order::MIN; addresses.len()];
        for (file, places) in by_file {
            let orders = self.file_orders(file).await?;
            for place in places {
                found[place] = orders.get(addresses[place].row);
            }
        }
        Ok(found)
    }

    /// Orders of every row of a file of the table.
    pub(super) async fn file_orders(&mut self, number: u32) -> Result<RowOrders, TableError> {
        let file = &self.files[&number];
        if let Some(order) = file.orders.uniform() {
            return Ok(RowOrders::All(order));
        }
        if let Some(orders) = self.order_cache.files.get(&number) {
            return Ok(RowOrders::Each(orders.clone()));
        }
        let orders = self.folder().orders(&file.add).await?;
        if orders.len() != file.rows as usize {
            return Err(TableError::Damaged(format!("{} does not hold the rows its entry says", file.add.path)));
        }
        if let Some(file) = self.files.get_mut(&number)
            && file.orders == FileOrders::UNKNOWN
        {
            // Read once, the file need not be doubted again.
            file.orders = FileOrders::of(&orders);
        }
        let orders: Arc<[Order]> = orders.into();
        self.order_cache.insert(number, orders.clone());
        Ok(RowOrders::Each(orders))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_kept_are_bounded_however_many_files_are_read() {
        let orders: Arc<[Order]> = vec![Order::MIN; ORDERS_KEPT_MAX / 2].into();
        let mut cache = OrderCache::default();
        for file in 0..5 {
            cache.insert(file, orders.clone());
            let kept: usize = cache.files.values().map(|orders| orders.len()).sum();
            assert_eq!(kept, cache.rows);
            assert!(cache.rows <= ORDERS_KEPT_MAX && cache.files.contains_key(&file));
        }
        cache.forget(4);
        cache.forget(4);
        assert_eq!((cache.rows, cache.files.len()), (0, 0));
    }
}

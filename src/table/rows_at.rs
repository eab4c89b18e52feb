//! Single rows by their addresses, whole: what a change is folded onto that leaves columns out.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{RecordBatch, UInt32Array};
use arrow_select::concat::concat_batches;
use arrow_select::take::take_record_batch;
use futures::TryStreamExt;

use super::index::RowAddress;
use super::partition::partition_names;
use super::reshape::without_former;
use super::scan::conform;
use super::{Table, TableError};

impl Table {
    /// The rows at `addresses`, in that order, in the lake table's columns. Each file is read at most once, and no more of it
    /// than the pages that the rows lie in.
    ///
    /// # Errors
    /// When a file cannot be read, or does not hold the rows that its entry says.
    pub async fn rows_at(&self, addresses: &[RowAddress]) -> Result<RecordBatch, TableError> {
        let columns = self.schema.lake_arrow();
        let told = partition_names(&self.schema.layout);
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        let mut by_file: BTreeMap<u32, BTreeMap<u32, Vec<usize>>> = BTreeMap::new();
        for (place, address) in addresses.iter().enumerate() {
            by_file.entry(address.file).or_default().entry(address.row).or_default().push(place);
        }
        let (mut parts, mut places, mut before) = (Vec::new(), vec![0; addresses.len()], 0);
        for (number, rows) in by_file {
            let add = &self.files[&number].add;
            let wanted: Vec<u32> = rows.keys().copied().collect();
            let mut batches = self.folder().picked_rows(&add.path, add.size as u64, &wanted).await?;
            let first = before;
            while let Some(batch) = batches.try_next().await? {
                before += batch.num_rows();
                // What a column held that has lost its values must not come back with a greater order.
                parts.push(without_former(conform(&batch, &columns, &told, add)?, self.state.absences.former())?);
            }
            if before - first != wanted.len() {
                return Err(TableError::Damaged(format!("{} does not hold the rows its entry says", add.path)));
            }
            for (nth, of_row) in rows.values().enumerate() {
                of_row.iter().for_each(|place| places[*place] = (first + nth) as u32);
            }
        }
        let schema = parts.first().map_or(columns, RecordBatch::schema);
        let all = concat_batches(&Arc::clone(&schema), &parts)?;
        Ok(take_record_batch(&all, &UInt32Array::from(places))?)
    }
}

//! Verification: does the table hold together? Everything is read, nothing is changed.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use futures::TryStreamExt;
use roaring::RoaringBitmap;
use serde::Serialize;
use serde_json::Value;
use weir_model::{Order, RecordKeys, TableId, TableSchema};

use super::buckets::Buckets;
use super::delta::Add;
use super::index::{Index, IndexHome, RowAddress};
use super::log::Log;
use super::partition::partition_names;
use super::read::{Folder, orders_of_batch};
use super::record::TableState;
use super::scan::conform;
use super::statistics::{Statistics, rows_of};
use super::writer::{FileOrders, bucket_of_entry, orders_of_entry};
use super::{TableError, Warehouse};
use crate::limits::PROBLEMS_TOLD_MAX;

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    pub table: TableId,
    pub version: i64,
    pub files: u64,
    /// Live rows.
    pub rows: u64,
    /// Rows that are dead and not yet compacted away.
    pub rows_dead: u64,
    /// What does not hold; at most so many as are told.
    pub problems: Vec<String>,
    pub problem_count: u64,
}

impl Verified {
    fn problem(&mut self, what: String) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_TOLD_MAX {
            self.problems.push(what);
        }
    }
}

/// Reads the whole table at its newest version and says what of its invariants does not hold: every file that is named
/// is there and holds what its entry says, statistics bound its rows, its vector marks rows that it has, each key has
/// one live row, in the bucket of its file, whose order its bucket has come to.
///
/// # Errors
/// When there is no table, or its log cannot be read.
pub async fn verify(warehouse: &Warehouse, id: &TableId) -> Result<Verified, TableError> {
    let replay = Log::new(warehouse, id).replay(None).await?.ok_or_else(|| TableError::NoTable(id.clone()))?;
    let rule = |rule: &str| TableError::Rule { table: id.clone(), version: replay.version, rule: rule.to_owned() };
    let (_, record) = replay.own.clone().ok_or_else(|| rule("it was not written by weir"))?;
    let schema = record.state.schema.clone().ok_or_else(|| rule("its record does not say its columns"))?;
    let folder = Folder { warehouse: warehouse.clone(), path: warehouse.table_path(id) };
    let found = Verified {
        table: id.clone(),
        version: replay.version,
        files: replay.files.len() as u64,
        rows: 0,
        rows_dead: 0,
        problems: Vec::new(),
        problem_count: 0,
    };
    let buckets = Buckets::all(record.state.bucket_count());
    let index = Index::new(buckets.clone(), |_| Order::MIN, IndexHome::unbounded());
    let mut check = Check { found, folder, schema, state: record.state, buckets, index, names: BTreeMap::new() };
    if !replay.protocol.as_ref().is_some_and(|protocol| protocol.is_of(&check.schema)) {
        check.found.problem("the protocol is not what the table's columns ask for".into());
    }
    if !replay.meta_data.as_ref().is_some_and(|meta_data| meta_data.has_columns_of(&check.schema)) {
        check.found.problem("the columns of the log are not those of the newest own commit".into());
    }
    if let Some(sound) = &replay.sound {
        let what = format!("version {} of another engine replaces files that had gone already", sound.version + 1);
        check.found.problem(what);
    }
    for (number, add) in (0_u32..).zip(replay.files.into_values()) {
        if let Err(error) = check.file(number, &add).await {
            check.found.problem(format!("{}: {error}", add.path));
        }
    }
    Ok(check.found)
}

struct Check {
    found: Verified,
    folder: Folder,
    schema: TableSchema,
    state: TableState,
    buckets: Buckets,
    /// Live rows so far.
    index: Index,
    /// Of each file's number.
    names: BTreeMap<u32, String>,
}

impl Check {
    async fn file(&mut self, number: u32, add: &Add) -> Result<(), TableError> {
        self.names.insert(number, add.path.clone());
        let entry = rows_of(add.stats.as_deref()).unwrap_or(u64::from(u32::MAX));
        self.index.add_file(number, u32::try_from(entry).unwrap_or(u32::MAX))?;
        let dead = self.folder.dead_rows(add).await?;
        let bucket = bucket_of_entry(add, self.buckets.count);
        let mut rows = 0_u32;
        let mut least = Order { ts_ms: i64::MAX, seq: i64::MAX };
        let mut greatest = Order::MIN;
        let mut statistics = Statistics::new(&self.schema);
        let names = partition_names(&self.schema.layout);
        let told: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut batches = self.folder.rows(&add.path, add.size as u64).await?;
        while let Some(batch) = batches.try_next().await? {
            if rows == 0 {
                self.types(&batch, add);
            }
            statistics.add(&batch);
            let batch = conform(&batch, &self.schema.lake_arrow(), &told, add)?;
            let orders = orders_of_batch(&batch);
            least = least.min(orders.iter().copied().min().unwrap_or(least));
            greatest = greatest.max(orders.iter().copied().max().unwrap_or(greatest));
            // Of a log without a key every row has the same, empty one.
            let keys = RecordKeys::of(&batch, &self.schema.key_names())?;
            self.live_rows(number, add, bucket, rows, &dead, &keys, &orders);
            rows += batch.num_rows() as u32;
        }
        if rows_of(add.stats.as_deref()).is_some_and(|entry| entry != u64::from(rows)) {
            self.found.problem(format!("{}: it holds {rows} rows, and its entry says otherwise", add.path));
        }
        if dead.max().is_some_and(|last| last >= rows) {
            self.found.problem(format!("{}: its vector marks a row beyond its {rows}", add.path));
        }
        let told = orders_of_entry(add);
        if told != FileOrders::UNKNOWN && rows > 0 && (least < told.least || greatest > told.greatest) {
            self.found.problem(format!("{}: its rows' orders are not within what its entry says", add.path));
        }
        for column in outside_bounds(add.stats.as_deref(), &statistics.json()) {
            self.found.problem(format!("{}: the statistics of {column} do not bound its rows", add.path));
        }
        self.found.rows_dead += dead.len();
        self.found.rows += u64::from(rows) - dead.len().min(u64::from(rows));
        Ok(())
    }

    /// Numbers are stored in the table's types: of narrower ones readers think differently.
    fn types(&mut self, rows: &RecordBatch, add: &Add) {
        for wanted in self.schema.file_arrow().fields().iter().filter(|field| field.data_type().is_numeric()) {
            let Some(stored) = rows.column_by_name(wanted.name()).map(|column| column.data_type()) else { continue };
            if stored != wanted.data_type() {
                self.found.problem(format!(
                    "{}: column {} is stored as {stored}, and the table says {}",
                    add.path,
                    wanted.name(),
                    wanted.data_type()
                ));
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one batch of one file")]
    fn live_rows(
        &mut self,
        number: u32,
        add: &Add,
        bucket: Option<u32>,
        first_row: u32,
        dead: &RoaringBitmap,
        keys: &RecordKeys,
        orders: &[Order],
    ) {
        for (i, order) in orders.iter().enumerate() {
            let row = first_row + i as u32;
            if dead.contains(row) {
                continue;
            }
            let key = keys.get(i);
            let of_key = self.buckets.of(key);
            if bucket.is_some_and(|bucket| bucket != of_key) {
                self.found.problem(format!("{}: row {row} is of bucket {of_key}", add.path));
            }
            let newest = self.state.greatest_of(of_key).max(self.state.order.0);
            if *order > newest {
                self.found.problem(format!("{}: row {row} has an order above what the table has come to", add.path));
            }
            if self.schema.layout.is_append() {
                continue;
            }
            if let Some(other) = self.index.put(key, RowAddress { file: number, row }) {
                let other_name = self.names.get(&other.file).cloned().unwrap_or_default();
                self.found.problem(format!(
                    "{}: row {row} has the key of row {} of {other_name}, and both are live",
                    add.path, other.row
                ));
            }
        }
    }
}

/// Columns whose bounds in an entry's statistics do not hold the values that `actual` has.
fn outside_bounds(entry: Option<&str>, actual: &str) -> Vec<String> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (entry, actual) = (entry.map(parse).unwrap_or_default(), parse(actual));
    let side = |stats: &Value, side: &str| stats.get(side).and_then(Value::as_object).cloned().unwrap_or_default();
    let mut outside = Vec::new();
    for (bound, is_lower) in [("minValues", true), ("maxValues", false)] {
        let actual = side(&actual, bound);
        for (column, told) in side(&entry, bound) {
            let Some(value) = actual.get(&column) else { continue };
            let holds = match (&told, value) {
                (Value::Number(told), Value::Number(value)) => match (told.as_i64(), value.as_i64()) {
                    (Some(told), Some(value)) if is_lower => told <= value,
                    (Some(told), Some(value)) => told >= value,
                    _ => true,
                },
                (Value::String(told), Value::String(value)) if is_lower => told <= value,
                (Value::String(told), Value::String(value)) => told >= value,
                _ => true,
            };
            if !holds && !outside.contains(&column) {
                outside.push(column);
            }
        }
    }
    outside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_do_not_hold_a_value_are_told() {
        let entry = r#"{"minValues":{"id":5,"name":"b"},"maxValues":{"id":9,"name":"d"}}"#;
        assert!(outside_bounds(Some(entry), r#"{"minValues":{"id":5},"maxValues":{"id":9,"name":"c"}}"#).is_empty());
        assert_eq!(outside_bounds(Some(entry), r#"{"minValues":{"id":4},"maxValues":{"id":10}}"#), ["id"]);
        assert_eq!(outside_bounds(Some(entry), r#"{"minValues":{"name":"a"}}"#), ["name"]);
        assert!(outside_bounds(None, r#"{"minValues":{"name":"a"}}"#).is_empty());
    }
}

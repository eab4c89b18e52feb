//! The end of a load of a part: rows of it that the lake has and the source has no more go.
//!
//! A row of the lake is a candidate if nothing has touched it since the load began: what the load found has a greater
//! order. Whether a candidate lies in the load's range need not be certain, since by a text's collation it is the server that
//! knows: it goes only if the source, asked for its very key under a fresh order, has no such row.

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use snapshot_loader::{ChunkRange, KeyValue, TableProgress, keys_present};
use weir_model::key_parts::key_parts;
use weir_model::schema::{DELETED_COLUMN, SEQ_COLUMN, TS_COLUMN};
use weir_model::{Column, Order, RecordKey, RecordKeys, TableSchema};

use super::plan::{Piece, range_of};
use super::{Load, Loader, SeedError};
use crate::apply::chunks::UNPLANNED;
use crate::limits::{CHUNK_RETRY_DELAY, KEYS_LOOKED_UP_TOGETHER, KEYS_PER_CHUNK};
use crate::table::{Scan, ScanFile, TableError, history};

impl Loader {
    /// Finds rows that are gone from the source and has them removed; returns how many keys were.
    pub(super) async fn remove_absent(
        &self,
        load: &Load,
        plan: u64,
        start: Order,
        progress: &TableProgress,
    ) -> Result<u64, SeedError> {
        let range = self.again(load, || self.range(load)).await?;
        let figures = history::figures(load.files.warehouse(), &load.table).await?;
        let Some(lake) = figures.and_then(|figures| figures.state).and_then(|state| state.schema) else { return Ok(0) };
        let search = Search { start, range, lake };
        let scan = Scan::open(load.files.warehouse(), &load.table, None, Some(&search.columns())).await?;
        let (mut found, mut absent, mut removed) = (Vec::new(), Vec::new(), 0);
        for file in scan.files().filter(|file| search.may_hold(file)) {
            let mut batches = Vec::new();
            let keep = |batch| {
                batches.push(batch);
                Ok(())
            };
            scan.read(&file, keep).await?;
            for batch in batches {
                found.extend(search.candidates(&batch)?);
                while found.len() >= KEYS_LOOKED_UP_TOGETHER {
                    let some = found.split_off(found.len() - KEYS_LOOKED_UP_TOGETHER);
                    absent.extend(self.again(load, || self.absent_of(load, &some)).await?);
                }
                while absent.len() >= KEYS_PER_CHUNK {
                    let keys = absent.split_off(absent.len() - KEYS_PER_CHUNK);
                    removed += self.chunk(load, plan, UNPLANNED, &Piece::Keys { keys }, progress).await?.absent;
                }
            }
        }
        if !found.is_empty() {
            absent.extend(self.again(load, || self.absent_of(load, &found)).await?);
        }
        if !absent.is_empty() {
            removed += self.chunk(load, plan, UNPLANNED, &Piece::Keys { keys: absent }, progress).await?.absent;
        }
        Ok(removed)
    }

    /// What the load reads, as the source describes it by now.
    async fn range(&self, load: &Load) -> Result<ChunkRange, SeedError> {
        let _permit = self.permit().await?;
        let mut connection = self.connect_to_read().await?;
        let description = self.describe(&mut connection, load).await?;
        Ok(range_of(&mut connection, &description, &load.scope).await?)
    }

    /// Those of `candidates` that the source seems to have no row of.
    async fn absent_of(&self, load: &Load, candidates: &[Candidate]) -> Result<Vec<Vec<KeyValue>>, SeedError> {
        let _permit = self.permit().await?;
        let mut connection = self.connect_to_read().await?;
        let description = self.describe(&mut connection, load).await?;
        let mut rows = self.connect_for_rows(&mut connection).await?;
        let keys: Vec<Vec<KeyValue>> = candidates.iter().map(|candidate| candidate.values.clone()).collect();
        let present = keys_present(&mut rows, &description, &keys).await?;
        let absent = candidates.iter().filter(|candidate| !present.contains(&candidate.key));
        Ok(absent.map(|candidate| candidate.values.clone()).collect())
    }

    /// Asks until it is answered, or will never be.
    async fn again<T, F>(&self, load: &Load, ask: impl Fn() -> F) -> Result<T, SeedError>
    where
        F: Future<Output = Result<T, SeedError>>,
    {
        loop {
            match ask().await {
                Err(error) if error.is_passing() => {
                    tracing::warn!(table = %load.table, %error, "the source is asked again");
                    tokio::time::sleep(CHUNK_RETRY_DELAY).await;
                }
                answered => return answered,
            }
        }
    }
}

/// A key of the lake that may be gone from the source.
struct Candidate {
    key: RecordKey,
    values: Vec<KeyValue>,
}

/// Which rows of the lake are candidates.
struct Search {
    /// Those below are.
    start: Order,
    range: ChunkRange,
    /// The table's columns in the lake.
    lake: TableSchema,
}

impl Search {
    /// What must be read of each row.
    fn columns(&self) -> Vec<String> {
        let mut names: Vec<String> = self.lake.key_names().into_iter().map(str::to_owned).collect();
        names.extend([TS_COLUMN, SEQ_COLUMN].map(str::to_owned));
        if self.lake.layout.deletes_softly() {
            names.push(DELETED_COLUMN.to_owned());
        }
        names
    }

    /// Whether a candidate may be in the file.
    fn may_hold(&self, file: &ScanFile<'_>) -> bool {
        let first = self.lake.key_names().first().and_then(|name| file.whole_bounds(name));
        let is_near = |(least, greatest): (i64, i64)| overlaps(&self.range, least.into(), greatest.into());
        file.may_be_older_than(self.start) && first.is_none_or(is_near)
    }

    fn candidates(&self, rows: &RecordBatch) -> Result<Vec<Candidate>, TableError> {
        let orders = crate::table::orders_of_batch(rows);
        let deleted = rows.column_by_name(DELETED_COLUMN).map(|column| column.as_boolean());
        let is_deleted = |row: usize| deleted.is_some_and(|deleted| deleted.is_valid(row) && deleted.value(row));
        let keys = RecordKeys::of(rows, &self.lake.key_names())?;
        let columns: Vec<&Column> = self.lake.key.iter().map(|&at| &self.lake.columns[at]).collect();
        let types: Vec<DataType> = columns.iter().map(|column| column.ty.arrow()).collect();
        let types: Vec<&DataType> = types.iter().collect();
        let older = (0..keys.len()).filter(|row| orders[*row] < self.start && !is_deleted(*row));
        let candidate = |row| {
            let key = keys.get(row);
            let parts = key_parts(key, &types).into_iter().zip(&columns);
            // A key that the source cannot have is none to ask it for.
            let values: Vec<_> =
                parts.map(|(part, column)| KeyValue::from_part(part, &column.ty)).collect::<Option<_>>()?;
            may_be_in(&values, &self.range).then(|| Candidate { key: key.to_owned(), values })
        };
        Ok(older.filter_map(candidate).collect())
    }
}

/// Whether a key may lie in the range: false only where both begin with numbers, which everybody orders alike.
fn may_be_in(key: &[KeyValue], range: &ChunkRange) -> bool {
    first_number(key).is_none_or(|first| overlaps(range, first, first))
}

/// Whether keys that begin with numbers from `least` to `greatest` may lie in the range.
fn overlaps(range: &ChunkRange, least: i128, greatest: i128) -> bool {
    let bound = |bound: &Option<Vec<KeyValue>>| bound.as_deref().and_then(first_number);
    bound(&range.from).is_none_or(|from| greatest >= from) && bound(&range.to).is_none_or(|to| least <= to)
}

/// The whole number that a key begins with, if it does.
fn first_number(key: &[KeyValue]) -> Option<i128> {
    match key.first() {
        Some(KeyValue::Int(value)) => Some((*value).into()),
        Some(KeyValue::UInt(value)) => Some((*value).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_left_out_only_if_numbers_tell_that_it_is_outside() {
        let range = |from: i64, to: i64| ChunkRange {
            from: Some(vec![KeyValue::Int(from)]),
            to: Some(vec![KeyValue::Int(to), KeyValue::Text("m".into())]),
        };
        assert!(may_be_in(&[KeyValue::Int(5)], &range(5, 9)));
        assert!(may_be_in(&[KeyValue::Int(9), KeyValue::Text("z".into())], &range(5, 9)));
        assert!(!may_be_in(&[KeyValue::Int(4)], &range(5, 9)));
        assert!(!may_be_in(&[KeyValue::UInt(u64::MAX)], &range(5, 9)));
        assert!(may_be_in(&[KeyValue::Text("a".into())], &range(5, 9)));
        assert!(may_be_in(&[KeyValue::Int(4)], &ChunkRange::all()));
    }
}

//! The columns that source and lake are compared in: those that the source has, each in a type that holds the values of
//! both. Pure.
//!
//! A column that the source no longer has keeps in the lake what it held, so it says nothing. One that the lake does not have
//! yet is NULL there.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, Field, Schema};
use arrow_select::filter::filter;
use weir_model::key::KeyRef;
use weir_model::schema::{DELETED_COLUMN, OP_COLUMN, SEQ_COLUMN, TS_COLUMN};
use weir_model::{Column, ColumnType, Order, RecordKeys, TableSchema};

use super::entries::RowVersion;
use crate::table::widened;
use weir_model::row_hash::{RowHash, row_hashes};

/// The columns that both sides are brought to, in the source's order.
#[derive(Debug, Clone)]
pub struct SharedColumns {
    columns: Vec<Shared>,
    /// Places in `columns` of the record key, in key order.
    key: Vec<usize>,
    /// The names that a reader of the lake asks for: those of the columns that it has, then ours.
    lake_names: Vec<String>,
}

#[derive(Debug, Clone)]
struct Shared {
    source: Column,
    /// What the lake calls it; none if it has no such column yet.
    lake: Option<String>,
    /// Holds the values of both.
    ty: ColumnType,
}

/// Rows of one side, ready to be compared.
#[derive(Debug)]
pub struct SharedRows {
    pub keys: RecordKeys,
    pub hashes: Vec<RowHash>,
    pub versions: Vec<RowVersion>,
    /// Rows of which a key column is NULL, which no row may have; they are not among the others.
    pub without_key: u64,
}

impl SharedColumns {
    /// Of a lake table that has the columns and the record key of `lake`, and a source table that has those of `source`.
    ///
    /// # Errors
    /// Says which column cannot be compared, or that the record key is another.
    pub fn of(lake: &TableSchema, source: &TableSchema) -> Result<Self, String> {
        let mut columns = Vec::with_capacity(source.columns.len());
        for column in &source.columns {
            let held = lake.column_index(&column.name).map(|at| &lake.columns[at]);
            let ty = match held {
                None => &column.ty,
                Some(held) if column.ty.fits(&held.ty) => &held.ty,
                Some(held) if held.ty.fits(&column.ty) => &column.ty,
                Some(held) => {
                    let (name, held, now) = (&column.name, held.ty.delta(), column.ty.delta());
                    return Err(format!("column {name} is {held} in the lake and {now} at the source"));
                }
            };
            let (lake, ty) = (held.map(|held| held.name.clone()), ty.clone());
            columns.push(Shared { source: column.clone(), lake, ty });
        }
        let place = |name: &str| source.column_index(name);
        let key: Option<Vec<usize>> = lake.key_names().into_iter().map(place).collect();
        let key =
            key.ok_or_else(|| format!("the source no longer has all of its key ({})", lake.key_names().join(", ")))?;
        let mut lake_names: Vec<String> = columns.iter().filter_map(|shared| shared.lake.clone()).collect();
        lake_names.extend([TS_COLUMN, SEQ_COLUMN].map(str::to_owned));
        if lake.layout.is_append() {
            lake_names.push(OP_COLUMN.to_owned());
        }
        if lake.layout.deletes_softly() {
            lake_names.push(DELETED_COLUMN.to_owned());
        }
        Ok(Self { columns, key, lake_names })
    }

    /// The columns to ask the lake for.
    pub fn lake_names(&self) -> &[String] {
        &self.lake_names
    }

    /// The record key's columns as the source has them, with the type that both sides are compared in.
    pub fn key(&self) -> impl Iterator<Item = (&Column, &ColumnType)> {
        self.key.iter().map(|&at| (&self.columns[at].source, &self.columns[at].ty))
    }

    /// What the lake calls the record key's first column, if that is of whole numbers, by whose bounds files can be told apart.
    pub fn leading_in_lake(&self) -> Option<&str> {
        let leading = &self.columns[*self.key.first()?];
        leading.lake.as_deref().filter(|_| leading.ty.is_integer() && leading.ty != ColumnType::UInt64)
    }

    /// Rows as a chunk has them: the source's columns, in its order.
    ///
    /// # Errors
    /// When a value is not what its type says.
    pub fn of_source(&self, rows: &RecordBatch) -> Result<SharedRows, ArrowError> {
        let columns = self.columns.iter().zip(rows.columns());
        let columns = columns.map(|(shared, values)| widened(values, &shared.source.ty, &shared.ty));
        let versions = vec![RowVersion::ONLY; rows.num_rows()];
        self.rows(columns.collect::<Result<_, _>>()?, versions, None, |_| true)
    }

    /// Rows as a reader of the lake has them, by [`Self::lake_names`], as far as their keys are `wanted`. Those that the source
    /// has deleted and the lake keeps with a mark are left out.
    ///
    /// # Errors
    /// When a value cannot be read.
    pub fn of_lake(&self, rows: &RecordBatch, wanted: impl Fn(KeyRef<'_>) -> bool) -> Result<SharedRows, ArrowError> {
        let column = |shared: &Shared| {
            let ty = shared.ty.arrow();
            match shared.lake.as_deref().and_then(|name| rows.column_by_name(name)) {
                None => Ok(new_null_array(&ty, rows.num_rows())),
                Some(values) if *values.data_type() == ty => Ok(values.clone()),
                // The table got a wider column since its columns were looked at; what does not fit is NULL and differs.
                Some(values) => cast_with_options(values, &ty, &CastOptions { safe: true, ..CastOptions::default() }),
            }
        };
        let columns = self.columns.iter().map(column).collect::<Result<_, _>>()?;
        let orders =
            [TS_COLUMN, SEQ_COLUMN].map(|name| rows.column_by_name(name).map(|c| c.as_primitive::<Int64Type>()));
        let ops = rows.column_by_name(OP_COLUMN).map(|ops| ops.as_string::<i32>());
        let version = |row: usize| RowVersion {
            order: match orders {
                [Some(ts), Some(seq)] if ts.is_valid(row) && seq.is_valid(row) => {
                    Order::new(ts.value(row), seq.value(row))
                }
                // A foreign writer's.
                _ => Order::MIN,
            },
            is_delete: ops.is_some_and(|ops| ops.is_valid(row) && ops.value(row) == "d"),
        };
        let versions = (0..rows.num_rows()).map(version).collect();
        let deleted = rows.column_by_name(DELETED_COLUMN).map(|deleted| deleted.as_boolean());
        let live = deleted.map(|deleted| deleted.iter().map(|deleted| Some(deleted != Some(true))).collect());
        self.rows(columns, versions, live, wanted)
    }

    fn rows(
        &self,
        mut columns: Vec<ArrayRef>,
        mut versions: Vec<RowVersion>,
        live: Option<BooleanArray>,
        wanted: impl Fn(KeyRef<'_>) -> bool,
    ) -> Result<SharedRows, ArrowError> {
        if let Some(live) = live.filter(|live| live.false_count() > 0) {
            pick(&mut columns, &mut versions, &live)?;
        }
        let mut without_key = 0;
        if self.key.iter().any(|&at| columns[at].null_count() > 0) {
            let has_key = |row| self.key.iter().all(|&at| columns[at].is_valid(row));
            let have_key: BooleanArray = (0..versions.len()).map(|row| Some(has_key(row))).collect();
            without_key = have_key.false_count() as u64;
            pick(&mut columns, &mut versions, &have_key)?;
        }
        let mut keys = self.keys(&columns);
        let are_wanted: BooleanArray = (0..keys.len()).map(|row| Some(wanted(keys.get(row)))).collect();
        if are_wanted.false_count() > 0 {
            pick(&mut columns, &mut versions, &are_wanted)?;
            keys = self.keys(&columns);
        }
        Ok(SharedRows { hashes: row_hashes(&columns, versions.len()), keys, versions, without_key })
    }

    fn keys(&self, columns: &[ArrayRef]) -> RecordKeys {
        let names: Vec<&str> = self.key.iter().map(|&at| self.columns[at].source.name.as_str()).collect();
        let places = self.key.iter().zip(&names);
        let fields: Vec<Field> =
            places.map(|(&at, name)| Field::new(*name, columns[at].data_type().clone(), true)).collect();
        let columns = self.key.iter().map(|&at| columns[at].clone()).collect();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
            .expect("fields are made of the columns, which are all of one length");
        RecordKeys::of(&rows, &names).expect("rows without a key have been left out")
    }
}

/// Leaves the rows that `which` says.
fn pick(columns: &mut [ArrayRef], versions: &mut Vec<RowVersion>, which: &BooleanArray) -> Result<(), ArrowError> {
    for column in columns {
        *column = filter(column, which)?;
    }
    let mut row = 0;
    versions.retain(|_| {
        row += 1;
        which.value(row - 1)
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int32Array, Int64Array, StringArray};
    use weir_model::{Layout, TableId};

    use super::*;

    fn schema(columns: &[(&str, ColumnType)]) -> TableSchema {
        let column = |(name, ty): &(&str, ColumnType)| Column { name: (*name).into(), ty: ty.clone(), nullable: true };
        TableSchema {
            table: TableId::new("shop", "orders"),
            columns: columns.iter().map(column).collect(),
            key: vec![0],
            layout: Layout::default(),
        }
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true)))
            .unwrap()
    }

    #[test]
    fn rows_are_equal_across_widths_cases_and_columns_that_one_side_lacks() {
        use ColumnType::{Int32, Int64, Text};
        let lake = schema(&[("id", Int64), ("Gone", Text), ("NAME", Text)]);
        let source = schema(&[("Id", Int32), ("name", Text), ("added", Int32)]);
        let shared = SharedColumns::of(&lake, &source).unwrap();
        assert_eq!(shared.lake_names(), ["id", "NAME", TS_COLUMN, SEQ_COLUMN]);
        let names = || -> ArrayRef { Arc::new(StringArray::from(vec![Some("a"), None])) };
        let of_source = shared.of_source(&batch(vec![
            ("Id", Arc::new(Int32Array::from(vec![1, 2]))),
            ("name", names()),
            ("added", Arc::new(Int32Array::from(vec![None, Some(5)]))),
        ]));
        let of_lake =
            shared.of_lake(&batch(vec![("id", Arc::new(Int64Array::from(vec![1, 2]))), ("NAME", names())]), |_| true);
        let (of_source, of_lake) = (of_source.unwrap(), of_lake.unwrap());
        assert_eq!(of_source.keys.get(1), of_lake.keys.get(1));
        // NULL in the column that the lake has not got yet is what the lake has; a value is not.
        assert_eq!(of_source.hashes[0], of_lake.hashes[0]);
        assert_ne!(of_source.hashes[1], of_lake.hashes[1]);
    }

    #[test]
    fn rows_without_a_key_deleted_ones_and_those_of_other_parts_are_left_out() {
        let schema = schema(&[("id", ColumnType::Int32)]);
        let shared = SharedColumns::of(&schema, &schema).unwrap();
        let rows = batch(vec![
            ("id", Arc::new(Int32Array::from(vec![Some(1), None, Some(3), Some(4)]))),
            (TS_COLUMN, Arc::new(Int64Array::from(vec![10, 20, 30, 40]))),
            (SEQ_COLUMN, Arc::new(Int64Array::from(vec![1, 2, 3, 4]))),
            (DELETED_COLUMN, Arc::new(BooleanArray::from(vec![Some(false), None, Some(true), Some(false)]))),
        ]);
        let rows = shared.of_lake(&rows, |key| key > KeyRef::Int(1)).unwrap();
        assert_eq!((rows.keys.len(), rows.keys.get(0), rows.hashes.len()), (1, KeyRef::Int(4), 1));
        assert_eq!((rows.versions[0].order, rows.without_key), (Order::new(40, 4), 1));
    }

    #[test]
    fn what_cannot_be_compared_is_said() {
        let lake = schema(&[("id", ColumnType::Int32), ("v", ColumnType::Text)]);
        let error =
            SharedColumns::of(&lake, &schema(&[("id", ColumnType::Int32), ("v", ColumnType::Date)])).unwrap_err();
        assert_eq!(error, "column v is string in the lake and date at the source");
        assert!(SharedColumns::of(&lake, &schema(&[("other", ColumnType::Int32)])).is_err());
    }
}

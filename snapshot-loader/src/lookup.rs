//! Questions about single keys: the next one above a bound, and which of some keys the source has.

use std::collections::HashSet;

use arrow_array::RecordBatch;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use weir_model::key::KeyError;
use weir_model::schema::quote_identifier;
use weir_model::{ColumnBuilder, RecordKey, RecordKeys, ZeroDates};
use weir_mysql::{MysqlError, RowConnection, TableDescription};

use crate::error::LoadError;
use crate::key_value::KeyValue;
use crate::range::{Side, compare};
use crate::read::{ChunkReader, ReadOptions};

/// What the least key of the table above `bound` begins with, as many values as `bound` has; `None` if there is none. A bound
/// of fewer values than the key has columns stands for every key that begins with them. The order is the server's.
pub async fn key_above(
    conn: &mut Conn,
    table: &TableDescription,
    bound: &[KeyValue],
) -> Result<Option<Vec<KeyValue>>, LoadError> {
    let keys: Vec<String> = table.schema.key_names().into_iter().map(quote_identifier).collect();
    let (all, first) = (keys.join(", "), keys[..bound.len().min(keys.len())].join(", "));
    let index = table.key_index().map(|index| format!(" FORCE INDEX ({})", quote_identifier(index)));
    let sql = format!(
        "SELECT {first} FROM {}{} WHERE {} ORDER BY {all} LIMIT 1",
        table.table().quoted(),
        index.unwrap_or_default(),
        compare(table, Side::Above, bound)?
    );
    let doing = || format!("looking for the key above a bound in {}", table.table());
    let row: Option<Row> = conn.exec_first(sql, ()).await.map_err(|e| MysqlError::from_driver(doing(), &e))?;
    row.map(|row| key_of_row(table, &row)).transpose()
}

/// The record key in a row that holds the key's columns, in key order, or the first ones of them.
pub(crate) fn key_of_row(table: &TableDescription, row: &Row) -> Result<Vec<KeyValue>, LoadError> {
    let columns = table.schema.key.iter().map(|&i| &table.schema.columns[i]);
    let value = |(at, column): (usize, &weir_model::Column)| {
        let value = row.as_ref(at).unwrap_or(&Value::NULL);
        KeyValue::from_cell(value, &column.ty).ok_or_else(|| LoadError::Cell {
            table: table.table().clone(),
            column: column.name.clone(),
            what: "a key of another form than its type's",
        })
    };
    columns.take(row.len()).enumerate().map(value).collect()
}

/// The record keys of the rows that are found by `keys`: an index answers, and no more than the key is read.
///
/// By the collation of a text column a key may find a row whose key is spelled otherwise.
pub async fn keys_present(
    connection: &mut RowConnection,
    table: &TableDescription,
    keys: &[Vec<KeyValue>],
) -> Result<HashSet<RecordKey>, LoadError> {
    let narrow = table.of_key_alone();
    // A zero date in a key cannot be NULL in the lake; such a row stops its table when it is loaded.
    let options = ReadOptions { zero_dates: ZeroDates::Null, ..ReadOptions::default() };
    let mut reader = ChunkReader::open(connection, &narrow, keys, &options).await?;
    let mut present = HashSet::new();
    while let Some(batch) = reader.next_batch().await? {
        present.extend(keys_of(&narrow, &batch)?);
    }
    Ok(present)
}

/// The record keys of rows that hold the key's columns.
///
/// # Errors
/// If one of them is NULL.
fn keys_of(table: &TableDescription, rows: &RecordBatch) -> Result<impl Iterator<Item = RecordKey>, LoadError> {
    let misfit = |error: KeyError| LoadError::Bound { table: table.table().clone(), why: error.to_string() };
    let keys = RecordKeys::of(rows, &table.schema.key_names()).map_err(misfit)?;
    Ok((0..keys.len()).map(move |row| keys.get(row).to_owned()))
}

/// Record keys in the form in which the lake tells them apart.
///
/// # Errors
/// If a value does not fit its column.
pub fn record_keys(table: &TableDescription, keys: &[Vec<KeyValue>]) -> Result<HashSet<RecordKey>, LoadError> {
    let narrow = table.of_key_alone();
    let mut columns: Vec<ColumnBuilder> =
        narrow.schema.columns.iter().map(|column| ColumnBuilder::new(&column.ty, ZeroDates::Error)).collect();
    for key in keys {
        for ((value, column), builder) in key.iter().zip(&narrow.schema.columns).zip(&mut columns) {
            let misfit = |why: String| LoadError::Bound { table: table.table().clone(), why };
            value.push(&column.ty, builder).map_err(|why| misfit(format!("column {}: {why}", column.name)))?;
        }
    }
    let arrays = columns.iter_mut().map(ColumnBuilder::finish).collect();
    let rows = RecordBatch::try_new(narrow.schema.arrow(), arrays).expect("every column got one value a key");
    Ok(keys_of(&narrow, &rows)?.collect())
}

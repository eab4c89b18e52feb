//! snapshot-loader against a real server.

#[path = "../../../mysql/tests/support/mod.rs"]
mod support;

mod keys;
mod loading;
mod planning;
mod reading;
mod reference;
mod throttling;

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use snapshot_loader::{ChunkRange, ReadOptions, read_chunk};
use weir_mysql::{RowConnection, TableDescription};

/// A connection that rows are read over.
async fn row_connection() -> RowConnection {
    RowConnection::open(&support::source()).await.unwrap()
}

/// All rows of a range as one batch.
async fn read_all(table: &TableDescription, range: &ChunkRange) -> RecordBatch {
    let mut batches = Vec::new();
    let (mut connection, options) = (row_connection().await, ReadOptions::default());
    let rows = read_chunk(&mut connection, table, range, &options, |batch| {
        batches.push(batch);
        std::future::ready(Ok(()))
    });
    let rows = rows.await.unwrap();
    let all = concat_batches(&table.schema.arrow(), &batches).unwrap();
    assert_eq!(all.num_rows() as u64, rows);
    all
}

//! snapshot-loader against a real server.

#[path = "../../../mysql/tests/support/mod.rs"]
mod support;

mod keys;
mod loading;
mod planning;
mod reading;

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use mysql_async::Conn;
use snapshot_loader::{ChunkRange, ReadOptions, read_chunk};
use weir_mysql::TableDescription;

/// All rows of a range as one batch.
async fn read_all(conn: &mut Conn, table: &TableDescription, range: &ChunkRange) -> RecordBatch {
    let mut batches = Vec::new();
    let options = ReadOptions::default();
    let rows = read_chunk(conn, table, range, &options, |batch| {
        batches.push(batch);
        std::future::ready(Ok(()))
    });
    let rows = rows.await.unwrap();
    let all = concat_batches(&table.schema.arrow(), &batches).unwrap();
    assert_eq!(all.num_rows() as u64, rows);
    all
}

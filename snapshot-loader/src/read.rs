//! Reading one chunk: a single SELECT whose rows go straight into Arrow columns, a bounded batch at a time.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use mysql_async::prelude::Queryable;
use mysql_async::{BinaryProtocol, Conn, QueryResult, Row, Value};
use weir_model::schema::quote_identifier;
use weir_model::{ColumnBuilder, ZeroDates};
use weir_mysql::{MysqlError, TableDescription};

use crate::decode::{Cell, CellError};
use crate::error::LoadError;
use crate::range::{ChunkRange, Selection};

/// How rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    pub zero_dates: ZeroDates,
    /// A batch is handed out once it holds this much. A single row may be larger.
    pub batch_bytes: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { zero_dates: ZeroDates::Null, batch_bytes: 8 << 20 }
    }
}

/// The rows of one chunk, read as they are asked for: a reader that pauses holds the server back.
///
/// All rows come from one statement, hence from one read view. `conn` must come from [`weir_mysql::connect`], whose session
/// settings the decoding relies on. Dropping the reader early leaves unread rows in the connection; drop that as well.
#[derive(Debug)]
pub struct ChunkReader<'a> {
    table: &'a TableDescription,
    result: QueryResult<'a, 'static, BinaryProtocol>,
    cells: Vec<Cell>,
    columns: Vec<ColumnBuilder>,
    arrow: SchemaRef,
    batch_bytes: usize,
    rows: u64,
    ended: bool,
}

impl<'a> ChunkReader<'a> {
    /// Sends the SELECT and waits until its rows begin.
    pub async fn open(
        conn: &'a mut Conn,
        table: &'a TableDescription,
        selection: impl Into<Selection<'_>>,
        options: &ReadOptions,
    ) -> Result<Self, LoadError> {
        let sql = select_rows(table, selection)?;
        let result = conn.exec_iter(sql, ()).await.map_err(|e| MysqlError::from_driver(doing(table), &e))?;
        let columns = &table.schema.columns;
        Ok(Self {
            table,
            result,
            cells: columns.iter().map(|c| Cell::of(&c.ty)).collect(),
            columns: columns.iter().map(|c| ColumnBuilder::new(&c.ty, options.zero_dates)).collect(),
            arrow: table.schema.arrow(),
            batch_bytes: options.batch_bytes,
            rows: 0,
            ended: false,
        })
    }

    /// The next batch, never empty; `None` once the chunk is complete. Any error voids the chunk.
    pub async fn next_batch(&mut self) -> Result<Option<RecordBatch>, LoadError> {
        let (mut rows, mut bytes) = (0, 0);
        while !self.ended && bytes < self.batch_bytes {
            let next = self.result.next().await;
            match next.map_err(|e| MysqlError::from_driver(doing(self.table), &e))? {
                Some(row) => {
                    bytes += self.push(&row)?;
                    rows += 1;
                }
                None => self.ended = true,
            }
        }
        if rows == 0 {
            return Ok(None);
        }
        self.rows += rows;
        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        Ok(Some(RecordBatch::try_new(self.arrow.clone(), arrays).expect("every column got one value a row")))
    }

    /// Rows handed out so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn push(&mut self, row: &Row) -> Result<usize, LoadError> {
        let mut bytes = 0;
        for (at, (cell, column)) in self.cells.iter().zip(&mut self.columns).enumerate() {
            let value = row.as_ref(at).unwrap_or(&Value::NULL);
            match cell.push(value, column) {
                Ok(taken) => bytes += taken,
                Err(error) => return Err(cell_error(self.table, at, error)),
            }
        }
        Ok(bytes)
    }
}

#[cold]
fn cell_error(table: &TableDescription, at: usize, error: CellError) -> LoadError {
    let (column, table) = (table.schema.columns[at].name.clone(), table.table().clone());
    match error {
        CellError::Value(source) => LoadError::Value { table, column, source },
        CellError::Form(what) => LoadError::Cell { table, column, what },
    }
}

/// Reads a whole chunk into `sink`, batch by batch; gives the number of rows.
pub async fn read_chunk<F, S>(
    conn: &mut Conn,
    table: &TableDescription,
    range: &ChunkRange,
    options: &ReadOptions,
    mut sink: F,
) -> Result<u64, LoadError>
where
    F: FnMut(RecordBatch) -> S,
    S: Future<Output = Result<(), LoadError>>,
{
    let mut reader = ChunkReader::open(conn, table, range, options).await?;
    while let Some(batch) = reader.next_batch().await? {
        sink(batch).await?;
    }
    Ok(reader.rows())
}

fn doing(table: &TableDescription) -> String {
    format!("reading rows of {}", table.table())
}

/// `SELECT … FROM table`. Every column by name: `*` would leave out invisible ones.
fn select_columns(table: &TableDescription) -> String {
    let names: Vec<String> = table.schema.columns.iter().map(|c| quote_identifier(&c.name)).collect();
    format!("SELECT {} FROM {}", names.join(", "), table.table().quoted())
}

/// The SELECT of a chunk, in key order where an index gives that for nothing.
pub fn select_rows<'s>(table: &TableDescription, selection: impl Into<Selection<'s>>) -> Result<String, LoadError> {
    let mut sql = select_columns(table);
    let condition = selection.into().condition(table)?;
    // A secondary index costs a look-up a row; for the whole table the engine's own order is cheaper.
    let index = table.key_index().filter(|index| condition.is_some() || *index == weir_mysql::index::PRIMARY);
    if let Some(index) = index {
        sql += &format!(" FORCE INDEX ({})", quote_identifier(index));
    }
    if let Some(condition) = condition {
        sql += &format!(" WHERE {condition}");
    }
    if index.is_some() {
        let key: Vec<String> = table.schema.key_names().into_iter().map(quote_identifier).collect();
        sql += &format!(" ORDER BY {}", key.join(", "));
    }
    Ok(sql)
}

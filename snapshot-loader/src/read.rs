//! Reading one chunk: a single SELECT whose rows go straight into Arrow columns, a bounded batch at a time.

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use weir_model::schema::quote_identifier;
use weir_model::{Column, ColumnBuilder, ZeroDates};
use weir_mysql::wire::rows::Next;
use weir_mysql::wire::{ColumnDefinition, Rows, WireError};
use weir_mysql::{RowConnection, TableDescription};

use crate::decode::{BadCell, Cell, CellError, Columns};
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
        Self { zero_dates: ZeroDates::Null, batch_bytes: 2 << 20 }
    }
}

/// The rows of one chunk, read as they are asked for: a reader that pauses holds the server back.
///
/// All rows come from one statement, hence from one read view. Dropping the reader early leaves unread rows in the
/// connection; drop that as well.
pub struct ChunkReader<'a> {
    table: &'a TableDescription,
    result: Rows<'a>,
    columns: Columns,
    arrow: SchemaRef,
    zero_dates: ZeroDates,
    batch_bytes: usize,
    /// What a row takes beside its packet: NULLs and numbers take their width in the columns whatever they take there.
    row_bytes: usize,
    rows: u64,
    ended: bool,
}

impl<'a> ChunkReader<'a> {
    /// Sends the SELECT and waits until its rows begin.
    ///
    /// # Errors
    /// [`LoadError::Cell`] when the server's columns have not the form that the table's types have.
    pub async fn open(
        connection: &'a mut RowConnection,
        table: &'a TableDescription,
        selection: impl Into<Selection<'_>>,
        options: &ReadOptions,
    ) -> Result<Self, LoadError> {
        let sql = select_rows(table, selection)?;
        let result = connection.rows(&sql).await.map_err(|error| wire_error(table, error))?;
        let columns = &table.schema.columns;
        if result.columns().len() != columns.len() {
            return Err(wire_error(table, WireError::protocol("the server sent other columns than were asked for")));
        }
        let forms = result.columns().iter().zip(columns).enumerate();
        let cell = |(at, (sent, column)): (usize, (&ColumnDefinition, &Column))| {
            Cell::of(&column.ty, sent).map_err(|error| cell_error(table, BadCell { at, error }))
        };
        let cells = forms.map(cell).collect::<Result<Vec<Cell>, LoadError>>()?;
        let builders = columns.iter().map(|c| ColumnBuilder::new(&c.ty, options.zero_dates)).collect();
        Ok(Self {
            table,
            result,
            columns: Columns::new(cells, builders),
            arrow: table.schema.arrow(),
            zero_dates: options.zero_dates,
            batch_bytes: options.batch_bytes,
            row_bytes: columns.len() * CELL_BYTES,
            rows: 0,
            ended: false,
        })
    }

    /// The next batch, never empty; `None` once the chunk is complete. Any error voids the chunk.
    pub async fn next_batch(&mut self) -> Result<Option<RecordBatch>, LoadError> {
        let (mut rows, mut bytes) = (0, 0);
        while !self.ended && bytes < self.batch_bytes {
            match self.result.show().map_err(|error| wire_error(self.table, error))? {
                Next::Row(packet) => {
                    self.columns.push_row(packet).map_err(|bad| cell_error(self.table, bad))?;
                    bytes += packet.len() + self.row_bytes;
                    rows += 1;
                }
                Next::More => self.result.fill().await.map_err(|error| wire_error(self.table, error))?,
                Next::End => {
                    self.ended = true;
                    self.result.close().await.map_err(|error| wire_error(self.table, error))?;
                }
            }
        }
        if rows == 0 {
            return Ok(None);
        }
        self.rows += rows as u64;
        let arrays = self.take_arrays(rows);
        Ok(Some(RecordBatch::try_new(self.arrow.clone(), arrays).expect("every column got one value a row")))
    }

    /// The columns of `rows` rows. As much is expected next, so that they need not grow again from little.
    fn take_arrays(&mut self, rows: usize) -> Vec<ArrayRef> {
        let (with_room, zero_dates) = (|n: usize| n + n / 8, self.zero_dates);
        let columns = self.table.schema.columns.iter().zip(&mut self.columns.builders);
        let take = |(column, builder): (&Column, &mut ColumnBuilder)| {
            let bytes = with_room(builder.bytes()).min(self.batch_bytes);
            let array = builder.finish();
            if !self.ended {
                *builder = ColumnBuilder::with_capacity(&column.ty, zero_dates, with_room(rows), bytes);
            }
            array
        };
        columns.map(take).collect()
    }

    /// Rows handed out so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }
}

/// What a cell is counted as beside its bytes in the packet.
const CELL_BYTES: usize = 8;

#[cold]
fn cell_error(table: &TableDescription, bad: BadCell) -> LoadError {
    let (column, table) = (table.schema.columns[bad.at].name.clone(), table.table().clone());
    match bad.error {
        CellError::Value(source) => LoadError::Value { table, column, source },
        CellError::Form(what) => LoadError::Cell { table, column, what },
    }
}

#[cold]
fn wire_error(table: &TableDescription, error: WireError) -> LoadError {
    error.into_mysql(format!("reading rows of {}", table.table())).into()
}

/// Reads a whole chunk into `sink`, batch by batch; gives the number of rows.
pub async fn read_chunk<F, S>(
    connection: &mut RowConnection,
    table: &TableDescription,
    range: &ChunkRange,
    options: &ReadOptions,
    mut sink: F,
) -> Result<u64, LoadError>
where
    F: FnMut(RecordBatch) -> S,
    S: Future<Output = Result<(), LoadError>>,
{
    let mut reader = ChunkReader::open(connection, table, range, options).await?;
    while let Some(batch) = reader.next_batch().await? {
        sink(batch).await?;
    }
    Ok(reader.rows())
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

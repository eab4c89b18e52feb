//! What can be wrong with a table map or a row image. Never shows a value of a row.

use weir_model::{RuleError, TableId, ValueError};

use super::cursor::Truncated;
use crate::binlog::charset::MalformedText;
use crate::binlog::json::JsonError;

/// Row events that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("a table map event is malformed: {what} at byte {offset} of its body")]
    Map { what: &'static str, offset: usize },
    #[error("the table map of {table} has column {number} of type code {code}, which is not known")]
    UnknownType { table: TableId, number: usize, code: u8 },
    #[error("the table map of {0} names no columns; set binlog_row_metadata=FULL on the source")]
    NoNames(TableId),
    #[error(
        "whether the table map of {0} counts its YEAR columns among the unsigned ones depends on the version of MySQL; its rows can \
         be read beside the server alone, whose catalogue tells the signs"
    )]
    UnreliableSigns(TableId),
    #[error("the binlog has {logged} columns in {table}, and {expected} are known")]
    ColumnCount { table: TableId, logged: usize, expected: usize },
    #[error("column {column} of {table} is {logged} in the binlog and {expected} by the schema it is decoded with")]
    ColumnType { table: TableId, column: String, logged: String, expected: String },
    /// The binlog does not describe its tables, and the catalogue shows them as they are by now.
    #[error(
        "{source}. The source's binlog does not describe its tables, so they are read as the catalogue shows them, and {table} \
         was altered in between. Load it anew with `weir snapshot --table {table}`"
    )]
    Catalogue { table: TableId, source: Box<RowError> },
    #[error(
        "column {column} of {table} is COMPRESSED, which is not supported; ALTER TABLE … MODIFY it without, or leave the table out"
    )]
    Compressed { table: TableId, column: String },
    #[error("column {column} of {table} has character set {charset}, which is not known")]
    CatalogueCharset { table: TableId, column: String, charset: String },
    /// The table's primary key is not the one that its rows are told apart by.
    #[error("the rows of {0} have another primary key in the binlog than the table that they are for")]
    OtherKey(TableId),
    #[error("{source}; then load {table} anew with `weir snapshot --table {table}`")]
    Rules { table: TableId, source: RuleError },
    #[error("key column {column} is not a column of {table}")]
    KeyColumn { table: TableId, column: String },
    #[error("column {column} of {table} has collation {collation}, whose character set is not known")]
    Charset { table: TableId, column: String, collation: u32 },
    #[error("the members of column {column} of {table} cannot be read: {source}")]
    Members { table: TableId, column: String, source: MalformedText },
    #[error(
        "the binlog does not say which character set column {column} of {table} has; \
         set binlog_row_metadata=FULL on the source"
    )]
    NoCharset { table: TableId, column: String },
    #[error(
        "a row event of {table} leaves out column {column}, without which nobody can tell which row it is of; set \
         binlog_row_image=FULL on the source, in every session that writes, then load the table with `weir snapshot --table`"
    )]
    PartialImage { table: TableId, column: String },
    #[error(
        "a row event of {0} leaves columns out, and MariaDB leaves out generated columns that change; set binlog_row_image=FULL on \
         the source, in every session that writes, then load the table with `weir snapshot --table {0}`"
    )]
    PartialImageOfMariadb(TableId),
    #[error("row change {row} of an event of {table} cannot be decoded: {place}: {source}")]
    Cell { table: TableId, place: String, row: u64, source: CellError },
}

/// One value that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CellError {
    #[error("the event ends inside it")]
    Truncated,
    #[error("its bytes are no value of its type: {0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Text(#[from] MalformedText),
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error(transparent)]
    Value(#[from] ValueError),
}

impl From<Truncated> for CellError {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

//! What can go wrong while a table is read or written, by what the caller does about it.

use std::path::PathBuf;

use weir_model::{TableId, ValueError};
use weir_mysql::{MysqlError, PatternError};

/// Never holds a row value.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A value that its column's type cannot hold.
    #[error("column {column} of {table}: {source}")]
    Value { table: TableId, column: String, source: ValueError },
    /// A cell whose wire form is not the one its type has: the table changed under way, or text is not what it claims.
    #[error("column {column} of {table} holds {what}; if the table was just altered, read it again")]
    Cell { table: TableId, column: String, what: &'static str },
    /// A bound of a range that does not fit the key.
    #[error("a bound of {table}'s key: {why}")]
    Bound { table: TableId, why: String },
    #[error("no table matches {0}")]
    NoTables(String),
    #[error("{table} has gone while it was being read")]
    TableGone { table: TableId },
    #[error("writing {path}: {detail}")]
    Write { path: PathBuf, detail: String },
    #[error("reading {path}: {detail}; delete the folder to start over")]
    Resume { path: PathBuf, detail: String },
}

impl LoadError {
    /// Whether reading the same chunk again on another connection may succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Mysql(error) if error.is_retryable())
    }
}

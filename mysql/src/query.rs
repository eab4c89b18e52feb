//! Small queries, and cells taken out of their rows without the driver's panics.

use mysql_async::prelude::{FromValue, Queryable};
use mysql_async::{Conn, Params, Row};

use crate::error::MysqlError;

/// All rows of a text-protocol query. `doing` completes "while …" in an error.
pub async fn rows(conn: &mut Conn, sql: &str, doing: &str) -> Result<Vec<Row>, MysqlError> {
    conn.query(sql).await.map_err(|e| MysqlError::from_driver(doing, &e))
}

/// The first row of a text-protocol query.
pub async fn first_row(conn: &mut Conn, sql: &str, doing: &str) -> Result<Option<Row>, MysqlError> {
    conn.query_first(sql).await.map_err(|e| MysqlError::from_driver(doing, &e))
}

/// All rows of a prepared statement with parameters.
pub async fn rows_with(
    conn: &mut Conn,
    sql: &str,
    params: impl Into<Params> + Send,
    doing: &str,
) -> Result<Vec<Row>, MysqlError> {
    conn.exec(sql, params).await.map_err(|e| MysqlError::from_driver(doing, &e))
}

/// Runs a statement and drops what it answers.
pub async fn execute(conn: &mut Conn, sql: &str, doing: &str) -> Result<(), MysqlError> {
    conn.query_drop(sql).await.map_err(|e| MysqlError::from_driver(doing, &e))
}

/// Cell `index` of `row`; NULL, an absent cell and one of another kind are all `None`.
pub fn cell<T: FromValue>(row: &Row, index: usize) -> Option<T> {
    row.get_opt::<Option<T>, usize>(index).and_then(Result::ok).flatten()
}

/// The cell called `name`, without regard to case.
pub fn named<T: FromValue>(row: &Row, name: &str) -> Option<T> {
    let index = row.columns_ref().iter().position(|c| c.name_str().eq_ignore_ascii_case(name))?;
    cell(row, index)
}

/// The cell of a row that must hold one.
pub fn required<T: FromValue>(row: &Row, index: usize, doing: &str) -> Result<T, MysqlError> {
    cell(row, index).ok_or_else(|| MysqlError::Unexpected {
        doing: doing.into(),
        what: format!("column {} of the answer is missing or of another type", index + 1),
    })
}

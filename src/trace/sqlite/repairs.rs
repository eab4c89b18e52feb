//! Rows of repairs in the embedded trace.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use crate::trace::repairs::RepairRow;

/// A table of its own beside the counts; a file from before it was known is given it.
pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS weir_trace_repairs (
        source TEXT NOT NULL, id TEXT NOT NULL, table_name TEXT NOT NULL, at_ms INTEGER NOT NULL,
        asked_by TEXT NOT NULL, host TEXT NOT NULL,
        missing_count INTEGER NOT NULL, extra_count INTEGER NOT NULL, different_count INTEGER NOT NULL,
        keys TEXT NOT NULL, read_again INTEGER NOT NULL, anew TEXT NOT NULL,
        ended_ms INTEGER NOT NULL, job TEXT NOT NULL, left_count INTEGER NOT NULL, error TEXT NOT NULL,
        made_up_for TEXT NOT NULL,
        PRIMARY KEY (source, id)
    ) WITHOUT ROWID;
";

/// Of one that is there already only its end is taken, once.
pub(super) fn note(connection: &mut Connection, rows: &[RepairRow]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    {
        let mut statement = transaction.prepare_cached(
            "INSERT INTO weir_trace_repairs
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
             ON CONFLICT DO UPDATE SET anew = excluded.anew, ended_ms = excluded.ended_ms, job = excluded.job,
                left_count = excluded.left_count, error = excluded.error, made_up_for = excluded.made_up_for
             WHERE ended_ms = 0",
        )?;
        for row in rows {
            statement.execute(params![
                row.source,
                row.id,
                row.table_name,
                row.at_ms,
                row.asked_by,
                row.host,
                // SQLite's integers are signed; no count comes near 2^63.
                row.missing_count as i64,
                row.extra_count as i64,
                row.different_count as i64,
                row.keys,
                row.read_again as i64,
                row.anew,
                row.ended_ms,
                row.job,
                row.left_count,
                row.error,
                row.made_up_for
            ])?;
        }
    }
    transaction.commit()
}

pub(super) fn noted(connection: &mut Connection, source: &str) -> rusqlite::Result<BTreeMap<String, bool>> {
    let mut statement = connection.prepare_cached("SELECT id, ended_ms FROM weir_trace_repairs WHERE source = ?1")?;
    let noted = statement.query_map([source], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? > 0)))?;
    noted.collect()
}

/// The newest `max`, newest first.
pub(super) fn newest(connection: &mut Connection, source: &str, max: usize) -> rusqlite::Result<Vec<RepairRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT source, id, table_name, at_ms, asked_by, host, missing_count, extra_count, different_count, keys, read_again,
                anew, ended_ms, job, left_count, error, made_up_for
         FROM weir_trace_repairs WHERE source = ?1 ORDER BY at_ms DESC, id DESC LIMIT ?2",
    )?;
    let count = |row: &rusqlite::Row<'_>, column: usize| row.get::<_, i64>(column).map(|count| count as u64);
    let rows = statement.query_map(params![source, max as i64], |row| {
        Ok(RepairRow {
            source: row.get(0)?,
            id: row.get(1)?,
            table_name: row.get(2)?,
            at_ms: row.get(3)?,
            asked_by: row.get(4)?,
            host: row.get(5)?,
            missing_count: count(row, 6)?,
            extra_count: count(row, 7)?,
            different_count: count(row, 8)?,
            keys: row.get(9)?,
            read_again: count(row, 10)?,
            anew: row.get(11)?,
            ended_ms: row.get(12)?,
            job: row.get(13)?,
            left_count: row.get(14)?,
            error: row.get(15)?,
            made_up_for: row.get(16)?,
        })
    })?;
    rows.collect()
}

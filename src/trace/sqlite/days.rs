//! Days in the embedded trace: what adds up is folded, and its counts are gone.
//!
//! One transaction adds the counts of whole minutes to those of their day and deletes them, so every count is in one of the
//! two. A version at or below its origin's mark is not taken in again, so none comes twice.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use weir_model::{Digest, TableId, Window};

use super::{stage_count, text_error};
use crate::trace::StageCount;
use crate::trace::days::{AddsUp, DAY_MS, DayCounts, day_of, fold_day};

/// Sums over the folded minutes of a day: of those that add up without their stale, and of those that do with them.
pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS weir_trace_days (
        source TEXT NOT NULL, table_name TEXT NOT NULL, day_ms INTEGER NOT NULL, with_stale INTEGER NOT NULL,
        op TEXT NOT NULL, hop TEXT NOT NULL, origin TEXT NOT NULL,
        count INTEGER NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (source, table_name, day_ms, with_stale, op, hop, origin)
    ) WITHOUT ROWID;
";

/// Tables of `source` that have counts by the minute, found by leaps through an index.
pub(super) fn tables(connection: &mut Connection, source: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "WITH RECURSIVE next(name) AS (
            SELECT min(table_name) FROM weir_trace WHERE source = ?1
            UNION ALL
            SELECT (SELECT min(table_name) FROM weir_trace WHERE source = ?1 AND table_name > name) FROM next
            WHERE name IS NOT NULL)
         SELECT name FROM next WHERE name IS NOT NULL",
    )?;
    let names = statement.query_map([source], |row| row.get(0))?;
    names.collect()
}

/// Days of `table` that have minutes below `before`, ascending.
pub(super) fn days(
    connection: &mut Connection,
    source: &str,
    table: &str,
    before: Window,
) -> rusqlite::Result<BTreeSet<i64>> {
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT window_ms FROM weir_trace WHERE source = ?1 AND table_name = ?2 AND window_ms < ?3",
    )?;
    let windows = statement.query_map(params![source, table, before.0], |row| row.get::<_, i64>(0))?;
    windows.map(|window| window.map(|window| day_of(Window(window)))).collect()
}

/// Folds the minutes of one day below `before` that add up; how many.
pub(super) fn fold(
    connection: &mut Connection,
    source: &str,
    (table, day): (&str, i64),
    before: Window,
    adds_up: AddsUp,
) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let end = before.0.min(day.saturating_add(DAY_MS));
    let counts: Vec<(String, StageCount)> = {
        let mut statement = transaction.prepare_cached(
            "SELECT window_ms, op, hop, count, digest, origin FROM weir_trace
             WHERE source = ?1 AND table_name = ?2 AND window_ms >= ?3 AND window_ms < ?4",
        )?;
        let rows = statement.query_map(params![source, table, day, end], |row| Ok((row.get(5)?, stage_count(row)?)))?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    let (folded, kept) = fold_day(&counts, adds_up);
    let windows: BTreeSet<Window> =
        counts.iter().map(|(_, count)| count.window).filter(|window| !kept.contains(window)).collect();
    add(&transaction, source, (table, day), &folded)?;
    // Left to itself SQLite goes through every count of the source for a deletion.
    let mut statement = transaction.prepare_cached(
        "DELETE FROM weir_trace INDEXED BY weir_trace_windows
         WHERE source = ?1 AND table_name = ?2 AND window_ms >= ?3 AND window_ms < ?4",
    )?;
    if kept.is_empty() {
        statement.execute(params![source, table, day, end])?;
    } else {
        for window in &windows {
            statement.execute(params![source, table, window.0, window.0 + 1])?;
        }
    }
    drop(statement);
    transaction.commit()?;
    Ok(windows.len())
}

/// Adds to what was folded of a day before.
fn add(
    transaction: &Transaction<'_>,
    source: &str,
    (table, day): (&str, i64),
    folded: &DayCounts,
) -> rusqlite::Result<()> {
    let mut known = transaction.prepare_cached(
        "SELECT count, digest FROM weir_trace_days WHERE source = ?1 AND table_name = ?2 AND day_ms = ?3
         AND with_stale = ?4 AND op = ?5 AND hop = ?6 AND origin = ?7",
    )?;
    let mut put = transaction
        .prepare_cached("INSERT OR REPLACE INTO weir_trace_days VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
    for ((balance, origin, op, hop), (count, digest)) in folded {
        let (with_stale, op, hop) = (balance.with_stale(), op.to_string(), hop.name());
        let before = known
            .query_row(params![source, table, day, with_stale, op, hop, origin], |row| {
                let digest = Digest::try_from(row.get::<_, String>(1)?).map_err(|what| text_error(1, what))?;
                Ok((row.get::<_, i64>(0)? as u64, digest))
            })
            .optional()?
            .unwrap_or_default();
        let (count, digest) = ((before.0 + count) as i64, (before.1 + *digest).to_string());
        put.execute(params![source, table, day, with_stale, op, hop, origin, count, digest])?;
    }
    Ok(())
}

/// Every count of `tables`, of folded days and by the minute.
pub(super) fn counts(
    connection: &mut Connection,
    source: &str,
    tables: &[TableId],
    since: Option<Window>,
) -> rusqlite::Result<BTreeMap<TableId, Vec<StageCount>>> {
    let names: BTreeMap<String, TableId> = tables.iter().map(|table| (table.to_string(), table.clone())).collect();
    let since_day = since.map_or(i64::MIN, day_of);
    let since = since.map_or(i64::MIN, |window| window.0);
    // Of a single table its rows are looked up; of many, all of the source are read, in one go.
    let only = (tables.len() == 1).then(|| tables[0].to_string());
    let of_table = if only.is_some() { "AND table_name = ?3" } else { "AND ?3 IS NULL" };
    // As one read: a fold between the two would hide what it moves, or show it twice.
    let transaction = connection.transaction()?;
    let mut found: BTreeMap<TableId, Vec<StageCount>> = BTreeMap::new();
    for sql in [
        format!(
            "SELECT day_ms + 1 + with_stale, op, hop, count, digest, table_name FROM weir_trace_days
             WHERE source = ?1 AND day_ms >= ?2 {of_table}"
        ),
        format!(
            "SELECT window_ms, op, hop, count, digest, table_name FROM weir_trace
             WHERE source = ?1 AND window_ms >= ?2 {of_table}"
        ),
    ] {
        let since = if sql.contains("day_ms") { since_day } else { since };
        let mut statement = transaction.prepare_cached(&sql)?;
        let mut rows = statement.query(params![source, since, only])?;
        while let Some(row) = rows.next()? {
            let name = row.get_ref(5)?.as_str().map_err(|error| text_error(5, error.to_string()))?;
            if let Some(table) = names.get(name) {
                let count = stage_count(row)?;
                match found.get_mut(table) {
                    Some(counts) => counts.push(count),
                    None => drop(found.insert(table.clone(), vec![count])),
                }
            }
        }
    }
    Ok(found)
}

/// Removes folded days that end at or before `before`.
pub(super) fn expire(connection: &mut Connection, source: &str, before: Window) -> rusqlite::Result<usize> {
    let last = before.0.saturating_sub(DAY_MS);
    connection.execute("DELETE FROM weir_trace_days WHERE source = ?1 AND day_ms <= ?2", params![source, last])
}

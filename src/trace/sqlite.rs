//! The embedded trace: one SQLite file, shared by the service and by commands that run beside it.
//!
//! Every count is a row of `weir_trace`, until [`days`] folds it; `weir_trace_marks` holds the greatest version shipped of each
//! origin. One transaction writes both, so a version at or below the mark is in, whether its rows still are or not.

mod days;
mod repairs;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use weir_model::{Digest, Op, Repair, TableId, Window};

use super::repairs::RepairRow;
use super::{AddsUp, Hop, Origin, Shipment, StageCount, TraceError, TraceSink, summed};
use crate::limits::TRACE_BUSY_MAX;
use crate::modes;

/// `PRAGMA user_version` of the tables below.
const FORMAT: i64 = 3;

const TABLES: &str = "
    CREATE TABLE weir_trace (
        source TEXT NOT NULL, origin TEXT NOT NULL, table_name TEXT NOT NULL, version INTEGER NOT NULL,
        window_ms INTEGER NOT NULL, op TEXT NOT NULL, hop TEXT NOT NULL,
        at_ms INTEGER NOT NULL, count INTEGER NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (source, origin, table_name, version, window_ms, op, hop)
    ) WITHOUT ROWID;
    CREATE INDEX weir_trace_windows ON weir_trace (source, table_name, window_ms);
    CREATE TABLE weir_trace_marks (
        source TEXT NOT NULL, origin TEXT NOT NULL, version INTEGER NOT NULL,
        PRIMARY KEY (source, origin)
    ) WITHOUT ROWID;
    PRAGMA user_version = 3;
";

/// Format 1 knew no origin but the table itself.
const SET_FORMAT_1_ASIDE: &str = "
    DROP INDEX weir_trace_windows;
    ALTER TABLE weir_trace RENAME TO weir_trace_1;
    ALTER TABLE weir_trace_marks RENAME TO weir_trace_marks_1;
";
const TAKE_IN_FORMAT_1: &str = "
    INSERT INTO weir_trace
        SELECT source, table_name, table_name, version, window_ms, op, hop, at_ms, count, digest FROM weir_trace_1;
    INSERT INTO weir_trace_marks SELECT source, table_name, version FROM weir_trace_marks_1;
    DROP TABLE weir_trace_1;
    DROP TABLE weir_trace_marks_1;
";

/// A trace in one file. Clones share the connection.
#[derive(Debug, Clone)]
pub struct SqliteTrace {
    file: Arc<str>,
    connection: Arc<Mutex<Connection>>,
}

impl SqliteTrace {
    /// Opens the file, making it and its folder where they are missing.
    pub fn open(file: &Path) -> Result<Self, TraceError> {
        let place: Arc<str> = file.display().to_string().into();
        let failed =
            |source: Box<dyn std::error::Error + Send + Sync>| TraceError::Store { place: place.to_string(), source };
        if let Some(folder) = file.parent() {
            modes::create_folders(folder).map_err(|e| failed(e.into()))?;
        }
        // SQLite gives the files beside it the mode that this one has.
        match modes::options().write(true).create_new(true).open(file) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error.into())),
            _ => {}
        }
        let mut connection = Connection::open(file).map_err(|e| failed(e.into()))?;
        match prepare(&mut connection).map_err(|e| failed(e.into()))? {
            FORMAT => Ok(Self { file: place, connection: Arc::new(Mutex::new(connection)) }),
            other => Err(TraceError::Foreign {
                place: place.to_string(),
                what: format!("its format is {other}, this version of weir knows {FORMAT}"),
            }),
        }
    }

    /// Runs `work` where it may block, on the one connection.
    async fn on_connection<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, TraceError> {
        let connection = self.connection.clone();
        let done = tokio::task::spawn_blocking(move || {
            work(&mut connection.lock().expect("no code panics while holding the connection"))
        })
        .await
        .expect("the work does not panic and is not aborted");
        done.map_err(|e| TraceError::Store { place: self.file.to_string(), source: e.into() })
    }
}

impl TraceSink for SqliteTrace {
    async fn ship(&self, source: &str, shipments: &[Shipment]) -> Result<(), TraceError> {
        let (source, shipments) = (source.to_owned(), shipments.to_vec());
        self.on_connection(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for shipment in &shipments {
                insert(&transaction, &source, shipment)?;
            }
            transaction.commit()
        })
        .await
    }

    async fn shipped_version(&self, source: &str, origin: &Origin) -> Result<Option<i64>, TraceError> {
        let (source, origin) = (source.to_owned(), origin.to_string());
        self.on_connection(move |connection| {
            let sql = "SELECT version FROM weir_trace_marks WHERE source = ?1 AND origin = ?2";
            connection.query_row(sql, params![source, origin], |row| row.get(0)).optional()
        })
        .await
    }

    async fn shipped_versions(&self, source: &str) -> Result<BTreeMap<Origin, i64>, TraceError> {
        let source = source.to_owned();
        self.on_connection(move |connection| {
            let mut statement =
                connection.prepare_cached("SELECT origin, version FROM weir_trace_marks WHERE source = ?1")?;
            let marks = statement.query_map([source], |row| {
                let origin = Origin::try_from(row.get::<_, String>(0)?).map_err(|what| text_error(0, what))?;
                Ok((origin, row.get(1)?))
            })?;
            marks.collect()
        })
        .await
    }

    async fn totals(
        &self,
        source: &str,
        tables: &[TableId],
        since: Option<Window>,
    ) -> Result<BTreeMap<TableId, Vec<StageCount>>, TraceError> {
        let (source, tables) = (source.to_owned(), tables.to_vec());
        self.on_connection(move |connection| {
            let counts = days::counts(connection, &source, &tables, since)?;
            Ok(counts.into_iter().map(|(table, counts)| (table, summed(counts))).collect())
        })
        .await
    }

    async fn fold(&self, source: &str, before: Window, adds_up: AddsUp) -> Result<u64, TraceError> {
        let name = source.to_owned();
        let mut folded = 0;
        // Between two days of a table others have their turn.
        for table in self.on_connection(move |connection| days::tables(connection, &name)).await? {
            let (name, of) = (source.to_owned(), table.clone());
            for day in self.on_connection(move |connection| days::days(connection, &name, &of, before)).await? {
                let (name, of) = (source.to_owned(), table.clone());
                let minutes = self
                    .on_connection(move |connection| days::fold(connection, &name, (&of, day), before, adds_up))
                    .await?;
                folded += minutes as u64;
            }
        }
        Ok(folded)
    }

    async fn expire(&self, source: &str, before: Window) -> Result<(), TraceError> {
        let source = source.to_owned();
        self.on_connection(move |connection| days::expire(connection, &source, before).map(|_| ())).await
    }

    async fn forget(&self, source: &str, table: &TableId) -> Result<(), TraceError> {
        let (source, table) = (source.to_owned(), table.to_string());
        self.on_connection(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for name in ["weir_trace", "weir_trace_days", "weir_trace_marks"] {
                let sql = format!("DELETE FROM {name} WHERE source = ?1 AND origin = ?2");
                transaction.execute(&sql, params![source, table])?;
            }
            transaction.commit()
        })
        .await
    }

    async fn note_repairs(&self, source: &str, repairs: &[Repair]) -> Result<(), TraceError> {
        let rows: Vec<RepairRow> = repairs.iter().map(|repair| RepairRow::of(source, repair)).collect();
        self.on_connection(move |connection| repairs::note(connection, &rows)).await
    }

    async fn noted_repairs(&self, source: &str) -> Result<BTreeMap<String, bool>, TraceError> {
        let source = source.to_owned();
        self.on_connection(move |connection| repairs::noted(connection, &source)).await
    }

    async fn repairs(&self, source: &str, max: usize) -> Result<Vec<Repair>, TraceError> {
        let source = source.to_owned();
        let rows = self.on_connection(move |connection| repairs::newest(connection, &source, max)).await?;
        let repairs: Result<Vec<Repair>, String> = rows.into_iter().map(RepairRow::repair).collect();
        repairs.map_err(|what| TraceError::Foreign { place: self.file.to_string(), what })
    }
}

/// Sets the connection up, makes the tables in an empty file, brings one of format 1 up, and returns the file's format.
fn prepare(connection: &mut Connection) -> rusqlite::Result<i64> {
    connection.busy_timeout(TRACE_BUSY_MAX)?;
    // Readers and the writer don't wait for each other; a power cut may undo the last commits, which are shipped again
    // because their mark goes with them.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let format = |transaction: &Transaction<'_>| transaction.query_row("PRAGMA user_version", [], |row| row.get(0));
    match format(&transaction)? {
        0 => transaction.execute_batch(TABLES)?,
        1 => {
            transaction.execute_batch(SET_FORMAT_1_ASIDE)?;
            transaction.execute_batch(TABLES)?;
            transaction.execute_batch(TAKE_IN_FORMAT_1)?;
        }
        // Format 2 knew no days: a version that knows none would take what was folded for lost.
        2 => transaction.pragma_update(None, "user_version", FORMAT)?,
        _ => {}
    }
    let format = format(&transaction)?;
    if format == FORMAT {
        transaction.execute_batch(days::TABLE)?;
        transaction.execute_batch(repairs::TABLE)?;
    }
    transaction.commit()?;
    Ok(format)
}

/// A version that is in is passed over: its counts may have been folded since.
fn insert(transaction: &Transaction<'_>, source: &str, shipment: &Shipment) -> rusqlite::Result<()> {
    let origin = shipment.origin.to_string();
    let mut known =
        transaction.prepare_cached("SELECT version FROM weir_trace_marks WHERE source = ?1 AND origin = ?2")?;
    let known: Option<i64> = known.query_row(params![source, origin], |row| row.get(0)).optional()?;
    if known >= Some(shipment.version) {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(
        "INSERT INTO weir_trace (source, origin, table_name, version, window_ms, op, hop, at_ms, count, digest)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
    )?;
    for (table, count) in &shipment.counts {
        statement.execute(params![
            source,
            origin,
            table.to_string(),
            shipment.version,
            count.window.0,
            count.op.to_string(),
            count.hop.name(),
            shipment.at_ms,
            // SQLite's integers are signed; no count comes near 2^63.
            count.count as i64,
            count.digest.to_string()
        ])?;
    }
    let mut mark = transaction.prepare_cached(
        "INSERT INTO weir_trace_marks VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET version = max(version, excluded.version)",
    )?;
    mark.execute(params![source, origin, shipment.version])?;
    Ok(())
}

/// `window_ms, op, hop, count, digest`.
fn stage_count(row: &Row<'_>) -> rusqlite::Result<StageCount> {
    let text = |column: usize| row.get_ref(column)?.as_str().map_err(|error| text_error(column, error.to_string()));
    let (op, hop) = (text(1)?, text(2)?);
    let letter = op.chars().next().unwrap_or(' ');
    Ok(StageCount {
        window: Window(row.get(0)?),
        op: Op::try_from(letter).map_err(|what| text_error(1, what))?,
        hop: Hop::from_name(hop).ok_or_else(|| text_error(2, format!("`{hop}` is not a hop")))?,
        count: row.get::<_, i64>(3)? as u64,
        digest: Digest::try_from(text(4)?.to_owned()).map_err(|what| text_error(4, what))?,
    })
}

/// A text that is not what it must be.
fn text_error(column: usize, what: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, what.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::contract;

    fn open(folder: &tempfile::TempDir) -> SqliteTrace {
        SqliteTrace::open(&folder.path().join("state/trace.sqlite")).unwrap()
    }

    #[tokio::test]
    async fn upholds_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        contract::upheld_by(&open(&folder)).await;
    }

    #[tokio::test]
    async fn what_was_shipped_is_there_when_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let shipment = contract::commit(1, 5, contract::accounts(60_000, 3));
        open(&folder).ship("shop", &[shipment]).await.unwrap();
        let totals = contract::sink_totals(&open(&folder), "shop", &contract::table(), None).await;
        assert_eq!(totals, contract::accounts(60_000, 3));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_service_and_a_command_share_the_file_and_ship_the_same_commits_once() {
        let folder = tempfile::tempdir().unwrap();
        let ship_all = |trace: SqliteTrace| {
            tokio::spawn(async move {
                for version in 1..=40 {
                    let shipment = contract::commit(version, version, contract::accounts(0, 1));
                    trace.ship("shop", &[shipment]).await.unwrap();
                }
            })
        };
        let (service, command) = (ship_all(open(&folder)), ship_all(open(&folder)));
        service.await.unwrap();
        command.await.unwrap();
        let totals = contract::sink_totals(&open(&folder), "shop", &contract::table(), None).await;
        assert!(totals.iter().all(|sum| sum.count == 40), "{totals:?}");
    }

    /// As the first version made it.
    const FORMAT_1: &str = "
        CREATE TABLE weir_trace (
            source TEXT NOT NULL, table_name TEXT NOT NULL, version INTEGER NOT NULL,
            window_ms INTEGER NOT NULL, op TEXT NOT NULL, hop TEXT NOT NULL,
            at_ms INTEGER NOT NULL, count INTEGER NOT NULL, digest TEXT NOT NULL,
            PRIMARY KEY (source, table_name, version, window_ms, op, hop)
        ) WITHOUT ROWID;
        CREATE INDEX weir_trace_windows ON weir_trace (source, table_name, window_ms);
        CREATE TABLE weir_trace_marks (
            source TEXT NOT NULL, table_name TEXT NOT NULL, version INTEGER NOT NULL,
            PRIMARY KEY (source, table_name)
        ) WITHOUT ROWID;
        INSERT INTO weir_trace VALUES
            ('shop', 'shop.orders', 4, 60000, 'u', 'captured', 9, 3, '000000000000000000000000000000ff');
        INSERT INTO weir_trace_marks VALUES ('shop', 'shop.orders', 4), ('shop', 'shop.idle', 7);
        PRAGMA user_version = 1;
    ";

    #[tokio::test]
    async fn a_file_of_format_1_is_brought_up_with_all_that_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trace.sqlite");
        Connection::open(&file).unwrap().execute_batch(FORMAT_1).unwrap();
        for _ in 0..2 {
            let trace = SqliteTrace::open(&file).unwrap();
            let (hop, op, window) = (Hop::Captured, Op::Update, Window(60_000));
            let count = StageCount { hop, op, window, count: 3, digest: Digest(0xff) };
            assert_eq!(contract::sink_totals(&trace, "shop", &contract::table(), None).await, [count]);
            let origin = |name| Origin::Table(TableId::new("shop", name));
            assert_eq!(trace.shipped_version("shop", &origin("orders")).await.unwrap(), Some(4));
            assert_eq!(trace.shipped_version("shop", &origin("idle")).await.unwrap(), Some(7));
        }
        let trace = SqliteTrace::open(&file).unwrap();
        trace.ship("shop", &[contract::commit(4, 9, vec![])]).await.unwrap();
        trace.forget("shop", &contract::table()).await.unwrap();
        assert_eq!(contract::sink_totals(&trace, "shop", &contract::table(), None).await, []);
    }

    #[test]
    fn a_file_of_a_later_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        open(&folder).connection.lock().unwrap().pragma_update(None, "user_version", 9).unwrap();
        let error = SqliteTrace::open(&folder.path().join("state/trace.sqlite")).unwrap_err();
        assert!(matches!(error, TraceError::Foreign { .. }), "{error}");
    }
}

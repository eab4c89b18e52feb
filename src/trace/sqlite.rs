//! The embedded trace: one SQLite file, shared by the service and by commands that run beside it.
//!
//! Every count is a row of `weir_trace`; `weir_trace_marks` holds the greatest version shipped of each origin. One
//! transaction writes both. Sums are made when they are asked for, so that what a report says is what the rows say.

mod repairs;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use weir_model::{Digest, Op, Repair, TableId, Window};

use super::repairs::RepairRow;
use super::{Hop, Origin, Shipment, StageCount, TraceError, TraceSink};
use crate::limits::TRACE_BUSY_MAX;

/// `PRAGMA user_version` of the tables below.
const FORMAT: i64 = 2;

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
    PRAGMA user_version = 2;
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
            std::fs::create_dir_all(folder).map_err(|e| failed(e.into()))?;
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

    async fn totals(
        &self,
        source: &str,
        table: &TableId,
        since: Option<Window>,
    ) -> Result<Vec<StageCount>, TraceError> {
        let (source, table) = (source.to_owned(), table.to_string());
        self.on_connection(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT window_ms, op, hop, count, digest FROM weir_trace
                 WHERE source = ?1 AND table_name = ?2 AND window_ms >= ?3",
            )?;
            let since = since.map_or(i64::MIN, |window| window.0);
            sums(statement.query_map(params![source, table, since], stage_count)?)
        })
        .await
    }

    async fn forget(&self, source: &str, table: &TableId) -> Result<(), TraceError> {
        let (source, table) = (source.to_owned(), table.to_string());
        self.on_connection(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for name in ["weir_trace", "weir_trace_marks"] {
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
        _ => {}
    }
    let format = format(&transaction)?;
    if format == FORMAT {
        transaction.execute_batch(repairs::TABLE)?;
    }
    transaction.commit()?;
    Ok(format)
}

/// A count that is there already stays as it is.
fn insert(transaction: &Transaction<'_>, source: &str, shipment: &Shipment) -> rusqlite::Result<()> {
    let origin = shipment.origin.to_string();
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

/// One entry a window, operation and hop. Digests are sums mod 2^128, which SQL cannot add.
fn sums(counts: impl Iterator<Item = rusqlite::Result<StageCount>>) -> rusqlite::Result<Vec<StageCount>> {
    let mut sums: BTreeMap<(Window, Op, Hop), StageCount> = BTreeMap::new();
    for count in counts {
        let count = count?;
        sums.entry((count.window, count.op, count.hop))
            .and_modify(|sum| {
                sum.count += count.count;
                sum.digest += count.digest;
            })
            .or_insert(count);
    }
    Ok(sums.into_values().collect())
}

/// `window_ms, op, hop, count, digest`.
fn stage_count(row: &rusqlite::Row<'_>) -> rusqlite::Result<StageCount> {
    let text = |column: usize| row.get::<_, String>(column);
    let wrong = |column: usize, what: String| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, what.into())
    };
    let (op, hop) = (text(1)?, text(2)?);
    let letter = op.chars().next().unwrap_or(' ');
    Ok(StageCount {
        window: Window(row.get(0)?),
        op: Op::try_from(letter).map_err(|what| wrong(1, what))?,
        hop: Hop::from_name(&hop).ok_or_else(|| wrong(2, format!("`{hop}` is not a hop")))?,
        count: row.get::<_, i64>(3)? as u64,
        digest: Digest::try_from(text(4)?).map_err(|what| wrong(4, what))?,
    })
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
        let totals = open(&folder).totals("shop", &contract::table(), None).await.unwrap();
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
        let totals = open(&folder).totals("shop", &contract::table(), None).await.unwrap();
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
            assert_eq!(trace.totals("shop", &contract::table(), None).await.unwrap(), [count]);
            let origin = |name| Origin::Table(TableId::new("shop", name));
            assert_eq!(trace.shipped_version("shop", &origin("orders")).await.unwrap(), Some(4));
            assert_eq!(trace.shipped_version("shop", &origin("idle")).await.unwrap(), Some(7));
        }
        let trace = SqliteTrace::open(&file).unwrap();
        trace.ship("shop", &[contract::commit(4, 9, vec![])]).await.unwrap();
        trace.forget("shop", &contract::table()).await.unwrap();
        assert_eq!(trace.totals("shop", &contract::table(), None).await.unwrap(), []);
    }

    #[test]
    fn a_file_of_a_later_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        open(&folder).connection.lock().unwrap().pragma_update(None, "user_version", 9).unwrap();
        let error = SqliteTrace::open(&folder.path().join("state/trace.sqlite")).unwrap_err();
        assert!(matches!(error, TraceError::Foreign { .. }), "{error}");
    }
}

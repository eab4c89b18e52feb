//! Rows of the source for changes that leave columns out: read by their keys, from the server that is streamed.
//!
//! Connections are kept between reads, no more than the configuration allows for reading rows. What has changed at the source
//! since the change was made is the caller's to think of.

use std::sync::{Arc, Mutex};

use arrow_schema::DataType;
use futures::FutureExt;
use futures::future::BoxFuture;
use snapshot_loader::{ChunkReader, KeyValue, LoadError, ReadOptions};
use tokio::sync::Semaphore;
use weir_model::key_parts::key_parts;
use weir_model::{BoundRules, Column, GtidSet, RecordKey, RecordKeys, RuleError, TableId, TableSchema};
use weir_mysql::{Conn, MysqlError, RowConnection, SourceOptions, TableDescription, catalogue, server};

use super::seed::SHAPE_CHANGED;
use crate::apply::current::{CurrentRows, Found, ReadError};
use crate::config::{Config, TableSettings};
use crate::error::Error;
use crate::limits::{CHUNK_BATCH_BYTES, CURRENT_ROWS_SHOWN_MAX, KEYS_LOOKED_UP_TOGETHER, WRITERS_WAIT_MAX};

/// How the configuration wants a table to be read.
type SettingsOf = Arc<dyn Fn(&TableId) -> TableSettings + Send + Sync>;

/// The source that a service mirrors.
pub struct SourceRows {
    source: SourceOptions,
    settings: SettingsOf,
    permits: Semaphore,
    idle: Mutex<Vec<Connections>>,
}

/// One to ask on, and one that rows come over.
struct Connections {
    asking: Conn,
    rows: RowConnection,
}

impl SourceRows {
    /// The source of `config`.
    ///
    /// # Errors
    /// When what it takes to reach it cannot be read.
    pub fn of(config: &Config) -> Result<Arc<dyn CurrentRows>, Error> {
        let settings = config.clone();
        Ok(Arc::new(Self {
            source: config.source_options()?,
            settings: Arc::new(move |table| settings.table_settings(table)),
            permits: Semaphore::new(config.source.max_connections),
            idle: Mutex::default(),
        }))
    }

    async fn rows(&self, lake: &TableSchema, keys: &[RecordKey], shown: &GtidSet) -> Result<Vec<Found>, ReadFailed> {
        let _permit = self.permits.acquire().await.map_err(|_| ReadFailed::Away("it is closed".into()))?;
        let mut connections = self.connections().await?;
        let Connections { asking, rows } = &mut connections;
        let in_snapshot = shown.is_of_domains();
        let is_shown = if in_snapshot {
            server::snapshot_behind(asking, rows, shown, None, CURRENT_ROWS_SHOWN_MAX).await?
        } else if shown.is_of_log() {
            server::wait_for_writers(asking, &lake.table, WRITERS_WAIT_MAX).await?
        } else {
            server::wait_for_executed(asking, shown, CURRENT_ROWS_SHOWN_MAX).await?
        };
        if !is_shown {
            return Err(ReadFailed::Away("it does not show yet what it has sent".into()));
        }
        let described = catalogue::describe(&mut connections.asking, &lake.table).await?;
        // Rows of a table that is gone are gone with it.
        let Some(described) = described else { return Ok(Vec::new()) };
        let names: Vec<String> = lake.key_names().into_iter().map(str::to_owned).collect();
        let described = described.with_key(&names)?;
        let TableSettings { zero_dates, rules, .. } = (self.settings)(&lake.table);
        let options = ReadOptions { zero_dates, batch_bytes: CHUNK_BATCH_BYTES };
        let rules = rules.bind(&described.schema)?;
        let values = key_values(lake, keys);
        let mut found = Vec::new();
        for some in values.chunks(KEYS_LOOKED_UP_TOGETHER) {
            found.extend(read(&mut connections.rows, &described, rules.as_ref(), some, &options).await?);
        }
        if in_snapshot {
            connections.rows.end_snapshot().await?;
        }
        self.idle().push(connections);
        Ok(found)
    }

    /// Some that are idle, or new ones. After an error they are not idle any more, so the next try has new ones.
    async fn connections(&self) -> Result<Connections, MysqlError> {
        let idle = self.idle().pop();
        if let Some(idle) = idle {
            return Ok(idle);
        }
        let mut asking = weir_mysql::connect(&self.source).await?;
        let rows = RowConnection::beside(&self.source, &mut asking).await?;
        Ok(Connections { asking, rows })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connections>> {
        self.idle.lock().expect("no code panics while holding it")
    }
}

impl std::fmt::Debug for SourceRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceRows").finish_non_exhaustive()
    }
}

impl CurrentRows for SourceRows {
    fn read<'a>(
        &'a self,
        lake: &'a TableSchema,
        keys: &'a [RecordKey],
        shown: &'a GtidSet,
    ) -> BoxFuture<'a, Result<Vec<Found>, ReadError>> {
        let rows = self.rows(lake, keys, shown);
        rows.map(|read| {
            read.map_err(|failed| match failed {
                ReadFailed::Away(why) => ReadError::Away(why),
                ReadFailed::Load(error) if is_passing(&error) => ReadError::Away(error.to_string()),
                ReadFailed::Load(error) => ReadError::Refused(error.to_string()),
                ReadFailed::Rules(error) => ReadError::Refused(error.to_string()),
            })
        })
        .boxed()
    }
}

/// Why rows were not read.
#[derive(Debug)]
enum ReadFailed {
    Away(String),
    Load(LoadError),
    Rules(RuleError),
}

impl From<LoadError> for ReadFailed {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

impl From<RuleError> for ReadFailed {
    fn from(error: RuleError) -> Self {
        Self::Rules(error)
    }
}

impl From<MysqlError> for ReadFailed {
    fn from(error: MysqlError) -> Self {
        Self::Load(error.into())
    }
}

/// Whether asking again may help: the next read describes the table anew.
fn is_passing(error: &LoadError) -> bool {
    let LoadError::Mysql(mysql) = error else { return false };
    error.is_retryable() || mysql.code().is_some_and(|code| SHAPE_CHANGED.contains(&code))
}

/// Keys as the source spells them; without those that it cannot have.
fn key_values(lake: &TableSchema, keys: &[RecordKey]) -> Vec<Vec<KeyValue>> {
    let columns: Vec<&Column> = lake.key.iter().map(|&at| &lake.columns[at]).collect();
    let types: Vec<DataType> = columns.iter().map(|column| column.ty.arrow()).collect();
    let types: Vec<&DataType> = types.iter().collect();
    let value = |key: &RecordKey| {
        let parts = key_parts(key.as_ref(), &types).into_iter().zip(&columns);
        parts.map(|(part, column)| KeyValue::from_part(part, &column.ty)).collect::<Option<Vec<_>>>()
    };
    keys.iter().filter_map(value).collect()
}

async fn read(
    connection: &mut RowConnection,
    table: &TableDescription,
    rules: Option<&BoundRules>,
    keys: &[Vec<KeyValue>],
    options: &ReadOptions,
) -> Result<Vec<Found>, LoadError> {
    let mut reader = ChunkReader::open(connection, table, keys, options).await?;
    let schema = rules.map_or_else(|| Arc::new(table.schema.clone()), |rules| rules.schema().clone());
    let mut found = Vec::new();
    while let Some(rows) = reader.next_batch().await? {
        let misfit = |error: weir_model::key::KeyError| LoadError::Bound {
            table: table.table().clone(),
            why: error.to_string(),
        };
        let keys = RecordKeys::of(&rows, &schema.key_names()).map_err(misfit)?;
        let rows = match rules {
            Some(rules) => rules.rows(&rows),
            None => rows,
        };
        found.push(Found { schema: schema.clone(), rows, keys });
    }
    Ok(found)
}

//! The status of a service, as the process knows that runs it: from memory, where the stages are in it, so that looking
//! costs neither the stream nor the tables anything; else from what is durable.
//!
//! Over Kafka `weir capture` writes no tables, and reads how large they are from their logs; `weir apply` knows of no
//! phases, and reads the checkpoint that capture keeps.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use weir_model::{GtidSet, TableId, clock};
use weir_mysql::{Conn, MysqlError, server};

use super::status::{PreparedStatus, Status, TableProofs, TableStatus, beside, lag_ms, read, way_out_of_stop};
use super::{LoadStanding, Role};
use crate::config::{Config, Configured};
use crate::error::Error;
use crate::figures::{LoadStands, TableNow, TableStands, standing};
use crate::limits::{STATUS_SOURCE_AWAY, STATUS_SOURCE_MAX, STATUS_STATE_FRESH};
use crate::table::{Warehouse, history};

/// Looks at the service again and again.
pub struct Watching {
    configured: Configured,
    /// What it has been set up by.
    config: Arc<Config>,
    role: Role,
    warehouse: Warehouse,
    connection: Option<Conn>,
    /// When the source could not be asked, and why.
    away: Option<(Instant, String)>,
    /// Tables as their logs had them, by version: those that nobody writes in this process.
    known: HashMap<TableId, TableNow>,
    /// What has been proven and what waits, when it was read.
    beside: Option<(Instant, TableProofs, Vec<PreparedStatus>)>,
    /// When a table was last seen to have everything, ms since the epoch.
    had_all_ms: BTreeMap<TableId, i64>,
}

impl Watching {
    /// # Errors
    /// When the warehouse's options are wrong.
    pub fn new(configured: &Configured, role: Role) -> Result<Self, Error> {
        let config = configured.get();
        let warehouse = Warehouse::open(&config.warehouse.url, &config.warehouse.options)?;
        Ok(Self {
            configured: configured.clone(),
            config,
            role,
            warehouse,
            connection: None,
            away: None,
            known: HashMap::new(),
            beside: None,
            had_all_ms: BTreeMap::new(),
        })
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// Where every table stands at this moment.
    ///
    /// # Errors
    /// When the warehouse has to be read, and cannot be.
    pub async fn look(&mut self) -> Result<Status, Error> {
        self.follow_configuration()?;
        if self.role == Role::Apply {
            let notice = "lag is told where the source is read, by `weir capture`".to_owned();
            let status = read(&self.config, &self.warehouse, Err(notice)).await?;
            // What capture goes by may be another file.
            return Ok(Status { config: standing().config(), ..status });
        }
        // Before the source is asked: what is in by then is no lag.
        let asked_ms = clock::now_ms();
        let executed = self.executed().await;
        let (tables, mut written) = (standing().tables(), standing().written());
        if self.role == Role::Capture {
            written = self.read_tables(tables.keys()).await?;
        }
        let mut seen = Vec::with_capacity(tables.len());
        for (table, stands) in &tables {
            let missing = executed.as_ref().ok().map(|executed| executed.difference(&stands.position));
            let has_all = missing.as_ref().map(GtidSet::is_empty);
            if has_all == Some(true) {
                self.had_all_ms.insert(table.clone(), asked_ms);
            }
            let had_all_ms = self.had_all_ms.get(table).copied();
            let lag_ms = has_all.and_then(|has_all| lag_ms(has_all, stands.position_ms, had_all_ms, clock::now_ms()));
            let lag_transactions = missing.and_then(|missing| missing.count());
            seen.push(of_table(table, stands, (lag_transactions, lag_ms), written.get(table)));
        }
        self.had_all_ms.retain(|table, _| tables.contains_key(table));
        let (proofs, prepared) = self.beside().await;
        Ok(Status {
            prepared,
            source: self.config.source.name.clone(),
            running: true,
            epoch: standing().epoch(),
            position: position(tables.values()),
            notice: executed.err().map(|error| format!("lag is not known: {error}")),
            tables: seen,
            config: standing().config(),
        }
        .with(&proofs))
    }

    /// Asks by the settings that the service runs by.
    fn follow_configuration(&mut self) -> Result<(), Error> {
        let config = self.configured.get();
        if !Arc::ptr_eq(&config, &self.config) {
            self.warehouse = Warehouse::open(&config.warehouse.url, &config.warehouse.options)?;
            (self.config, self.connection, self.away) = (config, None, None);
        }
        Ok(())
    }

    /// What the state tells beside the checkpoint, as of some seconds ago, or as it was before the store went away: the rest of the
    /// status does not wait for it.
    async fn beside(&mut self) -> (TableProofs, Vec<PreparedStatus>) {
        if let Some((at, proofs, prepared)) = &self.beside
            && at.elapsed() < STATUS_STATE_FRESH
        {
            return (proofs.clone(), prepared.clone());
        }
        let known = self.beside.take().map(|(_, proofs, prepared)| (proofs, prepared)).unwrap_or_default();
        let read = tokio::time::timeout(STATUS_SOURCE_MAX, beside(&self.config, &self.warehouse)).await;
        let (proofs, prepared) = read.ok().and_then(Result::ok).unwrap_or(known);
        self.beside = Some((Instant::now(), proofs.clone(), prepared.clone()));
        (proofs, prepared)
    }

    /// What the source has executed, asked over a connection that is kept.
    async fn executed(&mut self) -> Result<GtidSet, String> {
        if let Some((at, why)) = &self.away
            && at.elapsed() < STATUS_SOURCE_AWAY
        {
            return Err(why.clone());
        }
        let asked = tokio::time::timeout(STATUS_SOURCE_MAX, self.ask()).await;
        let asked = match asked {
            Ok(Ok(executed)) => Ok(executed),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the source has not answered within {STATUS_SOURCE_MAX:?}")),
        };
        self.away = asked.as_ref().err().map(|why| (Instant::now(), why.clone()));
        asked
    }

    async fn ask(&mut self) -> Result<GtidSet, MysqlError> {
        // Taken out, so that one that is given up in the midst of an answer is not used again.
        if let Some(mut kept) = self.connection.take()
            && let Ok(executed) = server::executed_gtids(&mut kept).await
        {
            self.connection = Some(kept);
            return Ok(executed);
        }
        // None was kept, or the server has closed it meanwhile.
        let options = self.config.source_options().map_err(|error| MysqlError::Url(error.to_string()))?;
        let mut fresh = weir_mysql::connect(&options).await?;
        let executed = server::executed_gtids(&mut fresh).await?;
        self.connection = Some(fresh);
        Ok(executed)
    }

    /// The tables' figures by their logs; a log is read again only if it has grown.
    async fn read_tables(
        &mut self,
        tables: impl Iterator<Item = &TableId>,
    ) -> Result<BTreeMap<TableId, TableNow>, Error> {
        let mut found = BTreeMap::new();
        for table in tables {
            let Some(newest) = history::newest_version(&self.warehouse, table).await? else { continue };
            if self.known.get(table).is_none_or(|known| known.version != newest) {
                let Some(figures) = history::figures(&self.warehouse, table).await? else { continue };
                let history::TableFigures { version, rows, files, bytes, .. } = figures;
                self.known.insert(table.clone(), TableNow { version, rows, files, bytes, ..TableNow::default() });
            }
            found.extend(self.known.get(table).map(|known| (table.clone(), *known)));
        }
        self.known.retain(|table, _| found.contains_key(table));
        Ok(found)
    }
}

/// Everything that every table has which has not stopped.
fn position<'a>(tables: impl Iterator<Item = &'a TableStands>) -> GtidSet {
    let healthy = tables.filter(|stands| stands.error.is_none()).map(|stands| &stands.position);
    let shared = |all: GtidSet, position: &GtidSet| all.difference(&all.difference(position));
    healthy
        .fold(None, |all: Option<GtidSet>, position| {
            Some(all.map_or_else(|| position.clone(), |all| shared(all, position)))
        })
        .unwrap_or_default()
}

fn of_table(
    table: &TableId,
    stands: &TableStands,
    (lag_transactions, lag_ms): (Option<u64>, Option<i64>),
    written: Option<&TableNow>,
) -> TableStatus {
    let load = |load: &LoadStands| LoadStanding {
        part: load.part,
        chunks: load.chunks,
        chunks_done: load.chunks_done,
        rows_estimated: load.rows_estimated,
        seconds_left: load.seconds_left,
    };
    TableStatus {
        table: table.clone(),
        phase: stands.phase.name(),
        position: stands.position.clone(),
        lag_transactions,
        lag_ms,
        version: written.map(|now| now.version),
        rows: written.map(|now| now.rows),
        files: written.map(|now| now.files),
        bytes: written.map(|now| now.bytes),
        load: stands.load.as_ref().map(load),
        last_error: stands.error.clone(),
        way_out: stands.error.as_ref().map(|_| way_out_of_stop(table)),
        proof: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Phase;

    #[test]
    fn the_position_is_what_all_healthy_tables_have() {
        const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let at = |last: u64, error: Option<&str>| TableStands {
            phase: Phase::Streaming,
            error: error.map(str::to_owned),
            position: format!("{UUID}:1-{last}").parse().unwrap(),
            position_ms: 0,
            load: None,
        };
        let tables = [at(9, None), at(7, None), at(3, Some("stopped"))];
        assert_eq!(position(tables.iter()).to_string(), format!("{UUID}:1-7"));
        assert!(position([].iter()).is_empty());
    }
}

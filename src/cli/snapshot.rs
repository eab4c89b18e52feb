//! `weir snapshot`: seed or re-seed base tables.

use clap::Args;
use weir_model::{TableId, clock};
use weir_mysql::TableDescription;

use super::jobs::{Asking, conclude};
use crate::config::{Config, Configured};
use crate::error::{Error, Exit};
use crate::service::{self, Reseed, Role, RunOptions};
use crate::state::jobs::{Job, Work};

/// Loads base tables anew; ends once every chunk is committed. Beside a running service that one does it.
#[derive(Debug, Args)]
pub(super) struct Snapshot {
    /// A table to load, as database.table; may be given again. Default: every table.
    #[arg(long = "table", value_name = "TABLE", value_parser = table_id)]
    tables: Vec<TableId>,
}

/// Parses `database.table`.
pub(super) fn table_id(text: &str) -> Result<TableId, String> {
    TableId::try_from(text.to_owned())
}

/// `table` as the source describes it, if it is one that is mirrored.
pub(super) async fn mirrored(config: &Config, table: &TableId) -> Result<TableDescription, Error> {
    is_meant(config, table)?;
    service::described(config, table).await
}

fn is_meant(config: &Config, table: &TableId) -> Result<(), Error> {
    if config.patterns()?.matches(table) {
        return Ok(());
    }
    Err(Error::config(format!("{table} matches no pattern of [source] tables")))
}

impl Snapshot {
    pub(super) async fn run(self, config: &Config) -> Result<Exit, Error> {
        self.tables.iter().try_for_each(|table| is_meant(config, table))?;
        if service::is_running(config).await? {
            return self.ask_of_service(config).await;
        }
        let reseed = if self.tables.is_empty() { Reseed::All } else { Reseed::Tables(self.tables) };
        let options = RunOptions { until_caught_up: true, binlog_dir: None, reseed };
        service::run(&Configured::fixed(config.clone()), options, Role::Both).await?;
        Ok(Exit::Done)
    }

    /// A job for each table; all are waited for, also if one does not come about.
    async fn ask_of_service(self, config: &Config) -> Result<Exit, Error> {
        let mut asking = Asking::open(config)?;
        let tables: Vec<TableId> = match self.tables.is_empty() {
            true => asking.checkpoint().await?.tables.into_keys().collect(),
            false => self.tables,
        };
        let job = |table| Job::of_command(table, Work::Snapshot, clock::now_ms());
        let jobs: Vec<Job> = tables.iter().map(job).collect();
        asking.request(&jobs).await?;
        let outcomes = asking.wait_for(&jobs).await?;
        let mut failed = jobs.iter().zip(&outcomes).filter_map(|(job, outcome)| conclude(job, outcome).err());
        let first = failed.next();
        for other in failed {
            tracing::error!("{other}");
        }
        match first {
            Some(error) => Err(error.way_out("`weir backfill list` shows how each load ended")),
            None => Ok(Exit::Done),
        }
    }
}

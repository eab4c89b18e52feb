//! `weir snapshot`: seed or re-seed base tables.

use clap::Args;
use weir_model::{TableId, clock};

use crate::config::Config;
use crate::error::{Error, Exit};
use crate::limits::RECONCILE_POLL;
use crate::service::{self, Reseed, Role, RunOptions};
use crate::state::CheckpointLog;
use crate::table::Warehouse;

/// Loads base tables anew; ends once every chunk is committed.
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

/// A running service would be fenced off by a second writer. One that was killed a moment ago looks alive until it is
/// seen not to renew its checkpoint.
async fn refuse_beside_a_service(config: &Config) -> Result<(), Error> {
    let warehouse = Warehouse::open(&config.warehouse.url, &config.warehouse.options)?;
    let read = || async {
        let state = warehouse.state_path(&config.source.name);
        CheckpointLog::new(warehouse.store().clone(), state).read().await
    };
    let Some(first) = read().await? else { return Ok(()) };
    let mut told = false;
    loop {
        let Some(newest) = read().await? else { return Ok(()) };
        if newest.written_at_ms != first.written_at_ms && newest.running {
            return Err(Error::failed(format!("a service is running for source {}", config.source.name))
                .way_out("stop it first, then load the tables and start it again"));
        }
        if !newest.is_live(clock::now_ms()) {
            return Ok(());
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!("waiting to see whether a service is still running");
        }
        tokio::time::sleep(RECONCILE_POLL).await;
    }
}

impl Snapshot {
    pub(super) async fn run(self, config: &Config) -> Result<Exit, Error> {
        let patterns = config.patterns()?;
        if let Some(table) = self.tables.iter().find(|table| !patterns.matches(table)) {
            return Err(Error::config(format!("{table} matches no pattern of [source] tables")));
        }
        refuse_beside_a_service(config).await?;
        let reseed = if self.tables.is_empty() { Reseed::All } else { Reseed::Tables(self.tables) };
        service::run(config, RunOptions { until_caught_up: true, binlog_dir: None, reseed }, Role::Both).await?;
        Ok(Exit::Done)
    }
}

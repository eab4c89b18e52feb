//! `weir snapshot`: seed or re-seed base tables.

use clap::Args;
use weir_model::TableId;

use crate::config::Config;
use crate::error::{Error, Exit};
use crate::service::{self, Reseed, Role, RunOptions};

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

/// A running service would be fenced off by a second writer.
async fn refuse_beside_a_service(config: &Config) -> Result<(), Error> {
    if service::is_running(config).await? {
        return Err(Error::failed(format!("a service is running for source {}", config.source.name))
            .way_out("stop it first, then load the tables and start it again"));
    }
    Ok(())
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

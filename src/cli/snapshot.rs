//! `weir snapshot`: seed or re-seed base tables.

use clap::Args;
use weir_model::TableId;

use crate::config::Config;
use crate::error::{Error, Exit};
use crate::service::{self, Reseed, RunOptions};

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

impl Snapshot {
    pub(super) async fn run(self, config: &Config) -> Result<Exit, Error> {
        let patterns = config.patterns()?;
        if let Some(table) = self.tables.iter().find(|table| !patterns.matches(table)) {
            return Err(Error::config(format!("{table} matches no pattern of [source] tables")));
        }
        let reseed = if self.tables.is_empty() { Reseed::All } else { Reseed::Tables(self.tables) };
        service::run(config, RunOptions { until_caught_up: true, binlog_dir: None, reseed }).await?;
        Ok(Exit::Done)
    }
}

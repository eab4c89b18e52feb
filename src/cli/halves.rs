//! `weir capture` and `weir apply`: the two halves of the service, joined by Kafka.

use std::path::PathBuf;

use clap::Args;

use crate::config::Configured;
use crate::error::{Error, Exit};
use crate::http;
use crate::service::{self, Reseed, Role, RunOptions};

/// Reads the source and publishes to Kafka, loads included; `weir apply` writes the tables.
#[derive(Debug, Args)]
pub(super) struct Capture {
    /// End once every table holds all that the source had executed when the command started.
    #[arg(long)]
    until_caught_up: bool,
    /// Read archived binlog files from here where the server has purged them.
    #[arg(long, value_name = "DIR")]
    binlog_dir: Option<PathBuf>,
}

impl Capture {
    pub(super) async fn run(self, configured: &Configured) -> Result<Exit, Error> {
        let options =
            RunOptions { until_caught_up: self.until_caught_up, binlog_dir: self.binlog_dir, reseed: Reseed::None };
        http::beside(configured, Role::Capture, service::run(configured, options, Role::Capture)).await?;
        Ok(Exit::Done)
    }
}

/// Writes the tables from Kafka; several share the work as one consumer group, each some buckets of each table.
#[derive(Debug, Args)]
pub(super) struct Apply {}

impl Apply {
    pub(super) async fn run(self, configured: &Configured) -> Result<Exit, Error> {
        http::beside(configured, Role::Apply, service::run(configured, RunOptions::default(), Role::Apply)).await?;
        Ok(Exit::Done)
    }
}

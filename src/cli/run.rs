//! `weir run`: the service.

use std::path::PathBuf;

use clap::Args;

use crate::config::Configured;
use crate::error::{Error, Exit};
use crate::http;
use crate::service::{self, Reseed, Role, RunOptions};

/// Seeds tables that have no snapshot yet, streams and applies; SIGTERM finishes the commits in hand.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// End once every table holds all that the source had executed when the command started.
    #[arg(long)]
    until_caught_up: bool,
    /// Read archived binlog files from here where the server has purged them.
    #[arg(long, value_name = "DIR")]
    binlog_dir: Option<PathBuf>,
}

impl Run {
    pub(super) async fn run(self, configured: &Configured) -> Result<Exit, Error> {
        let options =
            RunOptions { until_caught_up: self.until_caught_up, binlog_dir: self.binlog_dir, reseed: Reseed::None };
        http::beside(configured, Role::Both, service::run(configured, options, Role::Both)).await?;
        Ok(Exit::Done)
    }
}

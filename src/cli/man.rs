//! `weir man`: manual pages, for whoever packs it.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::Cli;
use crate::error::{Error, Exit};

/// Writes weir(1) and a page for each subcommand into a folder.
#[derive(Debug, Args)]
pub(super) struct Man {
    folder: PathBuf,
}

impl Man {
    pub(super) fn run(self) -> Result<Exit, Error> {
        let failed = |error| {
            Error::failed("the manual pages cannot be written").at(self.folder.display().to_string()).because(error)
        };
        clap_mangen::generate_to(Cli::command(), &self.folder).map_err(failed)?;
        Ok(Exit::Done)
    }
}

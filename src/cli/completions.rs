//! `weir completions`: completion scripts for shells.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use crate::error::{Error, Exit};

/// Prints the completion script of a shell.
#[derive(Debug, Args)]
pub(super) struct Completions {
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<Exit, Error> {
        clap_complete::generate(self.shell, &mut Cli::command(), "weir", &mut std::io::stdout());
        Ok(Exit::Done)
    }
}

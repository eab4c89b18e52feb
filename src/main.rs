//! The `weir` program: parses the command line, runs the command, and turns its end into an exit code.

use std::process::ExitCode;

use clap::Parser;
use weir::cli::Cli;

fn main() -> ExitCode {
    // Wrong usage ends here, with exit code 2.
    match Cli::parse().run() {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("{}", error.render());
            error.exit().into()
        }
    }
}

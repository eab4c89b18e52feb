//! The `weir` program: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use weir::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("{}", error.render());
            error.exit().into()
        }
    }
}

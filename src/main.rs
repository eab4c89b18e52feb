//! The `weir` program: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use weir::cli::Cli;
use weir::failpoint;

/// A service runs for months and frees on other threads than those that asked: the system's allocator keeps what is freed
/// per thread, and was seen to hold ten times what was in use. It takes the place of `malloc` as well, for the libraries in C
/// (zstd, SQLite, librdkafka).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    failpoint::arm();
    match Cli::parse().run() {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("{}", error.render());
            error.exit().into()
        }
    }
}

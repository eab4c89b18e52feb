//! The command line: one file a subcommand. Arguments in, a library call, its result printed.
//!
//! What a program may want goes to stdout and nothing else does; logs and progress go to stderr.

mod binlog;
mod check;
mod completions;
mod init;
mod output;
mod read;
mod reconcile;
mod run;
mod snapshot;
mod status;
mod table;

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::error::{Error, Exit};

/// Keeps lakehouse tables equal to a MySQL database, within seconds, and proves it.
#[derive(Debug, Parser)]
#[command(name = "weir", version, propagate_version = true)]
pub struct Cli {
    /// The configuration file.
    #[arg(long, global = true, default_value = "weir.toml", value_name = "FILE")]
    config: PathBuf,
    /// How log lines look; they go to stderr.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Log more; twice for everything.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Log only errors.
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    Check(check::Check),
    Run(run::Run),
    Snapshot(snapshot::Snapshot),
    Status(status::Status),
    Reconcile(reconcile::Reconcile),
    Read(read::Read),
    #[command(subcommand)]
    Table(table::Table),
    #[command(subcommand)]
    Binlog(binlog::Binlog),
    Completions(completions::Completions),
}

impl Cli {
    /// Runs the command; says how it ended.
    pub fn run(self) -> Result<Exit, Error> {
        self.start_logging();
        match self.command {
            Command::Init(init) => block_on(init.run(&self.config)),
            Command::Completions(completions) => completions.run(),
            Command::Check(check) => block_on(check.run(&load(&self.config)?)),
            Command::Run(run) => block_on(run.run(&load(&self.config)?)),
            Command::Snapshot(snapshot) => block_on(snapshot.run(&load(&self.config)?)),
            Command::Status(status) => block_on(status.run(&load(&self.config)?)),
            Command::Reconcile(reconcile) => block_on(reconcile.run(&load(&self.config)?)),
            Command::Read(read) => block_on(read.run(&load(&self.config)?)),
            Command::Table(table) => block_on(table.run(&load(&self.config)?)),
            // Archived files need no configuration.
            Command::Binlog(binlog) => block_on(binlog.run(|| load(&self.config))),
        }
    }

    fn start_logging(&self) {
        let level = match (self.quiet, self.verbose) {
            (true, _) => "error",
            (false, 0) => "weir=info,snapshot_loader=info,warn",
            (false, 1) => "weir=debug,weir_mysql=debug,snapshot_loader=debug,info",
            (false, _) => "trace",
        };
        let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new(level));
        let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
        match self.log_format {
            LogFormat::Text => builder.with_ansi(colours).init(),
            LogFormat::Json => builder.json().init(),
        }
    }
}

fn load(file: &std::path::Path) -> Result<Config, Error> {
    let config = Config::load(file)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

fn block_on<F: Future<Output = Result<Exit, Error>>>(future: F) -> Result<Exit, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::failed("the runtime could not be started").because(error))?;
    let result = runtime.block_on(future);
    // Blocking reads that nobody waits for any more must not hold the process.
    runtime.shutdown_background();
    result
}

//! The command line: one file a subcommand. Arguments in, a library call, its result printed.
//!
//! What a program may want goes to stdout and nothing else does; logs and progress go to stderr.

mod backfill;
mod binlog;
mod check;
mod completions;
mod halves;
mod init;
mod jobs;
mod man;
mod output;
mod read;
mod reconcile;
mod repair;
mod run;
mod schedule;
mod snapshot;
mod status;
mod table;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, ConfigFile, Configured};
use crate::error::{Error, Exit};

/// Keeps lakehouse tables equal to a MySQL database, within seconds, and proves it.
#[derive(Debug, Parser)]
#[command(name = "weir", version = version())]
pub struct Cli {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", help = "The configuration file [default: weir.toml]")]
    config: Option<PathBuf>,
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
    Capture(halves::Capture),
    Apply(halves::Apply),
    Snapshot(snapshot::Snapshot),
    Backfill(backfill::Backfill),
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    Status(status::Status),
    Reconcile(reconcile::Reconcile),
    Read(read::Read),
    #[command(subcommand)]
    Table(table::Table),
    #[command(subcommand)]
    Binlog(binlog::Binlog),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(man::Man),
}

/// The version, and which build of it this is if whoever built it said so.
fn version() -> &'static str {
    static VERSION: LazyLock<String> =
        LazyLock::new(|| match option_env!("WEIR_BUILD").filter(|build| !build.is_empty()) {
            Some(build) => format!("{} ({build})", env!("CARGO_PKG_VERSION")),
            None => env!("CARGO_PKG_VERSION").to_owned(),
        });
    &VERSION
}

impl Cli {
    /// Runs the command; says how it ended.
    pub fn run(self) -> Result<Exit, Error> {
        self.start_logging();
        let chosen = self.config;
        let config = || load(chosen.as_deref());
        let config_to_act_on = || load_and_warn(chosen.as_deref());
        let config_to_serve = || Ok::<_, Error>(Configured::of_file(config_to_act_on()?, file(chosen.as_deref())));
        match self.command {
            Command::Init(init) => block_on(init.run(chosen.as_deref().unwrap_or(Path::new(CONFIG_DEFAULT)))),
            Command::Completions(completions) => completions.run(),
            Command::Man(man) => man.run(),
            Command::Check(check) => block_on(check.run(&config_to_act_on()?)),
            Command::Run(run) => block_on(run.run(&config_to_serve()?)),
            Command::Capture(capture) => block_on(capture.run(&config_to_serve()?)),
            Command::Apply(apply) => block_on(apply.run(&config_to_serve()?)),
            Command::Snapshot(snapshot) => block_on(snapshot.run(&config_to_act_on()?)),
            Command::Backfill(backfill) => block_on(backfill.run(&config_to_act_on()?)),
            Command::Schedule(schedule) => block_on(schedule.run(&config()?)),
            Command::Status(status) => block_on(status.run(&config()?)),
            Command::Reconcile(reconcile) => block_on(reconcile.run(&config()?)),
            Command::Read(read) => block_on(read.run(&config()?)),
            Command::Table(table) => block_on(table.run(&config()?)),
            // Archived files need no configuration.
            Command::Binlog(binlog) => block_on(binlog.run(config)),
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

/// The configuration where none is named.
const CONFIG_DEFAULT: &str = "weir.toml";

fn file(chosen: Option<&Path>) -> ConfigFile {
    let environment = std::env::vars().collect();
    ConfigFile::new(chosen.unwrap_or(Path::new(CONFIG_DEFAULT)), chosen.is_none(), environment)
}

fn load(chosen: Option<&Path>) -> Result<Config, Error> {
    file(chosen).load()
}

/// For the commands that act on the configuration as a whole: what in it has no effect is said.
fn load_and_warn(chosen: Option<&Path>) -> Result<Config, Error> {
    let config = load(chosen)?;
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

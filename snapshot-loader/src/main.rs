//! `snapshot-loader`: MySQL tables to Parquet files. Exit codes: 0 done, 1 failed, 2 wrong usage.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use snapshot_loader::{Caps, LoadError, LoadOptions, Manifest, PlanTarget, Progress, Throttle, load};
use weir_model::ZeroDates;
use weir_mysql::{MysqlError, SourceOptions, TablePatterns};

/// Copies MySQL tables into Parquet files, several chunks at a time.
///
/// Chunks are read at different moments: a row that changes during the load may be in the files as it was or as it is, and
/// rows of one transaction may be there in part. Pass --consistent for all rows as of one moment.
///
/// Each table goes to DIR/<database>/<table>/part-NNNNN.parquet, and DIR/manifest.json lists the files once all are
/// complete. A load that broke off goes on where it stood when the same command is given again.
#[derive(Debug, Parser)]
#[command(name = "snapshot-loader", version)]
struct Arguments {
    /// mysql://user[:password]@host:port; add ?ssl_mode=required, verify_ca or verify_identity, and ssl_ca=FILE, for TLS
    #[arg(long, env = "WEIR_SOURCE_URL", hide_env_values = true)]
    url: String,
    /// Password, if it is not in the url (better given by the environment than by the option)
    #[arg(long, env = "WEIR_SOURCE_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Tables as database.table globs; a leading ! leaves out. May be repeated
    #[arg(long, required = true, num_args = 1.., value_name = "PATTERN")]
    tables: Vec<String>,
    /// Folder to write to; created if it does not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Chunks read at once, each on its own connection
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// Rows that a chunk aims at
    #[arg(long, default_value_t = PlanTarget::default().rows, value_parser = clap::value_parser!(u64).range(1..))]
    chunk_rows: u64,
    /// MiB of source data that a chunk aims at
    #[arg(long, default_value_t = PlanTarget::default().bytes >> 20, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    chunk_mib: u64,
    /// What becomes of 0000-00-00 and dates like 2024-00-10
    #[arg(long, default_value = "null", value_parser = ["null", "error"])]
    zero_dates: String,
    /// All rows as of one moment: holds a global read lock while the connections open (needs RELOAD), and starts over if
    /// it breaks off
    #[arg(long)]
    consistent: bool,
    /// Rows a second that all connections read together at most; 0 is no cap
    #[arg(long, default_value_t = 0, value_name = "ROWS")]
    rows_per_second_max: u64,
    /// MiB a second, counted as columns in memory; 0 is no cap
    #[arg(long, default_value_t = 0, value_name = "MIB", value_parser = clap::value_parser!(u64).range(..=1 << 30))]
    mib_per_second_max: u64,
    /// No chunk begins while the server has more threads running than this, ours included; 0 is no cap
    #[arg(long, default_value_t = 0, value_name = "THREADS")]
    pause_above_threads_running: u64,
    /// No chunk begins while the server is a replica that is further behind than this, or is not replicating; 0 is no cap
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pause_above_lag_ms: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    let options = match options(&arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let progress = Progress::new();
    match progress.show_while(load(&options, &progress)).await {
        Ok(manifest) => {
            summarise(&manifest, &progress);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn options(arguments: &Arguments) -> Result<LoadOptions, LoadError> {
    let source = SourceOptions::new(&arguments.url).with_password(arguments.password.clone());
    source.opts()?;
    let caps = Caps {
        rows_per_second_max: arguments.rows_per_second_max,
        bytes_per_second_max: arguments.mib_per_second_max << 20,
        pause_above_threads_running: arguments.pause_above_threads_running,
        pause_above_lag_ms: arguments.pause_above_lag_ms,
    };
    Ok(LoadOptions {
        throttle: Arc::new(Throttle::new(source.clone(), caps)),
        source,
        patterns: TablePatterns::new(&arguments.tables)?,
        out: arguments.out.clone(),
        connections: arguments.connections.into(),
        target: PlanTarget { rows: arguments.chunk_rows, bytes: arguments.chunk_mib << 20 },
        zero_dates: if arguments.zero_dates == "error" { ZeroDates::Error } else { ZeroDates::Null },
        consistent: arguments.consistent,
    })
}

fn exit_code(error: &LoadError) -> u8 {
    match error {
        LoadError::Pattern(_) | LoadError::Mysql(MysqlError::Url(_)) => 2,
        _ => 1,
    }
}

fn summarise(manifest: &Manifest, progress: &Progress) {
    for table in &manifest.tables {
        let bytes: u64 = table.files.iter().map(|f| f.bytes).sum();
        eprintln!("{}: {} rows in {} files, {bytes} bytes", table.table, table.rows, table.files.len());
    }
    eprintln!("{}", progress.line());
}

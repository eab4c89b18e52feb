//! The table engine by itself, phase by phase, without a source: what `bench/engine.py` runs and measures.
//!
//! Each phase is a process of its own, so that its CPU time and its peak memory are its own, and works on the table in
//! `FOLDER/lake`. It prints lines of JSON: one a commit where commits are timed one by one, and one that sums up, with
//! `"phase"`. Nothing is random but by a seed that follows from the table's own state, so a run can be repeated.

mod measure;
mod rows;
mod table;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use self::measure::{Clock, peak_mib};
use self::table::{BenchTable, Updates};

/// A table engine's figures, by phase.
#[derive(Debug, Parser)]
#[command(name = "engine")]
struct Arguments {
    #[command(subcommand)]
    phase: Phase,
}

#[derive(Debug, Subcommand)]
enum Phase {
    /// Creates the table and loads it, chunk by chunk, as a snapshot does.
    Seed {
        folder: PathBuf,
        #[arg(long)]
        rows: u64,
    },
    /// Commits random updates, spread over the whole table, each commit timed.
    Update {
        folder: PathBuf,
        #[arg(long, default_value_t = 20)]
        commits: u64,
        /// Distinct rows that a commit updates.
        #[arg(long, default_value_t = 10_000)]
        rows: u64,
        /// Writes what each commit holds to `EXPORT/<number>.arrow`, with the source's columns.
        #[arg(long)]
        export: Option<PathBuf>,
    },
    /// Applies a backlog as fast as it goes: four updates of random rows for each insert.
    Apply {
        folder: PathBuf,
        #[arg(long)]
        changes: u64,
        /// Changes in a publish.
        #[arg(long, default_value_t = 32_000)]
        batch: u64,
    },
    /// Opens the table for writing.
    Open { folder: PathBuf },
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `cargo bench` starts every benchmark with this argument alone, and this one needs to be told a phase.
    let arguments: Vec<String> = std::env::args().filter(|argument| argument != "--bench").collect();
    if arguments.len() == 1 {
        eprintln!("engine: run by bench/engine.py (make bench, or BENCH_ONLY=engine); --help lists its phases");
        return Ok(());
    }
    let Arguments { phase } = Arguments::parse_from(arguments);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut summary = runtime.block_on(run(phase))?;
    summary["peak_mib"] = json!(peak_mib()?);
    println!("{summary}");
    Ok(())
}

async fn run(phase: Phase) -> Result<Value, Box<dyn std::error::Error>> {
    match phase {
        Phase::Seed { folder, rows } => {
            let clock = Clock::start()?;
            let mut table = BenchTable::seed(&folder, rows).await?;
            let spent = clock.stop()?;
            table.keep()?;
            Ok(with_figures(
                json!({"phase": "seed", "seconds": spent.seconds, "cpu_seconds": spent.cpu_seconds}),
                &table,
            ))
        }
        Phase::Update { folder, commits, rows, export } => {
            let mut table = BenchTable::open(&folder).await?;
            let mut updates = Updates::of(&table, rows)?;
            for number in 1..=commits {
                let batch = updates.next_batch();
                if let Some(export) = &export {
                    rows::export(&batch.rows, &export.join(format!("{number:05}.arrow")))?;
                }
                let clock = Clock::start()?;
                (table, _) = table.apply(vec![batch]).await?;
                let commit = clock.stop()?;
                let clock = Clock::start()?;
                table.upkeep().await?;
                let upkeep = clock.stop()?;
                let line = json!({
                    "commit": number, "ms": commit.seconds * 1e3, "cpu_ms": commit.cpu_seconds * 1e3, "bytes": commit.bytes,
                    "upkeep_ms": upkeep.seconds * 1e3, "upkeep_bytes": upkeep.bytes,
                });
                println!("{line}");
            }
            table.keep()?;
            Ok(with_figures(json!({"phase": "update", "commits": commits, "commit_rows": rows}), &table))
        }
        Phase::Apply { folder, changes, batch } => {
            let table = BenchTable::open(&folder).await?;
            // Made beforehand, so that making it is not measured.
            let backlog = rows::backlog(&table, changes, batch);
            let clock = Clock::start()?;
            let (mut table, commits) = table.apply(backlog).await?;
            let spent = clock.stop()?;
            table.keep()?;
            let summary = json!({
                "phase": "apply", "changes": changes, "commits": commits, "seconds": spent.seconds,
                "cpu_seconds": spent.cpu_seconds, "bytes": spent.bytes,
            });
            Ok(with_figures(summary, &table))
        }
        Phase::Open { folder } => {
            let clock = Clock::start()?;
            let table = BenchTable::open(&folder).await?;
            let spent = clock.stop()?;
            Ok(with_figures(
                json!({"phase": "open", "seconds": spent.seconds, "cpu_seconds": spent.cpu_seconds}),
                &table,
            ))
        }
    }
}

/// What the table is at the end of a phase.
fn with_figures(mut summary: Value, table: &BenchTable) -> Value {
    let (files, rows, file_bytes) = table.figures();
    let (keys, index_bytes) = table.index_figures();
    summary["rows"] = json!(rows);
    summary["files"] = json!(files);
    summary["file_bytes"] = json!(file_bytes);
    summary["keys"] = json!(keys);
    summary["index_bytes"] = json!(index_bytes);
    summary
}

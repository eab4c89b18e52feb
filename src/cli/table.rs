//! `weir table list|describe|verify|compact|clean`: the lake's tables and their upkeep.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use clap::Subcommand;
use weir_model::TableId;

use super::output::{Output, table};
use super::snapshot::table_id;
use crate::config::Config;
use crate::error::{Error, Exit};
use crate::service;
use crate::service::upkeep::{self, Cleaned, Compacted};
use crate::table::history::{self, TableFigures};
use crate::table::verify::{Verified, verify};
use crate::table::{TableError, Warehouse};

/// The tables in the warehouse.
#[derive(Debug, Subcommand)]
pub(super) enum Table {
    /// Lists them with their figures.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Shows one: columns, figures, and where it stands.
    Describe {
        /// The table, as database.table.
        #[arg(value_parser = table_id)]
        table: TableId,
        #[command(flatten)]
        output: Output,
    },
    /// Reads all of one and says whether it holds together; exit 1 if not.
    Verify {
        /// The table, as database.table.
        #[arg(value_parser = table_id)]
        table: TableId,
        #[command(flatten)]
        output: Output,
    },
    /// Merges small files and writes those with dead rows again, beside a running service or without one.
    Compact {
        /// The table, as database.table.
        #[arg(value_parser = table_id)]
        table: TableId,
        #[command(flatten)]
        output: Output,
    },
    /// Removes what a crash left, what was replaced, and old versions of the log.
    Clean {
        /// The table, as database.table.
        #[arg(value_parser = table_id)]
        table: TableId,
        /// Keep what was replaced since, for readers; [warehouse] retention_hours says how long by default.
        #[arg(long, value_name = "HOURS")]
        retention_hours: Option<u32>,
        #[command(flatten)]
        output: Output,
    },
}

impl Table {
    pub(super) async fn run(self, config: &Config) -> Result<Exit, Error> {
        let warehouse = Warehouse::open(&config.warehouse.url, &config.warehouse.options)?;
        match self {
            Self::List { output } => {
                let mut tables = Vec::new();
                for id in warehouse.list_tables().await? {
                    tables.extend(history::figures(&warehouse, &id).await?);
                }
                output.print(&tables, |tables| list(tables))?;
            }
            Self::Describe { table, output } => {
                let figures =
                    history::figures(&warehouse, &table).await?.ok_or_else(|| TableError::NoTable(table.clone()))?;
                output.print(&figures, describe)?;
            }
            Self::Verify { table, output } => {
                let found = verify(&warehouse, &table).await?;
                output.print(&found, verified)?;
                if found.problem_count > 0 {
                    return Ok(Exit::Failed);
                }
            }
            Self::Compact { table, output } => {
                let done = upkeep::compact(config, &table).await?;
                output.print(&done, compacted)?;
            }
            Self::Clean { table, retention_hours, output } => {
                let kept = retention_hours
                    .map_or_else(|| config.warehouse.retention(), |hours| Duration::from_secs(u64::from(hours) * 3600));
                let trace = service::open_trace(config)?;
                let done = upkeep::clean(config, &trace, &table, kept).await?;
                output.print(&done, cleaned)?;
            }
        }
        Ok(Exit::Done)
    }
}

fn verified(found: &Verified) -> String {
    let Verified { table, version, files, rows, rows_dead, problems, problem_count } = found;
    let mut text = format!("{table} at version {version}: {rows} rows and {rows_dead} dead ones in {files} files");
    if *problem_count == 0 {
        text.push_str("; it holds together");
    }
    for problem in problems {
        text.push_str(&format!("\n{problem}"));
    }
    let untold = problem_count - problems.len() as u64;
    if untold > 0 {
        text.push_str(&format!("\nand {untold} more"));
    }
    text
}

fn compacted(done: &Compacted) -> String {
    let Compacted { table, version, files_before, files_after, bytes_before, bytes_after, commits } = done;
    if *commits == 0 {
        return format!("{table} at version {version}: nothing to compact in {files_after} files");
    }
    format!(
        "{table} at version {version}: {files_before} files of {bytes_before} bytes became {files_after} of \
         {bytes_after}, in {commits} commits"
    )
}

fn cleaned(done: &Cleaned) -> String {
    let Cleaned { table, files_removed, bytes_removed, commits_removed } = done;
    format!("{table}: {files_removed} files of {bytes_removed} bytes and {commits_removed} old versions removed")
}

fn list(tables: &[TableFigures]) -> String {
    let rows = tables.iter().map(|t| {
        let numbers = [t.version.to_string(), t.rows.to_string(), t.files.to_string(), t.bytes.to_string()];
        std::iter::once(t.table.to_string()).chain(numbers).chain([t.rows_dead.to_string()]).collect()
    });
    table(&["table", "version", "rows", "files", "bytes", "dead rows"], rows)
}

fn describe(figures: &TableFigures) -> String {
    let key: Vec<String> = figures
        .state
        .as_ref()
        .and_then(|state| state.schema.as_ref())
        .map(|schema| schema.key_names().into_iter().map(str::to_owned).collect())
        .unwrap_or_default();
    let columns = figures.columns.iter().map(|(name, ty)| {
        vec![name.clone(), ty.clone(), if key.contains(name) { "key".into() } else { String::new() }]
    });
    let mut text = format!("{}\n{}", list(std::slice::from_ref(figures)), table(&["column", "type", ""], columns));
    if let Some(state) = &figures.state {
        text.push_str(&format!("\nposition {}\norder    {}", state.gtid_set, state.order.0));
    }
    text
}

/// Binary columns as hexadecimal text, which CSV can hold.
pub(super) fn hex_columns(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if field.data_type() == &DataType::Binary {
            let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
            columns.push(Arc::new(column.as_binary::<i32>().iter().map(|v| v.map(hex)).collect::<StringArray>()));
            fields.push(Field::new(field.name(), DataType::Utf8, true));
        } else {
            columns.push(column.clone());
            fields.push(field.as_ref().clone());
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

//! `weir table list|describe`: the lake's tables.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use clap::Subcommand;
use weir_model::TableId;

use super::output::{Output, table};
use super::snapshot::table_id;
use crate::config::Config;
use crate::error::{Error, Exit};
use crate::table::history::{self, TableFigures};
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
        }
        Ok(Exit::Done)
    }
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
        let roles = [("key", key.contains(name)), ("partition", figures.partitions.contains(name))];
        let roles: Vec<&str> = roles.into_iter().filter(|(_, has)| *has).map(|(role, _)| role).collect();
        vec![name.clone(), ty.clone(), roles.join(", ")]
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

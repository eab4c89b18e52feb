//! `weir read`: live rows of a table, through our own reader.

use std::io::{BufWriter, Write};

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use clap::{Args, ValueEnum};
use parquet::arrow::ArrowWriter;
use weir_model::TableId;

use super::snapshot::table_id;
use crate::config::Config;
use crate::error::{Error, Exit};
use crate::table::{Scan, TableError, Warehouse};

/// Prints the live rows of a table.
#[derive(Debug, Args)]
pub(super) struct Read {
    /// The table, as database.table.
    #[arg(long, value_parser = table_id)]
    table: TableId,
    /// An older version of it.
    #[arg(long)]
    version: Option<i64>,
    /// Columns to print, with commas between. Default: all.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    columns: Option<Vec<String>>,
    /// How to print; parquet wants stdout to be a file or a pipe.
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Csv,
    Jsonl,
    Parquet,
}

/// Where rows go.
enum Sink {
    Csv(Box<arrow_csv::Writer<Box<dyn Write + Send>>>),
    Jsonl(Box<arrow_json::LineDelimitedWriter<Box<dyn Write + Send>>>),
    Parquet(Box<ArrowWriter<Box<dyn Write + Send>>>),
}

impl Sink {
    fn new(format: Format, scan: &Scan) -> Result<Self, TableError> {
        let stdout: Box<dyn Write + Send> = Box::new(BufWriter::with_capacity(1 << 16, std::io::stdout()));
        Ok(match format {
            Format::Csv => Self::Csv(Box::new(arrow_csv::WriterBuilder::new().with_header(true).build(stdout))),
            Format::Jsonl => {
                let builder = arrow_json::WriterBuilder::new().with_explicit_nulls(true);
                Self::Jsonl(Box::new(builder.build(stdout)))
            }
            Format::Parquet => Self::Parquet(Box::new(ArrowWriter::try_new(stdout, scan.schema().clone(), None)?)),
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        match self {
            Self::Csv(writer) => writer.write(&super::table::hex_columns(batch)?)?,
            Self::Jsonl(writer) => writer.write(batch)?,
            Self::Parquet(writer) => writer.write(batch)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<(), TableError> {
        match self {
            Self::Csv(writer) => writer.into_inner().flush()?,
            Self::Jsonl(mut writer) => {
                writer.finish()?;
                writer.into_inner().flush()?;
            }
            Self::Parquet(writer) => writer.into_inner()?.flush()?,
        }
        Ok(())
    }
}

impl Read {
    pub(super) async fn run(self, config: &Config) -> Result<Exit, Error> {
        let warehouse = Warehouse::open(&config.warehouse.url, &config.warehouse.options)?;
        let scan = Scan::open(&warehouse, &self.table, self.version, self.columns.as_deref()).await?;
        let mut sink = Sink::new(self.format, &scan)?;
        let result = match scan.for_each(|batch| sink.write(&batch)).await {
            Ok(()) => sink.finish(),
            Err(error) => Err(error),
        };
        match result {
            Err(error) if !is_broken_pipe(&error) => Err(error.into()),
            _ => Ok(Exit::Done),
        }
    }
}

/// A reader such as `head` that has gone away has what it wanted.
fn is_broken_pipe(error: &TableError) -> bool {
    let io = match error {
        TableError::Disk(error) => Some(error),
        TableError::Arrow(ArrowError::IoError(_, error)) => Some(error),
        _ => None,
    };
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

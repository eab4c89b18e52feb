//! `weir binlog dump`: decoded events, for people who debug.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::RecordBatch;
use clap::Subcommand;
use serde_json::{Value, json};
use weir_model::change::Stamp;
use weir_model::image::Rest;
use weir_model::position::{LogName, PositionError};
use weir_model::{ChangeBuilder, EventId, GtidSet, LogPosition, Order, PartialImage, TableSchema, Window, ZeroDates};
use weir_mysql::server;

use super::output::print;
use crate::binlog::{
    EventBody, FileSource, LiveSource, RowDecoder, RowsImage, Source, SourceError, SourceEvent, TableMap, lacks_gtids,
    random_server_id,
};
use crate::config::Config;
use crate::error::{Error, Exit};

/// Looks into binlogs.
#[derive(Debug, Subcommand)]
pub(super) enum Binlog {
    /// Prints decoded events as JSON lines: of archived files, or of the live stream from now on.
    Dump {
        /// Archived binlog files, in order. Default: the live stream of the configured source.
        files: Vec<PathBuf>,
        /// Begin the live stream behind these transactions, not at the present.
        #[arg(long, value_name = "GTID_SET", conflicts_with = "files")]
        from: Option<GtidSet>,
    },
}

impl Binlog {
    pub(super) async fn run(self, config: impl FnOnce() -> Result<Config, Error>) -> Result<Exit, Error> {
        let Self::Dump { files, from } = self;
        if files.is_empty() {
            let config = config()?;
            let options = config.source_options()?;
            let mut connection = weir_mysql::connect(&options).await?;
            let from = match from {
                Some(from) => from,
                None => server::executed_gtids(&mut connection).await?,
            };
            drop(connection);
            let source = LiveSource::connect(options.opts()?, &from, random_server_id()).await;
            return dump(source.map_err(|error| Error::failed(error.to_string()))?).await;
        }
        dump(files_of(files).await.map_err(|error| Error::failed(error.to_string()))?).await
    }
}

/// Stands for the server in the names of transactions without GTIDs: files do not tell whose they are.
const SOME_SERVER: &str = "00000000-0000-0000-0000-000000000000";

/// Archived files, read by GTIDs or by places, whichever they have.
async fn files_of(files: Vec<PathBuf>) -> Result<FileSource, SourceError> {
    let by_place = match files.first() {
        Some(first) if lacks_gtids(first).await? => Some(first.clone()),
        _ => None,
    };
    let source = FileSource::open(files)?;
    let Some(first) = by_place else { return Ok(source) };
    let unnamed = |error: PositionError| SourceError::AuthOrConfig {
        why: format!(
            "{} has no GTIDs, so its transactions are named by their places in files with numbers: {error}",
            first.display()
        ),
    };
    let name = first.file_name().unwrap_or(first.as_os_str()).to_string_lossy().into_owned();
    let beginning = LogPosition::beginning_of(name);
    let log = LogName::of(SOME_SERVER, &beginning).map_err(unnamed)?;
    Ok(source.of_log(&GtidSet::up_to(&log, &beginning).map_err(unnamed)?))
}

async fn dump(mut source: impl Source) -> Result<Exit, Error> {
    let mut printer = Printer::default();
    while let Some(event) = source.next().await.map_err(|error| Error::failed(error.to_string()))? {
        printer.print(&event)?;
    }
    Ok(Exit::Done)
}

/// Decodes with the table maps that it has seen.
#[derive(Default)]
struct Printer {
    decoders: HashMap<(String, String), (Arc<TableMap>, RowDecoder, ChangeBuilder)>,
}

impl Printer {
    fn print(&mut self, event: &SourceEvent) -> Result<(), Error> {
        let end = event.end.to_string();
        match &event.body {
            EventBody::Begin(head) => line(&json!({
                "event": "begin", "end": end, "gtid": head.gtid,
                "original_commit_us": head.original_commit_us, "immediate_commit_us": head.immediate_commit_us,
            })),
            EventBody::Statement { database, sql } => {
                line(&json!({"event": "statement", "end": end, "database": database, "sql": sql}))
            }
            EventBody::XaStart => line(&json!({"event": "xa_start", "end": end})),
            EventBody::XaPrepared { xid } => line(&json!({"event": "xa_prepare", "end": end, "xid": xid})),
            EventBody::XaSettled { xid, commits } => {
                let event = if *commits { "xa_commit" } else { "xa_rollback" };
                line(&json!({"event": event, "end": end, "xid": xid}))
            }
            EventBody::Commit => line(&json!({"event": "commit", "end": end})),
            EventBody::Position => Ok(()),
            EventBody::Rows(image) => self.print_rows(image, &end),
        }
    }

    fn print_rows(&mut self, image: &RowsImage, end: &str) -> Result<(), Error> {
        let failed = |error: crate::binlog::RowError| Error::failed(error.to_string()).at(end.to_owned());
        let name = (image.map.database.clone(), image.map.table.clone());
        if self.decoders.get(&name).is_none_or(|(map, ..)| *map != image.map) {
            let schema = Arc::new(image.map.schema(None).map_err(failed)?);
            let decoder = RowDecoder::new(&image.map, schema.clone()).map_err(failed)?;
            let builder = ChangeBuilder::new(schema, ZeroDates::Null);
            self.decoders.insert(name.clone(), (image.map.clone(), decoder, builder));
        }
        let (_, decoder, builder) = self.decoders.get_mut(&name).expect("inserted above");
        decoder.decode(image, 0, builder).map_err(failed)?;
        let nowhere = Stamp { order: Order::default(), id: EventId::default(), window: Window(0) };
        builder.stamp(|_, _| nowhere);
        let batch = builder.finish();
        for (nth, (row, op)) in rows_as_json(&batch.rows)?.into_iter().zip(&batch.ops).enumerate() {
            let mut printed = json!({
                "event": "row", "end": end, "table": batch.schema.table, "op": char::from(*op), "row": row,
            });
            if let Some(image) = batch.images.get(nth) {
                leave_out(&mut printed, &batch.schema, image);
            }
            line(&printed)?;
        }
        Ok(())
    }
}

/// A column that the image leaves out is not NULL: it is not shown, but named.
fn leave_out(printed: &mut Value, schema: &TableSchema, image: &PartialImage) {
    let absent = schema.columns.iter().enumerate().filter(|(index, _)| !image.knows(*index));
    let absent: Vec<&str> = absent.map(|(_, column)| column.name.as_str()).collect();
    if let Some(row) = printed["row"].as_object_mut() {
        row.retain(|name, _| !absent.contains(&name.as_str()));
    }
    let key = match image.rest {
        Rest::Unchanged => "unchanged",
        Rest::AtSource => "not_told",
    };
    printed[key] = json!(absent);
}

fn rows_as_json(rows: &RecordBatch) -> Result<Vec<Value>, Error> {
    let failed = |error: String| Error::failed(format!("the rows cannot be shown: {error}"));
    let mut writer = arrow_json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow_json::writer::LineDelimited>(Vec::new());
    writer.write(rows).map_err(|error| failed(error.to_string()))?;
    writer.finish().map_err(|error| failed(error.to_string()))?;
    let text = writer.into_inner();
    text.split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).map_err(|error| failed(error.to_string())))
        .collect()
}

fn line(value: &Value) -> Result<(), Error> {
    print(&value.to_string())
}

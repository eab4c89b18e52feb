//! The standalone load: tables to Parquet files, several chunks at a time, and on again after a break.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_array::RecordBatch;
use mysql_async::Conn;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use weir_model::{ColumnType, TableSchema, ZeroDates};
use weir_mysql::{
    RowConnection, ServerFacts, SourceOptions, TableDescription, TablePatterns, binlog_end, connect, describe,
    executed_gtids, list_tables, query, server_facts,
};

use crate::error::LoadError;
use crate::manifest::{
    FileManifest, Manifest, SnapshotPosition, TableManifest, TablePlan, part_name, read_json, table_folder, write_json,
};
use crate::plan::{PlanTarget, plan_chunks};
use crate::progress::{Progress, TableProgress};
use crate::range::ChunkRange;
use crate::read::{ChunkReader, ReadOptions};
use crate::throttle::Throttle;

/// What to load, and whereto.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    pub source: SourceOptions,
    pub patterns: TablePatterns,
    pub out: PathBuf,
    /// Chunks read at once, each on a connection of its own.
    pub connections: usize,
    pub target: PlanTarget,
    pub zero_dates: ZeroDates,
    /// All rows as of one moment.
    pub consistent: bool,
    /// What the source is spared.
    pub throttle: Arc<Throttle>,
}

const ATTEMPTS_PER_CHUNK: u32 = 5;
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Loads every table that matches. Parts that an earlier run of the same plan finished are kept.
pub async fn load(options: &LoadOptions, progress: &Arc<Progress>) -> Result<Manifest, LoadError> {
    let mut control = connect(&options.source).await?;
    let facts = server_facts(&mut control).await?;
    let tables = describe_all(&mut control, options).await?;
    let (snapshot, connections) = if options.consistent {
        let (position, connections) = open_snapshot(&mut control, options).await?;
        (Some(position), connections.into_iter().map(Some).collect())
    } else {
        (None, (0..options.connections.max(1)).map(|_| None).collect::<Vec<_>>())
    };
    let mut jobs = VecDeque::new();
    let mut planned = Vec::with_capacity(tables.len());
    for description in tables {
        let table = plan_table(&mut control, options, &facts, description, progress).await?;
        jobs.extend((0..table.plan.chunks.len()).map(|chunk| (table.clone(), chunk)));
        planned.push(table);
    }
    let queue = Arc::new(Mutex::new(jobs));
    let mut workers = tokio::task::JoinSet::new();
    for conn in connections {
        workers.spawn(work(options.clone(), queue.clone(), conn));
    }
    while let Some(ended) = workers.join_next().await {
        // Dropping the set stops the other workers; a worker's panic goes on here.
        ended.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
    }
    let manifest = manifest(options, &facts, snapshot, &planned)?;
    write_json(&options.out.join(Manifest::FILE), &manifest)?;
    Ok(manifest)
}

/// Largest first, so that no big table is left for last.
async fn describe_all(conn: &mut Conn, options: &LoadOptions) -> Result<Vec<TableDescription>, LoadError> {
    let mut tables = Vec::new();
    for table in list_tables(conn, &options.patterns).await? {
        tables.extend(describe(conn, &table).await?);
    }
    if tables.is_empty() {
        return Err(LoadError::NoTables(options.source.server()));
    }
    tables.sort_by_key(|t| std::cmp::Reverse(t.approx_rows.saturating_mul(t.avg_row_bytes.max(1))));
    Ok(tables)
}

/// Opens a read view on every connection while a global read lock holds all writers, and notes where the binlog stands.
async fn open_snapshot(
    control: &mut Conn,
    options: &LoadOptions,
) -> Result<(SnapshotPosition, Vec<RowConnection>), LoadError> {
    let doing = "opening a consistent snapshot";
    let mut connections = Vec::new();
    for _ in 0..options.connections.max(1) {
        connections.push(RowConnection::beside(&options.source, control).await?);
    }
    query::execute(control, "FLUSH TABLES WITH READ LOCK", doing).await?;
    for connection in &mut connections {
        connection.begin_snapshot().await?;
    }
    // A server without a binlog or GTIDs has no position to note.
    let executed = executed_gtids(control).await.unwrap_or_default();
    let binlog_end = binlog_end(control).await.ok();
    query::execute(control, "UNLOCK TABLES", doing).await?;
    Ok((SnapshotPosition { executed, binlog_end }, connections))
}

/// A table with its plan and its folder.
#[derive(Debug)]
struct PlannedTable {
    description: TableDescription,
    plan: TablePlan,
    folder: PathBuf,
    progress: Arc<TableProgress>,
}

async fn plan_table(
    conn: &mut Conn,
    options: &LoadOptions,
    facts: &ServerFacts,
    description: TableDescription,
    progress: &Progress,
) -> Result<Arc<PlannedTable>, LoadError> {
    let folder = table_folder(&options.out, description.table());
    let file = folder.join(TablePlan::FILE);
    let write_error = |path: &Path, e: std::io::Error| LoadError::Write { path: path.into(), detail: e.to_string() };
    std::fs::create_dir_all(&folder).map_err(|e| write_error(&folder, e))?;
    let before: Option<TablePlan> = read_json(&file)?;
    let goes_on = |plan: &TablePlan| {
        !options.consistent
            && !plan.consistent
            && plan.server_uuid == facts.server_uuid
            && plan.schema == description.schema
    };
    let plan = match before.filter(goes_on) {
        Some(plan) => plan,
        None => {
            remove_parts(&folder).map_err(|e| write_error(&folder, e))?;
            let plan = TablePlan {
                server_uuid: facts.server_uuid.clone(),
                consistent: options.consistent,
                schema: description.schema.clone(),
                chunks: plan_chunks(conn, &description, &ChunkRange::all(), options.target).await?,
            };
            write_json(&file, &plan)?;
            plan
        }
    };
    let progress = progress.table(description.table(), description.approx_rows, plan.chunks.len() as u64);
    Ok(Arc::new(PlannedTable { description, plan, folder, progress }))
}

/// Parts of another plan must not be taken for this one's. The plan goes first: without it the parts count for nothing.
fn remove_parts(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(folder.join(TablePlan::FILE)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("part-") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

type Queue = Arc<Mutex<VecDeque<(Arc<PlannedTable>, usize)>>>;

/// Reads chunks until none is left. A connection that was handed in holds a read view and is never replaced.
async fn work(options: LoadOptions, queue: Queue, given: Option<RowConnection>) -> Result<(), LoadError> {
    let replaceable = given.is_none();
    let mut conn = given;
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((table, chunk)) = job else {
            return Ok(());
        };
        let path = table.folder.join(part_name(chunk));
        if let Some(rows) = finished_rows(&path)? {
            table.progress.add(rows, 0);
            table.progress.chunk_done();
            continue;
        }
        let mut attempt = 1;
        loop {
            match read_part(&options, &mut conn, &table, chunk, &path).await {
                Ok(()) => break,
                Err(error) if replaceable && error.is_retryable() && attempt < ATTEMPTS_PER_CHUNK => {
                    tracing::warn!(table = %table.description.table(), chunk, %error, "reading the chunk again");
                    conn = None;
                    tokio::time::sleep(RETRY_PAUSE * attempt).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
        table.progress.chunk_done();
    }
}

/// Reads one chunk into `path`, which exists only once it is complete.
async fn read_part(
    options: &LoadOptions,
    conn: &mut Option<RowConnection>,
    table: &PlannedTable,
    chunk: usize,
    path: &Path,
) -> Result<(), LoadError> {
    options.throttle.before_chunk().await?;
    let conn = match conn {
        Some(conn) => conn,
        None => conn.insert(RowConnection::open(&options.source).await?),
    };
    let read = ReadOptions { zero_dates: options.zero_dates, ..ReadOptions::default() };
    let mut counted = Counted { progress: &table.progress, rows: 0, bytes: 0, kept: false };
    let mut part = PartWriter::create(path, &table.plan.schema)?;
    let mut reader = ChunkReader::open(conn, &table.description, &table.plan.chunks[chunk], &read).await?;
    while let Some(batch) = reader.next_batch().await? {
        let (rows, bytes) = (batch.num_rows() as u64, batch.get_array_memory_size() as u64);
        counted.add(rows, bytes);
        part.write(&batch)?;
        options.throttle.after_batch(rows, bytes).await?;
    }
    part.finish()?;
    counted.kept = true;
    Ok(())
}

/// Counts an attempt's rows at once, and takes them back if it does not come to an end.
struct Counted<'a> {
    progress: &'a TableProgress,
    rows: u64,
    bytes: u64,
    kept: bool,
}

impl Counted<'_> {
    fn add(&mut self, rows: u64, bytes: u64) {
        self.rows += rows;
        self.bytes += bytes;
        self.progress.add(rows, bytes);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.progress.take_back(self.rows, self.bytes);
        }
    }
}

/// A Parquet file under a temporary name until it is complete.
struct PartWriter {
    writer: ArrowWriter<File>,
    partial: PathBuf,
    path: PathBuf,
}

impl PartWriter {
    fn create(path: &Path, schema: &TableSchema) -> Result<Self, LoadError> {
        let partial = path.with_extension("parquet.tmp");
        let error = |detail: String| LoadError::Write { path: partial.clone(), detail };
        let file = File::create(&partial).map_err(|e| error(e.to_string()))?;
        let writer = ArrowWriter::try_new(file, schema.arrow(), Some(properties(schema)));
        let writer = writer.map_err(|e| error(e.to_string()))?;
        Ok(Self { writer, path: path.into(), partial })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), LoadError> {
        self.writer.write(batch).map_err(|e| LoadError::Write { path: self.partial.clone(), detail: e.to_string() })
    }

    fn finish(self) -> Result<(), LoadError> {
        let error = |detail: String| LoadError::Write { path: self.path.clone(), detail };
        let file = self.writer.into_inner().map_err(|e| error(e.to_string()))?;
        file.sync_all().and_then(|()| std::fs::rename(&self.partial, &self.path)).map_err(|e| error(e.to_string()))
    }
}

/// zstd 1; dictionaries only where values repeat by nature, since elsewhere they cost time and save nothing.
fn properties(schema: &TableSchema) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(false);
    for column in &schema.columns {
        if matches!(column.ty, ColumnType::Enum(_) | ColumnType::Set(_)) {
            builder = builder.set_column_dictionary_enabled(ColumnPath::from(column.name.as_str()), true);
        }
    }
    builder.build()
}

/// Rows of a part that an earlier run finished.
fn finished_rows(path: &Path) -> Result<Option<u64>, LoadError> {
    let error = |detail: String| LoadError::Resume { path: path.into(), detail };
    match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(error(e.to_string())),
        Ok(file) => {
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| error(e.to_string()))?;
            Ok(Some(u64::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0)))
        }
    }
}

fn manifest(
    options: &LoadOptions,
    facts: &ServerFacts,
    snapshot: Option<SnapshotPosition>,
    planned: &[Arc<PlannedTable>],
) -> Result<Manifest, LoadError> {
    let mut tables = planned.iter().map(|table| table_manifest(&options.out, table)).collect::<Result<Vec<_>, _>>()?;
    tables.sort_by(|a, b| a.table.cmp(&b.table));
    Ok(Manifest {
        server_uuid: facts.server_uuid.clone(),
        server_version: facts.version_text.clone(),
        snapshot,
        tables,
    })
}

fn table_manifest(out: &Path, table: &PlannedTable) -> Result<TableManifest, LoadError> {
    let mut files = Vec::with_capacity(table.plan.chunks.len());
    for (chunk, range) in table.plan.chunks.iter().enumerate() {
        let path = table.folder.join(part_name(chunk));
        let missing = || LoadError::Resume { path: path.clone(), detail: "the part is missing".into() };
        let rows = finished_rows(&path)?.ok_or_else(missing)?;
        let bytes = std::fs::metadata(&path).map_err(|_| missing())?.len();
        let relative = path.strip_prefix(out).unwrap_or(&path).to_string_lossy().into_owned();
        files.push(FileManifest { path: relative, rows, bytes, range: range.clone() });
    }
    let rows = files.iter().map(|f| f.rows).sum();
    Ok(TableManifest { table: table.description.table().clone(), schema: table.plan.schema.clone(), rows, files })
}

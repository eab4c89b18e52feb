//! `weir check`: preflight, a line a check, with the statement that mends it.

use clap::Args;
use serde::Serialize;
use snapshot_loader::key_text::{Extent, key_values};
use weir_model::{TableId, TableSchema};
use weir_mysql::grants::select_denied;
use weir_mysql::{
    Check as SourceCheck, CheckInput, CheckStatus, CheckedTable, MysqlError, RowConnection, SourceOptions, server,
};

use super::output::{Output, table};
use crate::capture::resume::resume;
use crate::config::{Config, SnapshotMode, TableSettings, TraceKind};
use crate::error::{Error, Exit};
use crate::limits::KAFKA_PROBE_MAX;
use crate::service::schedule::configured;
use crate::service::{kafka_of, probe_trace};
use crate::state::CheckpointLog;
use crate::state::jobs::{Bound, Scope};
use crate::table::history::newest_version;
use crate::table::{TableError, Warehouse};

/// Looks at the source, the warehouse and the trace; exits 1 if something must be mended first.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    output: Output,
}

/// One line of the preflight.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    status: CheckStatus,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Line {
    fn of(name: &str, result: Result<String, String>, mend: &str) -> Self {
        let (status, detail, mend) = match result {
            Ok(detail) => (CheckStatus::Ok, detail, None),
            Err(detail) => (CheckStatus::Fail, detail, Some(mend.to_owned())),
        };
        Self { name: name.to_owned(), table: None, status, detail, mend }
    }
}

impl From<SourceCheck> for Line {
    fn from(check: SourceCheck) -> Self {
        let SourceCheck { name, table, status, detail, mend } = check;
        Self { name, table: table.map(|table| table.to_string()), status, detail, mend }
    }
}

impl Check {
    pub(super) async fn run(self, config: &Config) -> Result<Exit, Error> {
        let mut lines = source(config).await?;
        let warehouse = warehouse(config).await;
        if warehouse.status == CheckStatus::Ok {
            lines.extend(continuity(config).await);
        }
        lines.push(warehouse);
        lines.extend(brokers(config).await);
        lines.push(trace(config).await);
        self.output.print(&lines, |lines| render(lines))?;
        let failed = lines.iter().any(|line| line.status == CheckStatus::Fail);
        Ok(if failed { Exit::Failed } else { Exit::Done })
    }
}

async fn source(config: &Config) -> Result<Vec<Line>, Error> {
    let options = config.source_options()?;
    let patterns = config.patterns()?;
    let mut connection = match connect_both_ways(&options).await {
        Ok(connection) => connection,
        Err(error) => {
            let mend = "see that [source] url names a server that runs, and a user and password that it knows";
            return Ok(vec![Line::of("connection", Err(error.to_string()), mend)]);
        }
    };
    let connected = Line::of("connection", Ok(format!("connected to {}", options.server())), "");
    match weir_mysql::gather(&mut connection, &patterns).await {
        Ok(input) => {
            let input = as_configured(config, input);
            let checks = weir_mysql::checks(&input).into_iter().map(Line::from);
            let configured = partitions(config, &input).await.into_iter().chain(backfills(config, &input)?);
            let configured = configured.chain(rules(config, &input));
            let configured = configured.chain(replica(config, &input.tables).await?);
            Ok(std::iter::once(connected).chain(checks).chain(configured).collect())
        }
        Err(error) => {
            let mend = "see the grants that docs/sources.md lists for weir's user";
            Ok(vec![connected, Line::of("catalogue", Err(error.to_string()), mend)])
        }
    }
}

/// A connection for questions, once one for rows could be had, too: each logs in by itself.
async fn connect_both_ways(options: &SourceOptions) -> Result<weir_mysql::Conn, MysqlError> {
    let connection = weir_mysql::connect(options).await?;
    RowConnection::open(options).await?;
    Ok(connection)
}

/// Whether tables can be read at the replica that they are loaded from, if there is one.
async fn replica(config: &Config, tables: &[CheckedTable]) -> Result<Vec<Line>, Error> {
    const CONNECTION: &str = "snapshot_connection";
    let Some(options) = config.snapshot_options()? else { return Ok(Vec::new()) };
    let names: Vec<TableId> = tables.iter().map(|table| table.table().clone()).collect();
    let denied = match connect_both_ways(&options).await {
        Ok(mut connection) => select_denied(&mut connection, &names).await,
        Err(error) => Err(error),
    };
    let denied = match denied {
        Ok(denied) => denied,
        Err(error) => {
            let mend = "see that [source] snapshot_url names a server that runs, and a user and password that it knows";
            return Ok(vec![Line::of(CONNECTION, Err(error.to_string()), mend)]);
        }
    };
    let (server, user) = (options.server(), options.user());
    let connected = Line::of(CONNECTION, Ok(format!("connected to {server}, to load tables from it")), "");
    let refused = denied.iter().map(|table| {
        let result = Err(format!("user `{user}` may not read {table} at {server}"));
        let mend = format!("GRANT SELECT ON {} to it there", table.quoted());
        Line { table: Some(table.to_string()), ..Line::of("snapshot_grant_select", result, &mend) }
    });
    Ok(std::iter::once(connected).chain(refused).collect())
}

/// The tables with the keys and modes that the configuration gives them.
fn as_configured(config: &Config, mut input: CheckInput) -> CheckInput {
    if config.source.snapshot == SnapshotMode::Never {
        input.grants.lock_denied.clear();
    }
    for table in &mut input.tables {
        let CheckedTable::Described(description) = table else { continue };
        let id = description.table().clone();
        let settings = config.table_settings(&id);
        if settings.layout.is_append() {
            input.append_tables.push(id.clone());
        }
        let Some(key) = settings.key else { continue };
        *table = match description.with_key(&key) {
            Ok(keyed) => CheckedTable::Described(Box::new(keyed)),
            Err(error) => CheckedTable::Unusable { table: id, why: error.to_string() },
        };
    }
    input
}

/// Whether tables can have the partitions that the configuration gives them.
async fn partitions(config: &Config, input: &CheckInput) -> Vec<Line> {
    let mut lines = Vec::new();
    let warehouse = Warehouse::open(&config.warehouse.url, &config.warehouse.options).ok();
    for table in &input.tables {
        let CheckedTable::Described(description) = table else { continue };
        let layout = config.table_settings(description.table()).layout;
        if layout.partitions.is_empty() {
            continue;
        }
        let by: Vec<String> = layout.partitions.iter().map(ToString::to_string).collect();
        let schema = TableSchema { layout, ..description.schema.clone() };
        let begun = match &warehouse {
            Some(warehouse) => newest_version(warehouse, description.table()).await.ok().flatten().is_some(),
            None => false,
        };
        // Columns of a table that is there may have gone since; they are NULL then.
        let checked = if begun { schema.check_partitions() } else { schema.check_partitions_begin() };
        let result = checked.map(|()| format!("partitioned by {}", by.join(", ")));
        let mend = "change partition_by in its [[table]] section, as long as the lake has no such table";
        lines.push(Line { table: Some(description.table().to_string()), ..Line::of("partitions", result, mend) });
    }
    lines
}

/// Whether row rules fit the columns of their tables.
fn rules(config: &Config, input: &CheckInput) -> Vec<Line> {
    let mut lines = Vec::new();
    for table in &input.tables {
        let CheckedTable::Described(description) = table else { continue };
        let TableSettings { rules, layout, .. } = config.table_settings(description.table());
        if rules.is_none() {
            continue;
        }
        let bound = rules.bind(&TableSchema { layout, ..description.schema.clone() });
        let result = bound.map_err(|error| error.to_string()).map(|bound| {
            let columns = bound.map_or(0, |bound| bound.schema().columns.len());
            format!("the lake gets {columns} of {} columns", description.schema.columns.len())
        });
        let mend = "change the columns of its [[table]] section";
        lines.push(Line { table: Some(description.table().to_string()), ..Line::of("rules", result, mend) });
    }
    lines
}

/// Whether the keys of `[[backfill]]` sections fit their tables; otherwise it would show at the first run only.
fn backfills(config: &Config, input: &CheckInput) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    for schedule in configured(config)? {
        let is_its =
            |table: &&CheckedTable| matches!(table, CheckedTable::Described(d) if *d.table() == schedule.table);
        let Some(CheckedTable::Described(description)) = input.tables.iter().find(is_its) else { continue };
        let Scope::Range { from, to } = &schedule.scope else { continue };
        let ends =
            [("from", from), ("to", to)].into_iter().filter_map(|(name, end)| end.as_ref().map(|end| (name, end)));
        let fit = |(name, Bound(key)): (&str, &Bound)| {
            let read = key_values(description, key, Extent::Prefix);
            read.map(drop).map_err(|error| format!("{name}: {error}"))
        };
        let result = ends.map(fit).collect::<Result<Vec<()>, String>>();
        let result = result.map(|_| format!("{} reads a range of keys, {} (UTC)", schedule.id, schedule.cron));
        let mend = "change from and to in its [[backfill]] section";
        lines.push(Line { table: Some(schedule.table.to_string()), ..Line::of("backfill", result, mend) });
    }
    Ok(lines)
}

/// Whether the source can go on from where the lake is; nothing to say before the first run.
async fn continuity(config: &Config) -> Option<Line> {
    let warehouse = Warehouse::open(&config.warehouse.url, &config.warehouse.options).ok()?;
    let state = warehouse.state_path(&config.source.name);
    let checkpoint = CheckpointLog::new(warehouse.store().clone(), state).read().await.ok()??;
    let mut connection = weir_mysql::connect(&config.source_options().ok()?).await.ok()?;
    let executed = server::executed_gtids(&mut connection).await.ok()?;
    let purged = server::purged_gtids(&mut connection).await.ok()?;
    let result = resume(&checkpoint.gtid_set, &executed, &purged, checkpoint.last.as_ref());
    let result = result.map(|_| match executed.difference(&checkpoint.gtid_set).count() {
        Some(missing) => format!("the binlogs hold the {missing} transactions that the lake lacks"),
        None => format!("the binlogs hold what the lake lacks, from {} to {executed}", checkpoint.gtid_set),
    });
    Some(Line::of("continuity", result.map_err(|error| error.to_string()), "weir snapshot"))
}

async fn warehouse(config: &Config) -> Line {
    let url = &config.warehouse.url;
    let written = match Warehouse::open(url, &config.warehouse.options) {
        Ok(warehouse) => warehouse.probe_writable().await,
        Err(error) => Err(error),
    };
    let mend = match (&written, config.warehouse.local_folder()) {
        (Err(TableError::Configuration { .. }), _) => "mend [warehouse] url and options",
        (_, Some(_)) => "make the folder of [warehouse] url writable for this user, or choose another",
        (_, None) => {
            "see that the bucket exists, that [warehouse] options or AWS_* variables name its endpoint, region and keys, \
             and that those may read, write, list and delete below the url"
        }
    };
    let result = written.map(|()| format!("{url} can be written, and refuses what is there already"));
    Line::of("warehouse", result.map_err(|error| error.to_string()), mend)
}

/// Whether the brokers answer; nothing to say where changes travel within one process.
async fn brokers(config: &Config) -> Option<Line> {
    let probed = match kafka_of(config) {
        Ok(None) => return None,
        Ok(Some(settings)) => settings.probe(KAFKA_PROBE_MAX).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let brokers = &config.transport.brokers;
    let result = probed.map(|count| format!("{count} broker(s) answer at {brokers}"));
    Some(Line::of("brokers", result, "see that [transport] brokers names brokers that run, and that options fit them"))
}

async fn trace(config: &Config) -> Line {
    let mend = match config.trace.kind {
        TraceKind::Sqlite => "make the folder of [apply] state_dir writable for this user, or choose another",
        TraceKind::Clickhouse => {
            "see that [trace] url names a ClickHouse that runs, and a user (password in WEIR_TRACE_PASSWORD) who may \
             create and write its database"
        }
    };
    Line::of("trace", probe_trace(config).await.map_err(|error| error.in_a_line()), mend)
}

fn render(lines: &[Line]) -> String {
    let word = |status| match status {
        CheckStatus::Ok => "ok",
        CheckStatus::Warn => "warn",
        CheckStatus::Fail => "FAIL",
    };
    let rows = lines.iter().map(|line| {
        let name = match &line.table {
            Some(table) => format!("{} {table}", line.name),
            None => line.name.clone(),
        };
        vec![word(line.status).to_owned(), name, line.detail.clone(), line.mend.clone().unwrap_or_default()]
    });
    table(&["", "check", "found", "mend"], rows)
}

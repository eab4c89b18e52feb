//! The beginning of an incarnation: is the source fit, where do we stand, which tables are there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use weir_model::{GtidSet, TableId};
use weir_mysql::{CheckStatus, SourceOptions, catalogue, check, server};

use super::branches::wait_for_branches;
use super::current::SourceRows;
use super::jobs::JobDesk;
use super::progress::Progress;
use super::proving::Proving;
use super::reading::Reading;
use super::registrar::TableRegistrar;
use super::seed::{Load, Loader, Merging};
use super::shipping::{Shipper, Shipping};
use super::source_tables::SourceTables;
use super::supervisor::{LoadBegin, LoadMaker, Supervisor};
use super::throttle::throttle;
use super::trace::open_trace;
use super::trace_upkeep::look_after_trace;
use super::upkeep::keep_logs_short;
use super::{Reseed, RunOptions};
use crate::apply::chunks::ChunkDesk;
use crate::apply::{Pace, Upkeep};
use crate::capture::request::{Registrar, Registration, Request};
use crate::capture::resume::{Discontinuity, resume};
use crate::capture::xa::Prepared;
use crate::capture::{Capture, CaptureError, CaptureStart, Settings};
use crate::config::{Config, SnapshotMode};
use crate::error::Error;
use crate::figures::standing;
use crate::limits::{REQUESTS_MAX, TABLES_OPENED_TOGETHER};
use crate::state::{
    Checkpoint, CheckpointLog, LastTransaction, Phase, PreparedStore, StateSeries, TableStanding, Written,
};
use crate::table::{IndexHome, Warehouse, Writer, history};
use crate::transport::Boundary;
use crate::transport::direct::Direct;

/// Everything that runs, until it is supervised to its end.
pub(super) struct Incarnation {
    pub(super) supervisor: Supervisor,
    pub(super) capture: JoinHandle<Result<(), CaptureError>>,
    pub(super) stop_capture: CancellationToken,
    /// What applies in this very process; over Kafka it is not the incarnation's.
    pub(super) workers: Option<Workers>,
}

/// The tables' workers, and the transport that feeds them.
pub(super) struct Workers {
    transport: Direct,
    registrar: Arc<TableRegistrar>,
}

impl Incarnation {
    /// Its number; a greater one fences it.
    pub(super) fn epoch(&self) -> u64 {
        self.supervisor.checkpoint.epoch
    }

    /// Capture ends first, then the transport, then the workers; each commits what it has received.
    pub(super) async fn wind_down(&mut self) {
        if !self.capture.is_finished() {
            // How it ends matters no more: it was asked to.
            let _ = (&mut self.capture).await;
        }
        self.supervisor.hurry.send_replace(true);
        let Some(Workers { transport, registrar }) = &self.workers else { return };
        transport.close();
        let mut workers = std::mem::take(&mut *registrar.workers.lock().expect("no code panics while holding it"));
        while workers.join_next().await.is_some() {}
    }
}

/// What the source said at the start.
pub(super) struct SourceFacts {
    pub(super) executed: GtidSet,
    pub(super) purged: GtidSet,
    pub(super) clock_ms: i64,
    pub(super) tables: Vec<TableId>,
}

/// Checks the source, takes the next epoch, opens the tables and starts every stage.
pub(super) async fn start(config: &Config, options: &RunOptions, index_home: &IndexHome) -> Result<Incarnation, Error> {
    let source = config.source_options()?;
    let mut facts = look_at_source(config, &source).await?;
    let warehouse = Warehouse::open_to_write(&config.warehouse.url, &config.warehouse.options).await?;
    let state = warehouse.state_path(&config.source.name);
    let mut checkpoints = CheckpointLog::new(warehouse.store().clone(), state.clone());
    let mut checkpoint = checkpoints.take_epoch().await?;
    let prepared = PreparedStore::new(warehouse.store().clone(), state.clone());
    if checkpoint.is_new() || options.reseed == Reseed::All {
        begin_anew(config, &source, &mut facts, &prepared, checkpoint.epoch).await?;
        checkpoint.begun = checkpoint.epoch;
    }
    if checkpoint.is_new() {
        let of_tables = greatest_epoch(&warehouse, &facts.tables).await?;
        if of_tables >= checkpoint.epoch {
            tracing::warn!(epoch = of_tables, "the tables are older than the state beside them, which was lost");
            checkpoint.epoch = of_tables + 1;
        }
    }
    let position = match position(&mut checkpoint, &facts, options) {
        Ok(position) => position,
        Err(error) => {
            // Nothing runs, so nobody need wait to see whether something does.
            checkpoint.running = false;
            write(&mut checkpoints, &checkpoint).await?;
            return Err(error);
        }
    };
    let patterns = config.patterns()?;
    // A table that stopped and is gone, or is not ours any more, has nothing left to mend.
    checkpoint.tables.retain(|table, standing| {
        patterns.matches(table) && (standing.phase == Phase::Streaming || facts.tables.contains(table))
    });
    // Before anything of them is touched: a load that was asked for is made up for, whenever we are killed.
    let mut asked = asked_tables(&facts, &options.reseed);
    let listed = checkpoint.tables.keys().cloned().collect();
    asked.extend(ruled_otherwise(config, &facts, &mut checkpoint, &listed));
    for table in &asked {
        let standing = TableStanding::new(Phase::Filling { restart: true }, facts.executed.clone(), None);
        checkpoint.tables.insert(table.clone(), standing);
    }
    write(&mut checkpoints, &checkpoint).await?;
    let held = Prepared::open(prepared.clone(), &position.gtid_set, checkpoint.begun).await?;

    let trace = Arc::new(open_trace(config)?);
    let listed: BTreeSet<&TableId> = checkpoint.tables.keys().chain(&facts.tables).collect();
    let shipping = Shipping {
        sink: trace.clone(),
        source: config.source.name.clone(),
        warehouse: warehouse.clone(),
        tables: listed.into_iter().cloned().collect(),
        published: None,
    };

    let transport = Direct::new(config.apply.memory_bytes());
    let memory = transport.memory().clone();
    standing().watch_memory(Box::new(move || memory.held()), config.apply.memory_bytes());
    let (reports, reports_inbox) = mpsc::unbounded_channel();
    let (told, told_inbox) = mpsc::unbounded_channel();
    let (requests, requests_inbox) = mpsc::channel::<Request>(REQUESTS_MAX);
    let (hurry, hurried) = watch::channel(false);
    let (load_failed, load_failures) = mpsc::unbounded_channel();
    let desk = ChunkDesk::default();
    let settings = config.clone();
    let registrar = Arc::new(TableRegistrar {
        source: SourceTables {
            source: source.clone(),
            settings: Arc::new(move |table| settings.table_settings(table)),
        },
        warehouse: warehouse.clone(),
        writer: Writer { index_home: index_home.clone(), ..Writer::new(&config.source.name, checkpoint.epoch) },
        transport: transport.clone(),
        desk: desk.clone(),
        reports,
        pace: Pace {
            interval: Duration::from_millis(config.apply.commit_interval_ms),
            bytes_max: config.apply.memory_bytes() / 4,
            hurry: hurried,
            pressure: transport.pressure(),
        },
        upkeep: Upkeep::new(config.warehouse.retention()),
        current: SourceRows::of(config)?,
        workers: Mutex::new(JoinSet::new()),
        opened: Mutex::new(HashMap::new()),
        start_sets: start_sets(&checkpoint),
        executed: facts.executed.clone(),
        reset: asked,
        seeds: config.source.snapshot == SnapshotMode::Initial,
        rekeyed: Mutex::default(),
    });

    let mut capture = Capture::new(
        Settings {
            source: config.source.name.clone(),
            filter: Arc::new(move |table| patterns.matches(table)),
            transaction_bytes_max: config.apply.memory_bytes() / 8,
            follow_truncate: config.source.follows_truncate(),
            seeds: config.source.snapshot == SnapshotMode::Initial,
            shares_order: false,
        },
        transport.clone(),
        registrar.clone(),
        told.clone(),
        CaptureStart { boundary: position.clone(), event_ms: facts.clock_ms, ..CaptureStart::default() },
        held,
    );
    let replica = config.snapshot_options()?;
    let loader = Loader {
        source: source.clone(),
        throttle: throttle(&config.source, replica.as_ref().unwrap_or(&source)),
        replica,
        requests: requests.clone(),
        merging: Merging::Desk(desk),
        connections: Arc::new(Semaphore::new(config.source.max_connections)),
        chunks_at_once: config.source.max_connections,
        progress: snapshot_loader::Progress::new(),
        next_chunk: Arc::new(AtomicU64::new(0)),
    };
    let proving = match options.until_caught_up {
        true => None,
        false => Some(Proving::start(config, &warehouse, &trace, &loader)?),
    };
    let mut supervisor = Supervisor {
        told: told_inbox,
        reports: reports_inbox,
        requests,
        hurry,
        loader,
        load_of: load_maker(config, &registrar, &warehouse),
        shipper: Shipper::start(shipping),
        _trace_upkeep: look_after_trace(trace.clone(), config, &warehouse),
        _log_cleaning: keep_logs_short(trace, config, warehouse.clone()),
        proving,
        checkpoints,
        prepared,
        position_is_durable: true,
        checkpoint,
        target: options.until_caught_up.then(|| facts.executed.clone()),
        seeds: config.source.snapshot == SnapshotMode::Initial,
        rules: config.row_rules(),
        progress: Progress::default(),
        loads: BTreeMap::new(),
        load_failures,
        load_failed,
        jobs: JobDesk::new(config, &warehouse, registrar.reset.clone(), facts.tables.iter().cloned().collect())?,
        dirty: true,
        in_a_hurry: false,
        // What was handed to a worker counts once that commits it.
        durable: mpsc::unbounded_channel().1,
        lake: None,
    };

    let mut lanes = Vec::new();
    for (table, registration) in register_all(&registrar, &facts.tables, &position.gtid_set).await? {
        match registration {
            Registration::Lane(lane) => lanes.push((table, lane)),
            Registration::Gone => {}
            Registration::Refused(error) => supervisor.stop_table(&table, error),
        }
    }
    if config.source.snapshot == SnapshotMode::Never {
        // What has stopped stays so: without a load it would go on with a gap.
        let stopped = |table: &TableId| {
            supervisor.checkpoint.tables.get(table).is_some_and(|standing| standing.phase == Phase::Stopped)
        };
        lanes.retain(|(table, _)| !stopped(table) || registrar.reset.contains(table));
    }
    let unknown = lanes.iter().map(|(_, lane)| lane.gtid_set.difference(&facts.executed)).find(|set| !set.is_empty());
    if let Some(unknown) = unknown {
        return Err(Error::failed(Discontinuity::Unknown { unknown }.to_string()));
    }
    let captured: BTreeSet<TableId> = lanes.iter().map(|(table, _)| table.clone()).collect();
    for (table, lane) in lanes {
        capture.add_lane(table, *lane);
    }
    for table in &captured {
        begin_as_it_stands(&mut supervisor, &registrar, table);
    }
    supervisor.write_checkpoint().await?;

    let stop_capture = CancellationToken::new();
    let capture_stopped = stop_capture.clone();
    let reading = Reading {
        source,
        server_id: config.source.server_id.unwrap_or_else(crate::binlog::random_server_id),
        binlog_dir: options.binlog_dir.clone(),
    };
    let capture = tokio::spawn(async move { reading.drive(capture, requests_inbox, capture_stopped).await });
    Ok(Incarnation { supervisor, capture, stop_capture, workers: Some(Workers { transport, registrar }) })
}

/// The stream is about to begin at the source's present: waits for what is prepared there, and says what that makes of what
/// was held. Tables that appeared meanwhile are listed.
pub(super) async fn begin_anew(
    config: &Config,
    source: &SourceOptions,
    facts: &mut SourceFacts,
    prepared: &PreparedStore,
    epoch: u64,
) -> Result<(), Error> {
    let behind = wait_for_branches(source, facts).await?;
    // Without loads nothing would make up for what is committed on the way, so the stream begins behind it.
    let behind = match config.source.snapshot {
        SnapshotMode::Initial => behind,
        SnapshotMode::Never => {
            facts.executed = behind;
            GtidSet::default()
        }
    };
    // What was made before the stream begins comes in no event any more.
    let mut connection = weir_mysql::connect(source).await?;
    facts.tables = catalogue::list_tables(&mut connection, &config.patterns()?).await?;
    Ok(prepared.begin_anew(epoch, &behind, &facts.executed).await?)
}

/// Refuses a source that cannot be mirrored exactly, with the statement that mends it.
pub(super) async fn look_at_source(config: &Config, source: &SourceOptions) -> Result<SourceFacts, Error> {
    let mut connection = weir_mysql::connect(source).await?;
    let server = server::server_facts(&mut connection).await?;
    let failed: Vec<String> = check::server_checks(&server)
        .into_iter()
        .filter(|check| check.status == CheckStatus::Fail)
        .map(|check| match check.mend {
            Some(mend) => format!("{}: {} (mend: {mend})", check.name, check.detail),
            None => format!("{}: {}", check.name, check.detail),
        })
        .collect();
    if !failed.is_empty() {
        return Err(Error::failed(format!("the source cannot be mirrored: {}", failed.join("; "))));
    }
    // Numbers of a domain may have gaps, so nobody can tell there what the replica lacks, nor what it has of its own; and a place in
    // the source's binlog means nothing on it.
    let no_replica = match (server.flavour, server.has_gtids()) {
        (server::Flavour::Mariadb, _) => Some("chunks cannot be read from a replica of MariaDB"),
        (_, false) => Some("chunks cannot be read from a replica of a source without GTIDs"),
        _ => None,
    };
    if let Some(why) = no_replica.filter(|_| config.source.snapshot_url.is_some()) {
        return Err(Error::config(why)
            .at("source.snapshot_url")
            .way_out("leave snapshot_url out; rows_per_second_max and pause_above_threads_running spare the source"));
    }
    if !server.has_gtids() {
        tracing::warn!(
            "the source has no GTIDs: it is followed by binlog file and position, which a failover or RESET MASTER does not survive"
        );
    }
    // In this order: a table made in between is listed, and its CREATE comes in the stream besides. The other way round
    // nobody would hear of it.
    let executed = server::executed_gtids(&mut connection).await?;
    let tables = catalogue::list_tables(&mut connection, &config.patterns()?).await?;
    if tables.is_empty() {
        tracing::warn!(patterns = ?config.source.tables, "no table matches yet; tables are picked up when they appear");
    }
    Ok(SourceFacts { executed, purged: server::purged_gtids(&mut connection).await?, clock_ms: server.now_ms, tables })
}

/// The greatest epoch that wrote one of `tables`: a service below it could write none of them.
async fn greatest_epoch(warehouse: &Warehouse, tables: &[TableId]) -> Result<u64, Error> {
    let mut greatest = 0;
    for table in tables {
        let state = history::figures(warehouse, table).await?.and_then(|figures| figures.state);
        greatest = greatest.max(state.map_or(0, |state| state.epoch));
    }
    Ok(greatest)
}

/// Where the stream begins: at the checkpoint, or for a new source, or one that is seeded anew as a whole because its
/// history is lost, at everything executed so far.
fn position(checkpoint: &mut Checkpoint, facts: &SourceFacts, options: &RunOptions) -> Result<Boundary, Error> {
    if checkpoint.is_new() {
        checkpoint.gtid_set = facts.executed.clone();
    } else if !checkpoint.transport.is_empty() && options.reseed != Reseed::All {
        return Err(Error::config(format!(
            "this source was mirrored over `{}`; positions of one transport mean nothing to another",
            checkpoint.transport
        ))
        .way_out("`weir snapshot` seeds every table anew, into a warehouse without them"));
    } else if options.reseed == Reseed::All {
        // Whatever stopped the stream lies behind it then.
        checkpoint.restart_at(facts.executed.clone());
        checkpoint.transport.clear();
    }
    resumes(&checkpoint.gtid_set, checkpoint.last.as_ref(), facts, options)?;
    Ok(Boundary {
        gtid_set: checkpoint.gtid_set.clone(),
        partial: None,
        last: checkpoint.last.clone(),
        log: checkpoint.log.clone(),
    })
}

/// Whether the source can go on from a position.
pub(super) fn resumes(
    set: &GtidSet,
    last: Option<&LastTransaction>,
    facts: &SourceFacts,
    options: &RunOptions,
) -> Result<(), Error> {
    match resume(set, &facts.executed, &facts.purged, last) {
        Ok(_) => Ok(()),
        Err(Discontinuity::Purged { .. }) if options.binlog_dir.is_some() => Ok(()),
        Err(error) => Err(Error::failed(error.to_string())),
    }
}

/// Tables that the caller wants loaded anew.
pub(super) fn asked_tables(facts: &SourceFacts, reseed: &Reseed) -> BTreeSet<TableId> {
    match reseed {
        Reseed::None => BTreeSet::new(),
        Reseed::Tables(tables) => {
            let (there, gone): (Vec<_>, Vec<_>) =
                tables.iter().cloned().partition(|table| facts.tables.contains(table));
            for table in gone {
                tracing::warn!(%table, "the source does not have it, so it is not loaded");
            }
            there.into_iter().collect()
        }
        Reseed::All => facts.tables.iter().cloned().collect(),
    }
}

/// Of the tables that are `listed` those whose rows were made by other row rules than they have: they are loaded anew.
pub(super) fn ruled_otherwise(
    config: &Config,
    facts: &SourceFacts,
    checkpoint: &mut Checkpoint,
    listed: &BTreeSet<TableId>,
) -> BTreeSet<TableId> {
    let fingerprint = |table: &TableId| config.table_settings(table).rules.fingerprint();
    let mut others = BTreeSet::new();
    for table in facts.tables.iter().filter(|table| listed.contains(*table)) {
        if checkpoint.is_by_rules(table, &fingerprint(table)) {
            continue;
        }
        if config.source.snapshot == SnapshotMode::Initial {
            tracing::info!(%table, "its row rules have changed; loading it anew");
            others.insert(table.clone());
        } else {
            tracing::warn!(%table, "its row rules have changed; rows that are there stay as they are, since [source] snapshot = \"never\"");
            checkpoint.note_rules(table, fingerprint(table));
        }
    }
    others
}

/// Transaction sets of the tables that are loaded from the beginning: theirs are not what they last committed. One that
/// is loaded on demand begins at the present, so that it need not understand what came before.
fn start_sets(checkpoint: &Checkpoint) -> BTreeMap<TableId, GtidSet> {
    let begins = checkpoint.tables.iter().filter(|(_, standing)| standing.phase == Phase::Filling { restart: true });
    begins.map(|(table, standing)| (table.clone(), standing.start_set.clone())).collect()
}

pub(super) async fn write(checkpoints: &mut CheckpointLog, checkpoint: &Checkpoint) -> Result<(), Error> {
    match checkpoints.write(checkpoint).await? {
        Written::Done => Ok(()),
        Written::Fenced { epoch } => Err(Error::fenced(format!("another instance took over (epoch {epoch})"))),
    }
}

pub(super) async fn register_all<R: Registrar>(
    registrar: &Arc<R>,
    tables: &[TableId],
    start: &GtidSet,
) -> Result<Vec<(TableId, Registration)>, Error> {
    stream::iter(tables.iter().cloned())
        .map(|table| async move {
            let registration = registrar.register(&table, start).await.map_err(|e| Error::failed(e.to_string()))?;
            Ok((table, registration))
        })
        .buffer_unordered(TABLES_OPENED_TOGETHER)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect()
}

/// Goes on with a table from its phase: a table that is not listed or has stopped is loaded.
fn begin_as_it_stands(supervisor: &mut Supervisor, registrar: &TableRegistrar, table: &TableId) {
    let asked = registrar.reset.contains(table) || registrar.is_rekeyed(table);
    let phase = supervisor.checkpoint.tables.get(table).map(|standing| standing.phase);
    let half_filled = registrar.is_filling(table);
    match phase {
        _ if asked => supervisor.begin_load(table, true),
        None if !supervisor.seeds => supervisor.note_streaming(table),
        Some(Phase::Streaming) if half_filled => supervisor.begin_load(table, false),
        Some(Phase::Streaming) => {}
        Some(Phase::Filling { restart }) => supervisor.begin_load(table, restart || !half_filled),
        Some(Phase::Stopped) | None => supervisor.begin_load(table, true),
    }
}

fn load_maker(config: &Config, registrar: &Arc<TableRegistrar>, warehouse: &Warehouse) -> LoadMaker {
    let (config, registrar, warehouse) = (config.clone(), registrar.clone(), warehouse.clone());
    Box::new(move |table, begin| {
        let mut opened = registrar.opened.lock().expect("no code panics while holding it");
        let opened = opened.get_mut(table)?;
        // Any other load that begins takes the place of the one under way.
        let seed = opened.seed.take();
        let resume = match &begin {
            LoadBegin::Anew => None,
            LoadBegin::GoOn => seed.filter(|seed| !seed.part),
            LoadBegin::Part { plan, .. } => seed.filter(|seed| seed.part && seed.plan == *plan),
        };
        let settings = config.table_settings(table);
        let plans = warehouse.state_path(&config.source.name).join("plans").join(&*table.to_string());
        Some(Load {
            table: table.clone(),
            key: settings.key,
            zero_dates: settings.zero_dates,
            rules: settings.rules,
            layout: settings.layout,
            files: opened.files.clone(),
            buckets: 1,
            // The registrar has seen to it.
            reset: false,
            plans: StateSeries::new(warehouse.store().clone(), plans),
            plan_under_way: Arc::default(),
            resume,
            scope: begin.scope(),
            figures: Arc::default(),
            job: None,
        })
    })
}

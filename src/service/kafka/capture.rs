//! The beginning of an incarnation that captures: fence off those before, read where they had come to, go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use weir_model::{OrderState, TableId};

use super::merging::LakeMerging;
use super::published::PositionLog;
use super::registrar::TopicRegistrar;
use super::settings_of;
use super::standing::{begin_as_it_stands, forget_stops, leave, standings, stop, stop_lost_tables, under_way};
use super::watch::LakeWatch;
use crate::capture::lane::LaneStart;
use crate::capture::request::{Registration, Request};
use crate::capture::resume::Discontinuity;
use crate::capture::xa::Prepared;
use crate::capture::{Capture, CaptureStart, Settings};
use crate::config::{Config, SnapshotMode};
use crate::error::Error;
use crate::limits::{KAFKA_PUBLISH_BYTES_MAX, REQUESTS_MAX, TRACE_MARK_LOOKED_AT_EVERY};
use crate::service::jobs::JobDesk;
use crate::service::progress::Progress;
use crate::service::proving::Proving;
use crate::service::reading::Reading;
use crate::service::seed::{Load, LoadScope, Loader, Merging};
use crate::service::shipping::{Shipper, Shipping};
use crate::service::source_tables::SourceTables;
use crate::service::start::{
    Incarnation, SourceFacts, asked_tables, begin_anew, look_at_source, register_all, resumes, ruled_otherwise, write,
};
use crate::service::supervisor::{Lake, LoadBegin, LoadMaker, Supervisor};
use crate::service::throttle::throttle;
use crate::service::trace::{ConfiguredTrace, open_trace};
use crate::service::trace_upkeep::look_after_trace;
use crate::service::upkeep::keep_logs_short;
use crate::service::{Reseed, RunOptions};
use crate::state::{Appeals, Checkpoint, CheckpointLog, Phase, PreparedStore, StateSeries, TableStanding};
use crate::table::{PartialTransaction, SeedProgress, TableFiles, Warehouse, history};
use crate::trace::{Origin, TraceSink};
use crate::transport::PublishNumber;
use crate::transport::kafka::position::Position;
use crate::transport::kafka::{KafkaPublisher, KafkaSettings, Topics, TransactionalProducer, publisher};

/// The name of this transport in the checkpoint.
const TRANSPORT: &str = "kafka";

/// Takes the next epoch, fences off other publishers, and starts every stage of capture.
pub(super) async fn start(
    config: &Config,
    options: &RunOptions,
    hurry: watch::Sender<bool>,
) -> Result<Incarnation, Error> {
    let settings = settings_of(config)?;
    let source = config.source_options()?;
    let mut facts = look_at_source(config, &source).await?;
    let warehouse = Warehouse::open_to_write(&config.warehouse.url, &config.warehouse.options).await?;
    let state = warehouse.state_path(&config.source.name);
    let mut checkpoints = CheckpointLog::new(warehouse.store().clone(), state.clone());
    let mut checkpoint = checkpoints.take_epoch().await?;
    let prepared = PreparedStore::new(warehouse.store().clone(), state.clone());
    let stores = (&warehouse, &prepared);
    let begun = begin(config, options, &mut facts, stores, &mut checkpoints, &mut checkpoint, &settings).await;
    let Beginning { topics, producer, position, boundary_anew } = match begun {
        Ok(beginning) => beginning,
        Err(error) => {
            // Nothing runs, so nobody need wait to see whether something does.
            checkpoint.running = false;
            write(&mut checkpoints, &checkpoint).await?;
            return Err(error);
        }
    };
    let patterns = config.patterns()?;
    let mut asked = asked_tables(&facts, &options.reseed);
    let mut position = position;
    let listed = position.tables.keys().cloned().collect();
    asked.extend(ruled_otherwise(config, &facts, &mut checkpoint, &listed));
    let mut standings = standings(&position, &facts, &asked, |table| patterns.matches(table));
    leave(&mut position, &standings);
    let lost = stop_lost_tables(config, &topics, &mut position, &mut standings, &asked).await?;

    let appeals = Appeals::new(warehouse.store().clone(), state);
    forget_stops(&appeals).await?;
    let (reports, reports_inbox) = mpsc::unbounded_channel();
    let watch = LakeWatch::start(warehouse.clone(), reports.clone());
    let merging = LakeMerging::new(&warehouse, &config.source.name, watch.clone(), appeals, reports);
    let resumed = under_way(&merging, &standings, position.publish).await?;

    checkpoint.transport = TRANSPORT.to_owned();
    checkpoint.tables = standings.clone();
    if boundary_anew {
        checkpoint.last = None;
    }
    write(&mut checkpoints, &checkpoint).await?;
    let held = Prepared::open(prepared.clone(), &position.boundary.gtid_set, position.begun).await?;

    let trace = Arc::new(open_trace(config)?);
    let shipping = shipping(config, &settings, &warehouse, &trace, &checkpoint, &facts);
    let stop_capture = CancellationToken::new();
    let shipped = Arc::new(AtomicU64::new(0));
    let log_cleaning = keep_logs_short(trace.clone(), config, warehouse.clone());
    let trace_upkeep = look_after_trace(trace.clone(), config, &warehouse);
    tokio::spawn(follow_mark(trace.clone(), config.source.name.clone(), shipped.clone(), stop_capture.clone()));

    let source_tables = {
        let settings = config.clone();
        SourceTables { source: source.clone(), settings: Arc::new(move |table| settings.table_settings(table)) }
    };
    let registrar = Arc::new(TopicRegistrar {
        source: source_tables,
        topics: topics.clone(),
        position: position.clone(),
        partitions: config.transport.partitions,
    });
    let (told, told_inbox) = mpsc::unbounded_channel();
    let (requests, requests_inbox) = mpsc::channel::<Request>(REQUESTS_MAX);
    let (load_failed, load_failures) = mpsc::unbounded_channel();
    let (durable, durable_inbox) = mpsc::unbounded_channel();
    let replica = config.snapshot_options()?;
    let loader = Loader {
        source: source.clone(),
        throttle: throttle(&config.source, replica.as_ref().unwrap_or(&source)),
        replica,
        requests: requests.clone(),
        merging: Merging::Lake(merging.clone()),
        connections: Arc::new(Semaphore::new(config.source.max_connections)),
        chunks_at_once: config.source.max_connections,
        progress: snapshot_loader::Progress::new(),
        // Numbers of attempts of different incarnations must differ: what became of one is told by its number.
        next_chunk: Arc::new(AtomicU64::new(uuid::Uuid::new_v4().as_u64_pair().0)),
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
        load_of: load_maker(config, &registrar, &warehouse, &asked, resumed),
        shipper: Shipper::start(shipping),
        _trace_upkeep: trace_upkeep,
        _log_cleaning: log_cleaning,
        proving,
        checkpoints,
        prepared,
        // It may be one that is begun anew, and stands nowhere before the first publish.
        position_is_durable: false,
        checkpoint,
        target: options.until_caught_up.then(|| facts.executed.clone()),
        seeds: config.source.snapshot == SnapshotMode::Initial,
        rules: config.row_rules(),
        progress: Progress::default(),
        loads: BTreeMap::new(),
        load_failures,
        load_failed,
        jobs: JobDesk::new(config, &warehouse, asked.clone(), facts.tables.iter().cloned().collect())?,
        dirty: true,
        in_a_hurry: false,
        durable: durable_inbox,
        lake: Some(Lake { watch, merging }),
    };

    let tables: Vec<TableId> = facts.tables.iter().filter(|table| !lost.contains(*table)).cloned().collect();
    let (mut lanes, refused) = lanes(&registrar, &tables, &position, &standings).await?;
    for (table, error) in refused {
        stop(&mut standings, &table, &error);
        supervisor.stop_table(&table, error);
    }
    for table in &lost {
        let error = standings.get(table).and_then(|standing| standing.error.clone()).unwrap_or_default();
        supervisor.stop_table(table, error);
    }
    let unknown = lanes.iter().map(|(_, lane)| lane.gtid_set.difference(&facts.executed)).find(|set| !set.is_empty());
    if let Some(unknown) = unknown {
        return Err(Error::failed(Discontinuity::Unknown { unknown }.to_string()));
    }
    if !supervisor.seeds {
        lanes.retain(|(table, _)| standings.get(table).is_none_or(|standing| standing.phase != Phase::Stopped));
    }
    let captured: Vec<TableId> = lanes.iter().map(|(table, _)| table.clone()).collect();
    for table in &captured {
        begin_as_it_stands(&mut supervisor, &mut standings, table, &position);
    }
    supervisor.goes_on_from(&position);
    supervisor.write_checkpoint().await?;

    let publisher = KafkaPublisher::start(
        &settings,
        producer,
        topics,
        position.clone(),
        supervisor.checkpoint.epoch,
        durable,
        shipped,
    );
    let mut capture = Capture::new(
        Settings {
            source: config.source.name.clone(),
            filter: Arc::new(move |table| patterns.matches(table)),
            transaction_bytes_max: (config.apply.memory_bytes() / 8).min(KAFKA_PUBLISH_BYTES_MAX),
            follow_truncate: config.source.follows_truncate(),
            seeds: supervisor.seeds,
            shares_order: true,
        },
        publisher,
        registrar,
        told,
        CaptureStart {
            boundary: position.boundary,
            partial_rows: position.partial_rows,
            number: position.publish,
            order: position.order,
            event_ms: facts.clock_ms,
            standings,
        },
        held,
    );
    for (table, lane) in lanes {
        capture.add_lane(table, lane);
    }
    let stopped = supervisor.checkpoint.tables.iter().filter(|(_, standing)| standing.phase == Phase::Stopped);
    for (table, _) in stopped {
        capture.pass_over(table.clone());
    }
    let capture_stopped = stop_capture.clone();
    let reading = Reading {
        source,
        server_id: config.source.server_id.unwrap_or_else(crate::binlog::random_server_id),
        binlog_dir: options.binlog_dir.clone(),
    };
    let capture = tokio::spawn(async move { reading.drive(capture, requests_inbox, capture_stopped).await });
    Ok(Incarnation { supervisor, capture, stop_capture, workers: None })
}

/// What goes to the trace, and where it is read again: the tables' logs and the position topic.
fn shipping(
    config: &Config,
    settings: &KafkaSettings,
    warehouse: &Warehouse,
    trace: &Arc<ConfiguredTrace>,
    checkpoint: &Checkpoint,
    facts: &SourceFacts,
) -> Shipping<ConfiguredTrace> {
    let listed: BTreeSet<&TableId> = checkpoint.tables.keys().chain(&facts.tables).collect();
    Shipping {
        sink: trace.clone(),
        source: config.source.name.clone(),
        warehouse: warehouse.clone(),
        tables: listed.into_iter().cloned().collect(),
        published: Some(Arc::new(PositionLog(settings.clone()))),
    }
}

/// The tables that are captured, each with what it holds, and those that cannot be, with why.
async fn lanes(
    registrar: &Arc<TopicRegistrar>,
    tables: &[TableId],
    position: &Position,
    standings: &BTreeMap<TableId, TableStanding>,
) -> Result<(Vec<(TableId, LaneStart)>, Vec<(TableId, String)>), Error> {
    let (mut lanes, mut refused) = (Vec::new(), Vec::new());
    for (table, registration) in register_all(registrar, tables, &position.boundary.gtid_set).await? {
        match registration {
            Registration::Lane(lane) => {
                let standing = standings.get(&table);
                let gtid_set = standing.map(|standing| standing.start_set.clone()).unwrap_or_default();
                let phase = standing.map(|standing| standing.phase);
                let partial = position.boundary.partial.clone().zip(position.partial_rows.get(&table).copied());
                let partial = partial.map(|(gtid, rows_done)| PartialTransaction { gtid, rows_done });
                // What the load that is to begin brings, its table may not be able to take as it is. A log keeps every change.
                let begins = phase == Some(Phase::Filling { restart: true });
                let awaits_load = begins && !(registrar.source.settings)(&table).layout.is_append();
                lanes.push((table, LaneStart { gtid_set, partial, awaits_load, ..*lane }));
            }
            Registration::Gone => {}
            Registration::Refused(error) => refused.push((table, error)),
        }
    }
    Ok((lanes, refused))
}

/// Where capture begins.
struct Beginning {
    topics: Topics,
    producer: TransactionalProducer,
    position: Position,
    /// It begins anew and does not go on from a position.
    boundary_anew: bool,
}

/// Fences off other publishers and settles where to go on: at the position, or for a new source, or one that is seeded
/// anew as a whole, at everything executed so far.
async fn begin(
    config: &Config,
    options: &RunOptions,
    facts: &mut SourceFacts,
    (warehouse, prepared): (&Warehouse, &PreparedStore),
    checkpoints: &mut CheckpointLog,
    checkpoint: &mut Checkpoint,
    settings: &KafkaSettings,
) -> Result<Beginning, Error> {
    let anew = options.reseed == Reseed::All;
    if !checkpoint.is_new() && checkpoint.transport != TRANSPORT && !anew {
        return Err(Error::config(format!(
            "source {} was mirrored over `direct`; positions of one transport mean nothing to another",
            config.source.name
        ))
        .way_out("`weir snapshot` seeds every table anew, into a warehouse without them"));
    }
    let topics = Topics::new(settings)?;
    let (producer, mut position) = publisher::begin(settings, &topics, anew).await?;
    // Of two that start at once the one with the greater epoch stays, whoever was last to fence.
    if let Some(newest) = checkpoints.read().await?.filter(|newest| newest.epoch > checkpoint.epoch) {
        return Err(Error::fenced(format!(
            "another instance took over (epoch {}, ours is {})",
            newest.epoch, checkpoint.epoch
        )));
    }
    if position.is_new() && checkpoint.published && !anew {
        return Err(Error::failed("the position topic holds no position, although this source was captured before")
            .at(settings.position_topic())
            .way_out("it was deleted or emptied; `weir snapshot` seeds every table anew"));
    }
    let begins_anew = position.is_new() || anew;
    if begins_anew {
        begin_anew(config, &config.source_options()?, facts, prepared, checkpoint.epoch).await?;
        position.begun = checkpoint.epoch;
        if !checkpoint.is_new() {
            checkpoint.restart_at(facts.executed.clone());
        }
        checkpoint.gtid_set = facts.executed.clone();
        start_over(&mut position, facts, warehouse).await?;
    }
    checkpoint.begun = position.begun;
    resumes(&position.boundary.gtid_set, position.boundary.last.as_ref(), facts, options)?;
    // What the tables hold is told by their commits; the checkpoint follows from the first publish on.
    Ok(Beginning { topics, producer, position, boundary_anew: begins_anew })
}

/// A position at the source's present. Orders and numbers go on above whatever the tables have: they were written by an
/// incarnation whose position is gone.
async fn start_over(position: &mut Position, facts: &SourceFacts, warehouse: &Warehouse) -> Result<(), Error> {
    position.boundary = crate::transport::Boundary { gtid_set: facts.executed.clone(), ..Default::default() };
    position.partial_rows.clear();
    for table in &facts.tables {
        let Some(state) = history::figures(warehouse, table).await?.and_then(|figures| figures.state) else { continue };
        let greatest = state.greatest.iter().copied().max().map_or(state.order, OrderState);
        position.order = position.order.max(state.order).max(greatest);
        let publishes = state.shares.iter().map(|share| share.publish).max().unwrap_or(0);
        position.publish = position.publish.max(PublishNumber(publishes));
    }
    // Above what lies in the topics and was not taken in, and above what the trace has of a position that is gone.
    position.publish = position.publish.max(PublishNumber(facts.clock_ms.max(0) as u64));
    position.tables.retain(|table, _| facts.tables.contains(table));
    Ok(())
}

fn load_maker(
    config: &Config,
    registrar: &Arc<TopicRegistrar>,
    warehouse: &Warehouse,
    asked: &BTreeSet<TableId>,
    resumed: BTreeMap<TableId, SeedProgress>,
) -> LoadMaker {
    let (config, registrar, warehouse, asked) = (config.clone(), registrar.clone(), warehouse.clone(), asked.clone());
    let resumed = Mutex::new(resumed);
    Box::new(move |table, begin| {
        let settings = config.table_settings(table);
        let plans = warehouse.state_path(&config.source.name).join("plans").join(&*table.to_string());
        let resume = resumed.lock().expect("no code panics while holding it").remove(table);
        let is_asked = asked.contains(table) && begin.scope() == LoadScope::Whole;
        Some(Load {
            table: table.clone(),
            key: settings.key,
            zero_dates: settings.zero_dates,
            rules: settings.rules,
            layout: settings.layout,
            files: TableFiles::of(&warehouse, table),
            buckets: registrar.topics.of(table)?.partitions,
            reset: is_asked,
            plans: StateSeries::new(warehouse.store().clone(), plans),
            plan_under_way: Arc::default(),
            resume: resume.filter(|_| begin == LoadBegin::GoOn),
            scope: begin.scope(),
            figures: Arc::default(),
            job: None,
        })
    })
}

/// Looks now and then how far the trace is with what capture counted: older positions may go.
async fn follow_mark<T: TraceSink>(sink: Arc<T>, source: String, shipped: Arc<AtomicU64>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TRACE_MARK_LOOKED_AT_EVERY) => {}
        }
        if let Ok(Some(mark)) = sink.shipped_version(&source, &Origin::Capture).await {
            shipped.store(u64::try_from(mark).unwrap_or(0), Ordering::Release);
        }
    }
}

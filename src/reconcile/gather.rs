//! Collects the facts of a report, with the service running or stopped.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use weir_model::{GtidSet, Repair, TableId, Window, clock};
use weir_mysql::{MysqlError, SourceOptions, TablePatterns, catalogue, server};

use super::missing::ship_missing;
use super::positions::{Lagging, OpenWindows, covers, lagging, lost, ship_counted, whole};
use super::repairs::ship_repairs;
use super::report::{Facts, Reach, TableFacts};
use crate::error::Error;
use crate::limits::{RECONCILE_POLL, RECONCILE_WAIT_MAX, REPAIRS_READ_MAX};
use crate::state::proofs::ProofLog;
use crate::state::{Checkpoint, CheckpointLog, Phase, RepairStore, TableStanding};
use crate::table::{TableState, Warehouse, history};
use crate::trace::{Origin, TraceSink};
use crate::transport::PublishNumber;
use crate::transport::kafka::position::Position;
use crate::transport::kafka::{KafkaSettings, Topics};

/// What is asked.
pub struct Question<'a> {
    pub source: &'a str,
    pub options: SourceOptions,
    pub patterns: TablePatterns,
    pub warehouse: &'a Warehouse,
    /// Only these tables; all if empty.
    pub tables: Vec<TableId>,
    /// Only windows from here on.
    pub since: Option<Window>,
    /// Where changes travel over Kafka.
    pub kafka: Option<KafkaSettings>,
}

/// Reads what the source has executed, waits a moment for a running service to have it in, ships to `sink` the commits
/// that it lacks, and sums.
///
/// A source that cannot be asked is no error: the accounts are compared, and nothing is called balanced.
///
/// # Errors
/// When the warehouse or the trace cannot be reached, no service has ever run, or a table asked for is not there.
pub async fn gather<T: TraceSink>(question: &Question<'_>, sink: &T) -> Result<Facts, Error> {
    let (executed, listed) = match look_at_source(question).await {
        Ok((executed, listed)) => (Some(executed), listed),
        Err(error) => {
            tracing::warn!(%error, "the source cannot be asked what it has executed");
            (None, Vec::new())
        }
    };
    let state = question.warehouse.state_path(question.source);
    let mut checkpoints = CheckpointLog::new(question.warehouse.store().clone(), state);
    let checkpoint = checkpoints.read().await?.ok_or_else(|| {
        Error::failed(format!("no service of source {} has run into this warehouse", question.source))
            .at(question.warehouse.url().as_str())
            .way_out("`weir run --until-caught-up` fills it")
    })?;
    let tables = tables_asked_for(question, listed, &checkpoint)?;
    let published = match &question.kafka {
        Some(kafka) => Some(ship_counted(kafka, question.source, sink).await?),
        None => None,
    };
    let places =
        wait_for(question, &mut checkpoints, checkpoint, &tables, executed.as_ref(), published.as_ref()).await?;
    let mut facts = Facts {
        source: question.source.to_owned(),
        at_ms: clock::now_ms(),
        position: common_position(&places),
        tables: Vec::new(),
    };
    let marks = sink.shipped_versions(question.source).await?;
    for Place { table, .. } in &places {
        let mark = marks.get(&Origin::Table(table.clone())).copied();
        ship_missing(sink, question.source, question.warehouse, table, mark).await?;
    }
    // Only now, so that whatever was consumed has been counted as published too.
    if let Some(kafka) = &question.kafka {
        ship_counted(kafka, question.source, sink).await?;
    }
    let mut repairs = repairs(question, sink).await?;
    let tables: Vec<TableId> = places.iter().map(|place| place.table.clone()).collect();
    let mut totals = sink.totals(question.source, &tables, question.since).await?;
    // A service that runs goes on counting: whatever it had published when the totals were read is seen here.
    let windows = match &question.kafka {
        Some(kafka) => {
            let least = places.iter().map(|place| place.whole).min().unwrap_or_default();
            Some(OpenWindows::read(kafka, least).await?)
        }
        None => None,
    };
    let state = question.warehouse.state_path(question.source);
    let mut proofs = ProofLog::new(question.warehouse.store().clone(), state).read().await?;
    let topics = match &question.kafka {
        Some(kafka) if places.iter().any(|place| !place.lagging.is_empty()) => Some((kafka, Topics::new(kafka)?)),
        _ => None,
    };
    for Place { table, reach, whole, lagging, .. } in places {
        let counts = totals.remove(&table).unwrap_or_default();
        let lost = match &topics {
            Some((kafka, topics)) => lost(topics, kafka, &table, &lagging).await?,
            None => None,
        };
        // What is gone from the topic is not on its way.
        let windows = windows.as_ref().filter(|_| lost.is_none());
        let open = windows.map(|windows| windows.of(&table, whole)).unwrap_or_default();
        let proof = proofs.tables.remove(&table);
        let repairs = repairs.remove(&table).unwrap_or_default();
        facts.tables.push(TableFacts { table, reach, counts, open, lost, deep: None, proof, repairs });
    }
    Ok(facts)
}

/// What was repaired, by table, once the trace has all of it.
async fn repairs<T: TraceSink>(question: &Question<'_>, sink: &T) -> Result<BTreeMap<TableId, Vec<Repair>>, Error> {
    let (store, state) = (question.warehouse.store().clone(), question.warehouse.state_path(question.source));
    ship_repairs(sink, question.source, &RepairStore::new(store, state)).await?;
    let mut repairs: BTreeMap<TableId, Vec<Repair>> = BTreeMap::new();
    for repair in sink.repairs(question.source, REPAIRS_READ_MAX).await? {
        repairs.entry(repair.table.clone()).or_default().push(repair);
    }
    Ok(repairs)
}

/// What the source has executed, and its tables.
async fn look_at_source(question: &Question<'_>) -> Result<(GtidSet, Vec<TableId>), MysqlError> {
    let mut connection = weir_mysql::connect(&question.options).await?;
    let executed = server::executed_gtids(&mut connection).await?;
    let listed = catalogue::list_tables(&mut connection, &question.patterns).await?;
    Ok((executed, listed))
}

/// Tables of the source and tables that the service knows, as far as the patterns mean them; or those asked for.
fn tables_asked_for(
    question: &Question<'_>,
    listed: Vec<TableId>,
    checkpoint: &Checkpoint,
) -> Result<BTreeSet<TableId>, Error> {
    let known: BTreeSet<TableId> = checkpoint.tables.keys().cloned().chain(listed).collect();
    if let Some(table) = question.tables.iter().find(|table| !known.contains(table)) {
        return Err(Error::failed(format!("{table} is not among the tables of source {}", question.source))
            .way_out("`weir status` lists them"));
    }
    if !question.tables.is_empty() {
        return Ok(question.tables.iter().cloned().collect());
    }
    Ok(known.into_iter().filter(|table| question.patterns.matches(table)).collect())
}

/// Where a table is.
pub(super) struct Place {
    table: TableId,
    pub reach: Reach,
    position: GtidSet,
    /// The last publish that it certainly has; of no meaning on `direct`.
    whole: PublishNumber,
    /// What it has yet to take in.
    lagging: Vec<Lagging>,
}

/// Looks at every table, and again at those that are behind as long as a service may bring them on.
async fn wait_for(
    question: &Question<'_>,
    checkpoints: &mut CheckpointLog,
    mut checkpoint: Checkpoint,
    tables: &BTreeSet<TableId>,
    executed: Option<&GtidSet>,
    published: Option<&Position>,
) -> Result<Vec<Place>, Error> {
    let deadline = Instant::now() + RECONCILE_WAIT_MAX;
    let mut places: Vec<Place> = Vec::new();
    let mut pending = tables.clone();
    loop {
        for table in &pending {
            let figures = history::figures(question.warehouse, table).await?;
            let state = figures.and_then(|figures| figures.state);
            places.push(place(table, &checkpoint, state.as_ref(), executed, published));
        }
        pending = places.iter().filter(|place| may_come(&place.reach)).map(|place| place.table.clone()).collect();
        let gives_up = !checkpoint.is_live(clock::now_ms()) || Instant::now() >= deadline;
        if pending.is_empty() || gives_up {
            places.sort_by(|a, b| a.table.cmp(&b.table));
            return Ok(places);
        }
        places.retain(|place| !pending.contains(&place.table));
        tokio::time::sleep(RECONCILE_POLL).await;
        checkpoint = checkpoints.read().await?.unwrap_or_default();
    }
}

/// Whether waiting may help.
fn may_come(reach: &Reach) -> bool {
    match reach {
        Reach::Behind(_) | Reach::Partial | Reach::Filling | Reach::NotSeeded => true,
        Reach::All | Reach::Unknown | Reach::Stopped(_) => false,
    }
}

/// A table holds what its own commits say and what the checkpoint says: an idle table makes no commits.
pub(super) fn place(
    table: &TableId,
    checkpoint: &Checkpoint,
    state: Option<&TableState>,
    executed: Option<&GtidSet>,
    published: Option<&Position>,
) -> Place {
    let mut own = state.map(|state| state.gtid_set.clone()).unwrap_or_default();
    if let Some(position) = published.filter(|position| covers(state, table, position)) {
        own = own.union(&position.boundary.gtid_set);
    }
    let holds = published.map_or_else(PublishNumber::default, |position| whole(state, table, position));
    let lagging = published.map(|position| lagging(state, table, position)).unwrap_or_default();
    let at = |reach, position| Place { table: table.clone(), reach, position, whole: holds, lagging };
    let Some(standing) = standing_of(table, checkpoint, published) else { return at(Reach::NotSeeded, own) };
    match standing.phase {
        Phase::Stopped => at(Reach::Stopped(standing.error.clone().unwrap_or_default()), own),
        Phase::Filling { .. } => at(Reach::Filling, own),
        Phase::Streaming => {
            let position = own.union(&checkpoint.gtid_set);
            let missing = executed.map(|executed| executed.difference(&position));
            let is_partial = state.is_some_and(|state| state.partial.is_some());
            match missing {
                None => at(Reach::Unknown, position),
                Some(missing) if !missing.is_empty() => at(Reach::Behind(missing.count()), position),
                Some(_) if is_partial => at(Reach::Partial, position),
                Some(_) => at(Reach::All, position),
            }
        }
    }
}

/// Where capture has the table: the checkpoint follows the position some seconds behind, and what a position passes by,
/// because the table stopped or is to be loaded, is in neither's counts.
fn standing_of<'a>(
    table: &TableId,
    checkpoint: &'a Checkpoint,
    published: Option<&'a Position>,
) -> Option<&'a TableStanding> {
    let told = checkpoint.tables.get(table);
    let durable = published.and_then(|position| position.tables.get(table)).map(|known| &known.standing);
    match (told, durable) {
        (Some(told), Some(durable)) if told.phase == Phase::Streaming => Some(durable),
        (told, durable) => told.or(durable),
    }
}

/// What every table that follows the stream holds.
fn common_position(places: &[Place]) -> GtidSet {
    let following =
        |place: &&Place| matches!(place.reach, Reach::All | Reach::Unknown | Reach::Behind(_) | Reach::Partial);
    let positions = places.iter().filter(following).map(|place| place.position.clone());
    positions.reduce(|common, other| common.difference(&common.difference(&other))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::TableStanding;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(intervals: &str) -> GtidSet {
        format!("{UUID}:{intervals}").parse().unwrap()
    }

    fn checkpoint(phase: Phase, to: &str) -> Checkpoint {
        let error = (phase == Phase::Stopped).then(|| "no key".to_owned());
        let standing = TableStanding::new(phase, GtidSet::default(), error);
        let tables = [(TableId::new("shop", "a"), standing)].into();
        Checkpoint { gtid_set: set(to), tables, ..Checkpoint::default() }
    }

    fn reach(checkpoint: &Checkpoint, own: &str, executed: &str) -> Reach {
        let state = TableState { gtid_set: set(own), ..TableState::default() };
        place(&TableId::new("shop", "a"), checkpoint, Some(&state), Some(&set(executed)), None).reach
    }

    #[test]
    fn a_table_reaches_as_far_as_its_commits_and_the_checkpoint_together() {
        let streaming = checkpoint(Phase::Streaming, "1-5");
        assert_eq!(reach(&streaming, "1-2", "1-5"), Reach::All);
        assert_eq!(reach(&streaming, "1-9", "1-9"), Reach::All);
        assert_eq!(reach(&streaming, "1-6", "1-9"), Reach::Behind(Some(3)));
    }

    #[test]
    fn only_a_streaming_table_can_have_everything() {
        assert_eq!(reach(&checkpoint(Phase::Filling { restart: false }, "1-5"), "1-5", "1-5"), Reach::Filling);
        assert_eq!(reach(&checkpoint(Phase::Stopped, "1-5"), "1-5", "1-5"), Reach::Stopped("no key".into()));
        assert_eq!(reach(&Checkpoint::default(), "1-5", "1-5"), Reach::NotSeeded);
    }

    #[test]
    fn the_common_position_is_what_all_of_them_hold() {
        let at = |intervals: &str, reach| Place {
            table: TableId::new("shop", "a"),
            reach,
            position: set(intervals),
            whole: PublishNumber(0),
            lagging: Vec::new(),
        };
        let places = [at("1-7", Reach::All), at("1-4:6-9", Reach::Behind(Some(1))), at("1", Reach::Filling)];
        assert_eq!(common_position(&places), set("1-4:6-7"));
        assert!(common_position(&[]).is_empty());
    }
}

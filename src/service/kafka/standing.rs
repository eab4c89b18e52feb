//! Where tables stand when capture begins: as the position says, as somebody asks, or stopped because their topic is lost.

use std::collections::{BTreeMap, BTreeSet};

use weir_model::{GtidSet, TableId};

use super::merging::LakeMerging;
use crate::config::Config;
use crate::error::Error;
use crate::service::seed::SeedError;
use crate::service::start::SourceFacts;
use crate::service::supervisor::Supervisor;
use crate::state::{AppealKind, Appeals, Phase, TableStanding};
use crate::table::SeedProgress;
use crate::transport::PublishNumber;
use crate::transport::kafka::Topics;
use crate::transport::kafka::position::Position;

/// Where every table stands at the start: as the position says, or to be loaded because somebody asks for it.
pub(super) fn standings(
    position: &Position,
    facts: &SourceFacts,
    asked: &BTreeSet<TableId>,
    ours: impl Fn(&TableId) -> bool,
) -> BTreeMap<TableId, TableStanding> {
    let mut standings: BTreeMap<TableId, TableStanding> =
        position.tables.iter().map(|(table, known)| (table.clone(), known.standing.clone())).collect();
    // A table that stopped and is gone, or is not ours any more, has nothing left to mend.
    standings
        .retain(|table, standing| ours(table) && (standing.phase == Phase::Streaming || facts.tables.contains(table)));
    for table in asked {
        let phase = Phase::Filling { restart: true };
        let standing = TableStanding::new(phase, facts.executed.clone(), None);
        standings.insert(table.clone(), standing);
    }
    standings
}

/// Tables of `position` that are followed no more stop, in the position, too: their changes are passed by, so that one that is
/// followed again has to be loaded. Durable with the first publish, which is the first to pass anything by.
pub(super) fn leave(position: &mut Position, followed: &BTreeMap<TableId, TableStanding>) {
    for (table, known) in position.tables.iter_mut().filter(|(table, _)| !followed.contains_key(*table)) {
        let error =
            format!("[source] tables left it out for a while; load it anew with `weir snapshot --table {table}`");
        known.standing = TableStanding::new(Phase::Stopped, GtidSet::default(), Some(error));
    }
}

/// Looks whether every topic still holds what was written. A table whose topic does not is stopped; one that is asked
/// for begins a new incarnation of it. Returns those that are stopped.
pub(super) async fn stop_lost_tables(
    config: &Config,
    topics: &Topics,
    position: &mut Position,
    standings: &mut BTreeMap<TableId, TableStanding>,
    asked: &BTreeSet<TableId>,
) -> Result<BTreeSet<TableId>, Error> {
    let mut lost = BTreeSet::new();
    let known: Vec<TableId> = standings.keys().cloned().collect();
    for table in known {
        let Some(what) = topics.lost(&table, position).await? else { continue };
        if asked.contains(&table) {
            tracing::warn!(%table, what, "the topic begins anew");
            let partitions = config.table_settings(&table).buckets.unwrap_or(config.transport.partitions);
            let partitions = position.tables.get(&table).map_or(partitions, |known| known.partitions);
            let info = topics.renew(&table, partitions).await?;
            position.ends.remove(&table);
            if let Some(known) = position.tables.get_mut(&table) {
                known.topic = info.id;
                known.partitions = info.partitions;
            }
        } else {
            stop(standings, &table, &format!("{what}; load it anew with `weir snapshot --table {table}`"));
            lost.insert(table);
        }
    }
    Ok(lost)
}

pub(super) fn stop(standings: &mut BTreeMap<TableId, TableStanding>, table: &TableId, error: &str) {
    let standing =
        standings.entry(table.clone()).or_insert_with(|| TableStanding::new(Phase::Stopped, GtidSet::default(), None));
    standing.phase = Phase::Stopped;
    standing.error = Some(error.to_owned());
}

/// Stops that were told of before this start are told again if they still hold.
pub(super) async fn forget_stops(appeals: &Appeals) -> Result<(), Error> {
    for appeal in appeals.list().await? {
        if matches!(appeal.kind, AppealKind::Stopped { .. }) {
            appeals.settle(&appeal).await?;
        }
    }
    Ok(())
}

/// Loads to go on with.
pub(super) async fn under_way(
    merging: &LakeMerging,
    standings: &BTreeMap<TableId, TableStanding>,
    number: PublishNumber,
) -> Result<BTreeMap<TableId, SeedProgress>, Error> {
    let mut resumed = BTreeMap::new();
    for (table, standing) in standings {
        if standing.phase == (Phase::Filling { restart: false })
            && let Some(progress) = merging
                .under_way(table, standing.plan, number)
                .await
                .map_err(|e: SeedError| Error::failed(e.to_string()))?
        {
            resumed.insert(table.clone(), progress);
        }
    }
    Ok(resumed)
}

/// Goes on with a table from its phase: a table that is not listed or has stopped is loaded.
pub(super) fn begin_as_it_stands(
    supervisor: &mut Supervisor,
    standings: &mut BTreeMap<TableId, TableStanding>,
    table: &TableId,
    position: &Position,
) {
    let phase = standings.get(table).map(|standing| standing.phase);
    let restart = match phase {
        Some(Phase::Streaming) => return,
        Some(Phase::Filling { restart }) => restart,
        None if !supervisor.seeds => {
            let start_set = position.boundary.gtid_set.clone();
            standings.insert(table.clone(), TableStanding::new(Phase::Streaming, start_set, None));
            return supervisor.note_streaming(table);
        }
        Some(Phase::Stopped) | None => true,
    };
    if restart {
        let start_set = position.boundary.gtid_set.clone();
        let phase = Phase::Filling { restart: true };
        let standing = standings.entry(table.clone()).or_insert(TableStanding::new(phase, start_set, None));
        standing.phase = phase;
        standing.error = None;
    }
    supervisor.begin_load(table, restart);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::kafka::position::TopicStanding;

    #[test]
    fn a_table_that_is_left_out_is_stopped_where_its_topic_is_remembered() {
        let [kept, left] = ["kept", "left"].map(|name| TableId::new("shop", name));
        let streaming = TableStanding::new(Phase::Streaming, GtidSet::default(), None);
        let known = TopicStanding { standing: streaming.clone(), topic: "t".into(), partitions: 2 };
        let tables = BTreeMap::from([(kept.clone(), known.clone()), (left.clone(), known)]);
        let mut position = Position { tables, ..Position::default() };
        leave(&mut position, &BTreeMap::from([(kept.clone(), streaming)]));
        assert_eq!(position.tables[&kept].standing.phase, Phase::Streaming);
        let left = &position.tables[&left];
        assert_eq!((left.standing.phase, &*left.topic, left.partitions), (Phase::Stopped, "t", 2));
        assert!(left.standing.error.is_some());
    }
}

//! Where every table stands: what `weir status` prints, and what a running service answers to `/status`.
//!
//! [`status`] reads it from what is durable, with the service running or stopped; a process that runs the service knows more
//! of it, and more exactly, see `watching`.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use weir_model::{Gtid, GtidSet, TableId, Xid, clock};
use weir_mysql::server;

use super::{LoadStanding, load_standing};
use crate::config::Config;
use crate::error::Error;
use crate::limits::{PROOF_KEYS_SHOWN_MAX, STATUS_TABLES_TOGETHER};
use crate::reconcile::rfc3339;
use crate::state::proofs::{Found, ProofLog, TableProof};
use crate::state::{Checkpoint, CheckpointLog, ConfigStanding, LastTransaction, PreparedStore, TableStanding};
use crate::table::{Warehouse, history};

/// Where a source's tables stand.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub source: String,
    /// Whether a service has renewed the checkpoint a moment ago.
    pub running: bool,
    pub epoch: u64,
    /// Everything in it is in every healthy table.
    pub position: GtidSet,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// The settings that the service runs by, or ran by last.
    #[serde(skip_serializing_if = "ConfigStanding::is_unknown")]
    pub config: ConfigStanding,
    pub tables: Vec<TableStatus>,
    /// XA transactions whose rows wait for their outcome.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prepared: Vec<PreparedStatus>,
}

/// An XA transaction that is prepared.
#[derive(Debug, Clone, Serialize)]
pub struct PreparedStatus {
    pub xid: Xid,
    pub gtid: Gtid,
    /// Milliseconds since the epoch.
    pub since_ms: i64,
}

/// Where a table stands.
#[derive(Debug, Clone, Serialize)]
pub struct TableStatus {
    pub table: TableId,
    pub phase: &'static str,
    pub position: GtidSet,
    /// Transactions of the source that the table does not have; none if the source could not be asked, or has no GTIDs to count
    /// them by.
    pub lag_transactions: Option<u64>,
    /// Milliseconds for which the table has lacked something, at most; while it lags.
    pub lag_ms: Option<i64>,
    pub version: Option<i64>,
    pub rows: Option<u64>,
    pub files: Option<u64>,
    pub bytes: Option<u64>,
    /// The load under way: of the whole table, or of a part.
    pub load: Option<LoadStanding>,
    pub last_error: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way_out: Option<String>,
    /// What the service has proven by itself; none if it has not looked yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

pub(super) type TableProofs = BTreeMap<TableId, Proof>;

/// What a running service has reconciled of a table.
#[derive(Debug, Clone, Serialize)]
pub struct Proof {
    /// Each key was equal at this moment or later; RFC 3339. None as long as some were never compared.
    pub verified_through: Option<String>,
    /// Ranges of keys, and how many of them have been proven.
    pub ranges: usize,
    pub ranges_proven: usize,
    /// What the last comparison of each range found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
    /// Why rows were not compared lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_compared: Option<String>,
    /// When the counts of all hops last added up; RFC 3339.
    pub hops_balanced: Option<String>,
    /// Half-events that were missing or too many at the last look.
    pub hops_unbalanced: u64,
    /// [`Self::verified_through`] in ms since the epoch.
    #[serde(skip)]
    pub verified_through_ms: Option<i64>,
}

impl Proof {
    fn of(proof: &TableProof) -> Self {
        let found = proof.ranges.found(PROOF_KEYS_SHOWN_MAX);
        let hops = proof.hops.as_ref();
        Self {
            verified_through: proof.ranges.through_ms().map(rfc3339),
            ranges: proof.ranges.iter().count(),
            ranges_proven: proof
                .ranges
                .iter()
                .filter(|range| range.proven_ms.is_some() && range.found.is_none())
                .count(),
            found: (found != Found::default()).then_some(found),
            not_compared: proof.not_compared.clone(),
            hops_balanced: hops.and_then(|hops| hops.balanced_ms).map(rfc3339),
            hops_unbalanced: hops.map_or(0, |hops| hops.unbalanced),
            verified_through_ms: proof.ranges.through_ms(),
        }
    }
}

/// What makes a stopped table go on.
pub fn way_out_of_stop(table: &TableId) -> String {
    format!("mend the cause, then `weir snapshot --table {table}` loads the table anew; the others go on meanwhile")
}

/// Reads where every table stands.
///
/// # Errors
/// When the warehouse cannot be read. A source that cannot be asked leaves lags unknown, and says why in a notice.
pub async fn status(config: &Config) -> Result<Status, Error> {
    let warehouse = Warehouse::open(&config.warehouse.url, &config.warehouse.options)?;
    let executed = executed(config).await;
    read(config, &warehouse, executed.map_err(|error| format!("lag is not known: {error}"))).await
}

async fn executed(config: &Config) -> Result<GtidSet, Error> {
    let mut connection = weir_mysql::connect(&config.source_options()?).await?;
    Ok(server::executed_gtids(&mut connection).await?)
}

/// What is durable in `warehouse`, beside what the source has `executed`, or why that is not known.
pub(super) async fn read(
    config: &Config,
    warehouse: &Warehouse,
    executed: Result<GtidSet, String>,
) -> Result<Status, Error> {
    let state = warehouse.state_path(&config.source.name);
    let checkpoint = CheckpointLog::new(warehouse.store().clone(), state).read().await?.unwrap_or_default();
    let (executed, notice) = match executed {
        Ok(executed) => (Some(executed), None),
        Err(notice) => (None, Some(notice)),
    };
    let place = (warehouse, config.source.name.as_str());
    let mut looks = Vec::with_capacity(checkpoint.tables.len());
    for (table, standing) in &checkpoint.tables {
        looks.push(table_status(place, &checkpoint, table, standing, executed.as_ref()).boxed());
    }
    let tables = stream::iter(looks).buffered(STATUS_TABLES_TOGETHER).try_collect().await?;
    let (proofs, prepared) = beside(config, warehouse).await?;
    Ok(Status {
        source: config.source.name.clone(),
        running: checkpoint.is_live(clock::now_ms()),
        epoch: checkpoint.epoch,
        position: checkpoint.gtid_set.clone(),
        notice,
        config: checkpoint.config,
        tables,
        prepared,
    }
    .with(&proofs))
}

/// What the state tells beside the checkpoint: what has been proven, and which XA transactions wait.
pub(super) async fn beside(
    config: &Config,
    warehouse: &Warehouse,
) -> Result<(TableProofs, Vec<PreparedStatus>), Error> {
    let state = warehouse.state_path(&config.source.name);
    let proofs = ProofLog::new(warehouse.store().clone(), state.clone()).read().await?;
    let held = PreparedStore::new(warehouse.store().clone(), state).list_held().await?;
    let prepared = held.into_iter().map(|head| {
        let (xid, gtid, since_ms) = (head.xid, head.gtid, head.prepared_ms);
        PreparedStatus { xid, gtid, since_ms }
    });
    let proofs = proofs.tables.iter().map(|(table, proof)| (table.clone(), Proof::of(proof)));
    Ok((proofs.collect(), prepared.collect()))
}

impl Status {
    /// With what has been proven of each table.
    pub(super) fn with(mut self, proofs: &TableProofs) -> Self {
        for table in &mut self.tables {
            table.proof = proofs.get(&table.table).cloned();
        }
        self
    }
}

async fn table_status(
    (warehouse, source): (&Warehouse, &str),
    checkpoint: &Checkpoint,
    table: &TableId,
    standing: &TableStanding,
    executed: Option<&GtidSet>,
) -> Result<TableStatus, Error> {
    let figures = history::figures(warehouse, table).await?;
    let state = figures.as_ref().and_then(|figures| figures.state.as_ref());
    let own = state.map(|state| state.gtid_set.clone()).unwrap_or_default();
    let position = if standing.error.is_some() { own } else { own.union(&checkpoint.gtid_set) };
    let missing = executed.map(|executed| executed.difference(&position));
    // A table that has stopped does not have what the checkpoint has passed by.
    let passed_ms = if standing.error.is_some() { 0 } else { committed_ms(checkpoint.last.as_ref()) };
    let newest_ms = state.map_or(0, |state| state.order.0.ts_ms).max(passed_ms);
    let lag_ms = missing.as_ref().and_then(|missing| lag_ms(missing.is_empty(), newest_ms, None, clock::now_ms()));
    let lag_transactions = missing.and_then(|missing| missing.count());
    let load = match state {
        Some(state) => load_standing(warehouse, source, table, state).await?,
        None => None,
    };
    Ok(TableStatus {
        load,
        table: table.clone(),
        phase: standing.phase.name(),
        position,
        lag_transactions,
        lag_ms,
        version: figures.as_ref().map(|figures| figures.version),
        rows: figures.as_ref().map(|figures| figures.rows),
        files: figures.as_ref().map(|figures| figures.files),
        bytes: figures.as_ref().map(|figures| figures.bytes),
        last_error: standing.error.clone(),
        way_out: standing.error.as_ref().map(|_| way_out_of_stop(table)),
        proof: None,
    })
}

/// When a transaction committed on the server that it began on, ms since the epoch; 0 if that is not known.
pub(super) fn committed_ms(last: Option<&LastTransaction>) -> i64 {
    last.map_or(0, |last| i64::try_from(last.original_commit_us / 1_000).unwrap_or(i64::MAX))
}

/// How far a table is behind unless it `has_all`: no longer than since its newest transaction committed, nor than since it
/// was seen to have all. Either alone would tell of hours when an idle source, or an idle table, gets a change.
pub(super) fn lag_ms(has_all: bool, position_ms: i64, had_all_ms: Option<i64>, now_ms: i64) -> Option<i64> {
    if has_all {
        return Some(0);
    }
    let since = [Some(position_ms).filter(|ms| *ms > 0), had_all_ms].into_iter().flatten().max()?;
    Some((now_ms - since).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_no_longer_than_anything_was_lacking() {
        assert_eq!(lag_ms(true, 5, None, 100), Some(0));
        // A busy source: since the newest transaction that is in.
        assert_eq!(lag_ms(false, 80, Some(20), 100), Some(20));
        // An idle one that has got a change: since the last look.
        assert_eq!(lag_ms(false, 20, Some(95), 100), Some(5));
        // Of a clock that is ahead.
        assert_eq!(lag_ms(false, 120, None, 100), Some(0));
        assert_eq!(lag_ms(false, 0, None, 100), None);
    }
}

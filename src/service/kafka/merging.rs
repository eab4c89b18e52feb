//! Loads of tables that other processes may write: how chunks are named to them, and how it is known that they are in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use weir_model::schema::escape_name;
use weir_model::{Order, RecordKey, TableId};

use super::watch::LakeWatch;
use crate::apply::Report;
use crate::apply::chunks::ChunkFiles;
use crate::service::seed::SeedError;
use crate::state::{Appeal, AppealKind, Appeals, StateSeries};
use crate::table::{BucketShare, SeedProgress, StagedChunk, Warehouse, history};
use crate::transport::{ChunkContent, ChunkId, PublishNumber};

/// How far a load is, kept beside the table; a restart goes on from there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadProgress {
    /// Number of its plan.
    pub plan: u64,
    /// Ordinals of the chunks that every bucket has taken in, with the number of the attempt that was.
    pub done: BTreeMap<u32, u64>,
    /// It is of a part of the table: kept beside that of the whole table's last load, which tells of files that are gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub part: bool,
}

/// What all loads share. Clones share it.
#[derive(Clone)]
pub struct LakeMerging {
    warehouse: Warehouse,
    source: String,
    watch: LakeWatch,
    appeals: Appeals,
    reports: mpsc::UnboundedSender<Report>,
    progress: Arc<tokio::sync::Mutex<BTreeMap<TableId, LoadProgress>>>,
    /// The publish that each load began with.
    begun: Arc<Mutex<BTreeMap<TableId, PublishNumber>>>,
}

impl LakeMerging {
    pub fn new(
        warehouse: &Warehouse,
        source: &str,
        watch: LakeWatch,
        appeals: Appeals,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Self {
        let (warehouse, source) = (warehouse.clone(), source.to_owned());
        Self { warehouse, source, watch, appeals, reports, progress: Arc::default(), begun: Arc::default() }
    }

    fn series(&self, table: &TableId, part: bool) -> StateSeries {
        let kind = if part { "parts" } else { "loads" };
        let folder = self.warehouse.state_path(&self.source).join(kind).join(escape_name(&table.to_string()));
        StateSeries::new(self.warehouse.store().clone(), folder)
    }

    /// The load of `table` that was under way, to go on from. It is taken as begun with `number` or before.
    pub async fn under_way(
        &self,
        table: &TableId,
        plan: u64,
        number: PublishNumber,
    ) -> Result<Option<SeedProgress>, SeedError> {
        // Another plan's is of a load that was never announced, or of a service that has been fenced off.
        let Some(found) = self.last(table, false).await?.filter(|found| found.plan == plan) else { return Ok(None) };
        self.progress.lock().await.insert(table.clone(), found.clone());
        self.lock().insert(table.clone(), number);
        // Its first order is with the tables: nobody asks for it here.
        let LoadProgress { plan, done, .. } = found;
        Ok(Some(SeedProgress { plan, done: done.into_keys().collect(), start: Order::MIN, part: false }))
    }

    /// The load of a part that is under way by this plan in every bucket, to go on from. One that was never announced, or has
    /// ended, is not: its chunks would be refused for ever.
    pub async fn part_under_way(&self, table: &TableId, plan: u64) -> Result<Option<SeedProgress>, SeedError> {
        let Some(found) = self.last(table, true).await?.filter(|found| plan > 0 && found.plan == plan) else {
            return Ok(None);
        };
        let figures = history::figures(&self.warehouse, table).await?;
        let shares = figures.and_then(|figures| figures.state).map(|state| state.shares).unwrap_or_default();
        let is_at_it = |share: &BucketShare| share.seed.as_ref().is_some_and(|seed| seed.part && seed.plan == plan);
        if shares.is_empty() || !shares.iter().all(is_at_it) {
            return Ok(None);
        }
        let start = shares.iter().filter_map(|share| share.seed.as_ref()).map(|seed| seed.start).max();
        self.progress.lock().await.insert(table.clone(), found.clone());
        let done = found.done.into_keys().collect();
        Ok(Some(SeedProgress { plan, done, start: start.unwrap_or(Order::MIN), part: true }))
    }

    async fn last(&self, table: &TableId, part: bool) -> Result<Option<LoadProgress>, SeedError> {
        let Some((_, bytes)) = self.series(table, part).latest().await? else { return Ok(None) };
        Ok(serde_json::from_slice(&bytes).ok())
    }

    /// Whether that attempt at a chunk was taken in by every bucket, once: if one refuses it after that, the lake's files
    /// have gone since.
    pub async fn was_done(&self, table: &TableId, chunk: u64) -> Result<bool, SeedError> {
        Ok(self.last(table, false).await?.is_some_and(|load| load.done.values().any(|done| *done == chunk)))
    }

    /// Every refusal of the table's chunks has been made up for.
    pub async fn settle_refusals(&self, table: &TableId) -> Result<(), SeedError> {
        for appeal in self.appeals.list().await? {
            if appeal.table == *table && matches!(appeal.kind, AppealKind::ChunkRefused { .. }) {
                self.appeals.settle(&appeal).await?;
            }
        }
        Ok(())
    }

    /// A load of this plan is about to be announced; one of a `part` makes up for no stop.
    pub async fn begin(&self, table: &TableId, plan: u64, part: bool) -> Result<(), SeedError> {
        if !part {
            self.lock().remove(table);
        }
        self.keep(table, LoadProgress { plan, done: BTreeMap::new(), part }).await
    }

    /// It was announced in this publish.
    pub fn begun(&self, table: &TableId, plan: u64, number: PublishNumber, part: bool) {
        if !part {
            self.lock().insert(table.clone(), number);
        }
        self.report(Report::SeedBegun { table: table.clone(), plan });
    }

    /// Whether a stop that `table` told of, having seen publish `seen`, has been made up for by a load since.
    pub fn makes_up_for(&self, table: &TableId, seen: PublishNumber) -> bool {
        self.lock().get(table).is_some_and(|begun| *begun > seen)
    }

    /// Every bucket has taken in the chunk.
    pub async fn done(&self, table: &TableId, plan: u64, ordinal: u32, chunk: ChunkId) -> Result<(), SeedError> {
        let mut progress = self.progress.lock().await;
        let Some(load) = progress.get_mut(table).filter(|load| load.plan == plan) else { return Ok(()) };
        load.done.insert(ordinal, chunk.0);
        let bytes = serde_json::to_vec(load).expect("progress is plain data");
        self.series(table, load.part).append(bytes.into()).await?;
        Ok(())
    }

    async fn keep(&self, table: &TableId, load: LoadProgress) -> Result<(), SeedError> {
        let mut progress = self.progress.lock().await;
        let bytes = serde_json::to_vec(&load).expect("progress is plain data");
        self.series(table, load.part).append(bytes.into()).await?;
        progress.insert(table.clone(), load);
        Ok(())
    }

    /// What the chunk's marker says of its files.
    pub fn content(
        &self,
        plan: u64,
        ordinal: u32,
        order0: Order,
        staged: &[StagedChunk],
        absent: Vec<RecordKey>,
    ) -> ChunkContent {
        let files = staged.iter().map(StagedChunk::describe).collect();
        let files =
            serde_json::to_value(ChunkFiles { plan, ordinal, order0, files, absent }).expect("it is plain data");
        ChunkContent::Files(Arc::new(files))
    }

    /// Waits until every bucket of the table holds that publish.
    pub async fn reached(&self, table: &TableId, number: PublishNumber) -> Result<(), SeedError> {
        if self.watch.reached(table, number).await { Ok(()) } else { Err(SeedError::NotCaptured) }
    }

    /// Whether a bucket has refused its share of the chunk. To be asked once all of them have passed the marker.
    pub async fn was_refused(&self, table: &TableId, chunk: ChunkId) -> Result<bool, SeedError> {
        let mut refused = false;
        for appeal in self.appeals.list().await? {
            if appeal.table == *table
                && matches!(appeal.kind, AppealKind::ChunkRefused { chunk: of, .. } if of == chunk.0)
            {
                refused = true;
                self.appeals.settle(&appeal).await?;
            }
        }
        Ok(refused)
    }

    /// Every request there is.
    pub async fn appeals(&self) -> Result<Vec<Appeal>, SeedError> {
        Ok(self.appeals.list().await?)
    }

    pub async fn settle(&self, appeal: &Appeal) -> Result<(), SeedError> {
        Ok(self.appeals.settle(appeal).await?)
    }

    pub fn report(&self, report: Report) {
        // The supervisor is gone only while the process shuts down.
        let _ = self.reports.send(report);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<TableId, PublishNumber>> {
        self.begun.lock().expect("no code panics while holding it")
    }
}

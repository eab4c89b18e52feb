//! How far the load of a table is, for people: told by its plan and by the table's own commits, with the service running or
//! stopped.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use weir_model::{TableId, clock};

use super::LoadFigures;
use super::plan::SeedPlan;
use crate::error::Error;
use crate::figures::LoadStands;
use crate::state::StateSeries;
use crate::table::{BucketShare, SeedProgress, TableState, Warehouse};

/// A load that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadStanding {
    /// It is of a part of the table, which goes on streaming.
    pub part: bool,
    pub chunks: u64,
    /// Of a table that several processes share, those that the bucket has taken in that is furthest behind.
    pub chunks_done: u64,
    /// By the engine's statistics.
    pub rows_estimated: u64,
    /// At the mean rate since it was planned, interruptions included; none before the first chunk is in.
    pub seconds_left: Option<u64>,
}

/// The load of `table`, if its newest commit says that one is under way.
///
/// # Errors
/// When the warehouse cannot be read.
pub async fn load_standing(
    warehouse: &Warehouse,
    source: &str,
    table: &TableId,
    state: &TableState,
) -> Result<Option<LoadStanding>, Error> {
    let Some(seed) = under_way(state) else { return Ok(None) };
    let folder = warehouse.state_path(source).join("plans").join(&*table.to_string());
    let plans = StateSeries::new(warehouse.store().clone(), folder);
    let Some(bytes) = plans.read(seed.plan).await? else { return Ok(None) };
    let Ok(plan) = serde_json::from_slice::<SeedPlan>(&bytes) else { return Ok(None) };
    let (chunks, done) = (plan.chunks.len() as u64, seed.done.len() as u64);
    Ok(Some(LoadStanding {
        part: seed.part,
        chunks,
        chunks_done: done,
        rows_estimated: plan.rows_estimated,
        seconds_left: seconds_left(chunks, done, clock::now_ms() - plan.begun_ms),
    }))
}

/// A load that this process carries out, once it has a plan.
pub fn stands(part: bool, figures: &LoadFigures) -> Option<LoadStands> {
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let (chunks, chunks_done) = (count(&figures.chunks), count(&figures.chunks_done));
    let elapsed_ms = clock::now_ms() - figures.begun_ms.load(Ordering::Relaxed);
    (chunks > 0).then(|| LoadStands {
        part,
        chunks,
        chunks_done,
        rows_estimated: count(&figures.rows_estimated),
        seconds_left: seconds_left(chunks, chunks_done, elapsed_ms),
    })
}

/// The load in the table, or in that of its buckets which is furthest behind.
fn under_way(state: &TableState) -> Option<&SeedProgress> {
    let of_share = |share: &'_ BucketShare| share.seed.is_some();
    if !state.shares.iter().any(of_share) {
        return state.seed.as_ref();
    }
    state.shares.iter().filter_map(|share| share.seed.as_ref()).min_by_key(|seed| seed.done.len())
}

fn seconds_left(chunks: u64, done: u64, elapsed_ms: i64) -> Option<u64> {
    let elapsed_s = u64::try_from(elapsed_ms).ok()? / 1_000;
    (done > 0).then(|| elapsed_s * chunks.saturating_sub(done) / done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_a_chunk_as_what_is_done() {
        assert_eq!(seconds_left(64, 16, 30_000), Some(90));
        assert_eq!(seconds_left(64, 64, 30_000), Some(0));
        assert_eq!(seconds_left(64, 0, 30_000), None);
        // A plan of another clock.
        assert_eq!(seconds_left(64, 1, -5), None);
    }

    #[test]
    fn of_a_shared_table_the_slowest_bucket_counts() {
        let share = |done: Vec<u32>| {
            let seed = Some(SeedProgress { plan: 3, done, ..SeedProgress::default() });
            BucketShare { seed, ..BucketShare::default() }
        };
        let state = TableState { shares: vec![share(vec![0, 1]), share(vec![0])], ..TableState::default() };
        assert_eq!(under_way(&state).map(|seed| seed.done.len()), Some(1));
        assert_eq!(under_way(&TableState::default()), None);
    }
}

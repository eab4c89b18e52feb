//! Whether a lake table holds what the source had executed at a moment, by its commits, the checkpoint, and Kafka's position.

use std::time::Duration;

use tokio::time::Instant;
use weir_model::{GtidSet, TableId, clock};

use super::{DeepError, DeepQuestion};
use crate::limits::RECONCILE_POLL;
use crate::reconcile::gather::place;
use crate::reconcile::report::Reach;
use crate::state::CheckpointLog;
use crate::table::history;
use crate::transport::PublishNumber;
use crate::transport::kafka::publisher;

/// Waits until `table` holds `executed`, as long as a service may bring it on and for `wait_max` at most; gives how far it is.
///
/// # Errors
/// When the warehouse or Kafka cannot be reached.
pub async fn reach(
    question: &DeepQuestion,
    table: &TableId,
    executed: &GtidSet,
    wait_max: Duration,
) -> Result<Reach, DeepError> {
    let state = question.warehouse.state_path(&question.source);
    let mut checkpoints = CheckpointLog::new(question.warehouse.store().clone(), state);
    let deadline = Instant::now() + wait_max;
    loop {
        let checkpoint = checkpoints.read().await?.unwrap_or_default();
        let state = history::figures(&question.warehouse, table).await?.and_then(|figures| figures.state);
        let mut reach = place(table, &checkpoint, state.as_ref(), Some(executed), None).reach;
        if let (Reach::Behind(_), Some(kafka)) = (&reach, &question.kafka) {
            // The checkpoint follows the position some seconds behind.
            let (position, _) = publisher::look(kafka, PublishNumber(u64::MAX)).await?;
            reach = place(table, &checkpoint, state.as_ref(), Some(executed), Some(&position)).reach;
        }
        let may_come = matches!(reach, Reach::Behind(_) | Reach::Partial) && checkpoint.is_live(clock::now_ms());
        if !may_come || Instant::now() >= deadline {
            return Ok(reach);
        }
        tokio::time::sleep(RECONCILE_POLL).await;
    }
}

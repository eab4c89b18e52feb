//! What is done for the trace beside shipping, now and then in the background and never in the stream's way: it is given the
//! repairs that it lacks.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;
use weir_model::clock;

use crate::config::Config;
use crate::error::Error;
use crate::limits::{REPAIRS_KEPT, REPAIRS_KEPT_MIN, REPAIRS_LOOKED_AT_EVERY};
use crate::reconcile::repairs::ship_repairs;
use crate::state::RepairStore;
use crate::table::Warehouse;
use crate::trace::TraceSink;

/// Looks after the trace of a source until the handle is dropped. A trace that is away is looked after later.
pub fn look_after_trace<T: TraceSink + 'static>(
    sink: Arc<T>,
    config: &Config,
    warehouse: &Warehouse,
) -> AbortOnDropHandle<()> {
    let source = config.source.name.clone();
    let repairs = RepairStore::new(warehouse.store().clone(), warehouse.state_path(&source));
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            if let Err(error) = note_repairs(&*sink, &source, &repairs).await {
                tracing::debug!(error = %error.in_a_line(), "repairs are noted in the trace later");
            }
            tokio::time::sleep(REPAIRS_LOOKED_AT_EVERY).await;
        }
    }))
}

/// Notes what the trace lacks, and only then forgets what is old.
async fn note_repairs<T: TraceSink>(sink: &T, source: &str, repairs: &RepairStore) -> Result<(), Error> {
    ship_repairs(sink, source, repairs).await?;
    let kept_ms = i64::try_from(REPAIRS_KEPT.as_millis()).unwrap_or(i64::MAX);
    repairs.forget_old(REPAIRS_KEPT_MIN, clock::now_ms().saturating_sub(kept_ms)).await?;
    Ok(())
}

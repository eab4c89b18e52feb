//! What is done for the trace beside shipping, now and then in the background and never in the stream's way: it is given the
//! repairs that it lacks, minutes that add up are folded into days, and days that are too old go.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use weir_model::{Window, clock};

use super::ms;
use crate::config::{Config, Trace};
use crate::error::Error;
use crate::limits::{REPAIRS_KEPT, REPAIRS_KEPT_MIN, REPAIRS_LOOKED_AT_EVERY, TRACE_FOLD_AFTER, TRACE_FOLD_EVERY};
use crate::reconcile::accounts::adds_up;
use crate::reconcile::repairs::ship_repairs;
use crate::state::RepairStore;
use crate::table::Warehouse;
use crate::trace::{TraceError, TraceSink};

/// Looks after the trace of a source until the handle is dropped. A trace that is away is looked after later.
pub fn look_after_trace<T: TraceSink + 'static>(
    sink: Arc<T>,
    config: &Config,
    warehouse: &Warehouse,
) -> AbortOnDropHandle<()> {
    let source = config.source.name.clone();
    let repairs = RepairStore::new(warehouse.store().clone(), warehouse.state_path(&source));
    let trace = config.trace.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut folded_at: Option<Instant> = None;
        loop {
            if let Err(error) = note_repairs(&*sink, &source, &repairs).await {
                tracing::debug!(error = %error.in_a_line(), "repairs are noted in the trace later");
            }
            if folded_at.is_none_or(|at| at.elapsed() >= TRACE_FOLD_EVERY) {
                folded_at = Some(Instant::now());
                if let Err(error) = fold(&*sink, &source, &trace).await {
                    tracing::debug!(%error, "the trace is folded later");
                }
            }
            tokio::time::sleep(REPAIRS_LOOKED_AT_EVERY).await;
        }
    }))
}

/// Folds what is old enough, and removes what is too old.
async fn fold<T: TraceSink>(sink: &T, source: &str, trace: &Trace) -> Result<(), TraceError> {
    let now_ms = clock::now_ms();
    let folded = sink.fold(source, Window::of(now_ms.saturating_sub(ms(TRACE_FOLD_AFTER))), adds_up).await?;
    tracing::debug!(folded, "the trace is folded");
    match trace.expired_before(now_ms) {
        Some(before_ms) => sink.expire(source, Window::of(before_ms)).await,
        None => Ok(()),
    }
}

/// Notes what the trace lacks, and only then forgets what is old.
async fn note_repairs<T: TraceSink>(sink: &T, source: &str, repairs: &RepairStore) -> Result<(), Error> {
    ship_repairs(sink, source, repairs).await?;
    repairs.forget_old(REPAIRS_KEPT_MIN, clock::now_ms().saturating_sub(ms(REPAIRS_KEPT))).await?;
    Ok(())
}

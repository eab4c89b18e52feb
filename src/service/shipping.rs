//! Brings the accounts of commits to the trace, in order and without making the stream wait.
//!
//! What could not be shipped stays in the tables' commits and is shipped at the next start.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use weir_model::TableId;

use crate::table::{self, Warehouse};
use crate::trace::{StageCount, TraceError, TraceSink};

/// The accounts of one commit.
#[derive(Debug)]
pub struct Shipment {
    pub table: TableId,
    pub version: i64,
    /// When it was committed, ms since the epoch.
    pub at_ms: i64,
    pub accounts: Vec<StageCount>,
}

/// Ships in a task of its own.
pub struct Shipper {
    queue: Option<mpsc::UnboundedSender<Shipment>>,
    task: Option<JoinHandle<Result<(), TraceError>>>,
}

impl Shipper {
    pub fn start<T: TraceSink + Send + Sync + 'static>(sink: Arc<T>, source: String) -> Self {
        let (queue, mut shipments) = mpsc::unbounded_channel::<Shipment>();
        let task = tokio::spawn(async move {
            let mut result = Ok(());
            while let Some(shipment) = shipments.recv().await {
                if result.is_ok() {
                    result = ship(&*sink, &source, &shipment).await;
                    if let Err(error) = &result {
                        tracing::warn!(%error, "the trace is behind; it is caught up from the tables' commits at the next start");
                    }
                }
            }
            result
        });
        Self { queue: Some(queue), task: Some(task) }
    }

    pub fn send(&self, shipment: Shipment) {
        if let Some(queue) = &self.queue {
            // The task ends only after the queue is closed.
            let _ = queue.send(shipment);
        }
    }

    /// Waits until everything sent is in the trace.
    pub async fn finish(&mut self) -> Result<(), TraceError> {
        self.queue = None;
        match self.task.take() {
            Some(task) => task.await.expect("shipping does not panic and is not aborted"),
            None => Ok(()),
        }
    }
}

async fn ship<T: TraceSink>(sink: &T, source: &str, shipment: &Shipment) -> Result<(), TraceError> {
    let backoff = backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .with_max_times(5);
    let once = || sink.ship(source, &shipment.table, shipment.version, shipment.at_ms, &shipment.accounts);
    backon::Retryable::retry(once, backoff).sleep(tokio::time::sleep).await
}

/// Ships every commit of `tables` that the trace does not have, from the tables' own logs.
pub async fn catch_up<T: TraceSink>(
    sink: &T,
    source: &str,
    warehouse: &Warehouse,
    tables: &[TableId],
) -> Result<u64, crate::error::Error> {
    let mut shipped = 0;
    for table in tables {
        let after = sink.shipped_version(source, table).await?;
        for commit in table::history::commits_since(warehouse, table, after).await? {
            if let Some(record) = commit.record {
                let shipment = Shipment {
                    table: table.clone(),
                    version: commit.version,
                    at_ms: commit.at_ms,
                    accounts: record.accounts,
                };
                ship(sink, source, &shipment).await?;
                shipped += 1;
            }
        }
    }
    Ok(shipped)
}

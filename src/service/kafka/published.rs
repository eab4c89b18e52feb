//! What capture counted, read again from the position topic for a trace that lacks it.

use futures::future::BoxFuture;

use crate::error::Error;
use crate::service::shipping::PublishedLog;
use crate::trace::{Origin, Shipment};
use crate::transport::PublishNumber;
use crate::transport::kafka::{KafkaSettings, publisher};

/// The position topic as the trace's source.
#[derive(Debug, Clone)]
pub struct PositionLog(pub KafkaSettings);

impl PublishedLog for PositionLog {
    fn next(&self, after: Option<i64>, records_max: usize) -> BoxFuture<'_, Result<Vec<Shipment>, Error>> {
        Box::pin(async move {
            let after = PublishNumber(after.unwrap_or(0).max(0) as u64);
            let (_, counted) = publisher::look(&self.0, after).await?;
            let shipment = |(number, at_ms, counts): (PublishNumber, _, _)| Shipment {
                origin: Origin::Capture,
                version: number.0 as i64,
                at_ms,
                counts,
            };
            Ok(counted.into_iter().take(records_max).map(shipment).collect())
        })
    }
}

//! What capture counted, read again from the position topic for a trace that lacks it.

use futures::future::BoxFuture;

use crate::error::Error;
use crate::service::shipping::{PublishedLog, PublishedPage};
use crate::trace::{Origin, Shipment};
use crate::transport::PublishNumber;
use crate::transport::kafka::{KafkaSettings, publisher};

/// The position topic as the trace's source.
#[derive(Debug, Clone)]
pub struct PositionLog(pub KafkaSettings);

impl PublishedLog for PositionLog {
    fn next(&self, after: Option<i64>, records_max: usize) -> BoxFuture<'_, Result<PublishedPage, Error>> {
        Box::pin(async move {
            let after = PublishNumber(after.unwrap_or(0).max(0) as u64);
            let (position, counted) = publisher::look(&self.0, after).await?;
            let shipment = |(number, at_ms, counts): (PublishNumber, _, _)| Shipment {
                origin: Origin::Capture,
                version: number.0 as i64,
                at_ms,
                counts,
            };
            let is_all = counted.len() <= records_max;
            let records: Vec<Shipment> = counted.into_iter().take(records_max).map(shipment).collect();
            let reached = match is_all {
                true => (!position.is_new()).then_some(position.publish.0 as i64),
                false => records.last().map(|record| record.version),
            };
            Ok(PublishedPage { records, reached, is_all })
        })
    }
}

//! What capture says it has published, for a source whose changes travel over Kafka.

use std::collections::BTreeSet;

use weir_model::{TableId, Window};

use crate::error::Error;
use crate::limits::TRACE_BATCH_MAX;
use crate::table::TableState;
use crate::trace::{Origin, Shipment, TraceSink};
use crate::transport::PublishNumber;
use crate::transport::kafka::position::Position;
use crate::transport::kafka::publisher::{self, Counted};
use crate::transport::kafka::{KafkaSettings, Topics, TransportError};

/// Reads the position topic, and ships to `sink` what capture counted and the trace lacks.
///
/// # Errors
/// When Kafka or the trace cannot be reached.
pub async fn ship_counted<T: TraceSink>(settings: &KafkaSettings, source: &str, sink: &T) -> Result<Position, Error> {
    let mark = sink.shipped_version(source, &Origin::Capture).await?.unwrap_or(0);
    let (position, counted) = look(settings, PublishNumber(mark.max(0) as u64)).await?;
    let shipments: Vec<Shipment> = counted
        .into_iter()
        .map(|(number, at_ms, counts)| Shipment { origin: Origin::Capture, version: number.0 as i64, at_ms, counts })
        .collect();
    for page in shipments.chunks(TRACE_BATCH_MAX) {
        sink.ship(source, page).await?;
    }
    Ok(position)
}

/// Windows in which publishes have changes that a table may not have consumed yet: what was, cannot be compared there.
#[derive(Debug)]
pub struct OpenWindows {
    counted: Counted,
}

impl OpenWindows {
    /// Reads what was counted behind the last publish that each of `tables` holds whole.
    pub async fn read(settings: &KafkaSettings, least: PublishNumber) -> Result<Self, Error> {
        Ok(Self { counted: look(settings, least).await?.1 })
    }

    /// Those of `table`, which holds everything up to `whole`.
    pub fn of(&self, table: &TableId, whole: PublishNumber) -> BTreeSet<Window> {
        let behind = self.counted.iter().filter(|(number, _, _)| *number > whole);
        let counts = behind.flat_map(|(_, _, counts)| counts);
        counts.filter(|(of, _)| of == table).map(|(_, count)| count.window).collect()
    }
}

/// The last publish up to which a table certainly has everything: that of `position` if it covers it, else what its
/// slowest bucket has taken in.
pub fn whole(state: Option<&TableState>, table: &TableId, position: &Position) -> PublishNumber {
    if covers(state, table, position) {
        return position.publish;
    }
    let shares = state.map(|state| state.shares.as_slice()).unwrap_or_default();
    PublishNumber(shares.iter().map(|share| share.publish).min().unwrap_or(0)).min(position.publish)
}

async fn look(settings: &KafkaSettings, after: PublishNumber) -> Result<(Position, Counted), TransportError> {
    publisher::look(settings, after).await
}

/// Whether a table has taken in everything that `position` says was written for it.
pub fn covers(state: Option<&TableState>, table: &TableId, position: &Position) -> bool {
    let Some(ends) = position.ends.get(table) else { return true };
    let Some(state) = state else { return ends.is_empty() };
    let topic = position.tables.get(table).map(|known| &*known.topic);
    ends.iter().all(|(bucket, end)| {
        state.shares.get(*bucket as usize).is_some_and(|share| share.offset > *end && Some(&*share.topic) == topic)
    })
}

/// A bucket that has yet to take in what was written of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lagging {
    bucket: u32,
    /// The offset it goes on at.
    at: i64,
    /// The last that was written.
    end: i64,
}

/// The buckets of a table that lag behind `position`. Of a topic that was made anew nothing is said.
pub fn lagging(state: Option<&TableState>, table: &TableId, position: &Position) -> Vec<Lagging> {
    let topic = position.tables.get(table).map(|known| &*known.topic);
    let at = |bucket: u32| {
        let share = state.and_then(|state| state.shares.get(bucket as usize));
        share.filter(|share| Some(&*share.topic) == topic).map(|share| share.offset)
    };
    let ends = position.ends.get(table).into_iter().flatten();
    let lagging = ends.filter_map(|(bucket, end)| Some(Lagging { bucket: *bucket, at: at(*bucket)?, end: *end }));
    lagging.filter(|lagging| lagging.at <= lagging.end).collect()
}

/// Why what a table has yet to take in cannot come any more: it is not in its topic. None if it is.
pub async fn lost(
    topics: &Topics,
    settings: &KafkaSettings,
    table: &TableId,
    lagging: &[Lagging],
) -> Result<Option<String>, Error> {
    if lagging.is_empty() {
        return Ok(None);
    }
    let topic = settings.table_topic(table);
    if topics.partitions_of(&topic).await?.is_none() {
        return Ok(Some(format!("topic {topic} is gone, and with it what the table has not taken in")));
    }
    for Lagging { bucket, at, end } in lagging {
        let (low, _) = topics.watermarks(&topic, *bucket).await?;
        if low > *at || !topics.holds(&topic, *bucket, *end).await? {
            return Ok(Some(format!(
                "topic {topic}, partition {bucket}: of what was written from offset {at} to {end} not all is there any more, \
                 and the table has not taken it in"
            )));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weir_model::GtidSet;

    use super::*;
    use crate::state::{Phase, TableStanding};
    use crate::table::BucketShare;
    use crate::transport::kafka::position::TopicStanding;

    #[test]
    fn a_table_covers_a_position_with_every_bucket_and_in_its_own_topic() {
        let table = TableId::new("shop", "orders");
        let standing = TableStanding::new(Phase::Streaming, GtidSet::default(), None);
        let known = TopicStanding { standing, topic: "t".into(), partitions: 2 };
        let position = Position {
            ends: BTreeMap::from([(table.clone(), BTreeMap::from([(0, 4), (1, 7)]))]),
            tables: BTreeMap::from([(table.clone(), known)]),
            ..Position::default()
        };
        let state = |topic: &str, offsets: [i64; 2]| TableState {
            shares: offsets
                .map(|offset| BucketShare { topic: topic.into(), offset, ..BucketShare::default() })
                .to_vec(),
            ..TableState::default()
        };
        assert!(covers(Some(&state("t", [5, 8])), &table, &position));
        assert!(!covers(Some(&state("t", [5, 7])), &table, &position));
        assert!(!covers(Some(&state("u", [5, 8])), &table, &position));
        assert!(!covers(None, &table, &position));
        assert!(covers(None, &TableId::new("shop", "idle"), &position));
        let behind = vec![Lagging { bucket: 1, at: 7, end: 7 }];
        assert_eq!(lagging(Some(&state("t", [5, 7])), &table, &position), behind);
        assert_eq!(lagging(Some(&state("t", [5, 8])), &table, &position), []);
        // Nobody knows what of it another topic of the name holds.
        assert_eq!(lagging(Some(&state("u", [0, 0])), &table, &position), []);
    }
}

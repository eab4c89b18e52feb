//! The position topic: one record a publish, durable together with its batches. Pure.
//!
//! A record says what has changed since the one before, and now and then everything, so that a start reads from the
//! newest full one and older ones can go. Folded, they are the [`Position`] that capture goes on from.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_model::{Gtid, GtidSet, LogPosition, OrderState, TableId};

use crate::format::{self, Format};
use crate::state::{LastTransaction, TableStanding};
use crate::trace::StageCount;
use crate::transport::{Boundary, PublishNumber};

/// Version of the records; a greater one is refused.
pub const FORMAT: Format = Format(1);

/// One record of the position topic, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PositionRecord {
    pub format: Format,
    pub source: String,
    /// Epoch of the service that wrote it.
    pub epoch: u64,
    /// Epoch of the service that this history was begun by.
    #[serde(default)]
    pub begun: u64,
    pub publish: u64,
    /// Ms since the epoch by the writer's clock.
    pub at_ms: i64,
    /// Everything in the set has been published.
    pub gtid_set: GtidSet,
    /// A transaction of which a part has been published, and how many row changes of each table that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<Gtid>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partial_rows: BTreeMap<TableId, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastTransaction>,
    pub log: LogPosition,
    /// The greatest order handed out.
    pub order: OrderState,
    /// `tables` are all there are, and not only those that have changed.
    pub full: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<TableId, TopicStanding>,
    /// Last offset that was written of each partition of a table's topic.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ends: BTreeMap<TableId, BTreeMap<u32, i64>>,
    /// What capture counted in this publish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<(TableId, StageCount)>,
}

/// A table as capture knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicStanding {
    #[serde(flatten)]
    pub standing: TableStanding,
    /// Incarnation of its topic: a topic that somebody deleted and made again has none of ours.
    pub topic: Arc<str>,
    /// Buckets of the table, fixed when the topic was made.
    pub partitions: u32,
}

/// A position topic that cannot be gone on from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    #[error("record {offset} has format {format}; this version of weir knows {FORMAT}")]
    Format { offset: i64, format: Format },
    #[error("record {offset} cannot be read: {why}")]
    Unreadable { offset: i64, why: String },
    #[error("record {offset} is of source `{theirs}`, not of `{ours}`")]
    OtherSource { offset: i64, ours: String, theirs: String },
    #[error("record {offset} breaks a rule: {rule}")]
    Rule { offset: i64, rule: &'static str },
    #[error("the oldest record, {offset}, is not a full one: what came before it has been deleted")]
    NotWhole { offset: i64 },
}

/// What the records say, folded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Position {
    pub epoch: u64,
    /// Epoch of the service that this history was begun by.
    pub begun: u64,
    pub publish: PublishNumber,
    pub boundary: Boundary,
    pub partial_rows: BTreeMap<TableId, u64>,
    pub order: OrderState,
    pub tables: BTreeMap<TableId, TopicStanding>,
    pub ends: BTreeMap<TableId, BTreeMap<u32, i64>>,
    /// Offset of the newest record; none before the first.
    pub newest: Option<i64>,
    /// Offset and publish of the newest full one.
    pub newest_full: Option<(i64, PublishNumber)>,
}

impl PositionRecord {
    /// The record that lies at `offset`.
    ///
    /// # Errors
    /// When a newer version wrote it, or it is none.
    pub fn read(offset: i64, bytes: &[u8]) -> Result<Self, PositionError> {
        if let Some(format) = format::newer(bytes, FORMAT) {
            return Err(PositionError::Format { offset, format });
        }
        serde_json::from_slice(bytes).map_err(|error| PositionError::Unreadable { offset, why: error.to_string() })
    }
}

impl Position {
    /// Takes in the record at `offset`; records come in ascending order.
    ///
    /// # Errors
    /// When it is not one that may follow.
    pub fn fold(&mut self, source: &str, offset: i64, record: &PositionRecord) -> Result<(), PositionError> {
        if record.source != source {
            let (ours, theirs) = (source.to_owned(), record.source.clone());
            return Err(PositionError::OtherSource { offset, ours, theirs });
        }
        if self.newest.is_none() && !record.full {
            return Err(PositionError::NotWhole { offset });
        }
        may_follow(self, record).map_err(|rule| PositionError::Rule { offset, rule })?;
        self.epoch = record.epoch;
        self.begun = record.begun;
        self.publish = PublishNumber(record.publish);
        self.boundary = Boundary {
            gtid_set: record.gtid_set.clone(),
            partial: record.partial.clone(),
            last: record.last.clone(),
            log: record.log.clone(),
        };
        self.partial_rows = record.partial_rows.clone();
        self.order = record.order;
        if record.full {
            self.tables.clear();
            self.ends.clear();
            self.newest_full = Some((offset, PublishNumber(record.publish)));
        }
        self.tables.extend(record.tables.clone());
        for (table, ends) in &record.ends {
            self.ends.entry(table.clone()).or_default().extend(ends);
        }
        self.newest = Some(offset);
        Ok(())
    }

    /// Whether no publish was ever made: the source is seen for the first time.
    pub fn is_new(&self) -> bool {
        self.newest.is_none()
    }
}

/// What holds between a record and those before it: nothing that was published is taken back, and no order or number
/// is given twice. A full record that begins anew (`restart`: fewer transactions) is allowed only from a greater epoch.
fn may_follow(before: &Position, record: &PositionRecord) -> Result<(), &'static str> {
    if before.is_new() {
        return Ok(());
    }
    if record.epoch < before.epoch {
        return Err("the epoch fell");
    }
    if record.publish <= before.publish.0 {
        return Err("publishes are numbered upwards");
    }
    if record.order < before.order {
        return Err("the order fell");
    }
    let restarts = record.full && record.epoch > before.epoch;
    if !restarts && !before.boundary.gtid_set.is_subset(&record.gtid_set) {
        return Err("the set of transactions shrank");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir_model::Order;

    use super::*;
    use crate::state::Phase;

    fn record(publish: u64, to: u64, full: bool) -> PositionRecord {
        PositionRecord {
            format: FORMAT,
            source: "shop".into(),
            epoch: 1,
            begun: 1,
            publish,
            at_ms: 0,
            gtid_set: format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-{to}").parse().unwrap(),
            partial: None,
            partial_rows: BTreeMap::new(),
            last: None,
            log: LogPosition::default(),
            order: OrderState(Order::new(1, to as i64)),
            full,
            tables: BTreeMap::new(),
            ends: BTreeMap::new(),
            counts: Vec::new(),
        }
    }

    fn standing(phase: Phase) -> TopicStanding {
        let standing = TableStanding::new(phase, GtidSet::default(), None);
        TopicStanding { standing, topic: "t".into(), partitions: 4 }
    }

    #[test]
    fn records_fold_into_what_the_last_full_one_and_those_behind_it_say() {
        let (a, b) = (TableId::new("shop", "a"), TableId::new("shop", "b"));
        let mut position = Position::default();
        let mut first = record(1, 3, true);
        first.tables =
            BTreeMap::from([(a.clone(), standing(Phase::Streaming)), (b.clone(), standing(Phase::Streaming))]);
        first.ends = BTreeMap::from([(a.clone(), BTreeMap::from([(0, 5), (1, 7)]))]);
        position.fold("shop", 0, &first).unwrap();
        let mut second = record(2, 4, false);
        second.tables = BTreeMap::from([(b.clone(), standing(Phase::Filling { restart: true }))]);
        second.ends = BTreeMap::from([(a.clone(), BTreeMap::from([(1, 9)]))]);
        position.fold("shop", 2, &second).unwrap();
        assert_eq!(position.ends[&a], BTreeMap::from([(0, 5), (1, 9)]));
        assert_eq!(position.tables[&b].standing.phase, Phase::Filling { restart: true });
        assert_eq!(
            (position.newest, position.newest_full, position.publish),
            (Some(2), Some((0, PublishNumber(1))), PublishNumber(2))
        );
        let third = PositionRecord { tables: BTreeMap::from([(a, standing(Phase::Streaming))]), ..record(3, 4, true) };
        position.fold("shop", 4, &third).unwrap();
        assert_eq!(position.tables.len(), 1);
    }

    #[test]
    fn nothing_published_is_taken_back() {
        let mut position = Position::default();
        position.fold("shop", 0, &record(5, 9, true)).unwrap();
        for broken in [
            record(5, 9, false),
            record(6, 8, false),
            PositionRecord { order: OrderState(Order::new(0, 0)), ..record(6, 9, false) },
            PositionRecord { epoch: 0, ..record(6, 9, false) },
        ] {
            assert!(matches!(position.clone().fold("shop", 1, &broken), Err(PositionError::Rule { .. })), "{broken:?}");
        }
        let anew = PositionRecord { epoch: 2, order: OrderState(Order::new(1, 9)), ..record(6, 2, true) };
        assert_eq!(position.fold("shop", 1, &anew), Ok(()));
    }

    #[test]
    fn a_topic_whose_beginning_is_gone_is_not_gone_on_from() {
        let mut position = Position::default();
        assert_eq!(position.fold("shop", 7, &record(5, 9, false)), Err(PositionError::NotWhole { offset: 7 }));
    }

    #[test]
    fn a_record_of_a_newer_format_is_refused_whatever_it_looks_like() {
        let newer = br#"{"format": 2, "gtid_set": {"of": "another shape"}}"#;
        assert_eq!(PositionRecord::read(5, newer), Err(PositionError::Format { offset: 5, format: Format(2) }));
        assert!(matches!(PositionRecord::read(5, b"{"), Err(PositionError::Unreadable { offset: 5, .. })));
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut record = record(3, 8, true);
        record.tables.insert(TableId::new("shop", "a.b"), standing(Phase::Streaming));
        record.ends.insert(TableId::new("shop", "a.b"), BTreeMap::from([(3, 17)]));
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(PositionRecord::read(7, text.as_bytes()), Ok(record));
    }
}

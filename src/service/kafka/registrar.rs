//! Registers tables for a capture that opens none: whoever applies does.

use weir_model::{Gtid, GtidSet, OrderState, TableId};

use crate::capture::lane::{LaneKey, LaneStart};
use crate::capture::request::{Catalogued, Described, RegisterError, Registrar, Registration};
use crate::service::source_tables::{Asked, SourceTables};
use crate::transport::kafka::Topics;
use crate::transport::kafka::position::Position;

/// Describes a table, and sees to its topic.
pub struct TopicRegistrar {
    pub source: SourceTables,
    pub topics: Topics,
    /// Where capture went on from: the topics that there were.
    pub position: Position,
    /// Buckets of a new table.
    pub partitions: u32,
}

impl TopicRegistrar {
    /// Number of buckets that a table is made with.
    pub fn partitions_of(&self, table: &TableId) -> u32 {
        (self.source.settings)(table).buckets.unwrap_or(self.partitions)
    }
}

impl Registrar for TopicRegistrar {
    async fn register(&self, table: &TableId, start: &GtidSet) -> Result<Registration, RegisterError> {
        let (description, schema, catalogued) = match self.source.ask(table).await? {
            Asked::Found(description, schema, catalogued) => (description, schema, catalogued),
            Asked::Gone => return Ok(Registration::Gone),
            Asked::Refused(why) => return Ok(Registration::Refused(why)),
        };
        // Columns of a table that is there already may have gone since.
        if !self.position.tables.contains_key(table)
            && let Err(why) = schema.check_partitions_begin()
        {
            return Ok(Registration::Refused(why));
        }
        // One that was lost stays so until it is asked for, whatever statement makes the table appear again.
        match self.topics.lost(table, &self.position).await {
            Ok(None) => {}
            Ok(Some(what)) => {
                return Ok(Registration::Refused(format!("{what}; load it anew with `weir snapshot --table {table}`")));
            }
            Err(error) => return Err(RegisterError(error.to_string())),
        }
        let topic = self.topics.ensure(table, self.partitions_of(table), &self.position).await;
        if let Err(error) = topic {
            return match error {
                crate::transport::kafka::TransportError::Topic { .. } => Ok(Registration::Refused(error.to_string())),
                other => Err(RegisterError(other.to_string())),
            };
        }
        let settings = (self.source.settings)(table);
        Ok(Registration::Lane(Box::new(LaneStart {
            gtid_set: start.clone(),
            partial: None,
            order: OrderState::default(),
            key: LaneKey::of(&description),
            zero_dates: settings.zero_dates,
            rules: settings.rules,
            catalogued,
            awaits_load: false,
        })))
    }

    async fn wait_until_visible(&self, gtid: &Gtid, tables: &[TableId]) -> Result<(), RegisterError> {
        self.source.wait_until_visible(gtid, tables).await
    }

    async fn catalogued(&self, table: &TableId) -> Result<Result<Option<Catalogued>, String>, RegisterError> {
        self.source.catalogued(table).await
    }

    async fn describe(&self, table: &TableId) -> Result<Described, RegisterError> {
        self.source.describe(table).await
    }
}

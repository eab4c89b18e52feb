//! One table's way through capture: decode, stamp, collect.

use std::sync::Arc;

use weir_model::change::Stamp;
use weir_model::evolution::{is_of_other_columns, is_other_key};
use weir_model::order::EventIds;
use weir_model::{
    BoundRules, ChangeBatch, ChangeBuilder, Column, Gtid, GtidSet, Half, Order, OrderState, RowRules, TableId,
    TableSchema, Window, ZeroDates,
};
use weir_mysql::{KeySource, TableDescription};

use super::request::Catalogued;
use crate::binlog::row::{RowDecoder, RowError};
use crate::binlog::{RowsImage, TableMap};
use crate::table::PartialTransaction;
use crate::trace::{Hop, Tally};
use crate::transport::Changes;

/// What capture must know of a table before it can decode its changes.
#[derive(Debug, Clone)]
pub struct LaneStart {
    /// Transactions that the table already holds.
    pub gtid_set: GtidSet,
    /// A transaction that it holds in part.
    pub partial: Option<PartialTransaction>,
    /// The last order handed out for it.
    pub order: OrderState,
    pub key: LaneKey,
    pub zero_dates: ZeroDates,
    /// What of its columns the lake gets.
    pub rules: RowRules,
    /// The table as the catalogue describes it, if the binlog may not.
    pub catalogued: Option<Box<Catalogued>>,
    /// Its changes are left out until a load begins.
    pub awaits_load: bool,
}

/// What rows of a table are told apart by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneKey {
    pub columns: Vec<Column>,
    /// It is the table's primary key, which the binlog may tell, too.
    pub is_primary: bool,
}

impl LaneKey {
    /// The key that the table is mirrored by.
    pub fn of(description: &TableDescription) -> Self {
        let TableDescription { schema, key_source, .. } = description;
        // A log keeps every change, whatever its rows are told apart by.
        let is_primary = *key_source == KeySource::Primary && !schema.layout.is_append();
        Self { columns: schema.key_columns(), is_primary }
    }

    fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }
}

/// One table that is captured.
#[derive(Debug)]
pub struct Lane {
    table: TableId,
    start: LaneStart,
    order: OrderState,
    plan: Option<Plan>,
    sealed: Vec<Changes>,
    sent: Tally,
    transaction: Option<OpenTransaction>,
    /// Raised by everything that makes chunks under way worthless.
    generation: u64,
}

#[derive(Debug)]
struct Plan {
    map: Arc<TableMap>,
    decoder: RowDecoder,
    builder: ChangeBuilder,
    rules: Option<BoundRules>,
}

/// A description that a statement has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outdated {
    /// Rows from before the statement may have been read by a description from behind it, which the catalogue gives to a stream
    /// that is behind; by this process or by one before it.
    pub was_ahead: bool,
}

/// The part of the transaction under way that concerns this table.
#[derive(Debug)]
struct OpenTransaction {
    gtid: Gtid,
    ids: EventIds,
    /// Row changes of this table so far, counted from the transaction's start.
    rows: u64,
}

/// What decoding needs to know of the transaction.
#[derive(Debug, Clone, Copy)]
pub struct TransactionTime<'a> {
    pub source: &'a str,
    pub gtid: &'a Gtid,
    /// The transaction that made the changes, which their ids are of: that of XA PREPARE, if `gtid` is an XA COMMIT.
    pub origin: &'a Gtid,
    /// Milliseconds since the epoch.
    pub event_ms: i64,
}

impl Lane {
    pub fn new(table: TableId, start: LaneStart) -> Self {
        let order = start.order;
        Self {
            table,
            start,
            order,
            plan: None,
            sealed: Vec::new(),
            sent: Tally::default(),
            transaction: None,
            generation: 0,
        }
    }

    /// Whether the table already holds all of the transaction.
    pub fn holds(&self, gtid: &Gtid) -> bool {
        self.start.gtid_set.contains(gtid)
    }

    /// Whether changes are left out: a load that is to begin brings what they came to.
    pub fn awaits_load(&self) -> bool {
        self.start.awaits_load
    }

    /// Whether a table of this key tells its rows by another one than before.
    pub fn has_other_key(&self, key: &[Column]) -> bool {
        is_other_key(&self.start.key.columns, key)
    }

    /// Rows are told apart by `key` from here on. What the source has executed by now is the next load's business, and so are
    /// all changes until that begins: the table cannot take them as it is.
    pub fn begin_anew(&mut self, key: LaneKey, executed: &GtidSet) {
        self.void_chunks();
        self.take_key(key);
        self.start.gtid_set = self.start.gtid_set.union(executed);
        self.start.catalogued = None;
        self.await_load();
    }

    /// Rows are told apart by `key` from here on.
    pub fn take_key(&mut self, key: LaneKey) {
        self.seal_builder();
        self.plan = None;
        self.start.key = key;
    }

    /// Changes are left out until a load begins.
    pub fn await_load(&mut self) {
        self.start.awaits_load = true;
    }

    /// A load has been announced.
    pub fn load_begins(&mut self) {
        self.start.awaits_load = false;
    }

    /// Transactions that the table held when its capture began.
    pub fn held(&self) -> &GtidSet {
        &self.start.gtid_set
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Chunks that were read before now are read again.
    pub fn void_chunks(&mut self) {
        self.generation += 1;
    }

    /// The last order handed out.
    pub fn last_order(&self) -> OrderState {
        self.order
    }

    /// An order above everything handed out before.
    pub fn next_order(&mut self, event_ms: i64) -> Order {
        self.order.assign(event_ms)
    }

    /// Whether rows of `map` cannot be read before [`Self::describe`].
    pub fn lacks_description(&self, map: &Arc<TableMap>) -> bool {
        let is_planned = self.plan.as_ref().is_some_and(|plan| Arc::ptr_eq(&plan.map, map));
        !is_planned && self.start.catalogued.is_none() && !map.is_complete()
    }

    /// Rows that the binlog does not describe are read so from here on.
    pub fn describe(&mut self, catalogued: Catalogued) {
        self.seal_builder();
        self.plan = None;
        self.start.catalogued = Some(Box::new(catalogued));
    }

    /// The table changes with transaction `gtid`: what the catalogue said of its columns holds no longer; `None` if it was not asked.
    pub fn columns_change(&mut self, gtid: &Gtid) -> Option<Outdated> {
        let catalogued = self.start.catalogued.take()?;
        self.seal_builder();
        self.plan = None;
        Some(Outdated { was_ahead: catalogued.executed.contains(gtid) })
    }

    /// Decodes one row event. Returns the bytes that it added, roughly.
    ///
    /// # Errors
    /// When a value or the table's shape cannot be understood; nothing of the event is kept then, and the lane must
    /// not be used again.
    pub fn decode(&mut self, image: &RowsImage, time: TransactionTime<'_>) -> Result<usize, RowError> {
        self.prepare(&image.map)?;
        let table = &self.table;
        let transaction = match &mut self.transaction {
            Some(open) if open.gtid == *time.gtid => open,
            slot => slot.insert(OpenTransaction {
                gtid: time.gtid.clone(),
                ids: EventIds::new(time.source, time.origin, table),
                rows: 0,
            }),
        };
        let already = self.start.partial.as_ref().filter(|p| p.gtid == *time.gtid).map_or(0, |p| p.rows_done);
        let skip = already.saturating_sub(transaction.rows);
        let plan = self.plan.as_mut().expect("prepared above");
        let (before, partial) = (plan.builder.bytes(), plan.builder.partial());
        let rows = plan.decoder.decode(image, skip, &mut plan.builder)?;
        let mut ordinal = transaction.rows + skip.min(rows);
        let (order, ids, sent) = (&mut self.order, transaction.ids, &mut self.sent);
        let window = Window::of(time.event_ms);
        let mut first_seen = false;
        plan.builder.stamp(|op, half| {
            // The second half belongs to the row change that its first half opened.
            if half == Half::First && std::mem::replace(&mut first_seen, true) {
                ordinal += 1;
            }
            let stamp = Stamp { order: order.assign(time.event_ms), id: ids.id(ordinal, half as u8), window };
            sent.event(Hop::Captured, op, window, stamp.id);
            stamp
        });
        if plan.builder.partial() > partial {
            plan.builder.note_partial_transaction(time.gtid);
        }
        transaction.rows += rows;
        Ok(plan.builder.bytes().saturating_sub(before))
    }

    /// Makes decoder and builder fit `map`, sealing what was built for another shape.
    fn prepare(&mut self, map: &Arc<TableMap>) -> Result<(), RowError> {
        if let Some(plan) = &self.plan {
            if Arc::ptr_eq(&plan.map, map) {
                return Ok(());
            }
            if *plan.map == **map {
                self.plan.as_mut().expect("just seen").map = map.clone();
                return Ok(());
            }
        }
        self.seal_builder();
        let completed = match &self.start.catalogued {
            Some(catalogued) if !map.is_complete() => Some(map.completed(&catalogued.description)?),
            _ => None,
        };
        let described = completed.as_ref().unwrap_or(map);
        let key = &self.start.key;
        // One that is gone may be needed as columns that are there, and are no key any more.
        if key.is_primary && map.is_complete() && is_of_other_columns(&key.columns, &map.schema(None)?.key_columns()) {
            return Err(RowError::OtherKey(self.table.clone()));
        }
        let schema: Arc<TableSchema> = Arc::new(described.schema(Some(&key.names()))?);
        let of_rules = |source| RowError::Rules { table: self.table.clone(), source };
        let rules = self.start.rules.bind(&schema).map_err(of_rules)?;
        let decoder = RowDecoder::new(described, schema.clone())?;
        let builder = ChangeBuilder::new(schema, self.start.zero_dates);
        self.plan = Some(Plan { map: map.clone(), decoder, builder, rules });
        Ok(())
    }

    fn seal_builder(&mut self) {
        let partial_rows = self.rows_in_transaction();
        let Some(plan) = &mut self.plan else { return };
        if plan.builder.is_empty() {
            return;
        }
        let decoded = plan.builder.finish();
        let batch = match &plan.rules {
            Some(rules) => rules.changes(decoded),
            None => decoded,
        };
        let mut sent = std::mem::take(&mut self.sent);
        count_published(&mut sent, &batch);
        self.sealed.push(Changes { batch, sent, partial_rows });
    }

    /// Everything collected since the last call, in order.
    pub fn seal(&mut self) -> Vec<Changes> {
        self.seal_builder();
        std::mem::take(&mut self.sealed)
    }

    /// The transaction is complete.
    pub fn end_transaction(&mut self) {
        self.transaction = None;
    }

    /// Forgets what was collected and not sealed, for a stream that is read again from the last publish. `partial` is
    /// what that publish sent of its partial transaction. Orders go on rising, so those that are lost leave a gap and
    /// none is given twice.
    pub fn rewind(&mut self, partial: Option<PartialTransaction>) {
        self.plan = None;
        self.sealed.clear();
        self.sent = Tally::default();
        self.transaction = None;
        if partial.is_some() {
            self.start.partial = partial;
        }
    }

    /// Row changes of the open transaction that the table has or has been sent: while a part that it holds is read
    /// again, that part and not the place in it.
    pub fn rows_in_transaction(&self) -> u64 {
        let Some(open) = &self.transaction else { return 0 };
        let held = self.start.partial.as_ref().filter(|partial| partial.gtid == open.gtid);
        open.rows.max(held.map_or(0, |partial| partial.rows_done))
    }
}

fn count_published(sent: &mut Tally, batch: &ChangeBatch) {
    for row in 0..batch.len() {
        sent.event(Hop::Published, batch.ops[row], batch.windows[row], batch.ids[row]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::{ColumnType, Layout};

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn lane() -> Lane {
        let columns = vec![Column { name: "id".into(), ty: ColumnType::Int32, nullable: false }];
        let table = TableId::new("shop", "orders");
        let schema = TableSchema { table: table.clone(), columns, key: vec![0], layout: Layout::default() };
        let executed = format!("{UUID}:1-5").parse().unwrap();
        let key = LaneKey { columns: schema.key_columns(), is_primary: true };
        let catalogued = Catalogued { description: TableDescription::plain(schema), executed };
        let start = LaneStart {
            gtid_set: GtidSet::default(),
            partial: None,
            order: OrderState::default(),
            key,
            zero_dates: ZeroDates::Null,
            rules: RowRules::default(),
            catalogued: Some(Box::new(catalogued)),
            awaits_load: false,
        };
        Lane::new(table, start)
    }

    #[test]
    fn a_description_ends_with_the_statement_that_changes_the_table() {
        let mut behind = lane();
        assert_eq!(behind.columns_change(&Gtid::new(UUID, "", 5)), Some(Outdated { was_ahead: true }));
        assert_eq!(behind.columns_change(&Gtid::new(UUID, "", 6)), None);
        assert_eq!(lane().columns_change(&Gtid::new(UUID, "", 6)), Some(Outdated { was_ahead: false }));
    }
}

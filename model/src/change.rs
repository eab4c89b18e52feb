//! Changes in columns: a batch of half-events of one table, and the builder that decoders fill.

use std::fmt;
use std::sync::Arc;

use arrow_array::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::column::{ColumnBuilder, ZeroDates};
use crate::image::{Images, PartialImage};
use crate::order::{EventId, Order};
use crate::position::Gtid;
use crate::schema::TableSchema;

/// What happened to a row. The one-letter names are those of reports and of append tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "char", into = "char")]
pub enum Op {
    /// `r`: read by a snapshot or a backfill.
    Read,
    /// `c`: inserted.
    Create,
    /// `u`: updated.
    Update,
    /// `d`: deleted.
    Delete,
}

impl Op {
    /// Every operation of the stream.
    pub const STREAM: [Self; 3] = [Self::Create, Self::Update, Self::Delete];
}

impl From<Op> for char {
    fn from(op: Op) -> char {
        match op {
            Op::Read => 'r',
            Op::Create => 'c',
            Op::Update => 'u',
            Op::Delete => 'd',
        }
    }
}

impl TryFrom<char> for Op {
    type Error = String;

    fn try_from(letter: char) -> Result<Self, String> {
        match letter {
            'r' => Ok(Self::Read),
            'c' => Ok(Self::Create),
            'u' => Ok(Self::Update),
            'd' => Ok(Self::Delete),
            other => Err(format!("`{other}` is not an operation (r, c, u, d)")),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", char::from(*self))
    }
}

/// Which half of a row change: a key-changing update is a delete of the old key and an insert of the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// The row change as a whole, or its first half.
    First,
    /// The insert of a key-changing update.
    Second,
}

/// A window of event time that accounts are kept by: its start in ms since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Window(pub i64);

impl Window {
    /// Length of every window.
    pub const LENGTH_MS: i64 = 60_000;

    /// The window that holds `event_ms`.
    pub fn of(event_ms: i64) -> Self {
        Self(event_ms.div_euclid(Self::LENGTH_MS) * Self::LENGTH_MS)
    }
}

/// Half-events of one table and one schema, in order.
#[derive(Debug, Clone)]
pub struct ChangeBatch {
    pub schema: Arc<TableSchema>,
    /// The source's columns: the new image, or for a delete the old one. NULL where `images` says that a column is left out.
    pub rows: RecordBatch,
    /// Which rows leave columns out.
    pub images: Images,
    /// As long as `rows`, like the three vectors below.
    pub ops: Vec<Op>,
    pub orders: Vec<Order>,
    pub ids: Vec<EventId>,
    pub windows: Vec<Window>,
}

impl ChangeBatch {
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.len() * META_BYTES + self.images.partial() * PARTIAL_BYTES
    }
}

/// What a row that leaves columns out is counted as besides: the whole row takes its place once it is applied, and how large
/// that is nobody knows before. A guess that is large for most tables.
const PARTIAL_BYTES: usize = 2 << 10;

/// Bytes of operation, order, id and window of one row.
const META_BYTES: usize = 1 + 16 + 16 + 8;

/// Identity and order of one half-event.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    pub order: Order,
    pub id: EventId,
    pub window: Window,
}

/// Collects decoded rows of one table, then their orders and ids, into a [`ChangeBatch`].
///
/// A decoder pushes every column of a row, then calls [`Self::end_row`]; the sequencer calls [`Self::stamp`] after
/// each decoded event.
#[derive(Debug)]
pub struct ChangeBuilder {
    schema: Arc<TableSchema>,
    columns: Vec<ColumnBuilder>,
    images: Images,
    ops: Vec<Op>,
    halves: Vec<Half>,
    orders: Vec<Order>,
    ids: Vec<EventId>,
    windows: Vec<Window>,
}

impl ChangeBuilder {
    pub fn new(schema: Arc<TableSchema>, zero_dates: ZeroDates) -> Self {
        let columns = schema.columns.iter().map(|c| ColumnBuilder::new(&c.ty, zero_dates)).collect();
        Self {
            schema,
            columns,
            images: Images::default(),
            ops: Vec::new(),
            halves: Vec::new(),
            orders: Vec::new(),
            ids: Vec::new(),
            windows: Vec::new(),
        }
    }

    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// One builder a column, in the schema's order.
    pub fn columns_mut(&mut self) -> &mut [ColumnBuilder] {
        &mut self.columns
    }

    /// Closes a row of which every column has been pushed.
    #[inline]
    pub fn end_row(&mut self, op: Op, half: Half) {
        self.ops.push(op);
        self.halves.push(half);
    }

    /// Closes a row that leaves columns out: NULL was pushed for those.
    pub fn end_partial_row(&mut self, op: Op, half: Half, image: PartialImage) {
        self.images.note(self.ops.len(), image);
        self.end_row(op, half);
    }

    /// Half-events so far that leave columns out.
    pub fn partial(&self) -> usize {
        self.images.partial()
    }

    /// The transaction that half-events which leave columns out belong to.
    pub fn note_partial_transaction(&mut self, gtid: &Gtid) {
        self.images.note_transaction(gtid);
    }

    /// Half-events so far.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes held so far, roughly.
    pub fn bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(ColumnBuilder::bytes).sum();
        columns + self.len() * META_BYTES + self.images.partial() * PARTIAL_BYTES
    }

    /// Gives every row decoded since the last call its order and id.
    pub fn stamp(&mut self, mut next: impl FnMut(Op, Half) -> Stamp) {
        for row in self.orders.len()..self.ops.len() {
            let stamp = next(self.ops[row], self.halves[row]);
            self.orders.push(stamp.order);
            self.ids.push(stamp.id);
            self.windows.push(stamp.window);
        }
    }

    /// The batch built so far; the builder is empty afterwards.
    ///
    /// # Panics
    /// If a row was decoded and not stamped, or a column was not pushed for every row.
    pub fn finish(&mut self) -> ChangeBatch {
        assert_eq!(self.orders.len(), self.ops.len(), "every decoded row is stamped before its batch is sealed");
        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        let rows = RecordBatch::try_new(self.schema.arrow(), arrays).expect("every column has one value a row");
        self.halves.clear();
        ChangeBatch {
            schema: self.schema.clone(),
            rows,
            images: std::mem::take(&mut self.images),
            ops: std::mem::take(&mut self.ops),
            orders: std::mem::take(&mut self.orders),
            ids: std::mem::take(&mut self.ids),
            windows: std::mem::take(&mut self.windows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, TableId};
    use crate::value::ColumnType;

    #[test]
    fn rows_and_their_stamps_leave_the_builder_together() {
        let schema = Arc::new(TableSchema {
            table: TableId::new("shop", "orders"),
            columns: vec![Column { name: "id".into(), ty: ColumnType::Int32, nullable: false }],
            key: vec![0],
            layout: crate::Layout::default(),
        });
        let mut builder = ChangeBuilder::new(schema, ZeroDates::Null);
        for id in 0..3 {
            builder.columns_mut()[0].push_int(id).unwrap();
            builder.end_row(Op::Create, Half::First);
        }
        let mut seq = 0;
        builder.stamp(|_, _| {
            seq += 1;
            Stamp { order: Order::new(1, seq), id: EventId(seq as u128), window: Window::of(61_000) }
        });
        let batch = builder.finish();
        assert_eq!((batch.len(), batch.rows.num_rows(), batch.orders[2].seq), (3, 3, 3));
        assert_eq!(batch.windows[0], Window(60_000));
        assert!(builder.is_empty());
    }
}

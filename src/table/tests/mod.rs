//! The table engine as a whole, against an object store in memory.

mod append;
mod buckets;
mod checkpoints;
mod chunks;
mod cleaning;
mod compaction;
mod crashes;
mod damage;
mod disk_index;
pub(super) mod ending;
mod family;
mod faults;
mod kept;
mod lifecycle;
mod model;
mod orders;
mod partitions;
mod reshape;
mod shared;
mod soft;
mod sound;
mod splitting;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{
    Array, ArrayRef, BooleanArray, Int16Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_cast::cast;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use weir_model::{Column, ColumnType, Order, OrderState, RecordKey, RecordKeys, TableId, TableSchema, Window};

use super::*;
use crate::trace::{Hop, StageCount};

/// What a table of [`schema`] holds: id → (order, text).
type Rows = BTreeMap<i64, (Order, Option<String>)>;

fn id() -> TableId {
    TableId::new("shop", "orders")
}

fn column(name: &str, ty: ColumnType) -> Column {
    Column { name: name.into(), ty, nullable: true }
}

fn schema() -> TableSchema {
    TableSchema {
        table: id(),
        columns: vec![column("id", ColumnType::Int64), column("text", ColumnType::Text)],
        key: vec![0],
        layout: weir_model::Layout::default(),
    }
}

/// The same table with a key of text and number, which goes by bytes.
fn composite_schema() -> TableSchema {
    let mut schema = schema();
    schema.columns.push(column("code", ColumnType::Text));
    schema.key = vec![2, 0];
    schema
}

fn in_memory() -> Warehouse {
    Warehouse::in_store(Arc::new(InMemory::new()))
}

fn writer(epoch: u64) -> Writer {
    Writer::new("shop", epoch)
}

/// Rows with the source's columns of `schema`, in its types: its first is the id, text is as given, the others follow from
/// the id.
fn source_rows(schema: &TableSchema, rows: &[(i64, &str)]) -> RecordBatch {
    let columns = schema.columns.iter().map(|column| -> ArrayRef {
        match column.name.as_str() {
            "id" => Arc::new(Int64Array::from_iter_values(rows.iter().map(|(id, _)| *id))),
            "text" => Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, text)| *text))),
            "part" => Arc::new(rows.iter().map(|(_, text)| part(text)).collect::<Int16Array>()),
            "at" => Arc::new(rows.iter().map(|(_, text)| moment(text)).collect::<TimestampMicrosecondArray>()),
            "code" => Arc::new(StringArray::from_iter_values(rows.iter().map(|(id, _)| code(*id)))),
            _ => Arc::new(Int64Array::from_iter_values(rows.iter().map(|(id, _)| id * 10))),
        }
    });
    let typed = columns.zip(&schema.columns).map(|(values, column)| cast(&values, &column.ty.arrow()).unwrap());
    RecordBatch::try_new(schema.arrow(), typed.collect()).unwrap()
}

fn code(id: i64) -> String {
    format!("c{}", id.rem_euclid(3))
}

/// A number that follows from a text, or NULL.
fn part(text: &str) -> Option<i16> {
    Some(weight(text) % 4).filter(|part| *part != 3).map(|part| part as i16)
}

/// A moment of one of three days that follows from a text, or NULL.
fn moment(text: &str) -> Option<i64> {
    let day = weight(text) / 4 % 4;
    (day != 3).then_some(i64::from(day) * 86_400_000_000 + 1)
}

fn weight(text: &str) -> u32 {
    text.parse().unwrap_or_else(|_| text.bytes().map(u32::from).sum())
}

fn record_key(schema: &TableSchema, id: i64) -> RecordKey {
    let rows = source_rows(schema, &[(id, "")]);
    RecordKeys::of(&rows, &schema.key_names()).unwrap().get(0).to_owned()
}

/// Changes of the stream: upserts and deletes, each with its order.
fn stream_change(table: &Table, upserts: &[(i64, Order, &str)], deletes: &[(i64, Order)]) -> TableChange {
    let schema = table.schema();
    let mut sorted = upserts.to_vec();
    if schema.layout.is_append() {
        sorted.sort_by_key(|(_, order, _)| *order);
    } else {
        sorted.sort_by_key(|(id, _, _)| record_key(schema, *id).as_ref().to_owned_bytes());
    }
    let texts: Vec<(i64, &str)> = sorted.iter().map(|(id, _, text)| (*id, *text)).collect();
    let mut columns = source_rows(schema, &texts).columns().to_vec();
    columns.extend(schema.made_columns(&columns, texts.len()).unwrap());
    columns.push(Arc::new(Int64Array::from_iter_values(sorted.iter().map(|(_, order, _)| order.ts_ms))));
    columns.push(Arc::new(Int64Array::from_iter_values(sorted.iter().map(|(_, order, _)| order.seq))));
    if schema.layout.is_append() {
        columns.push(Arc::new(StringArray::from(vec!["c"; sorted.len()])));
        columns.push(Arc::new(StringArray::from(vec!["change"; sorted.len()])));
    }
    if schema.layout.deletes_softly() {
        columns.push(Arc::new(BooleanArray::from(vec![false; sorted.len()])));
    }
    let rows = RecordBatch::try_new(schema.lake_arrow(), columns).unwrap();
    let is_keyed = !schema.layout.is_append();
    let keys = if is_keyed { RecordKeys::of(&rows, &schema.key_names()).unwrap() } else { RecordKeys::none() };
    let newest = upserts.iter().map(|(_, order, _)| *order).chain(deletes.iter().map(|(_, order)| *order)).max();
    let mut state = table.state().clone();
    raise(&mut state, newest.unwrap_or(Order::MIN));
    let deletes = deletes.iter().map(|(id, order)| (record_key(schema, *id), *order)).collect();
    TableChange { rows: vec![BucketRows { bucket: 0, rows, keys }], deletes, ..TableChange::to(state) }
}

/// `order` has been handed out, to the stream.
fn raise(state: &mut TableState, order: Order) {
    state.order = state.order.max(OrderState(order));
    match state.greatest.first_mut() {
        Some(greatest) => *greatest = order.max(*greatest),
        None => state.greatest.push(order),
    }
}

/// Of a table that is not sharded.
fn clear(at: Order) -> Clear {
    Clear { at, buckets: [0].into() }
}

fn below(order: Order) -> RemoveBelow {
    RemoveBelow { order, buckets: [0].into() }
}

/// Sorts as [`weir_model::key::KeyRef`] does.
trait SortableKey {
    fn to_owned_bytes(self) -> (i64, Vec<u8>);
}

impl SortableKey for weir_model::key::KeyRef<'_> {
    fn to_owned_bytes(self) -> (i64, Vec<u8>) {
        match self {
            Self::Int(value) => (value, Vec::new()),
            Self::Bytes(bytes) => (0, bytes.to_vec()),
        }
    }
}

async fn committed(table: &mut Table, change: TableChange) -> Vec<StageCount> {
    match table.commit(change).await.unwrap() {
        CommitOutcome::Committed { accounts, .. } => accounts,
        other => panic!("not committed: {other:?}"),
    }
}

async fn upsert(table: &mut Table, upserts: &[(i64, Order, &str)]) {
    let change = stream_change(table, upserts, &[]);
    committed(table, change).await;
}

async fn chunk(table: &Table, rows: &[(i64, &str)], order0: Order) -> Vec<StagedChunk> {
    let mut writer = ChunkWriter::create(table.files(), table.schema().clone(), order0, Window(0), 1).unwrap();
    for rows in rows.chunks(2) {
        writer.write(&source_rows(table.schema(), rows)).await.unwrap();
    }
    writer.finish().await.unwrap()
}

async fn merge(table: &mut Table, staged: Vec<StagedChunk>) -> Vec<StageCount> {
    let state = table.state().clone();
    committed(table, TableChange { staged, ..TableChange::to(state) }).await
}

/// An empty table whose load has begun.
async fn seeding(warehouse: &Warehouse) -> Table {
    let table = Table::create(warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    begin_seed(table).await
}

async fn begin_seed(mut table: Table) -> Table {
    begin_load(&mut table, 1, at(1)).await;
    table
}

async fn begin_load(table: &mut Table, plan: u64, start: Order) {
    let mut state = table.state().clone();
    raise(&mut state, start);
    state.seed = Some(SeedProgress { plan, done: Vec::new(), start, part: false });
    committed(table, TableChange::to(state)).await;
}

fn total(accounts: &[StageCount], hop: Hop) -> u64 {
    accounts.iter().filter(|count| count.hop == hop).map(|count| count.count).sum()
}

async fn open(warehouse: &Warehouse, epoch: u64) -> Table {
    Table::open(warehouse, &id(), writer(epoch), Buckets::whole()).await.unwrap().unwrap()
}

/// Live rows by the reader that is independent of the writer's index. A key that is there twice panics.
async fn scan(warehouse: &Warehouse, version: Option<i64>) -> Rows {
    let scan = Scan::open(warehouse, &id(), version, None).await.unwrap();
    let mut rows = Rows::new();
    scan.for_each(|batch| {
        let longs = |name: &str| {
            let values = cast(batch.column_by_name(name).unwrap(), &arrow_schema::DataType::Int64).unwrap();
            values.as_primitive::<Int64Type>().clone()
        };
        let (ids, ts, seq) = (longs("id"), longs("_weir_ts_ms"), longs("_weir_seq"));
        let texts = batch.column_by_name("text").unwrap().as_string::<i32>().clone();
        for row in 0..batch.num_rows() {
            let text = texts.is_valid(row).then(|| texts.value(row).to_owned());
            let order = Order::new(ts.value(row), seq.value(row));
            assert!(rows.insert(ids.value(row), (order, text)).is_none(), "two live rows of {}", ids.value(row));
        }
        Ok(())
    })
    .await
    .unwrap();
    rows
}

fn row(order: Order, text: &str) -> (Order, Option<String>) {
    (order, Some(text.to_owned()))
}

/// Paths of all objects of the warehouse.
async fn objects(store: &dyn ObjectStore) -> Vec<String> {
    use futures::TryStreamExt;
    store.list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap()
}

fn at(seq: i64) -> Order {
    Order::new(1_000 + seq / 10, seq)
}

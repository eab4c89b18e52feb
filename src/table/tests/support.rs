//! A small table of `(id, v)` and short ways to change and read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use object_store::memory::InMemory;
use weir_model::schema::{SEQ_COLUMN, TS_COLUMN};
use weir_model::{Column, ColumnType, Order, OrderState, RecordKey, RecordKeys, TableId, TableSchema, Window};

use crate::table::{
    ChunkWriter, CommitOutcome, Located, Scan, SeedProgress, StagedChunk, Table, TableChange, TableError, TableState,
    Warehouse, Writer,
};

pub fn id() -> TableId {
    TableId::new("shop", "orders")
}

pub fn column(name: &str, ty: ColumnType) -> Column {
    Column { name: name.into(), ty, nullable: true }
}

/// `id` is the record key, a BIGINT or, with `text_key`, a TEXT; the rest are texts.
pub fn schema_of(text_key: bool, texts: &[&str]) -> TableSchema {
    let key = if text_key { ColumnType::Text } else { ColumnType::Int64 };
    let mut columns = vec![column("id", key)];
    columns.extend(texts.iter().map(|name| column(name, ColumnType::Text)));
    TableSchema { table: id(), columns, key: vec![0] }
}

pub fn schema() -> TableSchema {
    schema_of(false, &["v"])
}

pub fn in_memory() -> Warehouse {
    Warehouse::in_store(Arc::new(InMemory::new()))
}

pub fn writer(epoch: u64) -> Writer {
    Writer { source: "shop".into(), epoch }
}

pub async fn create(warehouse: &Warehouse) -> Table {
    Table::create(warehouse, &schema(), writer(1), TableState::default()).await.unwrap()
}

pub async fn open(warehouse: &Warehouse, epoch: u64) -> Table {
    Table::open(warehouse, &id(), writer(epoch)).await.unwrap().unwrap()
}

/// The order with counter `seq`; its time has no say in these tests.
pub fn at(seq: i64) -> Order {
    Order::new(1_000, seq)
}

pub fn key_of(schema: &TableSchema, id: i64) -> RecordKey {
    RecordKeys::of(&source_rows(schema, &[id], 0), &["id"]).unwrap().get(0).to_owned()
}

/// Rows of the source's columns: each text is `<column>-<id>-<seq>`.
pub fn source_rows(schema: &TableSchema, ids: &[i64], seq: i64) -> RecordBatch {
    let columns = schema.columns.iter().map(|column| -> ArrayRef {
        match (column.name.as_str(), &column.ty) {
            ("id", ColumnType::Int64) => Arc::new(Int64Array::from(ids.to_vec())),
            ("id", _) => Arc::new(ids.iter().map(|id| Some(format!("k{id:03}"))).collect::<StringArray>()),
            (name, _) => Arc::new(ids.iter().map(|id| Some(format!("{name}-{id}-{seq}"))).collect::<StringArray>()),
        }
    });
    RecordBatch::try_new(schema.arrow(), columns.collect()).unwrap()
}

/// Rows of the lake table, one for each `(id, seq)`, ascending by id.
pub fn lake_rows(schema: &TableSchema, rows: &[(i64, i64)]) -> (RecordBatch, RecordKeys) {
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    let batches: Vec<RecordBatch> = rows.iter().map(|(id, seq)| source_rows(schema, &[*id], *seq)).collect();
    let source = arrow_select::concat::concat_batches(&schema.arrow(), &batches).unwrap();
    let mut columns = source.columns().to_vec();
    columns.push(Arc::new(rows.iter().map(|(_, seq)| at(*seq).ts_ms).collect::<Int64Array>()));
    columns.push(Arc::new(rows.iter().map(|(_, seq)| at(*seq).seq).collect::<Int64Array>()));
    let batch = RecordBatch::try_new(schema.lake_arrow(), columns).unwrap();
    let keys = RecordKeys::of(&batch, &schema.key_names()).unwrap();
    (batch, keys)
}

/// The state after changes up to counter `seq`.
pub fn state(table: &Table, seq: i64) -> TableState {
    let mut state = table.state().clone();
    state.order = state.order.max(OrderState(at(seq)));
    let greatest = state.greatest.first().copied().unwrap_or(Order::MIN).max(at(seq));
    state.greatest = vec![greatest];
    state
}

pub fn seeding(state: TableState, start: i64) -> TableState {
    TableState { seed: Some(SeedProgress { plan: 1, done: Vec::new(), start: at(start) }), ..state }
}

/// Rows and deletes of the stream, each with its counter.
pub fn stream(table: &Table, upserts: &[(i64, i64)], deletes: &[(i64, i64)]) -> TableChange {
    let newest = upserts.iter().chain(deletes).map(|(_, seq)| *seq).max().unwrap_or(0);
    TableChange {
        rows: Some(lake_rows(table.schema(), upserts)),
        deletes: deletes.iter().map(|(id, seq)| (key_of(table.schema(), *id), at(*seq))).collect(),
        ..TableChange::to(state(table, newest))
    }
}

pub async fn commit(table: &mut Table, change: TableChange) -> i64 {
    match table.commit(change).await.unwrap() {
        CommitOutcome::Committed { version, .. } => version,
        other => panic!("{other:?}"),
    }
}

pub async fn apply(table: &mut Table, upserts: &[(i64, i64)], deletes: &[(i64, i64)]) -> i64 {
    let change = stream(table, upserts, deletes);
    commit(table, change).await
}

/// A load begins; what lies below counter `start` is removed at its end.
pub async fn begin_seed(table: &mut Table, start: i64) {
    let state = seeding(state(table, start), start);
    commit(table, TableChange::to(state)).await;
}

/// A chunk that found `ids`, written and in no commit.
pub async fn chunk(table: &Table, ids: &[i64], order0: i64) -> Option<StagedChunk> {
    chunk_of(table, table.schema().as_ref().clone(), ids, order0).await
}

pub async fn chunk_of(table: &Table, schema: TableSchema, ids: &[i64], order0: i64) -> Option<StagedChunk> {
    let rows = source_rows(&schema, ids, order0);
    let mut writer = ChunkWriter::create(table.files(), Arc::new(schema), at(order0), Window::of(0)).unwrap();
    writer.write(&rows).unwrap();
    writer.finish().await.unwrap()
}

pub async fn merge(table: &mut Table, ids: &[i64], order0: i64) -> i64 {
    let staged = chunk(table, ids, order0).await;
    let change = TableChange { staged, ..TableChange::to(table.state().clone()) };
    commit(table, change).await
}

/// What the table says of each live key: its order's counter.
pub async fn live(warehouse: &Warehouse) -> BTreeMap<String, i64> {
    rows(warehouse, None).await.unwrap().into_iter().map(|(id, row)| (id, row.seq)).collect()
}

/// Live keys as written by [`live`].
pub fn expected(rows: &[(i64, i64)]) -> BTreeMap<String, i64> {
    rows.iter().map(|(id, seq)| (id.to_string(), *seq)).collect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LakeRow {
    pub seq: i64,
    /// Of every text column by name.
    pub texts: BTreeMap<String, Option<String>>,
}

/// Every live row by its key; told if a key has two.
pub async fn rows(warehouse: &Warehouse, version: Option<i64>) -> Result<BTreeMap<String, LakeRow>, TableError> {
    let scan = Scan::open(warehouse, &id(), version, None).await?;
    let mut rows = BTreeMap::new();
    scan.for_each(|batch| {
        assert!(batch.column_by_name(TS_COLUMN).is_some());
        for row in 0..batch.num_rows() {
            let (key, found) = lake_row(&batch, row);
            assert!(rows.insert(key.clone(), found).is_none(), "two live rows of {key}");
        }
        Ok(())
    })
    .await?;
    Ok(rows)
}

fn lake_row(batch: &RecordBatch, row: usize) -> (String, LakeRow) {
    let text = |column: &ArrayRef| column.is_valid(row).then(|| column.as_string::<i32>().value(row).to_owned());
    let ids = batch.column_by_name("id").unwrap();
    let key = match ids.as_primitive_opt::<Int64Type>() {
        Some(ids) => ids.value(row).to_string(),
        None => text(ids).unwrap(),
    };
    let seq = batch.column_by_name(SEQ_COLUMN).unwrap().as_primitive::<Int64Type>().value(row);
    let schema = batch.schema();
    let texts = schema.fields().iter().zip(batch.columns()).skip(1).filter(|(field, _)| !field.name().starts_with('_'));
    (key, LakeRow { seq, texts: texts.map(|(field, column)| (field.name().clone(), text(column))).collect() })
}

/// Where the index has the keys of `ids`: file and row.
pub fn places(table: &Table, ids: impl IntoIterator<Item = i64>) -> BTreeMap<i64, (String, u32)> {
    let place = |id: i64| match table.locate(key_of(table.schema(), id).as_ref()) {
        Located::Live(address) => Some((id, (table.files[&address.file].add.path.clone(), address.row))),
        Located::Deleted(_) | Located::Absent => None,
    };
    ids.into_iter().filter_map(place).collect()
}

//! Rows and changes that follow from numbers alone: twelve mixed columns, about 160 bytes, as those of bench/rows.sql.

use std::fmt::Write;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int8Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow_ipc::writer::FileWriter;
use weir_model::{
    ChangeBatch, Column, ColumnType, EventId, Images, Layout, Op, Order, OrderState, TableId, TableSchema, Window,
};

use super::table::BenchTable;

const STATES: [&str; 5] = ["open", "paid", "sent", "closed", "void"];
/// 2024-01-01 in seconds.
const FIRST_DAY_S: i64 = 1_704_067_200;
/// 2026-01-01 in milliseconds: when the first change was made.
const FIRST_CHANGE_MS: i64 = 1_767_225_600_000;
/// Changes a millisecond of event time, so that a backlog spans some windows of accounts.
const CHANGES_PER_MS: i64 = 50;

pub fn table_id() -> TableId {
    TableId::new("bench", "hot")
}

pub fn schema() -> TableSchema {
    let columns = [
        ("id", ColumnType::Int64),
        ("buyer_id", ColumnType::Int32),
        ("article", ColumnType::Text),
        ("price", ColumnType::Decimal { precision: 12, scale: 2 }),
        ("ordered_at", ColumnType::DateTime { fsp: 3 }),
        ("changed_at", ColumnType::Timestamp { fsp: 0 }),
        ("priority", ColumnType::Int8),
        ("mass_kg", ColumnType::Double),
        ("remark", ColumnType::Text),
        ("pieces", ColumnType::Int32),
        ("due_on", ColumnType::Date),
        ("state", ColumnType::Enum(STATES.map(str::to_owned).to_vec())),
    ];
    let columns = columns.map(|(name, ty)| {
        let nullable = matches!(name, "remark" | "pieces" | "due_on");
        Column { name: name.into(), ty, nullable }
    });
    TableSchema { table: table_id(), columns: columns.into(), key: vec![0], layout: Layout::default() }
}

/// Rows of these keys, as they are after their update number `turn`; 0 is how they were loaded. An update changes price,
/// pieces, state and the time of the change.
pub fn rows(schema: &TableSchema, keys: impl Iterator<Item = i64> + Clone, turn: u64) -> RecordBatch {
    let noise = |key: i64| (mix(key as u64) >> 32) as i64;
    let fresh = |key: i64| (mix(key as u64 ^ turn.wrapping_mul(0x9E37_79B9_7F4A_7C15)) >> 32) as i64;
    let ordered_at = |key: i64| (FIRST_DAY_S + key * 6_007 % 63_000_000) * 1_000_000 + noise(key) % 1_000 * 1_000;
    let changed_at = |key: i64| (FIRST_DAY_S + (key * 13 + turn as i64 * 7) % 63_000_000) * 1_000_000;
    let price = |key: i64| i128::from(fresh(key) % 9_000_000);
    let pieces = |key: i64| (key % 8 != 0).then(|| (fresh(key) / 7 % 5_000) as i32);
    let due_on = |key: i64| (key % 13 != 0).then(|| (FIRST_DAY_S / 86_400 + noise(key) % 800) as i32);
    let state = |key: i64| STATES[(fresh(key) / 3 % 5) as usize];
    let decimal = Decimal128Array::from_iter_values(keys.clone().map(price)).with_precision_and_scale(12, 2);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(keys.clone())),
        Arc::new(Int32Array::from_iter_values(keys.clone().map(|key| (noise(key) % 600_000) as i32))),
        Arc::new(texts(keys.clone(), |key, text| write!(text, "ART-{:08X}-{}", noise(key), noise(key) % 89).is_ok())),
        Arc::new(decimal.expect("a decimal of twelve digits")),
        Arc::new(TimestampMicrosecondArray::from_iter_values(keys.clone().map(ordered_at))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(keys.clone().map(changed_at)).with_timezone("UTC")),
        Arc::new(Int8Array::from_iter_values(keys.clone().map(|key| (noise(key) % 200 - 100) as i8))),
        Arc::new(Float64Array::from_iter_values(keys.clone().map(|key| noise(key) as f64 / 2_048.0 * 1.3))),
        Arc::new(texts(keys.clone(), remark)),
        Arc::new(Int32Array::from_iter(keys.clone().map(pieces))),
        Arc::new(Date32Array::from_iter(keys.clone().map(due_on))),
        Arc::new(StringArray::from_iter_values(keys.map(state))),
    ];
    RecordBatch::try_new(schema.arrow(), columns).expect("columns of the schema's types, of one length")
}

/// Puts the remark of a row into `text`; false if it has none.
fn remark(key: i64, text: &mut String) -> bool {
    let (greeting, words) = match key % 10 {
        0 => return false,
        4 => ("Grüße, déjà-vu 東京 🚀 ", 2),
        _ => ("remark: ", 4),
    };
    text.push_str(greeting);
    (0..words).all(|word| write!(text, "{:016x}", mix(key as u64 ^ (word << 56))).is_ok())
}

/// A column of texts, each of which `fill` puts into an empty one, or says that there is none.
fn texts(keys: impl Iterator<Item = i64>, fill: impl Fn(i64, &mut String) -> bool) -> StringArray {
    let (mut builder, mut text) = (StringBuilder::new(), String::new());
    for key in keys {
        text.clear();
        let is_there = fill(key, &mut text);
        builder.append_option(is_there.then_some(&text));
    }
    builder.finish()
}

/// Writes a batch for others to read.
pub fn export(rows: &RecordBatch, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut writer = FileWriter::try_new(File::create(file)?, &rows.schema())?;
    writer.write(rows)?;
    Ok(writer.finish()?)
}

/// Changes of these keys, behind `order`; `inserts_from` is the first key that is an insert.
pub fn changes(
    schema: &Arc<TableSchema>,
    keys: &[i64],
    inserts_from: i64,
    turn: u64,
    order: &mut OrderState,
) -> ChangeBatch {
    let at_ms = |order: &OrderState| (FIRST_CHANGE_MS + order.0.seq / CHANGES_PER_MS).max(order.0.ts_ms);
    let orders: Vec<Order> = keys.iter().map(|_| order.assign(at_ms(order))).collect();
    let id = |order: &Order| EventId((u128::from(mix(order.seq as u64)) << 64) | u128::from(mix(!order.seq as u64)));
    ChangeBatch {
        rows: rows(schema, keys.iter().copied(), turn),
        images: Images::default(),
        ops: keys.iter().map(|key| if *key >= inserts_from { Op::Create } else { Op::Update }).collect(),
        ids: orders.iter().map(id).collect(),
        windows: orders.iter().map(|order| Window::of(order.ts_ms)).collect(),
        orders,
        schema: schema.clone(),
    }
}

/// A backlog of `count` changes in batches: of five changes four update random rows, and one is an insert.
pub fn backlog(table: &BenchTable, count: u64, batch_rows: u64) -> Vec<ChangeBatch> {
    let (schema, mut order, mut random) = (Arc::new(schema()), table.order(), Random::behind(table));
    let (mut table_rows, mut turn) = (table.figures().1, table.commits());
    let mut batches = Vec::new();
    let mut left = count;
    while left > 0 {
        let (first_new, rows) = (table_rows + 1, left.min(batch_rows));
        let mut keys = Vec::with_capacity(rows as usize);
        for _ in 0..rows {
            let is_insert = random.below(5) == 0;
            table_rows += u64::from(is_insert);
            keys.push(if is_insert { table_rows } else { 1 + random.below(table_rows) } as i64);
        }
        turn += 1;
        batches.push(changes(&schema, &keys, first_new as i64, turn, &mut order));
        left -= rows;
    }
    batches
}

/// SplitMix64, as its authors give it: <https://prng.di.unimi.it/splitmix64.c>.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Of a seed that follows from how often the table has been written.
    pub fn behind(table: &BenchTable) -> Self {
        Self(mix(table.commits()))
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        ((u128::from(mix(self.0)) * u128::from(bound)) >> 64) as u64
    }
}

fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

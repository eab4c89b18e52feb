//! An independent reader, mysql_cdc, and our decoder agree on recorded binlogs, row for row and cell for cell.
//!
//! mysql_cdc refuses some values (negative TIME, text that isn't UTF-8), knows no JSON, and cuts fractions of a second to
//! milliseconds. An event that it refuses is left out, but only in the tables that are named for it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use mysql_cdc::binlog_reader::BinlogReader;
use mysql_cdc::events::binlog_event::BinlogEvent;
use mysql_cdc::events::row_events::mysql_value::{Date, DateTime, MySqlValue};
use mysql_cdc::events::row_events::row_data::RowData;
use weir::binlog::{EventBody, FileSource, RowDecoder, RowsImage, Source};
use weir_model::change::Stamp;
use weir_model::{ChangeBatch, ChangeBuilder, ColumnType, EventId, Op, Order, TableSchema, Window, ZeroDates};

/// A row change as both can tell it: the old image where a row goes away, the new one where it stays.
type Change = (char, Vec<Option<String>>);

/// What is asked of mysql_cdc about a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Every event of it.
    All,
    /// Those that it does not refuse.
    Some,
    /// Nothing: its values mean something else there.
    Nothing,
}

/// Reads the fixture with both. `refused_tables` are those that mysql_cdc may refuse events of.
pub(crate) async fn both_readers_agree(fixture: &str, refused_tables: &[&str], rows_min: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/binlog").join(format!("{fixture}.000001"));
    let asked = |table: &str| if refused_tables.contains(&table) { Asked::Some } else { Asked::All };
    let rows_compared = both_readers_agree_on(&path, asked).await;
    assert!(rows_compared >= rows_min, "{fixture}: only {rows_compared} changes compared");
}

/// Reads a file with both, and gives the number of changes on which they agree: all that were asked about.
pub(crate) async fn both_readers_agree_on(path: &Path, asked: impl Fn(&str) -> Asked) -> usize {
    let fixture = path.display();
    let ours = our_events(path).await;
    let theirs = their_events(path.to_owned());
    assert_eq!(ours.len(), theirs.len(), "{fixture}: number of row events");
    let mut rows_compared = 0;
    for (event, (image, theirs)) in ours.iter().zip(theirs).enumerate() {
        let table = image.map.id();
        let asked = asked(&image.map.table);
        let Some(theirs) = theirs.filter(|_| asked != Asked::Nothing) else {
            assert!(asked != Asked::All, "{fixture}: event {event} of {table} refused");
            continue;
        };
        let schema = Arc::new(image.map.schema(None).unwrap());
        let ours = our_changes(&decode(image, &schema), &schema);
        let theirs = their_changes(theirs, &schema);
        assert_eq!(ours.len(), theirs.len(), "{fixture}: event {event} of {table}: number of changes");
        for (row, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert_eq!(ours.0, theirs.0, "{fixture}: event {event} of {table}, change {row}");
            for (column, (ours, theirs)) in schema.columns.iter().zip(ours.1.iter().zip(&theirs.1)) {
                assert_eq!(ours, theirs, "{fixture}: event {event} of {table}, change {row}, {}", column.name);
            }
            rows_compared += 1;
        }
    }
    rows_compared
}

async fn our_events(path: &Path) -> Vec<RowsImage> {
    let mut source = FileSource::open(vec![path.to_owned()]).unwrap();
    let mut images = Vec::new();
    while let Some(event) = source.next().await.unwrap() {
        if let EventBody::Rows(image) = event.body {
            images.push(image);
        }
    }
    images
}

fn decode(image: &RowsImage, schema: &Arc<TableSchema>) -> ChangeBatch {
    let mut builder = ChangeBuilder::new(Arc::clone(schema), ZeroDates::Null);
    RowDecoder::new(&image.map, Arc::clone(schema)).unwrap().decode(image, 0, &mut builder).unwrap();
    builder.stamp(|_, _| Stamp { order: Order::MIN, id: EventId(0), window: Window::of(0) });
    builder.finish()
}

fn our_changes(batch: &ChangeBatch, schema: &TableSchema) -> Vec<Change> {
    let row = |row: usize| {
        let cells = schema.columns.iter().zip(batch.rows.columns());
        cells.map(|(column, array)| our_cell(&column.ty, array, row)).collect()
    };
    batch.ops.iter().enumerate().map(|(n, &op)| (char::from(op), row(n))).collect()
}

/// A cell as text in the coarsest form that both readers can give; JSON, which only we read, is left out.
fn our_cell(ty: &ColumnType, array: &ArrayRef, row: usize) -> Option<String> {
    const MICROS_A_MILLI: i64 = 1000;

    if array.is_null(row) || *ty == ColumnType::Json {
        return None;
    }
    Some(match ty {
        ColumnType::Int8 => array.as_primitive::<Int8Type>().value(row).to_string(),
        ColumnType::Int16 | ColumnType::UInt8 | ColumnType::Year => {
            array.as_primitive::<Int16Type>().value(row).to_string()
        }
        ColumnType::Int24 | ColumnType::Int32 | ColumnType::UInt16 | ColumnType::UInt24 => {
            array.as_primitive::<Int32Type>().value(row).to_string()
        }
        ColumnType::Int64 | ColumnType::UInt32 => array.as_primitive::<Int64Type>().value(row).to_string(),
        ColumnType::Time { .. } => (array.as_primitive::<Int64Type>().value(row) / MICROS_A_MILLI).to_string(),
        ColumnType::Decimal { precision: ..=38, .. } | ColumnType::UInt64 => {
            array.as_primitive::<Decimal128Type>().value_as_string(row)
        }
        ColumnType::Boolean => u8::from(array.as_boolean().value(row)).to_string(),
        ColumnType::Float => array.as_primitive::<Float32Type>().value(row).to_bits().to_string(),
        ColumnType::Double => array.as_primitive::<Float64Type>().value(row).to_bits().to_string(),
        ColumnType::Date => array.as_primitive::<Date32Type>().value(row).to_string(),
        ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => {
            array.as_primitive::<TimestampMicrosecondType>().value(row).div_euclid(MICROS_A_MILLI).to_string()
        }
        ColumnType::Bits(_) => bits_as_number(array.as_binary::<i32>().value(row)),
        ColumnType::Binary | ColumnType::Geometry | ColumnType::Vector => {
            format!("{:x?}", array.as_binary::<i32>().value(row))
        }
        _ => array.as_string::<i32>().value(row).to_owned(),
    })
}

/// Their row events in order; `None` for one that they refuse. Their iterator takes some refusals for the end of the
/// file, so the events are counted by their headers.
fn their_events(path: PathBuf) -> Vec<Option<BinlogEvent>> {
    // Of MySQL, and of MariaDB.
    const ROW_EVENTS: [std::ops::RangeInclusive<u8>; 2] = [30..=32, 23..=25];

    let bytes = fs::read(&path).unwrap();
    let mut reader = BinlogReader::new(File::open(path).unwrap()).unwrap();
    let mut events = Vec::new();
    let mut at = 4;
    while at < bytes.len() {
        let event = reader.read_event().ok().map(|(_, event)| event);
        if ROW_EVENTS.iter().any(|kinds| kinds.contains(&bytes[at + 4])) {
            events.push(event);
        }
        at += u32::from_le_bytes(bytes[at + 9..at + 13].try_into().unwrap()) as usize;
    }
    events
}

fn their_changes(event: BinlogEvent, schema: &TableSchema) -> Vec<Change> {
    let row = |data: RowData| -> Vec<Option<String>> {
        let cells = schema.columns.iter().zip(data.cells);
        cells.map(|(column, cell)| cell.and_then(|cell| their_cell(&column.ty, cell))).collect()
    };
    let of = |op: Op, rows: Vec<RowData>| rows.into_iter().map(|data| (char::from(op), row(data))).collect();
    match event {
        BinlogEvent::WriteRowsEvent(event) => of(Op::Create, event.rows),
        BinlogEvent::DeleteRowsEvent(event) => of(Op::Delete, event.rows),
        BinlogEvent::UpdateRowsEvent(event) => {
            let mut changes = Vec::new();
            for update in event.rows {
                let (before, after) = (row(update.before_update), row(update.after_update));
                if schema.key.iter().all(|&column| before[column] == after[column]) {
                    changes.push((char::from(Op::Update), after));
                } else {
                    changes.push((char::from(Op::Delete), before));
                    changes.push((char::from(Op::Create), after));
                }
            }
            changes
        }
        _ => Vec::new(),
    }
}

fn their_cell(ty: &ColumnType, cell: MySqlValue) -> Option<String> {
    if *ty == ColumnType::Json {
        return None;
    }
    Some(match (ty, cell) {
        (ColumnType::Int8, MySqlValue::TinyInt(value)) => (value as i8).to_string(),
        (ColumnType::Int16, MySqlValue::SmallInt(value)) => (value as i16).to_string(),
        (ColumnType::Int24, MySqlValue::MediumInt(value)) => ((value << 8) as i32 >> 8).to_string(),
        (ColumnType::Int32, MySqlValue::Int(value)) => (value as i32).to_string(),
        (ColumnType::Int64, MySqlValue::BigInt(value)) => (value as i64).to_string(),
        (_, MySqlValue::TinyInt(value)) => value.to_string(),
        (_, MySqlValue::SmallInt(value)) => value.to_string(),
        (_, MySqlValue::MediumInt(value) | MySqlValue::Int(value)) => value.to_string(),
        (_, MySqlValue::BigInt(value)) => value.to_string(),
        // No column of that type holds 1900: it is how 0000 comes out there.
        (_, MySqlValue::Year(1900)) => "0".to_owned(),
        (_, MySqlValue::Year(value)) => value.to_string(),
        (_, MySqlValue::Float(value)) => value.to_bits().to_string(),
        (_, MySqlValue::Double(value)) => value.to_bits().to_string(),
        (_, MySqlValue::Decimal(value)) => value,
        // Most significant bit first.
        (_, MySqlValue::Bit(bits)) => bits.iter().fold(0_u64, |number, &bit| number << 1 | u64::from(bit)).to_string(),
        (ColumnType::Enum(members), MySqlValue::Enum(index)) => {
            index.checked_sub(1).map_or(String::new(), |index| members[index as usize].clone())
        }
        (ColumnType::Set(members), MySqlValue::Set(chosen)) => {
            let chosen = members.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1);
            chosen.map(|(_, member)| member.as_str()).collect::<Vec<_>>().join(",")
        }
        (ColumnType::Text, MySqlValue::Blob(bytes)) => String::from_utf8(bytes).unwrap(),
        (_, MySqlValue::Blob(bytes)) => format!("{bytes:x?}"),
        (ColumnType::Binary, MySqlValue::String(text)) => format!("{:x?}", text.as_bytes()),
        (_, MySqlValue::String(text)) => text,
        // Zero and partial dates, and the zero of TIMESTAMP, which holds nothing before the second behind it.
        (_, MySqlValue::Date(Date { month: 0, .. } | Date { day: 0, .. }) | MySqlValue::Timestamp(0)) => return None,
        (_, MySqlValue::DateTime(DateTime { month: 0, .. } | DateTime { day: 0, .. })) => return None,
        (_, MySqlValue::Date(date)) => days(date.year, date.month, date.day).to_string(),
        (_, MySqlValue::DateTime(time)) => {
            let clock_ms = millis(time.hour.into(), time.minute, time.second, time.millis);
            (days(time.year, time.month, time.day) * 86_400_000 + clock_ms).to_string()
        }
        (_, MySqlValue::Time(time)) => millis(time.hour.into(), time.minute, time.second, time.millis).to_string(),
        (_, MySqlValue::Timestamp(millis)) => millis.to_string(),
        (ty, cell) => panic!("{cell:?} in a column of type {ty:?}"),
    })
}

fn millis(hour: i64, minute: u8, second: u8, millis: u32) -> i64 {
    ((hour * 60 + i64::from(minute)) * 60 + i64::from(second)) * 1000 + i64::from(millis)
}

/// Days since the epoch, counted by another library than our own.
fn days(year: u16, month: u8, day: u8) -> i64 {
    let date = jiff::civil::date(year as i16, month as i8, day as i8);
    i64::from(date.since(jiff::civil::date(1970, 1, 1)).unwrap().get_days())
}

fn bits_as_number(bytes: &[u8]) -> String {
    bytes.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte)).to_string()
}

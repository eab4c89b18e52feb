//! Rows that a real server wrote, against what the same server shows for them (fixtures/binlog).

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use weir_model::{ChangeBatch, ColumnType};

use super::recording::{row_events, table_map_bodies};
use super::{decode, shown_ops};
use crate::binlog::row::{CellError, RowDecoder, RowError};
use crate::binlog::{RowsImage, TableMap};

const VALUES: &[u8] = include_bytes!("../../../../fixtures/binlog/values.binlog");
const VALUES_EXPECTED: &str = include_str!("../../../../fixtures/binlog/values.expected.tsv");
const LARGE_JSON: &[u8] = include_bytes!("../../../../fixtures/binlog/large-json.binlog");
const LARGE_JSON_EXPECTED: &str = include_str!("../../../../fixtures/binlog/large-json.expected.tsv");

fn events_of<'a>(events: &'a [RowsImage], table: &str) -> Vec<&'a RowsImage> {
    let events: Vec<_> = events.iter().filter(|event| event.map.table == table).collect();
    assert!(!events.is_empty(), "no events of {table}");
    events
}

fn decode_described(event: &RowsImage) -> Result<ChangeBatch, RowError> {
    decode(event, event.map.schema(None).unwrap(), 0).map(|(batch, _)| batch)
}

/// A value as the queries in values-expected.sql show it.
fn shown(column: &ArrayRef, ty: &ColumnType, row: usize) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    if column.is_null(row) {
        return "NULL".into();
    }
    match (column.data_type(), ty) {
        (DataType::Int64, ColumnType::Time { .. }) => shown_time(column.as_primitive::<Int64Type>().value(row)),
        (DataType::Int8, _) => column.as_primitive::<Int8Type>().value(row).to_string(),
        (DataType::Int16, ColumnType::Year) => format!("{:04}", column.as_primitive::<Int16Type>().value(row)),
        (DataType::Int16, _) => column.as_primitive::<Int16Type>().value(row).to_string(),
        (DataType::Int32, _) => column.as_primitive::<Int32Type>().value(row).to_string(),
        (DataType::Int64, _) => column.as_primitive::<Int64Type>().value(row).to_string(),
        (DataType::Decimal128(..), _) => column.as_primitive::<Decimal128Type>().value_as_string(row),
        (DataType::Boolean, _) => u8::from(column.as_boolean().value(row)).to_string(),
        (DataType::Float32, _) => format!("{:?}", f64::from(column.as_primitive::<Float32Type>().value(row))),
        (DataType::Float64, _) => format!("{:?}", column.as_primitive::<Float64Type>().value(row)),
        (DataType::Date32, _) => {
            let days = column.as_primitive::<Date32Type>().value(row);
            shown_moment(i64::from(days) * 86_400_000_000)[..10].to_owned()
        }
        (DataType::Timestamp(..), _) => shown_moment(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        (DataType::Utf8, _) => hex(column.as_string::<i32>().value(row).as_bytes()),
        (DataType::Binary, _) => hex(column.as_binary::<i32>().value(row)),
        other => panic!("{other:?}"),
    }
}

fn shown_moment(micros: i64) -> String {
    let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
    let moment = epoch.checked_add(jiff::SignedDuration::from_micros(micros)).unwrap();
    moment.strftime("%Y-%m-%d %H:%M:%S.%6f").to_string()
}

fn shown_time(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let (seconds, fraction) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    format!("{sign}{:02}:{:02}:{:02}.{fraction:06}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Expected values of doubles are compared as doubles: the server shows them in another form.
fn expected(text: &str, ty: &ColumnType) -> String {
    match ty {
        ColumnType::Float | ColumnType::Double if text != "NULL" => format!("{:?}", text.parse::<f64>().unwrap()),
        _ => text.to_owned(),
    }
}

/// What is left of a table after all its row events, by key, in the order of the keys' text.
fn remaining_rows(events: &[RowsImage], table: &str) -> BTreeMap<Vec<String>, Vec<String>> {
    let mut rows = BTreeMap::new();
    for event in events_of(events, table) {
        let batch = decode_described(event).unwrap();
        for row in 0..batch.len() {
            let columns = batch.rows.columns().iter().zip(&batch.schema.columns);
            let values: Vec<String> = columns.map(|(column, info)| shown(column, &info.ty, row)).collect();
            let key: Vec<String> = batch.schema.key.iter().map(|&index| values[index].clone()).collect();
            assert!(!key.is_empty(), "{table} has a key");
            match batch.ops[row] {
                weir_model::Op::Delete => rows.remove(&key),
                _ => rows.insert(key, values),
            };
        }
    }
    rows
}

fn assert_shown_as_expected(table: &str) {
    let events = row_events(VALUES);
    let map = &events_of(&events, table)[0].map;
    let schema = events_of(&events, table).last().unwrap().map.schema(None).unwrap();
    let rows = remaining_rows(&events, table);
    let lines: Vec<Vec<&str>> = VALUES_EXPECTED
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .filter(|fields| fields[0] == table)
        .collect();
    assert_eq!(rows.len(), lines.len(), "rows of {table}");
    assert!(!map.columns.is_empty());
    for fields in lines {
        assert_eq!(fields.len() - 1, schema.columns.len(), "columns of {table}");
        let wanted: Vec<String> =
            fields[1..].iter().zip(&schema.columns).map(|(field, column)| expected(field, &column.ty)).collect();
        let key: Vec<String> = schema.key.iter().map(|&index| wanted[index].clone()).collect();
        let row = rows.get(&key).unwrap_or_else(|| panic!("{table} lacks {key:?}"));
        for (index, column) in schema.columns.iter().enumerate() {
            assert_eq!(row[index], wanted[index], "{table} {key:?} {}: {:?}", column.name, column.ty);
        }
    }
}

#[test]
fn numbers_of_every_width_and_sign() {
    assert_shown_as_expected("numbers");
}

#[test]
fn decimals_are_exact_on_both_sides_of_38_digits() {
    assert_shown_as_expected("decimals");
}

#[test]
fn dates_and_times_of_every_fsp() {
    assert_shown_as_expected("moments");
}

#[test]
fn text_of_every_character_set_padding_and_members() {
    assert_shown_as_expected("texts");
}

#[test]
fn spatial_generated_and_invisible_columns() {
    assert_shown_as_expected("special");
}

#[test]
fn json_documents_are_the_servers_text() {
    assert_shown_as_expected("documents");
    assert_shown_as_expected("emptied");
}

#[test]
fn keys_in_their_own_order_with_prefixes_and_generated() {
    for table in ["pairs", "prefixed", "keyless"] {
        assert_shown_as_expected(table);
    }
    let events = row_events(VALUES);
    let key_of = |table: &str| {
        let schema = events_of(&events, table)[0].map.schema(None).unwrap();
        schema.key_names().iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(key_of("pairs"), ["b", "a"]);
    assert_eq!(key_of("prefixed"), ["t", "n"]);
    assert_eq!(key_of("keyless"), ["my_row_id"]);
}

#[test]
fn large_json_documents_by_checksum() {
    let batch = decode_described(&row_events(LARGE_JSON)[0]).unwrap();
    let text = batch.rows.column(1).as_string::<i32>().value(0);
    assert_eq!(LARGE_JSON_EXPECTED.trim_end(), format!("documents\t1\t{}", crc32fast::hash(text.as_bytes())));
}

#[test]
fn a_key_changing_update_is_a_delete_and_a_create() {
    let events = row_events(VALUES);
    let mut log = Vec::new();
    for event in events_of(&events, "moves") {
        match decode_described(event) {
            Ok(batch) => log.extend(shown_ops(&batch)),
            Err(error) => log.push(error.to_string()),
        }
    }
    let expected = [
        "c 1 one 1 first",
        "c 2 two 2 first",
        "c 3 three 3 first", // inserted
        "u 1 one 11 first",
        "u 2 two 12 first", // updated in place
        "d 3 three 3 first",
        "c 103 three 3 second",
        "d 2 two 12 first",
        "c 102 two 12 second", // keys + 100
        "d 1 one 11 first",
        "c 6 one 0 second", // key and value
        "d 102 two 12 first",
        "d 103 three 3 first", // deleted
        "u 6 - 1 first",       // what a MINIMAL image leaves out
    ];
    assert_eq!(log, expected);
}

#[test]
fn without_names_the_catalogue_describes_the_columns() {
    let events = row_events(VALUES);
    let event = events_of(&events, "nameless")[0];
    assert!(matches!(event.map.schema(None), Err(RowError::NoNames(_))));
    let column = |name: &str, ty| weir_model::Column { name: name.into(), ty, nullable: true };
    let mut catalogue = weir_model::TableSchema {
        table: event.map.id(),
        columns: vec![
            column("id", ColumnType::UInt32),
            column("name", ColumnType::Text),
            column("e", ColumnType::Enum(vec!["a".into(), "b".into()])),
            column("bin", ColumnType::Binary),
        ],
        key: vec![0],
        layout: weir_model::Layout::default(),
    };
    let schema = event.map.schema_with(&catalogue).unwrap();
    let (batch, _) = decode(event, schema, 0).unwrap();
    let values: Vec<String> =
        (0..4).map(|index| shown(batch.rows.column(index), &catalogue.columns[index].ty, 0)).collect();
    assert_eq!(values, ["4294967295", "C3A9", "62", "71000000"]);
    catalogue.columns[3].ty = ColumnType::Json;
    assert!(matches!(event.map.schema_with(&catalogue), Err(RowError::ColumnType { column, .. }) if column == "bin"));
    catalogue.columns.pop();
    assert!(matches!(event.map.schema_with(&catalogue), Err(RowError::ColumnCount { logged: 4, expected: 3, .. })));
}

#[test]
fn a_schema_of_another_moment_is_refused() {
    let events = row_events(VALUES);
    let map = &events_of(&events, "texts")[0].map;
    let schema = map.schema(None).unwrap();
    let reordered = |mut schema: weir_model::TableSchema| {
        for column in &mut schema.columns {
            if let ColumnType::Enum(members) = &mut column.ty {
                members.reverse();
            }
        }
        schema
    };
    assert!(RowDecoder::new(map, schema.clone().into()).is_ok());
    assert!(matches!(
        RowDecoder::new(map, reordered(schema.clone()).into()),
        Err(RowError::ColumnType { column, .. }) if column == "e"
    ));
    let mut renamed = schema;
    renamed.columns[2].name = "other".into();
    assert!(matches!(RowDecoder::new(map, renamed.into()), Err(RowError::ColumnType { .. })));
}

#[test]
fn optional_metadata_reaches_its_columns() {
    let events = row_events(VALUES);
    let special = &events_of(&events, "special")[0].map;
    let by_name = |map: &TableMap, name: &str| {
        map.columns.iter().find(|column| column.name.as_deref() == Some(name)).unwrap().clone()
    };
    assert_eq!(by_name(special, "g").geometry_type, Some(0));
    assert_eq!(by_name(special, "p").geometry_type, Some(1));
    assert!(!by_name(special, "hidden").visible);
    assert!(by_name(special, "virt").visible);
    assert!(by_name(special, "stored_sum").unsigned);
    assert!(!by_name(special, "id").nullable);
    let texts = &events_of(&events, "texts")[0].map;
    assert_eq!(by_name(texts, "v").dimensions, Some(3));
    assert_eq!(by_name(texts, "xlatin1").collation, Some(8));
}

#[test]
fn every_cut_of_every_recorded_event_is_an_error_or_fewer_rows_but_no_panic() {
    for event in row_events(VALUES) {
        let Ok(schema) = event.map.schema(None) else { continue };
        for end in (0..event.rows.len()).step_by(1 + event.rows.len() / 200) {
            let cut = RowsImage { rows: event.rows.slice(..end), ..event.clone() };
            if let Err(error) = decode(&cut, schema.clone(), 0) {
                assert!(matches!(
                    error,
                    RowError::Cell { source: CellError::Truncated, .. } | RowError::PartialImage { .. }
                ));
            }
        }
    }
    for body in table_map_bodies(VALUES) {
        for end in 0..body.len() {
            let _ = TableMap::parse(&body[..end]);
        }
    }
}

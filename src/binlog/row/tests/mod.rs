//! Row images made by hand and by chance: what they decode to, and what is refused.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use proptest::prelude::*;
use weir_model::change::Stamp;
use weir_model::image::Rest;
use weir_model::{
    ChangeBatch, ChangeBuilder, ColumnType, EventId, Half, Order, TableSchema, ValueError, Window, ZeroDates,
};

use super::{CellError, RowDecoder, RowError};
use crate::binlog::{RowsImage, RowsKind, TableMap};

mod images;
mod recorded;
mod recording;

/// Decodes `event` as rows of `schema`; the half of each row is kept as the order's counter. Also how many row changes
/// there were.
fn decode(event: &RowsImage, schema: TableSchema, skip: u64) -> Result<(ChangeBatch, u64), RowError> {
    decode_with(event, schema, skip, ZeroDates::Null)
}

fn decode_with(
    event: &RowsImage,
    schema: TableSchema,
    skip: u64,
    zero_dates: ZeroDates,
) -> Result<(ChangeBatch, u64), RowError> {
    let schema = Arc::new(schema);
    let decoder = RowDecoder::new(&event.map, schema.clone())?;
    let mut builder = ChangeBuilder::new(schema, zero_dates);
    let walked = decoder.decode(event, skip, &mut builder)?;
    builder.stamp(|_, half| Stamp {
        order: Order::new(0, if half == Half::First { 1 } else { 2 }),
        id: EventId(0),
        window: Window::of(0),
    });
    Ok((builder.finish(), walked))
}

/// Each half-event as `op values… half`, for integer and text columns.
fn shown_ops(batch: &ChangeBatch) -> Vec<String> {
    let cell = |rows: &RecordBatch, column: usize, row: usize| match rows.column(column) {
        nulls if nulls.is_null(row) => "NULL".to_owned(),
        text if text.data_type().is_string() => text.as_string::<i32>().value(row).to_owned(),
        ints => ints.as_primitive::<Int32Type>().value(row).to_string(),
    };
    (0..batch.len())
        .map(|row| {
            // What is left out is `-` where it has not changed, and `?` where only the source knows it.
            let absent = |column: usize| match batch.images.get(row) {
                Some(image) if !image.knows(column) => Some(if image.rest == Rest::Unchanged { "-" } else { "?" }),
                _ => None,
            };
            let shown = |c: usize| absent(c).map_or_else(|| cell(&batch.rows, c, row), str::to_owned);
            let values: Vec<String> = (0..batch.rows.num_columns()).map(shown).collect();
            let half = if batch.orders[row].seq == 1 { "first" } else { "second" };
            format!("{} {} {half}", batch.ops[row], values.join(" "))
        })
        .collect()
}

/// The body of a table map with these column types, metadata and optional metadata; every column nullable.
fn map_body(types: &[u8], metadata: &[u8], optional: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = vec![1, 0, 0, 0, 0, 0, 1, 0];
    body.extend(b"\x01d\0\x01t\0");
    body.push(types.len() as u8);
    body.extend(types);
    body.push(metadata.len() as u8);
    body.extend(metadata);
    body.extend(vec![0xFF; types.len().div_ceil(8)]);
    for (kind, value) in optional {
        body.push(*kind);
        body.push(value.len() as u8);
        body.extend(*value);
    }
    body
}

/// A table map of columns called a, b, c, … with the first as the key.
fn named_map(types: &[u8], metadata: &[u8], optional: &[(u8, &[u8])]) -> TableMap {
    let names: Vec<u8> = (0..types.len() as u8).flat_map(|index| [1, b'a' + index]).collect();
    let optional = [&[(4, &names[..]), (8, &[0])], optional].concat();
    TableMap::parse(&map_body(types, metadata, &optional)).unwrap()
}

fn insert(map: &TableMap, rows: &[u8]) -> RowsImage {
    image(map, RowsKind::Insert, rows)
}

fn image(map: &TableMap, kind: RowsKind, rows: &[u8]) -> RowsImage {
    let all = Bytes::from(vec![0xFF; map.columns.len().div_ceil(8)]);
    let (map, rows, described) = (Arc::new(map.clone()), rows.to_vec().into(), Bytes::new());
    RowsImage { map, kind, present: all.clone(), present_after: all, has_differences: false, rows, described }
}

const TINY: u8 = 1;
const LONG: u8 = 3;
const DATE: u8 = 10;
const TIME: u8 = 11;
const YEAR: u8 = 13;
const VARCHAR: u8 = 15;
const BIT: u8 = 16;
const TIME2: u8 = 19;
const STRING: u8 = 254;

#[test]
fn the_signedness_bitmap_counts_year_and_begins_at_the_top() {
    let map = named_map(&[YEAR, TINY, VARCHAR, TINY], &[20, 0], &[(1, &[0b0010_0000]), (2, &[45])]);
    assert_eq!(map.columns.iter().map(|c| c.unsigned).collect::<Vec<_>>(), [false, false, false, true]);
    let event = insert(&map, &[0, 0, 0xFF, 1, b'x', 0xFF]);
    let (batch, walked) = decode(&event, map.schema(None).unwrap(), 0).unwrap();
    assert_eq!(walked, 1);
    assert_eq!(format!("{:?}", batch.rows.column(0).to_data().buffers()[0].as_slice()), "[0, 0]");
    assert_eq!(batch.schema.columns[1].ty, ColumnType::Int8);
    assert_eq!(batch.schema.columns[3].ty, ColumnType::UInt8);
}

#[test]
fn a_char_longer_than_255_bytes_has_two_length_bytes() {
    // CHAR(255) utf8mb4: 1020 bytes, of which bits 8 and 9 are inverted in the type byte.
    let map = named_map(&[STRING], &[0xFE ^ 0x30, 0xFC], &[(2, &[45])]);
    assert_eq!(map.columns[0].wire.to_string(), "CHAR or BINARY of 1020 bytes");
    let (batch, _) = decode(&insert(&map, &[0, 2, 0, b'h', b'i']), map.schema(None).unwrap(), 0).unwrap();
    assert_eq!(batch.rows.column(0).as_string::<i32>().value(0), "hi");
}

#[test]
fn binary_columns_get_their_zero_bytes_back() {
    let map = named_map(&[STRING], &[0xFE, 3], &[(2, &[63])]);
    let (batch, _) = decode(&insert(&map, &[0, 1, b'a']), map.schema(None).unwrap(), 0).unwrap();
    assert_eq!(batch.rows.column(0).as_binary::<i32>().value(0), b"a\0\0");
}

#[test]
fn bits_are_big_endian_and_a_single_one_is_a_boolean() {
    let map = named_map(&[BIT, BIT], &[1, 0, 2, 1], &[]);
    let (batch, _) = decode(&insert(&map, &[0, 1, 0x02, 0xFF]), map.schema(None).unwrap(), 0).unwrap();
    assert_eq!(batch.schema.columns[1].ty, ColumnType::Bits(10));
    assert!(batch.rows.column(0).as_boolean().value(0));
    assert_eq!(batch.rows.column(1).as_binary::<i32>().value(0), [0x02, 0xFF]);
}

#[test]
fn enum_index_0_is_empty_and_sets_join_their_members() {
    // ENUM('x','y') and SET('a','b','c'), latin1.
    let map = named_map(
        &[STRING, STRING],
        &[247, 1, 248, 1],
        &[(6, &[2, 1, b'x', 1, b'y']), (5, &[3, 1, b'a', 1, b'b', 1, b'c']), (10, &[8])],
    );
    let schema = map.schema(None).unwrap();
    let (batch, _) = decode(&insert(&map, &[0, 0, 0, 0, 2, 0b101]), schema.clone(), 0).unwrap();
    let text = |column: usize, row: usize| batch.rows.column(column).as_string::<i32>().value(row).to_owned();
    assert_eq!([text(0, 0), text(1, 0), text(0, 1), text(1, 1)], ["", "", "y", "a,c"]);
    let beyond = decode(&insert(&map, &[0, 3, 0]), schema.clone(), 0).unwrap_err();
    assert!(matches!(beyond, RowError::Cell { source: CellError::Malformed(_), .. }));
    assert!(decode(&insert(&map, &[0, 1, 8]), schema, 0).is_err());
}

#[test]
fn old_and_fractional_times_are_signed_microseconds() {
    let map = named_map(&[TIME, TIME2], &[2], &[]);
    let old = (-10_203_i32).to_le_bytes();
    let row = [&[0][..], &old[..3], &[0x7F, 0xFF, 0xFE, 0xF6]].concat();
    let (batch, _) = decode(&insert(&map, &row), map.schema(None).unwrap(), 0).unwrap();
    assert_eq!(batch.rows.column(0).as_primitive::<Int64Type>().value(0), -3_723_000_000);
    assert_eq!(batch.rows.column(1).as_primitive::<Int64Type>().value(0), -1_100_000);
}

#[test]
fn zero_dates_go_by_the_policy() {
    let map = named_map(&[DATE], &[], &[]);
    let event = insert(&map, &[0, 0, 0, 0]);
    let (batch, _) = decode(&event, map.schema(None).unwrap(), 0).unwrap();
    assert!(batch.rows.column(0).is_null(0));
    let error = decode_with(&event, map.schema(None).unwrap(), 0, ZeroDates::Error).unwrap_err();
    assert!(matches!(error, RowError::Cell { source: CellError::Value(ValueError::ZeroDate), row: 1, .. }));
    assert!(error.to_string().contains("column a"));
}

#[test]
fn skipped_row_changes_are_walked_but_not_emitted() {
    let map = named_map(&[LONG, VARCHAR], &[20, 0], &[(2, &[45])]);
    let schema = map.schema(None).unwrap();
    let rows = [&[0, 1, 0, 0, 0, 1, b'a'][..], &[0b10, 2, 0, 0, 0], &[0, 3, 0, 0, 0, 0]].concat();
    for (skip, expected) in [(0, 3), (2, 1), (3, 0), (9, 0)] {
        let (batch, walked) = decode(&insert(&map, &rows), schema.clone(), skip).unwrap();
        assert_eq!((batch.len(), walked), (expected, 3));
    }
    let (batch, _) = decode(&insert(&map, &rows), schema.clone(), 1).unwrap();
    assert_eq!(shown_ops(&batch), ["c 2 NULL first", "c 3  first"]);
    // An update is one change of two images, and skipping it skips both.
    let updates = [&rows[..7], &[0, 9, 0, 0, 0, 0], &rows[7..12], &rows[7..12]].concat();
    let event = image(&map, RowsKind::Update, &updates);
    let (batch, walked) = decode(&event, schema.clone(), 0).unwrap();
    assert_eq!(walked, 2);
    assert_eq!(shown_ops(&batch), ["d 1 a first", "c 9  second", "u 2 NULL first"]);
    let (batch, walked) = decode(&event, schema, 1).unwrap();
    assert_eq!((shown_ops(&batch), walked), (vec!["u 2 NULL first".to_owned()], 2));
}

#[test]
fn without_a_key_every_update_is_an_update() {
    let map = named_map(&[LONG], &[], &[]);
    let schema = TableSchema { key: Vec::new(), ..map.schema(None).unwrap() };
    let event = image(&map, RowsKind::Update, &[0, 1, 0, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(shown_ops(&decode(&event, schema, 0).unwrap().0), ["u 2 first"]);
}

#[test]
fn named_keys_override_the_primary_key_and_must_exist() {
    let map = named_map(&[LONG, LONG], &[], &[]);
    assert_eq!(map.schema(None).unwrap().key, [0]);
    assert_eq!(map.schema(Some(&["B".into(), "a".into()])).unwrap().key, [1, 0]);
    assert!(matches!(map.schema(Some(&["c".into()])), Err(RowError::KeyColumn { column, .. }) if column == "c"));
}

#[test]
fn an_absent_key_is_an_error_that_names_the_way_out() {
    let map = named_map(&[LONG, LONG], &[], &[]);
    let schema = map.schema(None).unwrap();
    let mut event = insert(&map, &[0, 1, 0, 0, 0]);
    event.present = Bytes::from_static(&[0b10]);
    for kind in [RowsKind::Insert, RowsKind::Update, RowsKind::Delete] {
        let error = decode(&RowsImage { kind, ..event.clone() }, schema.clone(), 0).unwrap_err();
        assert_eq!(error, RowError::PartialImage { table: map.id(), column: "a".into() });
        assert!(error.to_string().contains("binlog_row_image=FULL"));
    }
    // Without a key every column is needed, or an image of no columns at all would be no row.
    let keyless = weir_model::TableSchema { key: Vec::new(), ..schema };
    event.present = Bytes::from_static(&[0b01]);
    assert!(matches!(decode(&event, keyless, 0), Err(RowError::PartialImage { column, .. }) if column == "b"));
}

#[test]
fn a_character_set_that_is_not_known_or_not_told_is_refused_before_any_row() {
    let unknown = named_map(&[VARCHAR], &[20, 0], &[(2, &[0xFC, 0xA0, 0x0F])]);
    let schema: Arc<_> = unknown.schema(None).unwrap().into();
    let error = RowDecoder::new(&unknown, schema.clone()).unwrap_err();
    assert_eq!(error, RowError::Charset { table: unknown.id(), column: "a".into(), collation: 4000 });
    let untold = named_map(&[VARCHAR], &[20, 0], &[]);
    assert!(matches!(untold.schema(None), Err(RowError::NoCharset { .. })));
    let nameless = TableMap::parse(&map_body(&[VARCHAR], &[20, 0], &[])).unwrap();
    assert!(nameless.schema_with(&schema).is_ok());
    assert!(matches!(RowDecoder::new(&nameless, schema), Err(RowError::NoCharset { .. })));
}

#[test]
fn unknown_types_and_metadata() {
    let error = TableMap::parse(&map_body(&[LONG, 20], &[], &[])).unwrap_err();
    assert_eq!(error.to_string(), "the table map of d.t has column 2 of type code 20, which is not known");
    assert!(TableMap::parse(&map_body(&[LONG], &[], &[(99, &[1, 2, 3])])).is_ok());
    assert!(matches!(
        TableMap::parse(&map_body(&[LONG], &[], &[(8, &[1])])),
        Err(RowError::Map { what: "SIMPLE_PRIMARY_KEY", .. })
    ));
}

#[test]
fn invalid_utf8_is_an_error_without_the_text() {
    let map = named_map(&[LONG, VARCHAR], &[20, 0], &[(2, &[45])]);
    let event = insert(&map, &[0, 1, 0, 0, 0, 4, b'o', b'd', b'd', 0xFF]);
    let error = decode(&event, map.schema(None).unwrap(), 0).unwrap_err().to_string();
    assert_eq!(
        error,
        "row change 1 of an event of d.t cannot be decoded: column b: text that is not well-formed utf8mb4"
    );
}

/// Type codes with metadata that makes a valid column of each.
const KINDS: &[(u8, &[u8])] = &[
    (1, &[]),
    (2, &[]),
    (3, &[]),
    (4, &[4]),
    (5, &[8]),
    (7, &[]),
    (8, &[]),
    (9, &[]),
    (10, &[]),
    (11, &[]),
    (12, &[]),
    (13, &[]),
    (15, &[20, 0]),
    (15, &[44, 1]),
    (16, &[1, 0]),
    (16, &[0, 8]),
    (17, &[3]),
    (18, &[6]),
    (19, &[1]),
    (242, &[4]),
    (245, &[4]),
    (246, &[65, 30]),
    (246, &[38, 10]),
    (252, &[1]),
    (254, &[0xFE, 10]),
    (254, &[247, 2]),
    (254, &[248, 8]),
    (255, &[4]),
];

proptest! {
    #[test]
    fn any_bytes_are_rows_or_an_error(
        kinds in prop::collection::vec(0..KINDS.len(), 1..12),
        rows in prop::collection::vec(prop_oneof![any::<u8>(), Just(0)], 0..300),
        kind in prop_oneof![Just(RowsKind::Insert), Just(RowsKind::Update), Just(RowsKind::Delete)],
        collation in prop_oneof![Just(63_u8), 1_u8..=250],
        skip in 0_u64..3,
    ) {
        let types: Vec<u8> = kinds.iter().map(|&index| KINDS[index].0).collect();
        let metadata: Vec<u8> = kinds.iter().flat_map(|&index| KINDS[index].1.to_vec()).collect();
        let map = named_map(&types, &metadata, &[(2, &[collation]), (10, &[8])]);
        let _ = decode(&image(&map, kind, &rows), map.schema(None).unwrap(), skip);
    }

    #[test]
    fn any_bytes_are_a_table_map_or_an_error(
        types in prop::collection::vec(any::<u8>(), 0..8),
        tail in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut body = map_body(&types, &[], &[]);
        body.truncate(15 + types.len());
        body.extend(&tail);
        if let Ok(map) = TableMap::parse(&body) {
            let _ = map.schema(None);
        }
        let _ = TableMap::parse(&tail);
    }

    #[test]
    fn any_optional_metadata_is_read_or_an_error(kind in 1_u8..14, value in prop::collection::vec(any::<u8>(), 0..40)) {
        let body = map_body(&[LONG, VARCHAR, STRING, STRING, 255, 242], &[20, 0, 247, 1, 248, 1, 4, 4], &[(kind, &value)]);
        if let Ok(map) = TableMap::parse(&body) {
            let _ = map.schema(None);
        }
    }
}

//! Keys of every type: as the server gives them, as JSON, and as conditions that find the row again.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::Value;
use snapshot_loader::key_text::{Extent, key_json, key_of_text, key_values};
use snapshot_loader::{ChunkRange, PlanTarget, plan_chunks};

use crate::read_all;
use crate::support::{database, described};

/// A table whose record key is one column; its keys, but for the first, as the planner reads them.
async fn keys_come_back(conn: &mut Conn, name: &str, definition: &str, values: &[&str]) {
    conn.query_drop(format!("CREATE TABLE {name} (k {definition} PRIMARY KEY)")).await.unwrap();
    for value in values {
        let sql = format!("INSERT INTO {name} VALUES ({value})");
        conn.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    let table = described(conn, "keys_as_text", name).await;
    let chunks = plan_chunks(conn, &table, &ChunkRange::all(), PlanTarget { rows: 1, bytes: 1 << 20 }).await.unwrap();
    let read: Vec<_> = chunks.into_iter().filter_map(|chunk| chunk.from).collect();
    // One more may follow, for keys that come later.
    assert!(read.len() + 1 >= values.len(), "{definition}: each row is a chunk");
    // By way of hexadecimal digits, since bits and bytes are no text.
    let spelled: Vec<String> = conn.query(format!("SELECT HEX(CAST(k AS CHAR)) FROM {name} ORDER BY k")).await.unwrap();
    for (key, spelled) in read.iter().zip(&spelled[1..]) {
        let json = key_json(&table, key);
        assert_eq!(&key_values(&table, &json, Extent::Whole).unwrap(), key, "{definition}: {json:?}");
        let text = match &json[0] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!(key_of_text(&table, &text, Extent::Whole).unwrap(), json, "{definition}");
        // Bits and bytes have no spelling of their own, and floating numbers several.
        let has_a_spelling =
            !["BIT", "BINARY", "VARBINARY", "FLOAT", "DOUBLE"].iter().any(|ty| definition.starts_with(ty));
        let ours: String = text.bytes().map(|byte| format!("{byte:02X}")).collect();
        assert!(!has_a_spelling || ours == *spelled, "{definition}: {text} is spelled {spelled}");
        let above = read_all(&table, &ChunkRange { from: Some(key.clone()), to: None }).await;
        let below = read_all(&table, &ChunkRange { from: None, to: Some(key.clone()) }).await;
        assert_eq!(above.num_rows() + below.num_rows(), values.len(), "{definition}: {json:?}");
        assert!(above.num_rows() > 0 && below.num_rows() > 0, "{definition}: {json:?} divides the table");
    }
}

#[tokio::test]
async fn every_type_of_key_comes_back_through_json() {
    let mut conn = database("keys_as_text").await;
    for (name, definition, values) in [
        ("tiny", "TINYINT", &["-128", "0", "127"][..]),
        ("medium", "MEDIUMINT UNSIGNED", &["0", "16777215"]),
        ("big", "BIGINT", &["-9223372036854775808", "9007199254740993", "9223372036854775807"]),
        ("big_u", "BIGINT UNSIGNED", &["0", "9223372036854775808", "18446744073709551615"]),
        ("year_", "YEAR", &["0", "1901", "2155"]),
        ("bit_1", "BIT(1)", &["0", "1"]),
        ("bit_64", "BIT(64)", &["0", "7", "18446744073709551615"]),
        (
            "decimal_",
            "DECIMAL(30,10)",
            &["-12345678901234567890.0123456789", "-0.5", "0", "99999999999999999999.9999999999"],
        ),
        ("decimal_2", "DECIMAL(2,2)", &["-0.99", "0.01"]),
        ("float_", "FLOAT", &["-1.5e30", "0.1", "16777216"]),
        ("double_", "DOUBLE", &["-1.7976931348623157e308", "0.1", "0.30000000000000004"]),
        ("date_", "DATE", &["'1000-01-01'", "'2026-02-28'", "'9999-12-31'"]),
        ("datetime_", "DATETIME", &["'1000-01-01 00:00:00'", "'2026-11-21 03:00:00'"]),
        ("datetime_6", "DATETIME(6)", &["'2026-11-21 03:00:00.000001'", "'2026-11-21 03:00:00.100000'"]),
        ("timestamp_", "TIMESTAMP(3)", &["'1970-01-01 00:00:01.000'", "'2026-11-21 03:00:00.120'"]),
        ("time_", "TIME", &["'-838:59:59'", "'00:00:00'", "'838:59:59'"]),
        ("time_2", "TIME(2)", &["'-00:00:00.25'", "'100:00:00.50'"]),
        ("char_", "CHAR(10)", &["''", "'5'", "'[\"a\"]'"]),
        ("varchar_", "VARCHAR(20) COLLATE utf8mb4_bin", &["'a b'", "'it''s'", "'é'", "'日本'"]),
        ("latin", "VARCHAR(20) CHARACTER SET latin1", &["'a'", "'é'"]),
        ("binary_", "BINARY(4)", &["x'00000000'", "x'61'", "x'FFFFFFFF'"]),
        ("varbinary_", "VARBINARY(20)", &["x''", "x'00'", "x'FF00'"]),
    ] {
        keys_come_back(&mut conn, name, definition, values).await;
    }
}

//! Every type with its edge values, written as SQL and read back as Arrow.

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef, RecordBatch};
use mysql_async::prelude::Queryable;
use snapshot_loader::{ChunkRange, ChunkReader, LoadError, ReadOptions, read_chunk};
use weir_model::{ValueError, ZeroDates};

use crate::support::{database, described};
use crate::{read_all, row_connection};

/// A table of one column per type, its rows inserted in order; gives the column back without its key.
async fn column(name: &str, definition: &str, values: &[&str]) -> ArrayRef {
    let database_name = format!("reading_{name}");
    let mut conn = database(&database_name).await;
    conn.query_drop(format!("CREATE TABLE t (id INT PRIMARY KEY, v {definition})")).await.unwrap();
    for (id, value) in values.iter().enumerate() {
        let sql = format!("INSERT INTO t VALUES ({id}, {value})");
        conn.query_drop(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    let table = described(&mut conn, &database_name, "t").await;
    let rows = read_all(&table, &ChunkRange::all()).await;
    assert_eq!(rows.num_rows(), values.len());
    rows.column(1).clone()
}

fn ints<T: ArrowPrimitiveType>(array: &ArrayRef) -> Vec<Option<T::Native>> {
    array.as_primitive::<T>().iter().collect()
}

fn texts(array: &ArrayRef) -> Vec<Option<String>> {
    array.as_string::<i32>().iter().map(|v| v.map(str::to_owned)).collect()
}

fn bytes(array: &ArrayRef) -> Vec<Option<Vec<u8>>> {
    array.as_binary::<i32>().iter().map(|v| v.map(<[u8]>::to_vec)).collect()
}

fn some(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|v| Some((*v).to_owned())).collect()
}

#[tokio::test]
async fn integers_at_their_limits() {
    let c = column("tinyint", "TINYINT", &["-128", "127", "NULL"]).await;
    assert_eq!(ints::<Int8Type>(&c), [Some(-128), Some(127), None]);
    let c = column("tinyint_u", "TINYINT UNSIGNED ZEROFILL", &["0", "255"]).await;
    assert_eq!(ints::<Int16Type>(&c), [Some(0), Some(255)]);
    let c = column("bool", "BOOL", &["TRUE", "0", "-1"]).await;
    assert_eq!(ints::<Int8Type>(&c), [Some(1), Some(0), Some(-1)]);
    let c = column("smallint", "SMALLINT", &["-32768", "32767"]).await;
    assert_eq!(ints::<Int16Type>(&c), [Some(-32768), Some(32767)]);
    let c = column("smallint_u", "SMALLINT UNSIGNED", &["65535"]).await;
    assert_eq!(ints::<Int32Type>(&c), [Some(65535)]);
    let c = column("mediumint", "MEDIUMINT", &["-8388608", "8388607"]).await;
    assert_eq!(ints::<Int32Type>(&c), [Some(-8_388_608), Some(8_388_607)]);
    let c = column("mediumint_u", "MEDIUMINT UNSIGNED", &["16777215"]).await;
    assert_eq!(ints::<Int32Type>(&c), [Some(16_777_215)]);
    let c = column("int_", "INT", &["-2147483648", "2147483647"]).await;
    assert_eq!(ints::<Int32Type>(&c), [Some(i32::MIN), Some(i32::MAX)]);
    let c = column("int_u", "INT UNSIGNED", &["4294967295"]).await;
    assert_eq!(ints::<Int64Type>(&c), [Some(4_294_967_295)]);
    let c = column("bigint", "BIGINT", &["-9223372036854775808", "9223372036854775807"]).await;
    assert_eq!(ints::<Int64Type>(&c), [Some(i64::MIN), Some(i64::MAX)]);
    let c = column("bigint_u", "BIGINT UNSIGNED", &["0", "18446744073709551615", "NULL"]).await;
    assert_eq!(ints::<Decimal128Type>(&c), [Some(0), Some(i128::from(u64::MAX)), None]);
    let c = column("year_", "YEAR", &["0", "1901", "2155"]).await;
    assert_eq!(ints::<Int16Type>(&c), [Some(0), Some(1901), Some(2155)]);
}

#[tokio::test]
async fn decimals_and_floats_keep_every_digit_and_bit() {
    let greatest = "9".repeat(38);
    let c = column("dec38", "DECIMAL(38,0)", &[&greatest, &format!("-{greatest}")]).await;
    let limit = 10_i128.pow(38) - 1;
    assert_eq!(ints::<Decimal128Type>(&c), [Some(limit), Some(-limit)]);
    let c = column("dec10", "DECIMAL(10,2)", &["-0.01", "0", "99999999.99", "NULL"]).await;
    assert_eq!(ints::<Decimal128Type>(&c), [Some(-1), Some(0), Some(9_999_999_999), None]);
    let wide = format!("{}.{}", "9".repeat(35), "9".repeat(30));
    let c = column("dec65", "DECIMAL(65,30)", &[&wide, "-0.000000000000000000000000000001", "7"]).await;
    let seven = format!("7.{}", "0".repeat(30));
    assert_eq!(texts(&c), some(&[&wide, "-0.000000000000000000000000000001", &seven]));
    let c = column("dec40z", "DECIMAL(40,2) UNSIGNED ZEROFILL", &["1.5", "0"]).await;
    assert_eq!(texts(&c), some(&["1.50", "0.00"]));

    let c = column("float_", "FLOAT", &["16777217", "0.1", "1e-45", "-0e0", "3.4028234e38"]).await;
    let bits: Vec<u32> = c.as_primitive::<Float32Type>().values().iter().map(|v| v.to_bits()).collect();
    assert_eq!(bits, [16_777_216_f32, 0.1, 1e-45, -0.0, f32::MAX].map(f32::to_bits));
    let c = column("double_", "DOUBLE", &["0.1", "5e-324", "-0e0", "1.7976931348623157e308"]).await;
    let bits: Vec<u64> = c.as_primitive::<Float64Type>().values().iter().map(|v| v.to_bits()).collect();
    assert_eq!(bits, [0.1, 5e-324, -0.0, f64::MAX].map(f64::to_bits));
}

#[tokio::test]
async fn dates_and_times_of_every_precision() {
    let c = column("date_", "DATE", &["'1000-01-01'", "'1969-12-31'", "'9999-12-31'"]).await;
    assert_eq!(ints::<Date32Type>(&c), [Some(-354_285), Some(-1), Some(2_932_896)]);
    let c = column("dt6", "DATETIME(6)", &["'1969-12-31 23:59:59.999999'", "'9999-12-31 23:59:59.999999'"]).await;
    assert_eq!(ints::<TimestampMicrosecondType>(&c), [Some(-1), Some(253_402_300_799_999_999)]);
    let c = column("ts3", "TIMESTAMP(3)", &["'1970-01-01 00:00:01.001'", "'2038-01-19 03:14:07.999'"]).await;
    assert_eq!(ints::<TimestampMicrosecondType>(&c), [Some(1_001_000), Some(2_147_483_647_999_000)]);
    for fsp in 0..=6_u32 {
        let step = 10_i64.pow(6 - fsp);
        let definition = format!("TIME({fsp})");
        let fraction = if fsp == 0 { String::new() } else { format!(".{}", &"123456"[..fsp as usize]) };
        let small = format!("'-00:00:01{fraction}'");
        let values = ["'838:59:59'", "'-838:59:59'", "'00:00:00'", &small];
        let c = column(&format!("time{fsp}"), &definition, &values).await;
        let expected = -(1_000_000 + 123_456 / step * step);
        let limit = 3_020_399_000_000;
        assert_eq!(ints::<Int64Type>(&c), [Some(limit), Some(-limit), Some(0), Some(expected)], "TIME({fsp})");
    }
}

#[tokio::test]
async fn a_timestamp_is_utc_whatever_zone_it_was_written_in() {
    let mut conn = database("reading_zone").await;
    conn.query_drop("CREATE TABLE t (id INT PRIMARY KEY, v TIMESTAMP)").await.unwrap();
    conn.query_drop("SET time_zone='+05:30'").await.unwrap();
    conn.query_drop("INSERT INTO t VALUES (1, '2026-01-01 05:30:00')").await.unwrap();
    conn.query_drop("SET time_zone='+00:00'").await.unwrap();
    let table = described(&mut conn, "reading_zone", "t").await;
    let rows = read_all(&table, &ChunkRange::all()).await;
    assert_eq!(rows.column(1).as_primitive::<TimestampMicrosecondType>().value(0), 1_767_225_600_000_000);
}

#[tokio::test]
async fn zero_dates_become_null_or_an_error_by_policy() {
    let mut conn = database("reading_zero").await;
    conn.query_drop("CREATE TABLE t (id INT PRIMARY KEY, d DATE, dt DATETIME, ts TIMESTAMP NULL)").await.unwrap();
    conn.query_drop("INSERT INTO t VALUES (1, '0000-00-00', '2024-00-10 01:02:03', '0000-00-00')").await.unwrap();
    let table = described(&mut conn, "reading_zero", "t").await;
    let rows = read_all(&table, &ChunkRange::all()).await;
    assert!((1..4).all(|c| rows.column(c).is_null(0)));
    let strict = ReadOptions { zero_dates: ZeroDates::Error, ..ReadOptions::default() };
    let result =
        read_chunk(&mut row_connection().await, &table, &ChunkRange::all(), &strict, |_| std::future::ready(Ok(())))
            .await;
    let Err(LoadError::Value { column, source: ValueError::ZeroDate, .. }) = result else { panic!("{result:?}") };
    assert_eq!(column, "d");
}

#[tokio::test]
async fn bits_binaries_and_vectors_keep_their_bytes() {
    let c = column("bit1", "BIT(1)", &["b'1'", "b'0'", "NULL"]).await;
    assert_eq!(c.as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false), None]);
    let c = column("bit10", "BIT(10)", &["b'1000000001'", "b'0'"]).await;
    assert_eq!(bytes(&c), [Some(vec![2, 1]), Some(vec![0, 0])]);
    let c = column("bit64", "BIT(64)", &["0xFFFFFFFFFFFFFFFE", "1"]).await;
    assert_eq!(bytes(&c), [Some(vec![255, 255, 255, 255, 255, 255, 255, 254]), Some(vec![0, 0, 0, 0, 0, 0, 0, 1])]);
    let c = column("binary_", "BINARY(3)", &["x'61'", "x'610000'"]).await;
    assert_eq!(bytes(&c), [Some(b"a\0\0".to_vec()), Some(b"a\0\0".to_vec())]);
    let c = column("varbinary_", "VARBINARY(5)", &["x'61'", "x'6100FF'", "''"]).await;
    assert_eq!(bytes(&c), [Some(b"a".to_vec()), Some(b"a\0\xFF".to_vec()), Some(vec![])]);
    let c = column("blob_", "LONGBLOB", &["REPEAT(x'FF', 300000)", "NULL"]).await;
    assert_eq!(bytes(&c), [Some(vec![0xFF; 300_000]), None]);
    let c = column("vector_", "VECTOR(3)", &["TO_VECTOR('[1, -2.5, 0]')", "NULL"]).await;
    let floats: Vec<u8> = [1.0_f32, -2.5, 0.0].iter().flat_map(|f| f.to_le_bytes()).collect();
    assert_eq!(bytes(&c), [Some(floats), None]);
    let c =
        column("geometry_", "GEOMETRY", &["ST_GeomFromText('POINT(1 2)', 0)", "ST_GeomFromText('POINT(1 2)', 4326)"]);
    let point = |srid: u32, x: f64, y: f64| {
        let mut wkb = srid.to_le_bytes().to_vec();
        wkb.extend([1, 1, 0, 0, 0]);
        wkb.extend(x.to_le_bytes());
        wkb.extend(y.to_le_bytes());
        Some(wkb)
    };
    // SRID 4326 is written latitude first and stored longitude first.
    assert_eq!(bytes(&c.await), [point(0, 1.0, 2.0), point(4326, 2.0, 1.0)]);
}

#[tokio::test]
async fn text_in_any_character_set_arrives_as_utf8() {
    let c = column("latin1", "VARCHAR(10) CHARACTER SET latin1", &["'é€ß'", "''", "NULL"]).await;
    assert_eq!(texts(&c), [Some("é€ß".into()), Some(String::new()), None]);
    assert_eq!(texts(&column("gbk", "TEXT CHARACTER SET gbk", &["'汉字'"]).await), some(&["汉字"]));
    assert_eq!(texts(&column("ucs2", "VARCHAR(10) CHARACTER SET ucs2", &["'Жß'"]).await), some(&["Жß"]));
    assert_eq!(texts(&column("utf16", "VARCHAR(10) CHARACTER SET utf16", &["'a😀'"]).await), some(&["a😀"]));
    assert_eq!(texts(&column("utf8mb3", "VARCHAR(10) CHARACTER SET utf8mb3", &["'汉'"]).await), some(&["汉"]));
    assert_eq!(texts(&column("utf8mb4", "LONGTEXT", &["'😀 x'"]).await), some(&["😀 x"]));
    let c = column("char_", "CHAR(200)", &["'a  '", "'  b'"]).await;
    assert_eq!(texts(&c), some(&["a", "  b"]));
    let c = column("charbinary", "CHAR(3) CHARACTER SET binary", &["'a'"]).await;
    assert_eq!(bytes(&c), [Some(b"a\0\0".to_vec())]);
    let c = column("enum_", "ENUM('small','groß','x''y') CHARACTER SET latin1", &["'groß'", "3", "NULL", "''"]).await;
    assert_eq!(texts(&c), [Some("groß".into()), Some("x'y".into()), None, Some(String::new())]);
    let c = column("set_", "SET('a','ü','c')", &["'c,a'", "7", "''"]).await;
    assert_eq!(texts(&c), some(&["a,c", "a,ü,c", ""]));
    let json = r#"'{"b": 1, "a": [1.50, "é", null, true]}'"#;
    let typed = "JSON_OBJECT('d', CAST('1.10' AS DECIMAL(5,2)), 'u', 18446744073709551615)";
    let c = column("json_", "JSON", &[json, typed, "'null'", "NULL"]).await;
    let expected = [
        Some(r#"{"a": [1.5, "é", null, true], "b": 1}"#.to_owned()),
        Some(r#"{"d": 1.10, "u": 18446744073709551615}"#.to_owned()),
        Some("null".to_owned()),
        None,
    ];
    assert_eq!(texts(&c), expected);
}

#[tokio::test]
async fn generated_and_invisible_columns_and_odd_names_are_read() {
    let mut conn = database("reading_hidden").await;
    conn.query_drop("SET sql_generate_invisible_primary_key=ON").await.unwrap();
    conn.query_drop(
        "CREATE TABLE `odd ``:name?` (`a:b ``?` INT, hidden INT DEFAULT 7 INVISIBLE, twice INT AS (`a:b ``?` * 2) VIRTUAL)",
    )
    .await
    .unwrap();
    conn.query_drop("INSERT INTO `odd ``:name?` (`a:b ``?`) VALUES (4)").await.unwrap();
    let table = described(&mut conn, "reading_hidden", "odd `:name?").await;
    let rows = read_all(&table, &ChunkRange::all()).await;
    let values: Vec<i32> = (1..4).map(|c| rows.column(c).as_primitive::<Int32Type>().value(0)).collect();
    assert_eq!(values, [4, 7, 8]);
    assert_eq!(table.schema.key_names(), ["my_row_id"]);
}

#[tokio::test]
async fn batches_stay_small_and_a_large_row_passes() {
    let mut conn = database("reading_batches").await;
    conn.query_drop("CREATE TABLE t (id INT PRIMARY KEY, v LONGTEXT)").await.unwrap();
    // Above 16 MiB a row takes more than one packet.
    for (id, length) in [(1, 1_000), (2, 20 << 20), (3, 40_000), (4, 40_000), (5, 40_000)] {
        conn.query_drop(format!("INSERT INTO t VALUES ({id}, REPEAT('x', {length}))")).await.unwrap();
    }
    let table = described(&mut conn, "reading_batches", "t").await;
    let options = ReadOptions { batch_bytes: 64 << 10, ..ReadOptions::default() };
    let mut connection = row_connection().await;
    let mut reader = ChunkReader::open(&mut connection, &table, &ChunkRange::all(), &options).await.unwrap();
    let mut sizes = Vec::new();
    while let Some(batch) = reader.next_batch().await.unwrap() {
        sizes.push(batch.num_rows());
    }
    assert_eq!((sizes, reader.rows()), (vec![2, 2, 1], 5));
    assert!(reader.next_batch().await.unwrap().is_none());
    drop(reader);
    // The connection is free again.
    assert!(ChunkReader::open(&mut connection, &table, &ChunkRange::all(), &options).await.is_ok());
    // Rows that nobody has read stand before whatever would come next.
    assert!(ChunkReader::open(&mut connection, &table, &ChunkRange::all(), &options).await.is_err());
}

#[tokio::test]
async fn an_empty_table_gives_no_batch_and_a_changed_one_an_error() {
    let mut conn = database("reading_empty").await;
    conn.query_drop("CREATE TABLE t (id INT PRIMARY KEY, v INT)").await.unwrap();
    let table = described(&mut conn, "reading_empty", "t").await;
    let rows: RecordBatch = read_all(&table, &ChunkRange::all()).await;
    assert_eq!(rows.num_rows(), 0);
    conn.query_drop("ALTER TABLE t MODIFY v VARCHAR(10)").await.unwrap();
    conn.query_drop("INSERT INTO t VALUES (1, 'text')").await.unwrap();
    let read = ReadOptions::default();
    let result =
        read_chunk(&mut row_connection().await, &table, &ChunkRange::all(), &read, |_| std::future::ready(Ok(())))
            .await;
    assert!(matches!(result, Err(LoadError::Cell { .. })), "{result:?}");
}

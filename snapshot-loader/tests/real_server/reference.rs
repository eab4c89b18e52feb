//! Our own reading of rows against the driver's: every type, its edges and random values between them, bit for bit.
//!
//! The reference goes cell by cell over what the driver makes of a row, and shares nothing with the reader but the builders.

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use snapshot_loader::{ChunkRange, ReadOptions, read_chunk, select_rows};
use weir_model::value::DECIMAL_PRECISION_MAX;
use weir_model::{ColumnBuilder, ColumnType, ValueError, ZeroDates};
use weir_mysql::TableDescription;

use crate::row_connection;
use crate::support::{database, described};

/// A column for each type that MySQL has, and what makes a value of it: `{r}` is a number from 0 to 1, `n` the row's.
const TYPES: [(&str, &str); 40] = [
    ("TINYINT", "FLOOR({r} * 256) - 128"),
    ("TINYINT UNSIGNED", "FLOOR({r} * 256)"),
    ("SMALLINT", "FLOOR({r} * 65536) - 32768"),
    ("SMALLINT UNSIGNED ZEROFILL", "FLOOR({r} * 65536)"),
    ("MEDIUMINT", "FLOOR({r} * 16777216) - 8388608"),
    ("MEDIUMINT UNSIGNED", "FLOOR({r} * 16777216)"),
    ("INT", "FLOOR({r} * 4294967296) - 2147483648"),
    ("INT UNSIGNED", "FLOOR({r} * 4294967296)"),
    ("BIGINT", "CAST(CONV(LEFT(SHA2(n, 256), 15), 16, 10) AS SIGNED) * IF({r} < 0.5, -1, 1)"),
    ("BIGINT UNSIGNED", "CAST(CONV(LEFT(SHA2(n, 256), 16), 16, 10) AS UNSIGNED)"),
    ("YEAR", "IF({r} < 0.1, 0, 1901 + FLOOR({r} * 255))"),
    ("BIT(1)", "FLOOR({r} * 2)"),
    ("BIT(13)", "FLOOR({r} * 8192)"),
    ("BIT(64)", "CAST(CONV(LEFT(SHA2(n, 256), 16), 16, 10) AS UNSIGNED)"),
    ("DECIMAL(5,0)", "FLOOR({r} * 199999) - 99999"),
    ("DECIMAL(18,4)", "({r} - 0.5) * 1e13"),
    ("DECIMAL(20,2) UNSIGNED ZEROFILL", "{r} * 1e17"),
    ("DECIMAL(38,30)", "({r} - 0.5) * 1e7"),
    ("DECIMAL(65,30)", "CONCAT(IF({r} < 0.5, '-', ''), REPEAT('7', FLOOR({r} * 35)), '.', n)"),
    ("DECIMAL(50,2) UNSIGNED ZEROFILL", "FLOOR({r} * 10)"),
    ("FLOAT", "({r} - 0.5) * POW(10, n % 60 - 30)"),
    ("DOUBLE", "({r} - 0.5) * POW(10, n % 600 - 300)"),
    ("DATE", "IF({r} < 0.1, '0000-00-00', DATE '1000-01-01' + INTERVAL FLOOR({r} * 3287180) DAY)"),
    (
        "DATETIME",
        "IF({r} < 0.1, '2024-00-10 01:02:03', TIMESTAMP '1000-01-01 00:00:00' + INTERVAL FLOOR({r} * 250000000000) SECOND)",
    ),
    ("DATETIME(6)", "TIMESTAMP '1960-01-01 00:00:00' + INTERVAL FLOOR({r} * 4000000000000000) MICROSECOND"),
    ("DATETIME(2)", "IF({r} < 0.3, '2020-02-29', '2020-02-29 00:00:01.5')"),
    ("TIMESTAMP NULL", "IF({r} < 0.1, '0000-00-00', FROM_UNIXTIME(1 + FLOOR({r} * 2147483646)))"),
    ("TIMESTAMP(3) NULL", "FROM_UNIXTIME(1 + {r} * 2147483646)"),
    ("TIME", "SEC_TO_TIME(FLOOR(({r} - 0.5) * 6040000))"),
    ("TIME(6)", "SEC_TO_TIME(({r} - 0.5) * 100)"),
    ("CHAR(20)", "LEFT(SHA2(n, 256), FLOOR({r} * 20))"),
    ("VARCHAR(300) CHARACTER SET latin1", "REPEAT(CONVERT(X'E9' USING latin1), FLOOR({r} * 300))"),
    ("LONGTEXT", "REPEAT('東京 🚀', FLOOR({r} * {r} * {r} * 30000))"),
    ("ENUM('small','groß')", "1 + FLOOR({r} * 2)"),
    ("SET('a','ü','c')", "FLOOR({r} * 8)"),
    ("JSON", "JSON_OBJECT('n', n, 'é', JSON_ARRAY({r}, NULL, TRUE, 'x'))"),
    ("BINARY(16)", "UNHEX(LEFT(SHA2(n, 256), 32))"),
    ("VARBINARY(300)", "LEFT(REPEAT(UNHEX(SHA2(n, 256)), 10), FLOOR({r} * 300))"),
    ("GEOMETRY", "ST_GeomFromText(CONCAT('POINT(', {r}, ' ', n, ')'), 0)"),
    ("VECTOR(3)", "TO_VECTOR(CONCAT('[', {r}, ',-2.5,', n, ']'))"),
];
const ROWS: u32 = 3_000;

#[tokio::test]
async fn every_type_is_read_as_the_driver_reads_it() {
    let mut conn = database("reading_reference").await;
    let columns: Vec<String> = TYPES.iter().enumerate().map(|(at, (ty, _))| format!("c{at} {ty}")).collect();
    conn.query_drop(format!("CREATE TABLE t (n INT PRIMARY KEY, {})", columns.join(", "))).await.unwrap();
    conn.query_drop(format!("SET cte_max_recursion_depth={ROWS}")).await.unwrap();
    // The same values in every run. A seventh of them are NULL.
    let value = |(at, (_, sql)): (usize, &(&str, &str))| {
        let random = format!("((n * 7919 + {at} * 104729) % 100003 / 100003e0)");
        let sql = sql.replace("{r}", &random);
        format!("IF((n + {at}) % 7 = 0, NULL, {sql})")
    };
    let values: Vec<String> = TYPES.iter().enumerate().map(value).collect();
    let sql = format!(
        "INSERT INTO t WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) SELECT n, {} FROM c",
        values.join(", ")
    );
    conn.query_drop(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let table = described(&mut conn, "reading_reference", "t").await;
    let expected = by_the_driver(&mut conn, &table).await;
    assert_eq!(expected.num_rows(), ROWS as usize);
    for batch_bytes in [10_000, 8 << 20] {
        let (mut batches, options) = (Vec::new(), ReadOptions { batch_bytes, ..ReadOptions::default() });
        let range = ChunkRange::all();
        let mut connection = row_connection().await;
        let read = read_chunk(&mut connection, &table, &range, &options, |batch| {
            batches.push(batch);
            std::future::ready(Ok(()))
        });
        assert_eq!(read.await.unwrap(), u64::from(ROWS));
        let found = concat_batches(&table.schema.arrow(), &batches).unwrap();
        for (at, column) in table.schema.columns.iter().enumerate() {
            let (expected, found) = (expected.column(at).to_data(), found.column(at).to_data());
            assert!(expected == found, "{} {:?}", column.name, column.ty);
        }
    }
}

async fn by_the_driver(conn: &mut Conn, table: &TableDescription) -> RecordBatch {
    let rows: Vec<Row> = conn.exec(select_rows(table, &ChunkRange::all()).unwrap(), ()).await.unwrap();
    let columns = table.schema.columns.iter().enumerate().map(|(at, column)| {
        let (cell, mut builder) = (Cell::of(&column.ty), ColumnBuilder::new(&column.ty, ZeroDates::Null));
        for row in &rows {
            cell.push(row.as_ref(at).unwrap(), &mut builder).unwrap();
        }
        builder.finish()
    });
    RecordBatch::try_new(table.schema.arrow(), columns.collect()).unwrap()
}

/// How the cells of one column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Integer,
    Float,
    Double,
    /// DECIMAL that fits 128 bits, sent as text with `scale` digits behind the point.
    Decimal {
        scale: u8,
    },
    /// DECIMAL beyond that.
    DecimalText,
    Date,
    DateTime,
    Time,
    Bool,
    /// `bytes` bytes, big-endian.
    Bits {
        bytes: u8,
    },
    Text,
    Binary,
}

impl Cell {
    fn of(ty: &ColumnType) -> Self {
        match ty {
            t if t.is_integer() => Self::Integer,
            ColumnType::Float => Self::Float,
            ColumnType::Double => Self::Double,
            ColumnType::Decimal { precision, scale } if *precision <= DECIMAL_PRECISION_MAX => {
                Self::Decimal { scale: *scale }
            }
            ColumnType::Decimal { .. } => Self::DecimalText,
            ColumnType::Date => Self::Date,
            ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => Self::DateTime,
            ColumnType::Time { .. } => Self::Time,
            ColumnType::Boolean => Self::Bool,
            ColumnType::Bits(bits) => Self::Bits { bytes: bits.div_ceil(8) },
            ColumnType::Binary | ColumnType::Geometry | ColumnType::Vector => Self::Binary,
            _ => Self::Text,
        }
    }

    /// Appends `value` to `column`.
    fn push(self, value: &Value, column: &mut ColumnBuilder) -> Result<(), ValueError> {
        match (self, value) {
            (_, Value::NULL) => column.push_null(),
            (Self::Integer, Value::Int(v)) => column.push_int(*v)?,
            (Self::Integer, Value::UInt(v)) => column.push_uint(*v)?,
            (Self::Text, Value::Bytes(bytes)) => column.push_text(std::str::from_utf8(bytes).unwrap())?,
            (Self::Binary, Value::Bytes(bytes)) => column.push_binary(bytes)?,
            (Self::Decimal { scale }, Value::Bytes(digits)) => column.push_decimal(unscaled(digits, scale).unwrap())?,
            (Self::DecimalText, Value::Bytes(digits)) => column.push_text(&plain_decimal(digits).unwrap())?,
            (Self::Date, Value::Date(year, month, day, ..)) => column.push_date(*year, *month, *day)?,
            (Self::DateTime, Value::Date(year, month, day, hour, minute, second, micros)) => {
                column.push_datetime((*year, *month, *day), (*hour, *minute, *second), *micros)?;
            }
            (Self::Time, Value::Time(negative, days, hours, minutes, seconds, micros)) => {
                let hours = i64::from(*days) * 24 + i64::from(*hours);
                let total =
                    ((hours * 60 + i64::from(*minutes)) * 60 + i64::from(*seconds)) * 1_000_000 + i64::from(*micros);
                column.push_int(if *negative { -total } else { total })?;
            }
            (Self::Float, Value::Float(v)) => column.push_f32(*v)?,
            (Self::Double, Value::Double(v)) => column.push_f64(*v)?,
            (Self::Bool, Value::Bytes(bytes)) => column.push_bool(bytes.iter().any(|b| *b != 0))?,
            (Self::Bits { bytes: width }, Value::Bytes(bytes)) if bytes.len() == usize::from(width) => {
                column.push_binary(bytes)?;
            }
            (cell, value) => panic!("{cell:?} from {value:?}"),
        }
        Ok(())
    }
}

/// The unscaled whole number of a DECIMAL that MySQL prints with exactly `scale` digits behind the point.
fn unscaled(text: &[u8], scale: u8) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut number: i128 = 0;
    let mut behind_point: Option<u8> = None;
    for byte in digits {
        match byte {
            b'0'..=b'9' => {
                number = number.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
                behind_point = behind_point.map(|n| n + 1);
            }
            b'.' if behind_point.is_none() => behind_point = Some(0),
            _ => return None,
        }
    }
    (!digits.is_empty() && behind_point.unwrap_or(0) == scale).then_some(if negative { -number } else { number })
}

/// A DECIMAL's text without the zeros that ZEROFILL puts before it.
fn plain_decimal(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let trimmed = digits.trim_start_matches('0');
    let zero = if trimmed.is_empty() || trimmed.starts_with('.') { "0" } else { "" };
    Some(format!("{sign}{zero}{trimmed}"))
}

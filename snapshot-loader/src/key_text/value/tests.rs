//! What is read as which value, what is refused, and that nothing is lost on the way through JSON.

use mysql_async::Value as Cell;
use proptest::prelude::*;

use super::*;

fn column(ty: ColumnType) -> Column {
    Column { name: "k".into(), ty, nullable: false }
}

fn accepted(json: Value, ty: ColumnType) -> KeyValue {
    read(&json, &column(ty.clone())).unwrap_or_else(|error| panic!("{json} for {ty:?}: {error}"))
}

fn decimal_type(precision: u8, scale: u8) -> ColumnType {
    ColumnType::Decimal { precision, scale }
}

#[test]
fn each_type_reads_what_json_has_for_it() {
    let temporal = |text: &str| KeyValue::Temporal(text.into());
    let number = |text: &str| KeyValue::Number(text.into());
    for (json, ty, expected) in [
        (json!(-128), ColumnType::Int8, KeyValue::Int(-128)),
        (json!("16777215"), ColumnType::UInt24, KeyValue::Int(16_777_215)),
        (json!(u64::MAX), ColumnType::UInt64, KeyValue::UInt(u64::MAX)),
        (json!("18446744073709551615"), ColumnType::UInt64, KeyValue::UInt(u64::MAX)),
        (json!("-9223372036854775808"), ColumnType::Int64, KeyValue::Int(i64::MIN)),
        (json!(2026), ColumnType::Year, KeyValue::Int(2026)),
        (json!(true), ColumnType::Boolean, KeyValue::UInt(1)),
        (json!(0), ColumnType::Boolean, KeyValue::UInt(0)),
        (json!("true"), ColumnType::Boolean, KeyValue::UInt(1)),
        (json!(1023), ColumnType::Bits(10), KeyValue::UInt(1023)),
        (json!("18446744073709551615"), ColumnType::Bits(64), KeyValue::UInt(u64::MAX)),
        (json!(1.5), decimal_type(5, 2), number("1.50")),
        (json!("-001.5"), decimal_type(5, 2), number("-1.50")),
        (json!("-0.00"), decimal_type(5, 2), number("0.00")),
        (json!(-7), decimal_type(5, 0), number("-7")),
        (json!(0.01), decimal_type(2, 2), number("0.01")),
        (json!("12345678901234567890123456789.1"), decimal_type(30, 1), number("12345678901234567890123456789.1")),
        (json!("0.1"), ColumnType::Float, number("1.0000000149011612e-1")),
        (json!(0.1), ColumnType::Double, number("1e-1")),
        (json!("2026-1-2"), ColumnType::Date, temporal("2026-01-02")),
        (json!("0000-00-00"), ColumnType::Date, temporal("0000-00-00")),
        (json!("2024-02-29"), ColumnType::Date, temporal("2024-02-29")),
        (json!("2026-01-01"), ColumnType::DateTime { fsp: 0 }, temporal("2026-01-01 00:00:00.000000")),
        (json!("2026-01-01T03:04"), ColumnType::DateTime { fsp: 0 }, temporal("2026-01-01 03:04:00.000000")),
        (json!("2026-01-01 03:04:05.5"), ColumnType::DateTime { fsp: 3 }, temporal("2026-01-01 03:04:05.500000")),
        (json!("2026-01-01T03:04:05Z"), ColumnType::Timestamp { fsp: 0 }, temporal("2026-01-01 03:04:05.000000")),
        (json!("-838:59:59"), ColumnType::Time { fsp: 0 }, temporal("-838:59:59.000000")),
        (json!("1:02:03.25"), ColumnType::Time { fsp: 2 }, temporal("01:02:03.250000")),
        (json!("0xab01"), ColumnType::Binary, KeyValue::Bytes("AB01".into())),
        (json!(""), ColumnType::Binary, KeyValue::Bytes(String::new())),
        (json!(" é'\u{0}"), ColumnType::Text, KeyValue::Text(" é'\u{0}".into())),
    ] {
        assert_eq!(accepted(json, ty), expected);
    }
}

#[test]
fn what_is_not_exactly_a_value_of_the_column_is_refused() {
    for (json, ty, said) in [
        (json!(128), ColumnType::Int8, "a whole number from -128 to 127"),
        (json!(-1), ColumnType::UInt32, "a whole number from 0 to 4294967295"),
        (json!(1.5), ColumnType::Int32, "a whole number"),
        (json!(true), ColumnType::Int32, "a whole number"),
        (json!("1 OR 1=1"), ColumnType::Int32, "a whole number"),
        (json!("18446744073709551616"), ColumnType::UInt64, "a whole number"),
        (json!(1900), ColumnType::Year, "a year: 0, or from 1901 to 2155"),
        (json!(2), ColumnType::Boolean, "true or false"),
        (json!(1024), ColumnType::Bits(10), "a whole number from 0 to 1023"),
        (json!("1.005"), decimal_type(5, 2), "up to 3 digits before and 2 behind the point"),
        (json!(1000), decimal_type(5, 2), "up to 3 digits before"),
        (json!("1e2"), decimal_type(5, 2), "a decimal number"),
        (json!("1."), decimal_type(5, 2), "a decimal number"),
        (json!("--1"), decimal_type(5, 2), "a decimal number"),
        // As a JSON number it has lost digits already.
        (json!(0.123_456_789_012_345_68), decimal_type(30, 20), "as a string if it is long"),
        (json!("1e39"), ColumnType::Float, "a number"),
        (json!("nan"), ColumnType::Double, "a number"),
        (json!("2026-02-29"), ColumnType::Date, "a date"),
        (json!("2026-01-01 00:00:00"), ColumnType::Date, "a date"),
        (json!("26-01-01"), ColumnType::Date, "a date"),
        (json!("tomorrow"), ColumnType::Date, "a date"),
        (json!("2026-01-01 24:00:00"), ColumnType::DateTime { fsp: 0 }, "without a zone"),
        (json!("2026-01-01T00:00:00Z"), ColumnType::DateTime { fsp: 0 }, "without a zone"),
        (json!("2026-01-01 00:00:00.5"), ColumnType::DateTime { fsp: 0 }, "without a zone"),
        (json!("2026-01-01 00:00:00+01:00"), ColumnType::Timestamp { fsp: 0 }, "in UTC"),
        (json!("2026-01-01 00:00:00.1234"), ColumnType::Timestamp { fsp: 3 }, "up to 3 digits of fraction"),
        (json!("838:59:59.5"), ColumnType::Time { fsp: 1 }, "up to 838 hours"),
        (json!("839:00:00"), ColumnType::Time { fsp: 0 }, "up to 838 hours"),
        (json!("abc"), ColumnType::Binary, "hexadecimal digits, two a byte"),
        (json!("zz"), ColumnType::Binary, "hexadecimal digits"),
        (json!(5), ColumnType::Text, "a string"),
        (json!(null), ColumnType::Int32, "a whole number"),
        (json!([5]), ColumnType::Int32, "a whole number"),
        (json!(1), ColumnType::Enum(vec!["a".into()]), "a string"),
        (json!("{}"), ColumnType::Json, "values of JSON cannot be given"),
    ] {
        let error = read(&json, &column(ty.clone())).expect_err(&format!("{json} for {ty:?}")).to_string();
        assert!(error.starts_with("key column k: expected ") && error.contains(said), "{json} for {ty:?}: {error}");
    }
}

#[test]
fn numbers_beyond_what_every_reader_keeps_are_strings() {
    let edge = 1i64 << 53;
    for (value, ty, shown) in [
        (KeyValue::Int(edge), ColumnType::Int64, json!(edge)),
        (KeyValue::Int(-edge - 1), ColumnType::Int64, json!("-9007199254740993")),
        (KeyValue::UInt(u64::MAX), ColumnType::UInt64, json!("18446744073709551615")),
        (KeyValue::UInt(1), ColumnType::Boolean, json!(true)),
        (KeyValue::UInt(5), ColumnType::Bits(3), json!(5)),
        (KeyValue::Number("1.50".into()), decimal_type(5, 2), json!("1.50")),
        (KeyValue::Number("1.0000000149011612e-1".into()), ColumnType::Float, json!(0.1)),
        (KeyValue::Temporal("2026-11-21".into()), ColumnType::Date, json!("2026-11-21")),
        (
            KeyValue::Temporal("2026-11-21 03:00:00.000000".into()),
            ColumnType::DateTime { fsp: 0 },
            json!("2026-11-21 03:00:00"),
        ),
        (
            KeyValue::Temporal("2026-11-21 03:00:00.120000".into()),
            ColumnType::Timestamp { fsp: 3 },
            json!("2026-11-21 03:00:00.120"),
        ),
    ] {
        assert_eq!(show(&value, &ty), shown);
    }
}

/// A cell of a key column as the server gives it, with the column's type.
fn cells() -> impl Strategy<Value = (Cell, ColumnType)> {
    let days = (0u16..=9999, 0u8..=12, 0u8..=28);
    let times = (0u8..24, 0u8..60, 0u8..60);
    let decimals = (1u8..=65, 0u8..=30).prop_flat_map(|(precision, scale)| {
        let (precision, scale) = (precision.max(scale), scale);
        let whole = usize::from(precision - scale);
        let whole = if whole == 0 { "0".to_owned() } else { format!("0|[1-9][0-9]{{0,{}}}", whole - 1) };
        let fraction = format!("[0-9]{{{scale}}}");
        (any::<bool>(), whole.prop_regex(), fraction.prop_regex()).prop_map(move |(negative, whole, fraction)| {
            let digits = if scale == 0 { whole } else { format!("{whole}.{fraction}") };
            let is_zero = digits.bytes().all(|byte| byte == b'0' || byte == b'.');
            let sign = if negative && !is_zero { "-" } else { "" };
            (Cell::Bytes(format!("{sign}{digits}").into_bytes()), decimal_type(precision, scale))
        })
    });
    prop_oneof![
        any::<i64>().prop_map(|v| (Cell::Int(v), ColumnType::Int64)),
        any::<u64>().prop_map(|v| (Cell::UInt(v), ColumnType::UInt64)),
        any::<i16>().prop_map(|v| (Cell::Int(v.into()), ColumnType::Int16)),
        any::<bool>().prop_map(|v| (Cell::Bytes(vec![v.into()]), ColumnType::Boolean)),
        any::<u64>().prop_map(|v| (Cell::Bytes(v.to_be_bytes().to_vec()), ColumnType::Bits(64))),
        any::<u32>().prop_map(|v| (Cell::Float(f32::from_bits(v)), ColumnType::Float)),
        any::<u64>().prop_map(|v| (Cell::Double(f64::from_bits(v)), ColumnType::Double)),
        decimals,
        days.clone().prop_map(|(y, m, d)| (Cell::Date(y, m, d, 0, 0, 0, 0), ColumnType::Date)),
        (days.clone(), times.clone()).prop_map(|((y, m, d), (h, min, s))| {
            (Cell::Date(y, m, d, h, min, s, 0), ColumnType::DateTime { fsp: 0 })
        }),
        (days, times.clone(), 0u32..1_000_000).prop_map(|((y, m, d), (h, min, s), us)| {
            (Cell::Date(y, m, d, h, min, s, us), ColumnType::Timestamp { fsp: 6 })
        }),
        (any::<bool>(), 0u32..34, times, 0u32..100).prop_map(|(negative, days, (h, min, s), hundredths)| {
            let negative = negative && (days, h, min, s, hundredths) != (0, 0, 0, 0, 0);
            (Cell::Time(negative, days, h, min, s, hundredths * 10_000), ColumnType::Time { fsp: 2 })
        }),
        ".{0,20}".prop_map(|v| (Cell::Bytes(v.into_bytes()), ColumnType::Text)),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(|v| (Cell::Bytes(v), ColumnType::Binary)),
    ]
}

/// A strategy of a regular expression.
trait Regex {
    fn prop_regex(&self) -> proptest::string::RegexGeneratorStrategy<String>;
}

impl Regex for String {
    fn prop_regex(&self) -> proptest::string::RegexGeneratorStrategy<String> {
        proptest::string::string_regex(self).expect("a regular expression")
    }
}

proptest! {
    #[test]
    fn what_is_read_from_a_row_comes_back_the_same_through_json_and_its_text((cell, ty) in cells()) {
        let is_finite = match &cell {
            Cell::Float(v) => v.is_finite(),
            Cell::Double(v) => v.is_finite(),
            _ => true,
        };
        prop_assume!(is_finite);
        let value = KeyValue::from_cell(&cell, &ty).expect("a key's value");
        let shown = show(&value, &ty);
        let text = serde_json::to_string(&shown).unwrap();
        let back = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(read(&back, &column(ty.clone())), Ok(value.clone()), "{} {:?}", text, ty);
        // What a command line gives is the same as a string.
        let plain = match &shown {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        prop_assert_eq!(read(&Value::String(plain), &column(ty)), Ok(value));
    }

    #[test]
    fn nothing_that_is_written_makes_a_statement_of_something_else(text in ".{0,30}") {
        for ty in [ColumnType::Date, ColumnType::Time { fsp: 6 }, ColumnType::Binary, decimal_type(10, 2), ColumnType::Int64] {
            if let Ok(value) = read(&json!(text), &column(ty.clone())) {
                prop_assert!(value.literal(&column(ty), &weir_mysql::ColumnFacts::default()).is_ok());
            }
        }
    }
}

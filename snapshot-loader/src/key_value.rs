//! One column's value in a bound of a range: exact, printable into a plan file, and turned into an SQL literal that
//! compares by the column's own rules. `canonical` is its way into record keys and out of them.

mod canonical;

use mysql_async::Value;
use serde::{Deserialize, Serialize};
use weir_model::{Column, ColumnType};
use weir_mysql::ColumnFacts;

pub use self::canonical::{date_of, decimal_of, moment_of, time_of};

/// A key column's value. Which form a column uses follows from its type alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyValue {
    /// Integers and YEAR.
    Int(i64),
    /// BIGINT UNSIGNED beyond i64, and BIT.
    #[serde(rename = "uint")]
    UInt(u64),
    /// DECIMAL in plain digits; FLOAT and DOUBLE in the shortest scientific form that reads back to the same bits.
    Number(String),
    /// Text, decoded.
    Text(String),
    /// Binary strings, as hexadecimal digits.
    Bytes(String),
    /// `2026-11-21`, `2026-11-21 03:00:00.000000` or `-838:59:59.000000`.
    Temporal(String),
}

impl KeyValue {
    /// Reads a bound that a person wrote, such as `--from 1000`. Binary strings are given in hexadecimal.
    pub fn parse(text: &str, ty: &ColumnType) -> Result<Self, String> {
        let value = match ty {
            t if t.is_integer() || matches!(t, ColumnType::Boolean | ColumnType::Bits(_)) => {
                match text.trim().parse() {
                    Ok(signed) => Self::Int(signed),
                    Err(_) => Self::UInt(text.trim().parse().map_err(|_| "expected a whole number".to_owned())?),
                }
            }
            ColumnType::Decimal { .. } | ColumnType::Float | ColumnType::Double => Self::Number(text.trim().into()),
            ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } | ColumnType::Time { .. } => {
                Self::Temporal(text.trim().replace('T', " ").trim_end_matches('Z').into())
            }
            ColumnType::Binary => Self::Bytes(text.trim().trim_start_matches("0x").into()),
            _ => Self::Text(text.into()),
        };
        value.check(ty).map(|()| value)
    }

    /// From a cell of the binary protocol; `None` for NULL and for types that divide no table.
    pub(crate) fn from_cell(value: &Value, ty: &ColumnType) -> Option<Self> {
        Some(match (value, ty) {
            (Value::Int(v), _) => Self::Int(*v),
            (Value::UInt(v), _) => i64::try_from(*v).map_or(Self::UInt(*v), Self::Int),
            (Value::Float(v), _) => Self::Number(format!("{:e}", f64::from(*v))),
            (Value::Double(v), _) => Self::Number(format!("{v:e}")),
            (Value::Date(year, month, day, ..), ColumnType::Date) => {
                Self::Temporal(format!("{year:04}-{month:02}-{day:02}"))
            }
            (Value::Date(year, month, day, hour, minute, second, micros), _) => {
                Self::Temporal(format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}"))
            }
            (Value::Time(negative, days, hours, minutes, seconds, micros), _) => {
                let hours = days * 24 + u32::from(*hours);
                let sign = if *negative { "-" } else { "" };
                Self::Temporal(format!("{sign}{hours:02}:{minutes:02}:{seconds:02}.{micros:06}"))
            }
            (Value::Bytes(bytes), ColumnType::Boolean | ColumnType::Bits(_)) => {
                Self::UInt(bytes.iter().fold(0, |acc, byte| (acc << 8) | u64::from(*byte)))
            }
            (Value::Bytes(bytes), ColumnType::Decimal { .. }) => Self::Number(String::from_utf8(bytes.clone()).ok()?),
            (Value::Bytes(bytes), ColumnType::Text) => Self::Text(String::from_utf8(bytes.clone()).ok()?),
            (Value::Bytes(bytes), ColumnType::Binary) => Self::Bytes(hex(bytes)),
            _ => return None,
        })
    }

    /// The literal that `column` can be compared with without losing its index or its collation. Only digits of one kind
    /// or another ever enter the statement, so no value can become SQL.
    pub(crate) fn literal(&self, column: &Column, facts: &ColumnFacts) -> Result<String, String> {
        self.check(&column.ty)?;
        Ok(match self {
            Self::Int(v) => v.to_string(),
            Self::UInt(v) => v.to_string(),
            Self::Number(digits) => digits.clone(),
            Self::Bytes(digits) => format!("X'{digits}'"),
            Self::Temporal(text) => {
                let kind = match column.ty {
                    ColumnType::Date => "DATE",
                    ColumnType::Time { .. } => "TIME",
                    _ => "TIMESTAMP",
                };
                format!("{kind}'{}'", with_digits_of(&column.ty, text))
            }
            Self::Text(text) => text_literal(text, facts)?,
        })
    }

    /// Whether the value has the form that columns of type `ty` use.
    fn check(&self, ty: &ColumnType) -> Result<(), String> {
        let fits = match self {
            Self::Int(_) | Self::UInt(_) => ty.is_integer() || matches!(ty, ColumnType::Boolean | ColumnType::Bits(_)),
            Self::Number(text) => {
                matches!(ty, ColumnType::Decimal { .. } | ColumnType::Float | ColumnType::Double)
                    && text.parse::<f64>().is_ok()
                    && only(text, b"0123456789+-.eE")
            }
            Self::Text(_) => matches!(ty, ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_)),
            Self::Bytes(text) => {
                matches!(ty, ColumnType::Binary) && text.len() % 2 == 0 && text.bytes().all(|b| b.is_ascii_hexdigit())
            }
            Self::Temporal(text) => {
                let temporal = matches!(
                    ty,
                    ColumnType::Date
                        | ColumnType::DateTime { .. }
                        | ColumnType::Timestamp { .. }
                        | ColumnType::Time { .. }
                );
                temporal && !text.is_empty() && only(text, b"0123456789-:. ")
            }
        };
        if fits { Ok(()) } else { Err(format!("a value of another kind than {}", ty.delta())) }
    }
}

/// A moment without zeros behind the digits of its column: MySQL 5.7 and 8.0.15 find no row by a list of TIMEs of more digits than
/// the column has, whatever the digits are.
fn with_digits_of<'a>(ty: &ColumnType, text: &'a str) -> &'a str {
    let (ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } | ColumnType::Time { fsp }) = ty else {
        return text;
    };
    let Some((whole, fraction)) = text.split_once('.') else { return text };
    match fraction.trim_end_matches('0').len().max(usize::from(*fsp)).min(fraction.len()) {
        0 => whole,
        digits => &text[..whole.len() + 1 + digits],
    }
}

/// Text as its UTF-8 bytes, brought into the column's character set, under the column's collation.
fn text_literal(text: &str, facts: &ColumnFacts) -> Result<String, String> {
    let (Some(charset), Some(collation)) = (&facts.charset, &facts.collation) else {
        return Err("text for a column without a character set".into());
    };
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !is_name(charset) || !is_name(collation) {
        return Err(format!("an odd character set or collation: {charset}, {collation}"));
    }
    let utf8 = format!("_utf8mb4 X'{}'", hex(text.as_bytes()));
    Ok(match charset.as_str() {
        "utf8mb4" => format!("{utf8} COLLATE {collation}"),
        _ => format!("CONVERT({utf8} USING {charset}) COLLATE {collation}"),
    })
}

fn only(text: &str, allowed: &[u8]) -> bool {
    text.bytes().all(|b| allowed.contains(&b))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02X}").expect("writing into a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn column(ty: ColumnType) -> Column {
        Column { name: "k".into(), ty, nullable: false }
    }

    fn text_facts(charset: &str, collation: &str) -> ColumnFacts {
        ColumnFacts { charset: Some(charset.into()), collation: Some(collation.into()), ..ColumnFacts::default() }
    }

    #[test]
    fn literals_keep_the_columns_own_comparison() {
        let plain = ColumnFacts::default();
        for (value, ty, expected) in [
            (KeyValue::Int(-5), ColumnType::Int32, "-5"),
            (KeyValue::UInt(u64::MAX), ColumnType::UInt64, "18446744073709551615"),
            (KeyValue::Number("-1.50".into()), ColumnType::Decimal { precision: 5, scale: 2 }, "-1.50"),
            (KeyValue::Bytes("00FF".into()), ColumnType::Binary, "X'00FF'"),
            (KeyValue::Temporal("0000-00-00".into()), ColumnType::Date, "DATE'0000-00-00'"),
            (KeyValue::Temporal("-10:00:00.5".into()), ColumnType::Time { fsp: 1 }, "TIME'-10:00:00.5'"),
            (KeyValue::Temporal("-838:59:59.000000".into()), ColumnType::Time { fsp: 0 }, "TIME'-838:59:59'"),
            (KeyValue::Temporal("-00:00:00.100000".into()), ColumnType::Time { fsp: 2 }, "TIME'-00:00:00.10'"),
            (KeyValue::Temporal("10:00:00.25".into()), ColumnType::Time { fsp: 0 }, "TIME'10:00:00.25'"),
            (
                KeyValue::Temporal("2026-11-21 03:00:00.000000".into()),
                ColumnType::DateTime { fsp: 3 },
                "TIMESTAMP'2026-11-21 03:00:00.000'",
            ),
        ] {
            assert_eq!(value.literal(&column(ty), &plain).unwrap(), expected);
        }
        let text = KeyValue::Text("é'".into());
        let unicode = text.literal(&column(ColumnType::Text), &text_facts("utf8mb4", "utf8mb4_0900_ai_ci")).unwrap();
        assert_eq!(unicode, "_utf8mb4 X'C3A927' COLLATE utf8mb4_0900_ai_ci");
        let latin = text.literal(&column(ColumnType::Text), &text_facts("latin1", "latin1_bin")).unwrap();
        assert_eq!(latin, "CONVERT(_utf8mb4 X'C3A927' USING latin1) COLLATE latin1_bin");
    }

    #[test]
    fn nothing_but_digits_enters_a_statement() {
        let plain = ColumnFacts::default();
        let decimal = column(ColumnType::Decimal { precision: 5, scale: 2 });
        assert!(KeyValue::Number("1 OR 1=1".into()).literal(&decimal, &plain).is_err());
        assert!(KeyValue::Number("inf".into()).literal(&decimal, &plain).is_err());
        assert!(KeyValue::Temporal("2024' OR '1".into()).literal(&column(ColumnType::Date), &plain).is_err());
        assert!(KeyValue::Bytes("0".into()).literal(&column(ColumnType::Binary), &plain).is_err());
        assert!(KeyValue::Int(1).literal(&column(ColumnType::Text), &text_facts("utf8mb4", "utf8mb4_bin")).is_err());
        let injected = text_facts("utf8mb4", "utf8mb4_bin OR 1=1");
        assert!(KeyValue::Text("a".into()).literal(&column(ColumnType::Text), &injected).is_err());
    }

    #[test]
    fn bounds_are_read_as_people_write_them() {
        assert_eq!(KeyValue::parse(" 42 ", &ColumnType::Int32), Ok(KeyValue::Int(42)));
        assert_eq!(KeyValue::parse("18446744073709551615", &ColumnType::UInt64), Ok(KeyValue::UInt(u64::MAX)));
        assert_eq!(KeyValue::parse("0x0aFF", &ColumnType::Binary), Ok(KeyValue::Bytes("0aFF".into())));
        let stamp = KeyValue::parse("2026-11-21T03:00:00Z", &ColumnType::Timestamp { fsp: 0 });
        assert_eq!(stamp, Ok(KeyValue::Temporal("2026-11-21 03:00:00".into())));
        assert!(KeyValue::parse("x", &ColumnType::Int32).is_err());
        assert!(KeyValue::parse("tomorrow", &ColumnType::Date).is_err());
    }

    proptest! {
        #[test]
        fn floats_read_back_to_the_same_bits(bits: u32) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            let Some(KeyValue::Number(text)) = KeyValue::from_cell(&Value::Float(value), &ColumnType::Float) else {
                return Err(TestCaseError::fail("a float is a number"));
            };
            prop_assert_eq!((text.parse::<f64>().unwrap() as f32).to_bits(), bits);
        }

        #[test]
        fn values_survive_a_plan_file(text in ".{0,20}", number: u64) {
            for value in [KeyValue::Text(text.clone()), KeyValue::UInt(number)] {
                let json = serde_json::to_string(&value).unwrap();
                prop_assert_eq!(serde_json::from_str::<KeyValue>(&json).unwrap(), value);
            }
        }
    }
}

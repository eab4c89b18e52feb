//! Key values into Arrow columns and out of them: the lake's keys are asked for at the source, and the source's in the lake.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use weir_model::partition::civil_of_days;
use weir_model::value::DECIMAL_PRECISION_MAX;
use weir_model::{ColumnBuilder, ColumnType};

use super::{KeyValue, hex};

impl KeyValue {
    /// Appends the value to a column of type `ty`, in the form in which a row would bring it.
    pub(crate) fn push(&self, ty: &ColumnType, column: &mut ColumnBuilder) -> Result<(), String> {
        self.check(ty)?;
        let odd = || "a value that cannot be read".to_owned();
        let pushed = match (self, ty) {
            (Self::Int(value), ColumnType::Boolean) => column.push_bool(*value != 0),
            (Self::UInt(value), ColumnType::Boolean) => column.push_bool(*value != 0),
            (Self::Int(value), ColumnType::Bits(bits)) => {
                column.push_binary(&big_endian(u64::try_from(*value).map_err(|_| odd())?, *bits))
            }
            (Self::UInt(value), ColumnType::Bits(bits)) => column.push_binary(&big_endian(*value, *bits)),
            (Self::Int(value), ColumnType::UInt64) => column.push_uint(u64::try_from(*value).map_err(|_| odd())?),
            (Self::Int(value), _) => column.push_int(*value),
            (Self::UInt(value), _) => column.push_uint(*value),
            (Self::Number(digits), ColumnType::Float) => column.push_f32(digits.parse().map_err(|_| odd())?),
            (Self::Number(digits), ColumnType::Double) => column.push_f64(digits.parse().map_err(|_| odd())?),
            (Self::Number(digits), ColumnType::Decimal { precision, scale }) if *precision <= DECIMAL_PRECISION_MAX => {
                column.push_decimal(unscaled_of(digits, *scale).ok_or_else(odd)?)
            }
            (Self::Number(text) | Self::Text(text), _) => column.push_text(text),
            (Self::Bytes(digits), _) => column.push_binary(&bytes_of(digits).ok_or_else(odd)?),
            (Self::Temporal(text), _) => {
                let Parts { negative, date: (year, month, day), hours, time: (minute, second), micros } =
                    Parts::of(text, ty).ok_or_else(odd)?;
                match ty {
                    ColumnType::Date => column.push_date(year, month, day),
                    ColumnType::Time { .. } => {
                        let seconds = (i64::from(hours) * 60 + i64::from(minute)) * 60 + i64::from(second);
                        let total = seconds * 1_000_000 + i64::from(micros);
                        column.push_int(if negative { -total } else { total })
                    }
                    _ => {
                        let hour = u8::try_from(hours).map_err(|_| odd())?;
                        column.push_datetime((year, month, day), (hour, minute, second), micros)
                    }
                }
            }
        };
        pushed.map_err(|error| error.to_string())
    }

    /// From a row of a column of type `ty`, whose Arrow type may be a wider one; `None` for NULL and for what cannot be a key.
    pub fn from_array(values: &ArrayRef, row: usize, ty: &ColumnType) -> Option<Self> {
        if values.is_null(row) {
            return None;
        }
        Some(match (values.data_type(), ty) {
            (DataType::Int64, ColumnType::Time { .. }) => {
                let micros = values.as_primitive::<Int64Type>().value(row);
                let sign = if micros < 0 { "-" } else { "" };
                Self::Temporal(format!("{sign}{}", time_of(micros.unsigned_abs())))
            }
            (DataType::Int8, _) => Self::Int(values.as_primitive::<Int8Type>().value(row).into()),
            (DataType::Int16, _) => Self::Int(values.as_primitive::<Int16Type>().value(row).into()),
            (DataType::Int32, _) => Self::Int(values.as_primitive::<Int32Type>().value(row).into()),
            (DataType::Int64, _) => Self::Int(values.as_primitive::<Int64Type>().value(row)),
            (DataType::Decimal128(..), ty) if ty.is_integer() => {
                let value = values.as_primitive::<Decimal128Type>().value(row);
                match i64::try_from(value) {
                    Ok(value) => Self::Int(value),
                    Err(_) => Self::UInt(u64::try_from(value).ok()?),
                }
            }
            (DataType::Decimal128(..), _) => Self::Number(values.as_primitive::<Decimal128Type>().value_as_string(row)),
            (DataType::Float32, _) => {
                Self::Number(format!("{:e}", f64::from(values.as_primitive::<Float32Type>().value(row))))
            }
            (DataType::Float64, _) => Self::Number(format!("{:e}", values.as_primitive::<Float64Type>().value(row))),
            (DataType::Boolean, _) => Self::UInt(values.as_boolean().value(row).into()),
            (DataType::Date32, _) => {
                let days = values.as_primitive::<Date32Type>().value(row);
                Self::Temporal(date_of(days.into()))
            }
            (DataType::Timestamp(..), _) => {
                let micros = values.as_primitive::<TimestampMicrosecondType>().value(row);
                let (days, of_day) = (micros.div_euclid(MICROS_A_DAY), micros.rem_euclid(MICROS_A_DAY));
                Self::Temporal(format!("{} {}", date_of(days), time_of(of_day.unsigned_abs())))
            }
            (DataType::Utf8, ColumnType::Decimal { .. }) => Self::Number(values.as_string::<i32>().value(row).into()),
            (DataType::Utf8, _) => Self::Text(values.as_string::<i32>().value(row).into()),
            (DataType::Binary, ColumnType::Bits(_)) => {
                let bytes = values.as_binary::<i32>().value(row);
                Self::UInt(bytes.iter().fold(0, |acc, byte| (acc << 8) | u64::from(*byte)))
            }
            (DataType::Binary, _) => Self::Bytes(hex(values.as_binary::<i32>().value(row))),
            _ => return None,
        })
    }
}

fn big_endian(value: u64, bits: u8) -> Vec<u8> {
    let width = usize::from(bits.div_ceil(8));
    value.to_be_bytes()[8 - width..].to_vec()
}

fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
}

/// The unscaled whole number of plain digits with up to `scale` of them behind the point.
fn unscaled_of(digits: &str, scale: u8) -> Option<i128> {
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let part = part.trim_end_matches('0');
    let fill = usize::from(scale).checked_sub(part.len())?;
    format!("{whole}{part}{}", "0".repeat(fill)).parse().ok()
}

/// A date, a time of day or an amount of time in its parts.
#[derive(Debug, Default)]
struct Parts {
    negative: bool,
    date: (u16, u8, u8),
    hours: u16,
    time: (u8, u8),
    micros: u32,
}

impl Parts {
    fn of(text: &str, ty: &ColumnType) -> Option<Self> {
        let mut parts = Self::default();
        let (date, time) = match ty {
            ColumnType::Date => (Some(text.split(' ').next()?), None),
            ColumnType::Time { .. } => (None, Some(text)),
            _ => match text.split_once(' ') {
                Some((date, time)) => (Some(date), Some(time)),
                None => (Some(text), None),
            },
        };
        if let Some(date) = date {
            let mut numbers = date.split('-');
            parts.date = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        }
        if let Some(time) = time {
            let unsigned = time.strip_prefix('-');
            parts.negative = unsigned.is_some();
            let (clock, fraction) = unsigned.unwrap_or(time).split_once('.').unwrap_or((unsigned.unwrap_or(time), ""));
            let mut numbers = clock.split(':');
            parts.hours = numbers.next()?.parse().ok()?;
            parts.time = (numbers.next()?.parse().ok()?, numbers.next().unwrap_or("0").parse().ok()?);
            parts.micros = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
        }
        Some(parts)
    }
}

const MICROS_A_DAY: i64 = 86_400_000_000;

/// `2026-11-21`, so many days after 1970 began.
fn date_of(days: i64) -> String {
    let (year, month, day) = civil_of_days(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `03:00:00.000000`; hours go beyond a day.
fn time_of(micros: u64) -> String {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    format!("{:02}:{:02}:{:02}.{micros:06}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_model::ZeroDates;

    use super::*;

    /// Into a column and out again.
    fn round_trip(value: &KeyValue, ty: &ColumnType) -> Option<KeyValue> {
        let mut column = ColumnBuilder::new(ty, ZeroDates::Error);
        value.push(ty, &mut column).unwrap();
        KeyValue::from_array(&column.finish(), 0, ty)
    }

    #[test]
    fn every_kind_of_key_comes_out_as_it_went_in() {
        let decimal = ColumnType::Decimal { precision: 10, scale: 3 };
        for (value, ty) in [
            (KeyValue::Int(-5), ColumnType::Int8),
            (KeyValue::Int(7), ColumnType::UInt64),
            (KeyValue::UInt(u64::MAX), ColumnType::UInt64),
            (KeyValue::UInt(1), ColumnType::Boolean),
            (KeyValue::UInt(0x1ff), ColumnType::Bits(9)),
            (KeyValue::Number("-1.500".into()), decimal),
            (KeyValue::Number("1e0".into()), ColumnType::Float),
            (KeyValue::Number("-1.25e-3".into()), ColumnType::Double),
            (KeyValue::Number("9".repeat(60)), ColumnType::Decimal { precision: 60, scale: 0 }),
            (KeyValue::Temporal("2026-11-21".into()), ColumnType::Date),
            (KeyValue::Temporal("1000-01-01 00:00:00.000001".into()), ColumnType::DateTime { fsp: 6 }),
            (KeyValue::Temporal("2026-11-21 23:59:59.120000".into()), ColumnType::Timestamp { fsp: 2 }),
            (KeyValue::Temporal("-838:59:59.000000".into()), ColumnType::Time { fsp: 0 }),
            (KeyValue::Text("é'".into()), ColumnType::Text),
            (KeyValue::Text("b".into()), ColumnType::Enum(vec!["a".into(), "b".into()])),
            (KeyValue::Bytes("00FF".into()), ColumnType::Binary),
        ] {
            assert_eq!(round_trip(&value, &ty), Some(value), "{ty:?}");
        }
    }

    #[test]
    fn a_value_of_another_kind_or_size_is_refused() {
        let push = |value: KeyValue, ty: ColumnType| value.push(&ty, &mut ColumnBuilder::new(&ty, ZeroDates::Error));
        assert!(push(KeyValue::Int(300), ColumnType::Int8).is_err());
        assert!(push(KeyValue::Int(-1), ColumnType::UInt64).is_err());
        assert!(push(KeyValue::Number("1.23".into()), ColumnType::Decimal { precision: 5, scale: 1 }).is_err());
        assert!(push(KeyValue::Temporal("0000-00-00".into()), ColumnType::Date).is_err());
        assert!(push(KeyValue::Temporal("12".into()), ColumnType::Date).is_err());
        assert!(push(KeyValue::Int(1), ColumnType::Text).is_err());
    }

    proptest! {
        #[test]
        fn numbers_of_any_width_come_out_as_they_went_in(number: i64, unsigned: u64, double: f64) {
            prop_assert_eq!(round_trip(&KeyValue::Int(number), &ColumnType::Int64), Some(KeyValue::Int(number)));
            let value = i64::try_from(unsigned).map_or(KeyValue::UInt(unsigned), KeyValue::Int);
            prop_assert_eq!(round_trip(&value, &ColumnType::UInt64), Some(value.clone()));
            prop_assume!(double.is_finite());
            let value = KeyValue::Number(format!("{double:e}"));
            prop_assert_eq!(round_trip(&value, &ColumnType::Double), Some(value.clone()));
        }
    }
}

//! Key values into columns, and back from the canonical form that record keys are made of: the source's keys are looked for in
//! the lake, and the lake's at the source.

use weir_model::key_parts::KeyPart;
use weir_model::partition::civil_of_days;
use weir_model::value::DECIMAL_PRECISION_MAX;
use weir_model::{ColumnBuilder, ColumnType};

use super::{KeyValue, hex, only};

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

    /// A column's part of a record key's canonical form, of a column that is of type `ty` at the source; `None` for what such
    /// a column cannot have.
    pub fn from_part(part: KeyPart, ty: &ColumnType) -> Option<Self> {
        Some(match part {
            KeyPart::Integer(value) => match ty {
                ColumnType::Date => Self::Temporal(date_of(value)?),
                ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => Self::Temporal(moment_of(value, ' ')?),
                ColumnType::Time { .. } if value.unsigned_abs() > TIME_MICROS_MAX => return None,
                ColumnType::Time { .. } => Self::Temporal(time_of(value)),
                // DECIMAL(20,0) has the form of integers.
                ColumnType::Decimal { .. } => Self::Number(value.to_string()),
                // BIT(1), in the form that BITs have.
                ColumnType::Boolean => Self::UInt(u64::try_from(value).ok()?),
                // Every integer of a MySQL key fits one of the two.
                _ => i64::try_from(value).map(Self::Int).or_else(|_| u64::try_from(value).map(Self::UInt)).ok()?,
            },
            KeyPart::Decimal { unscaled, scale } => Self::Number(decimal_of(unscaled, scale)),
            KeyPart::Float(value) if !value.is_finite() => return None,
            KeyPart::Float(value) => Self::Number(format!("{value:e}")),
            KeyPart::Bytes(bytes) => match ty {
                ColumnType::Bits(_) => Self::UInt(bytes.iter().fold(0, |acc, byte| (acc << 8) | u64::from(*byte))),
                _ => Self::Bytes(hex(&bytes)),
            },
            KeyPart::Text(text) => match ty {
                ColumnType::Decimal { .. } if only(&text, b"0123456789-.") => Self::Number(text),
                ColumnType::Decimal { .. } => return None,
                _ => Self::Text(text),
            },
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

const MICROS_A_DAY: i128 = 86_400_000_000;
/// TIME goes up to 838:59:59.
const TIME_MICROS_MAX: u128 = (838 * 3_600 + 59 * 60 + 59) * 1_000_000;
/// Far beyond the year 9999 on either side of 1970, and no calendar needs to go there.
const DAYS_MAX: i128 = 10_000_000;

/// `-0.010`
pub fn decimal_of(unscaled: i128, scale: u8) -> String {
    let (sign, digits) = (if unscaled < 0 { "-" } else { "" }, unscaled.unsigned_abs().to_string());
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let padded = format!("{digits:0>width$}", width = usize::from(scale) + 1);
    let (whole, part) = padded.split_at(padded.len() - usize::from(scale));
    format!("{sign}{whole}.{part}")
}

/// `2026-11-21`, so many days after 1970 began; `None` for those that MySQL does not have.
pub fn date_of(days: i128) -> Option<String> {
    let days = i64::try_from(days).ok().filter(|days| i128::from(days.unsigned_abs()) <= DAYS_MAX)?;
    let (year, month, day) = civil_of_days(days);
    (0..=9_999).contains(&year).then(|| format!("{year:04}-{month:02}-{day:02}"))
}

/// A date and a time with `between` between them, so many microseconds after 1970 began; `None` for those that MySQL does not
/// have.
pub fn moment_of(micros: i128, between: char) -> Option<String> {
    let (day, of_day) = (micros.div_euclid(MICROS_A_DAY), micros.rem_euclid(MICROS_A_DAY));
    Some(format!("{}{between}{}", date_of(day)?, time_of(of_day)))
}

/// `-03:00:00.000000`, of signed microseconds; hours go beyond a day.
pub fn time_of(micros: i128) -> String {
    let (sign, micros) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    format!("{sign}{:02}:{:02}:{:02}.{micros:06}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use arrow_array::RecordBatch;
    use proptest::prelude::*;
    use weir_model::key_parts::key_parts;
    use weir_model::{RecordKeys, ZeroDates};

    use super::*;

    /// Into a column, and out of the record key of that row.
    fn round_trip(value: &KeyValue, ty: &ColumnType) -> Option<KeyValue> {
        let mut column = ColumnBuilder::new(ty, ZeroDates::Error);
        value.push(ty, &mut column).unwrap();
        let rows = RecordBatch::try_from_iter([("k", column.finish())]).unwrap();
        let keys = RecordKeys::of(&rows, &["k"]).unwrap();
        let [part] = key_parts(keys.get(0), &[&ty.arrow()]).try_into().unwrap();
        KeyValue::from_part(part, ty)
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
            (KeyValue::Number("18446744073709551616".into()), ColumnType::Decimal { precision: 20, scale: 0 }),
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
    fn the_calendar_goes_as_far_as_the_source_does() {
        assert_eq!(
            (date_of(-354_285).unwrap(), date_of(2_932_896).unwrap()),
            ("1000-01-01".to_owned(), "9999-12-31".to_owned())
        );
        let last = moment_of(2_932_896 * MICROS_A_DAY + MICROS_A_DAY - 1, ' ');
        assert_eq!(last.as_deref(), Some("9999-12-31 23:59:59.999999"));
        assert_eq!((date_of(2_932_897), date_of(-800_000), moment_of(i128::MAX, ' ')), (None, None, None));
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
            // -0.0 is 0.0 in a key, as MySQL compares them.
            let same = if double == 0.0 { KeyValue::Number("0e0".into()) } else { value.clone() };
            prop_assert_eq!(round_trip(&value, &ColumnType::Double), Some(same));
        }
    }
}

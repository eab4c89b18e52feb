//! One cell of the binary protocol into its column: the plan is made once a query, a match a cell.
//!
//! What comes out must equal, bit for bit, what the binlog's row images give for the same value.

use mysql_async::Value;
use weir_model::value::DECIMAL_PRECISION_MAX;
use weir_model::{ColumnBuilder, ColumnType, ValueError};

/// How the cells of one column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
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

/// A cell that cannot be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CellError {
    Value(ValueError),
    /// The wire form is not the type's.
    Form(&'static str),
}

impl From<ValueError> for CellError {
    fn from(error: ValueError) -> Self {
        Self::Value(error)
    }
}

impl Cell {
    pub(crate) fn of(ty: &ColumnType) -> Self {
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

    /// Appends `value` to `column`; gives the bytes it takes there, roughly.
    #[inline]
    pub(crate) fn push(self, value: &Value, column: &mut ColumnBuilder) -> Result<usize, CellError> {
        match (self, value) {
            (_, Value::NULL) => column.push_null(),
            (Self::Integer, Value::Int(v)) => column.push_int(*v)?,
            (Self::Integer, Value::UInt(v)) => column.push_uint(*v)?,
            (Self::Text, Value::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes).map_err(|_| CellError::Form("text that is not UTF-8"))?;
                column.push_text(text)?;
                return Ok(bytes.len() + VARIABLE_OVERHEAD);
            }
            (Self::Binary, Value::Bytes(bytes)) => {
                column.push_binary(bytes)?;
                return Ok(bytes.len() + VARIABLE_OVERHEAD);
            }
            (Self::Decimal { scale }, Value::Bytes(digits)) => {
                let unscaled = unscaled(digits, scale).ok_or(CellError::Form("a decimal that cannot be read"))?;
                column.push_decimal(unscaled)?;
            }
            (Self::DecimalText, Value::Bytes(digits)) => {
                column.push_text(&plain_decimal(digits).ok_or(CellError::Form("a decimal that cannot be read"))?)?;
                return Ok(digits.len() + VARIABLE_OVERHEAD);
            }
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
            _ => return Err(CellError::Form("a cell of another form than its type's")),
        }
        Ok(FIXED_BYTES)
    }
}

/// What a value of fixed width is counted as.
const FIXED_BYTES: usize = 8;
/// An offset and a validity bit.
const VARIABLE_OVERHEAD: usize = 5;

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

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use proptest::prelude::*;
    use weir_model::ZeroDates;

    use super::*;

    #[test]
    fn decimals_are_read_with_their_scale() {
        for (text, scale, expected) in [
            ("-0.01", 2, Some(-1)),
            ("0.00", 2, Some(0)),
            ("123", 0, Some(123)),
            ("00012.50", 2, Some(1250)),
            ("12.5", 2, None),
            ("", 0, None),
            ("-", 0, None),
            ("1.2.3", 2, None),
            ("1e3", 0, None),
        ] {
            assert_eq!(unscaled(text.as_bytes(), scale), expected, "{text}");
        }
        let greatest = "9".repeat(38);
        assert_eq!(unscaled(greatest.as_bytes(), 0), Some(10_i128.pow(38) - 1));
    }

    #[test]
    fn long_decimals_lose_their_fill_and_nothing_else() {
        for (text, expected) in [("-0.010", "-0.010"), ("000.5", "0.5"), ("0007", "7"), ("000", "0"), ("10.0", "10.0")]
        {
            assert_eq!(plain_decimal(text.as_bytes()).as_deref(), Some(expected));
        }
        assert_eq!(plain_decimal(b"1e5"), None);
    }

    #[test]
    fn negative_time_is_signed_microseconds() {
        let mut column = ColumnBuilder::new(&ColumnType::Time { fsp: 6 }, ZeroDates::Null);
        Cell::Time.push(&Value::Time(true, 34, 22, 59, 59, 999_999), &mut column).unwrap();
        assert_eq!(column.finish().as_primitive::<Int64Type>().value(0), -3_020_399_999_999);
    }

    #[test]
    fn a_cell_of_another_form_is_refused() {
        let mut column = ColumnBuilder::new(&ColumnType::Int8, ZeroDates::Null);
        assert!(matches!(Cell::Integer.push(&Value::Bytes(vec![1]), &mut column), Err(CellError::Form(_))));
        assert_eq!(
            Cell::Integer.push(&Value::Int(200), &mut column),
            Err(CellError::Value(ValueError::NumberOutOfRange))
        );
    }

    proptest! {
        #[test]
        fn every_decimal_that_mysql_prints_is_read_back(value in -10_i128.pow(30)..10_i128.pow(30), scale in 0_u8..12) {
            let power = 10_u128.pow(scale.into());
            let (whole, part) = (value.unsigned_abs() / power, value.unsigned_abs() % power);
            let sign = if value < 0 { "-" } else { "" };
            let text = if scale == 0 {
                format!("{sign}{whole}")
            } else {
                format!("{sign}{whole}.{part:0width$}", width = usize::from(scale))
            };
            prop_assert_eq!(unscaled(text.as_bytes(), scale), Some(value));
        }
    }
}

//! Building Arrow columns from MySQL values: the conversions that snapshot and stream must share to be bit-equal.
//!
//! A decoder matches on its wire type once per column and calls the one `push_*` that fits; the builder owns what a
//! value means (widening, calendar, zero dates, decimal text).

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int8Builder,
    Int16Builder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_schema::{DataType, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::value::ColumnType;

/// What to do with `0000-00-00`, `2024-00-10` and their like, which no calendar type holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZeroDates {
    /// The value becomes NULL.
    #[default]
    Null,
    /// The table stops with an error.
    Error,
}

/// A value that its column cannot hold. Carries no value: errors never show row contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("a zero or partial date, and zero_dates = \"error\" is set (zero_dates = \"null\" stores NULL)")]
    ZeroDate,
    #[error("a date outside the calendar")]
    DateOutOfRange,
    #[error("a number outside the column's range")]
    NumberOutOfRange,
    #[error("a value of another kind than the column's type")]
    WrongKind,
}

/// What a builder has room for to begin with.
const VALUES_AT_FIRST: usize = 1024;

/// An Arrow builder for one source column.
#[derive(Debug)]
pub enum ColumnBuilder {
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Decimal(Decimal128Builder),
    Boolean(BooleanBuilder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Date(Date32Builder, ZeroDates),
    Timestamp(TimestampMicrosecondBuilder, ZeroDates),
    Text(StringBuilder),
    Binary(BinaryBuilder),
}

impl ColumnBuilder {
    /// An empty builder for columns of type `ty`.
    pub fn new(ty: &ColumnType, zero_dates: ZeroDates) -> Self {
        Self::with_capacity(ty, zero_dates, VALUES_AT_FIRST, VALUES_AT_FIRST)
    }

    /// One that has room for `values`, and where they are texts or binaries for `bytes` of them.
    pub fn with_capacity(ty: &ColumnType, zero_dates: ZeroDates, values: usize, bytes: usize) -> Self {
        match ty.arrow() {
            DataType::Int8 => Self::Int8(Int8Builder::with_capacity(values)),
            DataType::Int16 => Self::Int16(Int16Builder::with_capacity(values)),
            DataType::Int32 => Self::Int32(Int32Builder::with_capacity(values)),
            DataType::Int64 => Self::Int64(Int64Builder::with_capacity(values)),
            DataType::Decimal128(precision, scale) => {
                let builder = Decimal128Builder::with_capacity(values);
                Self::Decimal(builder.with_data_type(DataType::Decimal128(precision, scale)))
            }
            DataType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(values)),
            DataType::Float32 => Self::Float32(Float32Builder::with_capacity(values)),
            DataType::Float64 => Self::Float64(Float64Builder::with_capacity(values)),
            DataType::Date32 => Self::Date(Date32Builder::with_capacity(values), zero_dates),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                let builder = TimestampMicrosecondBuilder::with_capacity(values);
                let builder = builder.with_data_type(DataType::Timestamp(TimeUnit::Microsecond, zone));
                Self::Timestamp(builder, zero_dates)
            }
            DataType::Utf8 => Self::Text(StringBuilder::with_capacity(values, bytes)),
            DataType::Binary => Self::Binary(BinaryBuilder::with_capacity(values, bytes)),
            other => panic!("no source column has the Arrow type {other}"),
        }
    }

    pub fn push_null(&mut self) {
        match self {
            Self::Int8(b) => b.append_null(),
            Self::Int16(b) => b.append_null(),
            Self::Int32(b) => b.append_null(),
            Self::Int64(b) => b.append_null(),
            Self::Decimal(b) => b.append_null(),
            Self::Boolean(b) => b.append_null(),
            Self::Float32(b) => b.append_null(),
            Self::Float64(b) => b.append_null(),
            Self::Date(b, _) => b.append_null(),
            Self::Timestamp(b, _) => b.append_null(),
            Self::Text(b) => b.append_null(),
            Self::Binary(b) => b.append_null(),
        }
    }

    /// A whole number of any width; also YEAR, and TIME as signed microseconds.
    #[inline]
    pub fn push_int(&mut self, value: i64) -> Result<(), ValueError> {
        let out_of_range = |_| ValueError::NumberOutOfRange;
        match self {
            Self::Int8(b) => b.append_value(i8::try_from(value).map_err(out_of_range)?),
            Self::Int16(b) => b.append_value(i16::try_from(value).map_err(out_of_range)?),
            Self::Int32(b) => b.append_value(i32::try_from(value).map_err(out_of_range)?),
            Self::Int64(b) => b.append_value(value),
            Self::Decimal(b) => b.append_value(value as i128),
            Self::Boolean(b) => b.append_value(value != 0),
            _ => return Err(ValueError::WrongKind),
        }
        Ok(())
    }

    /// An unsigned whole number, BIGINT UNSIGNED in particular.
    #[inline]
    pub fn push_uint(&mut self, value: u64) -> Result<(), ValueError> {
        match self {
            Self::Decimal(b) => {
                b.append_value(value as i128);
                Ok(())
            }
            _ => self.push_int(i64::try_from(value).map_err(|_| ValueError::NumberOutOfRange)?),
        }
    }

    /// A DECIMAL of up to 38 digits as its unscaled whole number.
    #[inline]
    pub fn push_decimal(&mut self, unscaled: i128) -> Result<(), ValueError> {
        match self {
            Self::Decimal(b) => {
                b.append_value(unscaled);
                Ok(())
            }
            _ => Err(ValueError::WrongKind),
        }
    }

    /// FLOAT, bit for bit.
    #[inline]
    pub fn push_f32(&mut self, value: f32) -> Result<(), ValueError> {
        match self {
            Self::Float32(b) => {
                b.append_value(value);
                Ok(())
            }
            _ => Err(ValueError::WrongKind),
        }
    }

    /// DOUBLE, bit for bit.
    #[inline]
    pub fn push_f64(&mut self, value: f64) -> Result<(), ValueError> {
        match self {
            Self::Float64(b) => {
                b.append_value(value);
                Ok(())
            }
            _ => Err(ValueError::WrongKind),
        }
    }

    /// BIT(1).
    #[inline]
    pub fn push_bool(&mut self, value: bool) -> Result<(), ValueError> {
        match self {
            Self::Boolean(b) => {
                b.append_value(value);
                Ok(())
            }
            _ => Err(ValueError::WrongKind),
        }
    }

    #[inline]
    pub fn push_text(&mut self, value: &str) -> Result<(), ValueError> {
        match self {
            Self::Text(b) => {
                b.append_value(value);
                Ok(())
            }
            _ => Err(ValueError::WrongKind),
        }
    }

    #[inline]
    pub fn push_binary(&mut self, value: &[u8]) -> Result<(), ValueError> {
        match self {
            Self::Binary(b) => {
                b.append_value(value);
                Ok(())
            }
            _ => Err(ValueError::WrongKind),
        }
    }

    /// DATE. A month or day of 0 goes by the column's [`ZeroDates`].
    #[inline]
    pub fn push_date(&mut self, year: u16, month: u8, day: u8) -> Result<(), ValueError> {
        let Self::Date(builder, zero_dates) = self else {
            return Err(ValueError::WrongKind);
        };
        match days_from_civil(year, month, day) {
            Ok(days) => builder.append_value(days),
            Err(ValueError::ZeroDate) if *zero_dates == ZeroDates::Null => builder.append_null(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// DATETIME from its calendar parts; `micros` is the fraction of a second.
    #[inline]
    pub fn push_datetime(&mut self, date: (u16, u8, u8), time: (u8, u8, u8), micros: u32) -> Result<(), ValueError> {
        let Self::Timestamp(builder, zero_dates) = self else {
            return Err(ValueError::WrongKind);
        };
        match days_from_civil(date.0, date.1, date.2) {
            Ok(days) => {
                let seconds =
                    i64::from(days) * 86_400 + i64::from(time.0) * 3_600 + i64::from(time.1) * 60 + i64::from(time.2);
                builder.append_value(seconds * 1_000_000 + i64::from(micros));
            }
            Err(ValueError::ZeroDate) if *zero_dates == ZeroDates::Null => builder.append_null(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// TIMESTAMP as microseconds since the epoch; `None` is MySQL's zero timestamp.
    #[inline]
    pub fn push_timestamp(&mut self, micros: Option<i64>) -> Result<(), ValueError> {
        let Self::Timestamp(builder, zero_dates) = self else {
            return Err(ValueError::WrongKind);
        };
        match micros {
            Some(micros) => builder.append_value(micros),
            None if *zero_dates == ZeroDates::Null => builder.append_null(),
            None => return Err(ValueError::ZeroDate),
        }
        Ok(())
    }

    /// Bytes held so far, roughly: what a batch's bound is measured in.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Int8(b) => b.values_slice().len(),
            Self::Int16(b) => b.values_slice().len() * 2,
            Self::Int32(b) => b.values_slice().len() * 4,
            Self::Int64(b) => b.values_slice().len() * 8,
            Self::Decimal(b) => b.values_slice().len() * 16,
            Self::Boolean(b) => b.values_slice().len(),
            Self::Float32(b) => b.values_slice().len() * 4,
            Self::Float64(b) => b.values_slice().len() * 8,
            Self::Date(b, _) => b.values_slice().len() * 4,
            Self::Timestamp(b, _) => b.values_slice().len() * 8,
            Self::Text(b) => b.values_slice().len() + b.offsets_slice().len() * 4,
            Self::Binary(b) => b.values_slice().len() + b.offsets_slice().len() * 4,
        }
    }

    /// The column built so far; the builder is empty afterwards.
    pub fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Int8(b) => Arc::new(b.finish()),
            Self::Int16(b) => Arc::new(b.finish()),
            Self::Int32(b) => Arc::new(b.finish()),
            Self::Int64(b) => Arc::new(b.finish()),
            Self::Decimal(b) => Arc::new(b.finish()),
            Self::Boolean(b) => Arc::new(b.finish()),
            Self::Float32(b) => Arc::new(b.finish()),
            Self::Float64(b) => Arc::new(b.finish()),
            Self::Date(b, _) => Arc::new(b.finish()),
            Self::Timestamp(b, _) => Arc::new(b.finish()),
            Self::Text(b) => Arc::new(b.finish()),
            Self::Binary(b) => Arc::new(b.finish()),
        }
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (the days-from-civil algorithm).
pub(crate) fn days_from_civil(year: u16, month: u8, day: u8) -> Result<i32, ValueError> {
    if month == 0 || day == 0 {
        return Err(ValueError::ZeroDate);
    }
    if year > 9999 || month > 12 || day > 31 {
        return Err(ValueError::DateOutOfRange);
    }
    let y = i32::from(year) - i32::from(month <= 2);
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let shifted_month = (i32::from(month) + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + i32::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Ok(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Date32Type, TimestampMicrosecondType};
    use arrow_array::{Array, cast::as_primitive_array};

    use super::*;

    #[test]
    fn days_count_from_the_epoch_in_both_directions() {
        assert_eq!(days_from_civil(1970, 1, 1), Ok(0));
        assert_eq!(days_from_civil(2000, 3, 1), Ok(11_017));
        assert_eq!(days_from_civil(1969, 12, 31), Ok(-1));
        assert_eq!(days_from_civil(1000, 1, 1), Ok(-354_285));
        assert_eq!(days_from_civil(9999, 12, 31), Ok(2_932_896));
    }

    #[test]
    fn zero_dates_follow_the_policy() {
        let mut lenient = ColumnBuilder::new(&ColumnType::Date, ZeroDates::Null);
        lenient.push_date(0, 0, 0).unwrap();
        lenient.push_date(2024, 0, 10).unwrap();
        lenient.push_date(2024, 2, 29).unwrap();
        let array = lenient.finish();
        assert_eq!(array.null_count(), 2);
        assert_eq!(as_primitive_array::<Date32Type>(&array).value(2), 19_782);
        let mut strict = ColumnBuilder::new(&ColumnType::DateTime { fsp: 0 }, ZeroDates::Error);
        assert_eq!(strict.push_datetime((0, 0, 0), (0, 0, 0), 0), Err(ValueError::ZeroDate));
    }

    #[test]
    fn datetime_keeps_microseconds_before_the_epoch() {
        let mut builder = ColumnBuilder::new(&ColumnType::DateTime { fsp: 6 }, ZeroDates::Null);
        builder.push_datetime((1969, 12, 31), (23, 59, 59), 999_999).unwrap();
        assert_eq!(builder.finish().as_primitive::<TimestampMicrosecondType>().value(0), -1);
    }

    #[test]
    fn a_number_too_wide_is_refused_not_wrapped() {
        let mut builder = ColumnBuilder::new(&ColumnType::Int8, ZeroDates::Null);
        assert_eq!(builder.push_int(128), Err(ValueError::NumberOutOfRange));
        let mut unsigned = ColumnBuilder::new(&ColumnType::UInt64, ZeroDates::Null);
        unsigned.push_uint(u64::MAX).unwrap();
    }
}

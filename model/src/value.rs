//! MySQL column type → Arrow type → Delta type: the one table that snapshot and stream share.
//!
//! A [`ColumnType`] is what decides the *values* of a column. What only matters to one wire format (length bytes,
//! character set of the binlog image, padding) stays with the decoder of that format.

use arrow_schema::{DataType, TimeUnit};
use serde::{Deserialize, Serialize};

/// The largest decimal precision that Arrow's Decimal128 and Delta's `decimal` hold; above it a DECIMAL becomes text.
pub const DECIMAL_PRECISION_MAX: u8 = 38;

/// Logical type of a source column.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// TINYINT, also TINYINT(1).
    Int8,
    /// SMALLINT.
    Int16,
    /// MEDIUMINT.
    Int24,
    /// INT.
    Int32,
    /// BIGINT.
    Int64,
    /// TINYINT UNSIGNED.
    UInt8,
    /// SMALLINT UNSIGNED.
    UInt16,
    /// MEDIUMINT UNSIGNED.
    UInt24,
    /// INT UNSIGNED.
    UInt32,
    /// BIGINT UNSIGNED.
    UInt64,
    /// BIT(1).
    Boolean,
    /// BIT(n), n from 2 to 64; the value is big-endian, `(n + 7) / 8` bytes.
    Bits(u8),
    /// DECIMAL(precision, scale); text above [`DECIMAL_PRECISION_MAX`] digits.
    Decimal { precision: u8, scale: u8 },
    /// FLOAT.
    Float,
    /// DOUBLE.
    Double,
    /// DATE.
    Date,
    /// DATETIME(fsp): no zone.
    DateTime { fsp: u8 },
    /// TIMESTAMP(fsp): UTC.
    Timestamp { fsp: u8 },
    /// TIME(fsp): signed microseconds.
    Time { fsp: u8 },
    /// YEAR.
    Year,
    /// CHAR, VARCHAR and the TEXT family, decoded to UTF-8.
    Text,
    /// ENUM with its members in order; index 0 is the empty string.
    Enum(Vec<String>),
    /// SET with its members in order; the value is the chosen members joined by commas.
    Set(Vec<String>),
    /// JSON as canonical text.
    Json,
    /// BINARY, VARBINARY and the BLOB family.
    Binary,
    /// GEOMETRY and its subtypes: SRID (4 bytes, little-endian) followed by WKB.
    Geometry,
    /// VECTOR: little-endian float32 elements.
    Vector,
}

impl ColumnType {
    /// The Arrow type in memory, in Parquet and in change batches.
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Int8 => DataType::Int8,
            Self::Int16 | Self::UInt8 | Self::Year => DataType::Int16,
            Self::Int24 | Self::Int32 | Self::UInt16 | Self::UInt24 => DataType::Int32,
            Self::Int64 | Self::UInt32 | Self::Time { .. } => DataType::Int64,
            Self::UInt64 => DataType::Decimal128(20, 0),
            Self::Boolean => DataType::Boolean,
            Self::Decimal { precision, scale } if *precision <= DECIMAL_PRECISION_MAX => {
                DataType::Decimal128(*precision, *scale as i8)
            }
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Date => DataType::Date32,
            Self::DateTime { .. } => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Timestamp { .. } => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Decimal { .. } | Self::Text | Self::Enum(_) | Self::Set(_) | Self::Json => DataType::Utf8,
            Self::Bits(_) | Self::Binary | Self::Geometry | Self::Vector => DataType::Binary,
        }
    }

    /// The primitive type name in the Delta schema string (Delta protocol, "Primitive Types").
    pub fn delta(&self) -> String {
        delta_type(&self.arrow())
    }

    /// True for integers declared UNSIGNED.
    pub fn is_unsigned(&self) -> bool {
        matches!(self, Self::UInt8 | Self::UInt16 | Self::UInt24 | Self::UInt32 | Self::UInt64)
    }

    /// True for the types whose Arrow form is a whole number, so that their keys share one canonical form.
    pub fn is_integer(&self) -> bool {
        matches!(
            self,
            Self::Int8
                | Self::Int16
                | Self::Int24
                | Self::Int32
                | Self::Int64
                | Self::UInt8
                | Self::UInt16
                | Self::UInt24
                | Self::UInt32
                | Self::UInt64
                | Self::Year
        )
    }
}

impl ColumnType {
    /// Whether every value of this type is exactly one of `wider`, which a column in the lake can therefore become.
    ///
    /// Told by the Arrow forms, since a lake column may have been declared otherwise than the values that it holds by now:
    /// MEDIUMINT and INT are one there.
    pub fn widens_to(&self, wider: &Self) -> bool {
        // A number that becomes a YEAR or a TIME is read as one, and is not the same any more.
        let is_number = |ty: &Self| ty.is_integer() || matches!(ty, Self::Decimal { .. } | Self::Float | Self::Double);
        if !is_number(self) || !is_number(wider) || *wider == Self::Year {
            return false;
        }
        match (self.arrow(), wider.arrow()) {
            (DataType::Float32, DataType::Float64) => true,
            (from @ DataType::Decimal128(_, scale), to @ DataType::Decimal128(_, wider)) => {
                from != to && wider >= scale && whole_digits(&to) >= whole_digits(&from)
            }
            (from, to @ DataType::Decimal128(..)) => {
                integer_bits(&from).is_some() && whole_digits(&to) >= whole_digits(&from)
            }
            (from, to) => match (integer_bits(&from), integer_bits(&to)) {
                (Some(from), Some(to)) => from < to,
                _ => false,
            },
        }
    }

    /// Whether a lake column of type `held` holds every value of this type as it is.
    pub fn fits(&self, held: &Self) -> bool {
        self.arrow() == held.arrow() || self.widens_to(held)
    }
}

fn integer_bits(arrow: &DataType) -> Option<u8> {
    Some(match arrow {
        DataType::Int8 => 8,
        DataType::Int16 => 16,
        DataType::Int32 => 32,
        DataType::Int64 => 64,
        _ => return None,
    })
}

/// Digits before the point that the values of a number have at most; none of what is no number, or not exact.
fn whole_digits(arrow: &DataType) -> Option<i16> {
    Some(match arrow {
        DataType::Int8 => 3,
        DataType::Int16 => 5,
        DataType::Int32 => 10,
        DataType::Int64 => 19,
        DataType::Decimal128(precision, scale) => i16::from(*precision) - i16::from(*scale),
        _ => return None,
    })
}

/// Delta's name for an Arrow type that [`ColumnType::arrow`] can give.
///
/// # Panics
/// On an Arrow type that no column has.
pub fn delta_type(arrow: &DataType) -> String {
    match arrow {
        DataType::Int8 => "byte".into(),
        DataType::Int16 => "short".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "long".into(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::Boolean => "boolean".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp_ntz".into(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamp".into(),
        DataType::Utf8 => "string".into(),
        DataType::Binary => "binary".into(),
        other => panic!("no source column has the Arrow type {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsigned_types_widen_to_the_next_signed_one() {
        assert_eq!(ColumnType::UInt8.delta(), "short");
        assert_eq!(ColumnType::UInt16.delta(), "integer");
        assert_eq!(ColumnType::UInt24.delta(), "integer");
        assert_eq!(ColumnType::UInt32.delta(), "long");
        assert_eq!(ColumnType::UInt64.delta(), "decimal(20,0)");
    }

    #[test]
    fn decimal_beyond_38_digits_is_text() {
        assert_eq!(ColumnType::Decimal { precision: 38, scale: 10 }.delta(), "decimal(38,10)");
        assert_eq!(ColumnType::Decimal { precision: 39, scale: 0 }.delta(), "string");
    }

    #[test]
    fn datetime_has_no_zone_and_timestamp_is_utc() {
        assert_eq!(ColumnType::DateTime { fsp: 3 }.delta(), "timestamp_ntz");
        assert_eq!(ColumnType::Timestamp { fsp: 6 }.delta(), "timestamp");
    }
}

//! One value: bytes of a known wire type into a column.

use weir_model::{ColumnBuilder, ValueError};

use super::cursor::uint_le;
use super::decimal::Layout;
use super::error::CellError;
use super::temporal;
use crate::binlog::charset::Charset;
use crate::binlog::json;

/// What a column's bytes mean. Integers are little-endian.
#[derive(Debug)]
pub(super) enum Value {
    Int8,
    UInt8,
    Int16,
    UInt16,
    Int24,
    UInt24,
    Int32,
    UInt32,
    Int64,
    UInt64,
    Float,
    Double,
    Decimal(Layout),
    /// A DECIMAL of more digits than Decimal128 has.
    DecimalText(Layout),
    /// BIT(1).
    Boolean,
    /// Bytes as they are: BIT(n), VARBINARY, BLOB, GEOMETRY, VECTOR.
    Bytes,
    /// BINARY(n): the binlog leaves out trailing zero bytes.
    PaddedBytes(usize),
    Year,
    Date,
    OldTimestamp,
    OldDateTime,
    OldTime,
    Timestamp,
    DateTime,
    Time,
    Text(Charset),
    Enum(Vec<String>),
    Set(Vec<String>),
    Json,
    /// Of MySQL before 8.0.
    JsonOf57,
}

/// Room for values that must be put together before they are pushed.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) text: String,
    bytes: Vec<u8>,
}

impl Value {
    /// Appends the value that `bytes` hold to `column`.
    #[inline]
    pub(super) fn push(
        &self,
        bytes: &[u8],
        column: &mut ColumnBuilder,
        scratch: &mut Scratch,
    ) -> Result<(), CellError> {
        match self {
            Self::Int8 => column.push_int(i64::from(i8::from_le_bytes(fixed(bytes)?)))?,
            Self::UInt8 => column.push_int(i64::from(u8::from_le_bytes(fixed(bytes)?)))?,
            Self::Int16 => column.push_int(i64::from(i16::from_le_bytes(fixed(bytes)?)))?,
            Self::UInt16 => column.push_int(i64::from(u16::from_le_bytes(fixed(bytes)?)))?,
            Self::Int24 => column.push_int(i64::from(int24(fixed(bytes)?)))?,
            Self::UInt24 => column.push_int(uint_le(&fixed::<3>(bytes)?) as i64)?,
            Self::Int32 => column.push_int(i64::from(i32::from_le_bytes(fixed(bytes)?)))?,
            Self::UInt32 => column.push_int(i64::from(u32::from_le_bytes(fixed(bytes)?)))?,
            Self::Int64 => column.push_int(i64::from_le_bytes(fixed(bytes)?))?,
            Self::UInt64 => column.push_uint(u64::from_le_bytes(fixed(bytes)?))?,
            Self::Float => column.push_f32(f32::from_le_bytes(fixed(bytes)?))?,
            Self::Double => column.push_f64(f64::from_le_bytes(fixed(bytes)?))?,
            Self::Decimal(layout) => column.push_decimal(layout.unscaled(bytes)?)?,
            Self::Boolean => column.push_bool(bytes.iter().any(|byte| *byte != 0))?,
            Self::Bytes => column.push_binary(bytes)?,
            Self::Year => column.push_int(year(fixed(bytes)?))?,
            Self::Date => {
                let (year, month, day) = temporal::date(fixed(bytes)?);
                column.push_date(year, month, day)?;
            }
            Self::Timestamp => column.push_timestamp(temporal::timestamp(bytes)?)?,
            Self::DateTime => {
                let moment = temporal::datetime(bytes)?;
                column.push_datetime(moment.date, moment.time, moment.micros)?;
            }
            Self::Time => column.push_int(temporal::time(bytes)?)?,
            Self::Text(charset) => column.push_text(charset.decode(bytes, &mut scratch.text)?)?,
            _ => self.push_rare(bytes, column, scratch)?,
        }
        Ok(())
    }

    /// The types that are rare or costly anyway, out of the way of the others.
    fn push_rare(&self, bytes: &[u8], column: &mut ColumnBuilder, scratch: &mut Scratch) -> Result<(), CellError> {
        match self {
            Self::DecimalText(layout) => {
                scratch.text.clear();
                layout.write_text(bytes, &mut scratch.text)?;
                column.push_text(&scratch.text)?;
            }
            Self::PaddedBytes(width) => {
                scratch.bytes.clear();
                scratch.bytes.extend_from_slice(bytes);
                scratch.bytes.resize(bytes.len().max(*width), 0);
                column.push_binary(&scratch.bytes)?;
            }
            Self::Enum(members) => column.push_text(member(members, uint_le(bytes))?)?,
            Self::Set(members) => {
                join_chosen(members, uint_le(bytes), &mut scratch.text)?;
                column.push_text(&scratch.text)?;
            }
            Self::Json | Self::JsonOf57 => {
                let wholes = if matches!(self, Self::Json) { json::Wholes::Pointed } else { json::Wholes::Plain };
                scratch.text.clear();
                json::write_text_of(bytes, wholes, &mut scratch.text)?;
                column.push_text(&scratch.text)?;
            }
            Self::OldTimestamp => {
                let seconds = u32::from_le_bytes(fixed(bytes)?);
                column.push_timestamp((seconds != 0).then(|| i64::from(seconds) * 1_000_000))?;
            }
            Self::OldDateTime => {
                let moment = temporal::old_datetime(u64::from_le_bytes(fixed(bytes)?))?;
                column.push_datetime(moment.date, moment.time, moment.micros)?;
            }
            Self::OldTime => column.push_int(temporal::old_time(int24(fixed(bytes)?))?)?,
            _ => return Err(ValueError::WrongKind.into()),
        }
        Ok(())
    }
}

#[inline]
fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], CellError> {
    <[u8; N]>::try_from(bytes).map_err(|_| CellError::Truncated)
}

#[inline]
fn int24([low, middle, high]: [u8; 3]) -> i32 {
    i32::from_le_bytes([0, low, middle, high]) >> 8
}

/// Years count from 1900, and 0 is the year 0000.
fn year([byte]: [u8; 1]) -> i64 {
    if byte == 0 { 0 } else { 1900 + i64::from(byte) }
}

/// Members count from 1; index 0 is what MySQL stores for a value that is not a member.
fn member(members: &[String], index: u64) -> Result<&str, CellError> {
    match index.checked_sub(1) {
        None => Ok(""),
        Some(index) => usize::try_from(index)
            .ok()
            .and_then(|index| members.get(index))
            .map(String::as_str)
            .ok_or(CellError::Malformed("an ENUM index beyond its members")),
    }
}

fn join_chosen(members: &[String], chosen: u64, text: &mut String) -> Result<(), CellError> {
    text.clear();
    let known = if members.len() < 64 { (1 << members.len()) - 1 } else { u64::MAX };
    if chosen & !known != 0 {
        return Err(CellError::Malformed("a SET bit beyond its members"));
    }
    for (index, member) in members.iter().enumerate() {
        if chosen >> index & 1 == 1 {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(member);
        }
    }
    Ok(())
}

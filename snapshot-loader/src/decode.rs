//! Rows of the binary protocol into columns, straight from their packets: a plan is made once a query, then it is a match a
//! cell, and nothing is allocated but the columns.
//!
//! What comes out must equal, bit for bit, what the binlog's row images give for the same value. A packet is believed in
//! nothing: one that is too short, or holds more than its row, is an error.

use weir_model::value::DECIMAL_PRECISION_MAX;
use weir_model::{ColumnBuilder, ColumnType, ValueError};
use weir_mysql::wire::{ColumnDefinition, EndsEarly, Fields};

/// How the cells of one column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    Int8,
    UInt8,
    Int16,
    UInt16,
    /// Also MEDIUMINT, which travels in four bytes.
    Int32,
    UInt32,
    Int64,
    UInt64,
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

impl From<EndsEarly> for CellError {
    fn from(_: EndsEarly) -> Self {
        Self::Form("a cell that ends early")
    }
}

/// Types on the wire, by their numbers in the protocol.
mod kind {
    pub(super) const TINY: u8 = 1;
    pub(super) const SHORT: u8 = 2;
    pub(super) const LONG: u8 = 3;
    pub(super) const FLOAT: u8 = 4;
    pub(super) const DOUBLE: u8 = 5;
    pub(super) const TIMESTAMP: u8 = 7;
    pub(super) const LONGLONG: u8 = 8;
    pub(super) const INT24: u8 = 9;
    pub(super) const DATE: u8 = 10;
    pub(super) const TIME: u8 = 11;
    pub(super) const DATETIME: u8 = 12;
    pub(super) const YEAR: u8 = 13;
}

/// A wire type that does not hold what the column's type needs.
const OTHER_FORM: CellError = CellError::Form("cells of another form than its type's");

impl Cell {
    /// How cells that the server announces as `sent` become values of a column of type `ty`.
    pub(crate) fn of(ty: &ColumnType, sent: &ColumnDefinition) -> Result<Self, CellError> {
        if ty.is_integer() {
            return Self::integer(sent).ok_or(OTHER_FORM);
        }
        let is_fixed = (kind::TINY..=kind::YEAR).contains(&sent.kind) && sent.kind != 6;
        let (cell, fits) = match ty {
            ColumnType::Float => (Self::Float, sent.kind == kind::FLOAT),
            ColumnType::Double => (Self::Double, sent.kind == kind::DOUBLE),
            ColumnType::Date => (Self::Date, is_date(sent.kind)),
            ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => (Self::DateTime, is_date(sent.kind)),
            ColumnType::Time { .. } => (Self::Time, sent.kind == kind::TIME),
            // All others have a length before them.
            ColumnType::Decimal { precision, scale } if *precision <= DECIMAL_PRECISION_MAX => {
                (Self::Decimal { scale: *scale }, !is_fixed)
            }
            ColumnType::Decimal { .. } => (Self::DecimalText, !is_fixed),
            ColumnType::Boolean => (Self::Bool, !is_fixed),
            ColumnType::Bits(bits) => (Self::Bits { bytes: bits.div_ceil(8) }, !is_fixed),
            ColumnType::Binary | ColumnType::Geometry | ColumnType::Vector => (Self::Binary, !is_fixed),
            _ => (Self::Text, !is_fixed),
        };
        if fits { Ok(cell) } else { Err(OTHER_FORM) }
    }

    fn integer(sent: &ColumnDefinition) -> Option<Self> {
        Some(match (sent.kind, sent.is_unsigned) {
            (kind::TINY, false) => Self::Int8,
            (kind::TINY, true) => Self::UInt8,
            (kind::SHORT, false) => Self::Int16,
            (kind::SHORT, true) | (kind::YEAR, _) => Self::UInt16,
            (kind::LONG | kind::INT24, false) => Self::Int32,
            (kind::LONG | kind::INT24, true) => Self::UInt32,
            (kind::LONGLONG, false) => Self::Int64,
            (kind::LONGLONG, true) => Self::UInt64,
            _ => return None,
        })
    }

    /// Appends the cell that `fields` begin with to `column`.
    #[inline]
    fn push(self, fields: &mut Fields<'_>, column: &mut ColumnBuilder) -> Result<(), CellError> {
        match self {
            Self::Int8 => column.push_int(i8::from_le_bytes(fields.array()?).into())?,
            Self::UInt8 => column.push_int(fields.u8()?.into())?,
            Self::Int16 => column.push_int(i16::from_le_bytes(fields.array()?).into())?,
            Self::UInt16 => column.push_int(fields.u16()?.into())?,
            Self::Int32 => column.push_int(i32::from_le_bytes(fields.array()?).into())?,
            Self::UInt32 => column.push_int(fields.u32()?.into())?,
            Self::Int64 => column.push_int(i64::from_le_bytes(fields.array()?))?,
            Self::UInt64 => column.push_uint(fields.u64()?)?,
            Self::Float => column.push_f32(f32::from_le_bytes(fields.array()?))?,
            Self::Double => column.push_f64(f64::from_le_bytes(fields.array()?))?,
            Self::Text => {
                let text = std::str::from_utf8(fields.length_encoded_bytes()?);
                column.push_text(text.map_err(|_| CellError::Form("text that is not UTF-8"))?)?;
            }
            Self::Binary => column.push_binary(fields.length_encoded_bytes()?)?,
            Self::Decimal { scale } => {
                let number = unscaled(fields.length_encoded_bytes()?, scale);
                column.push_decimal(number.ok_or(CellError::Form("a decimal that cannot be read"))?)?;
            }
            Self::DecimalText => {
                let text = plain_decimal(fields.length_encoded_bytes()?);
                column.push_text(text.ok_or(CellError::Form("a decimal that cannot be read"))?)?;
            }
            Self::Date => {
                let (date, ..) = moment(fields)?;
                column.push_date(date.0, date.1, date.2)?;
            }
            Self::DateTime => {
                let (date, time, micros) = moment(fields)?;
                column.push_datetime(date, time, micros)?;
            }
            Self::Time => column.push_int(duration_us(fields)?)?,
            Self::Bool => column.push_bool(fields.length_encoded_bytes()?.iter().any(|byte| *byte != 0))?,
            Self::Bits { bytes } => {
                let value = fields.length_encoded_bytes()?;
                if value.len() != usize::from(bytes) {
                    return Err(CellError::Form("bits of another number than its type's"));
                }
                column.push_binary(value)?;
            }
        }
        Ok(())
    }
}

fn is_date(kind: u8) -> bool {
    matches!(kind, kind::DATE | kind::DATETIME | kind::TIMESTAMP)
}

type Moment = ((u16, u8, u8), (u8, u8, u8), u32);

/// A date and perhaps a time of day (`ProtocolBinary::MYSQL_TYPE_DATETIME`): what is zero at the end is left out.
#[inline]
fn moment(fields: &mut Fields<'_>) -> Result<Moment, CellError> {
    let len = fields.u8()?;
    if !matches!(len, 0 | 4 | 7 | 11) {
        return Err(CellError::Form("a date of another form than any"));
    }
    let date = if len >= 4 { (fields.u16()?, fields.u8()?, fields.u8()?) } else { (0, 0, 0) };
    let time = if len >= 7 { (fields.u8()?, fields.u8()?, fields.u8()?) } else { (0, 0, 0) };
    let micros = if len == 11 { fields.u32()? } else { 0 };
    Ok((date, time, micros))
}

/// TIME goes to 838:59:59 in either direction.
const HOURS_MAX: i64 = 838;

/// A TIME as signed microseconds (`ProtocolBinary::MYSQL_TYPE_TIME`).
#[inline]
fn duration_us(fields: &mut Fields<'_>) -> Result<i64, CellError> {
    let len = fields.u8()?;
    if len == 0 {
        return Ok(0);
    }
    if !matches!(len, 8 | 12) {
        return Err(CellError::Form("a time of another form than any"));
    }
    let is_negative = fields.u8()? != 0;
    let hours = i64::from(fields.u32()?) * 24 + i64::from(fields.u8()?);
    if hours > HOURS_MAX {
        return Err(CellError::Value(ValueError::NumberOutOfRange));
    }
    let minutes = hours * 60 + i64::from(fields.u8()?);
    let seconds = minutes * 60 + i64::from(fields.u8()?);
    let micros = if len == 12 { fields.u32()? } else { 0 };
    let total = seconds * 1_000_000 + i64::from(micros);
    Ok(if is_negative { -total } else { total })
}

/// The columns of a result, as they are being built.
#[derive(Debug)]
pub(crate) struct Columns {
    cells: Vec<Cell>,
    pub(crate) builders: Vec<ColumnBuilder>,
}

/// A cell that cannot be stored, by its place in the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadCell {
    pub(crate) at: usize,
    pub(crate) error: CellError,
}

impl Columns {
    /// `cells` and `builders` are those of the same columns, in the order of the result.
    pub(crate) fn new(cells: Vec<Cell>, builders: Vec<ColumnBuilder>) -> Self {
        Self { cells, builders }
    }

    /// Appends the row of a packet (`ProtocolBinary::BinaryResultsetRow`). After an error the columns are of no use.
    pub(crate) fn push_row(&mut self, packet: &[u8]) -> Result<(), BadCell> {
        let count = self.cells.len();
        // A byte that says "row", then a bit for each column behind two that are kept free.
        let Some((nulls, cells)) = packet.get(1..).and_then(|rest| rest.split_at_checked((count + 9) / 8)) else {
            return Err(BadCell { at: 0, error: EndsEarly.into() });
        };
        let mut fields = Fields::new(cells);
        for (at, (cell, builder)) in self.cells.iter().zip(&mut self.builders).enumerate() {
            let bit = at + 2;
            if nulls[bit / 8] >> (bit % 8) & 1 == 1 {
                builder.push_null();
            } else if let Err(error) = cell.push(&mut fields, builder) {
                return Err(BadCell { at, error });
            }
        }
        if !fields.is_empty() {
            return Err(BadCell { at: count - 1, error: CellError::Form("more than its row has") });
        }
        Ok(())
    }
}

/// The unscaled whole number of a DECIMAL that MySQL prints with exactly `scale` digits behind the point.
#[inline]
fn unscaled(text: &[u8], scale: u8) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    // The point stands where the scale says, or nowhere.
    let point = digits.len().checked_sub(usize::from(scale) + 1);
    let (whole, part) = match (scale, point) {
        (0, _) => (digits, &[][..]),
        (_, Some(point)) if digits[point] == b'.' => (&digits[..point], &digits[point + 1..]),
        _ => return None,
    };
    if digits.is_empty() {
        return None;
    }
    let number = if whole.len() + part.len() <= DIGITS_OF_U64 {
        let append = |number: u64, byte: &u8| digit(*byte).map(|digit| number * 10 + u64::from(digit));
        i128::from(whole.iter().chain(part).try_fold(0, append)?)
    } else {
        let append = |number: i128, byte: &u8| number.checked_mul(10)?.checked_add(digit(*byte)?.into());
        whole.iter().chain(part).try_fold(0, append)?
    };
    Some(if negative { -number } else { number })
}

/// So many digits are a number of 64 bits, whichever they are.
const DIGITS_OF_U64: usize = 19;

#[inline]
fn digit(byte: u8) -> Option<u8> {
    let digit = byte.wrapping_sub(b'0');
    (digit < 10).then_some(digit)
}

/// A DECIMAL's text without the zeros that ZEROFILL, which no negative number has, puts before it.
fn plain_decimal(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    if digits.len() < text.len() {
        return Some(text);
    }
    let trimmed = digits.trim_start_matches('0');
    let needs_zero = trimmed.is_empty() || trimmed.starts_with('.');
    let fill = (digits.len() - trimmed.len()).checked_sub(usize::from(needs_zero))?;
    digits.get(fill..)
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
            assert_eq!(plain_decimal(text.as_bytes()), Some(expected));
        }
        assert_eq!((plain_decimal(b"1e5"), plain_decimal(b""), plain_decimal(b".5")), (None, None, None));
    }

    fn sent(kind: u8, is_unsigned: bool) -> ColumnDefinition {
        ColumnDefinition { name: "c".into(), kind, is_unsigned }
    }

    fn columns(of: &[(ColumnType, ColumnDefinition)]) -> Columns {
        let cells = of.iter().map(|(ty, sent)| Cell::of(ty, sent).unwrap()).collect();
        Columns::new(cells, of.iter().map(|(ty, _)| ColumnBuilder::new(ty, ZeroDates::Null)).collect())
    }

    #[test]
    fn negative_time_is_signed_microseconds() {
        let mut columns = columns(&[(ColumnType::Time { fsp: 6 }, sent(kind::TIME, false))]);
        columns.push_row(&[&[0, 0, 12, 1, 34, 0, 0, 0, 22, 59, 59][..], &999_999_u32.to_le_bytes()].concat()).unwrap();
        columns.push_row(&[0, 0, 0]).unwrap();
        let times = columns.builders[0].finish();
        assert_eq!(times.as_primitive::<Int64Type>().values()[..], [-3_020_399_999_999, 0]);
    }

    #[test]
    fn a_wire_type_that_does_not_hold_the_column_is_refused() {
        const VAR_STRING: u8 = 253;
        for (ty, kind) in [
            (ColumnType::Int32, VAR_STRING),
            (ColumnType::Text, kind::LONG),
            (ColumnType::Double, kind::FLOAT),
            (ColumnType::Date, kind::TIME),
            (ColumnType::Decimal { precision: 10, scale: 2 }, kind::DOUBLE),
        ] {
            assert_eq!(Cell::of(&ty, &sent(kind, false)), Err(OTHER_FORM), "{ty:?}");
        }
        // A column that was just made wider is read as long as its values fit.
        let mut columns = columns(&[(ColumnType::Int8, sent(kind::LONG, false))]);
        assert!(columns.push_row(&[0, 0, 100, 0, 0, 0]).is_ok());
        let error = CellError::Value(ValueError::NumberOutOfRange);
        assert_eq!(columns.push_row(&[0, 0, 200, 0, 0, 0]), Err(BadCell { at: 0, error }));
    }

    /// A column of each form, and a row of them without their packet's head.
    fn every_form() -> (Vec<(ColumnType, ColumnDefinition)>, Vec<u8>) {
        let fixed = |ty, kind, is_unsigned, bytes: &[u8]| (ty, sent(kind, is_unsigned), bytes.to_vec());
        let text = |ty, bytes: &[u8]| (ty, sent(252, false), [&[bytes.len() as u8], bytes].concat());
        let forms = [
            fixed(ColumnType::Int8, kind::TINY, false, &[0xff]),
            fixed(ColumnType::UInt8, kind::TINY, true, &[0xff]),
            fixed(ColumnType::Int16, kind::SHORT, false, &[0xfe, 0xff]),
            fixed(ColumnType::Year, kind::YEAR, true, &[0xea, 0x07]),
            fixed(ColumnType::Int24, kind::INT24, false, &[0xff, 0xff, 0xff, 0xff]),
            fixed(ColumnType::UInt32, kind::LONG, true, &[0xff; 4]),
            fixed(ColumnType::Int64, kind::LONGLONG, false, &[0xff; 8]),
            fixed(ColumnType::UInt64, kind::LONGLONG, true, &[0xff; 8]),
            fixed(ColumnType::Float, kind::FLOAT, false, &[0; 4]),
            fixed(ColumnType::Double, kind::DOUBLE, false, &[0; 8]),
            fixed(ColumnType::Date, kind::DATE, false, &[4, 0xea, 0x07, 11, 21]),
            fixed(ColumnType::DateTime { fsp: 0 }, kind::DATETIME, false, &[7, 0xea, 0x07, 11, 21, 1, 2, 3]),
            fixed(
                ColumnType::Timestamp { fsp: 6 },
                kind::TIMESTAMP,
                false,
                &[11, 0xea, 0x07, 1, 1, 1, 2, 3, 9, 0, 0, 0],
            ),
            fixed(ColumnType::Time { fsp: 0 }, kind::TIME, false, &[8, 1, 0, 0, 0, 0, 1, 2, 3]),
            text(ColumnType::Decimal { precision: 10, scale: 2 }, b"-1.50"),
            text(ColumnType::Decimal { precision: 40, scale: 0 }, b"007"),
            text(ColumnType::Boolean, &[1]),
            text(ColumnType::Bits(9), &[1, 2]),
            text(ColumnType::Text, "\u{e9}".as_bytes()),
            text(ColumnType::Binary, &[0xff, 0]),
        ];
        let row = forms.iter().flat_map(|(.., bytes)| bytes.clone()).collect();
        (forms.into_iter().map(|(ty, sent, _)| (ty, sent)).collect(), row)
    }

    fn head(columns: usize, nulls: u8) -> Vec<u8> {
        let mut head = vec![nulls; 1 + (columns + 9) / 8];
        head[0] = 0;
        head
    }

    #[test]
    fn a_packet_cut_anywhere_or_with_more_than_its_row_is_an_error() {
        let (forms, row) = every_form();
        let whole = [head(forms.len(), 0), row].concat();
        assert_eq!(columns(&forms).push_row(&whole), Ok(()));
        assert_eq!(columns(&forms).push_row(&head(forms.len(), 0xff)), Ok(()), "all NULL");
        for len in 0..whole.len() {
            assert!(columns(&forms).push_row(&whole[..len]).is_err(), "{len}");
        }
        assert!(columns(&forms).push_row(&[&whole[..], &[0]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn whatever_a_packet_holds_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (forms, _) = every_form();
            let _ = columns(&forms).push_row(&bytes);
            for form in forms {
                let mut one = columns(std::slice::from_ref(&form));
                let _ = one.push_row(&[&[0, 0], &bytes[..]].concat());
                let values = one.builders[0].bytes();
                prop_assert!(values <= bytes.len() + 100);
            }
        }
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

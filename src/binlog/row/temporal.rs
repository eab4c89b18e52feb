//! Dates and times as MySQL packs them, in row images and inside JSON.
//!
//! Since 5.6 a time of day is `hours << 12 | minutes << 6 | seconds`, a date `(year * 13 + month) << 5 | day`, both
//! big-endian with an offset that makes bytes sort as values; up to three bytes of fraction follow, two digits a byte
//! (`my_datetime_packed_to_binary` and its siblings in the server's mysys/my_time.cc).

use super::cursor::uint_be;
use super::error::CellError;

/// Calendar parts, not yet checked against the calendar; the time of day is in range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DateTimeParts {
    pub(crate) date: (u16, u8, u8),
    pub(crate) time: (u8, u8, u8),
    pub(crate) micros: u32,
}

/// TIME in parts, of either sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeParts {
    pub(crate) negative: bool,
    pub(crate) hours: u16,
    pub(crate) minutes: u8,
    pub(crate) seconds: u8,
    pub(crate) micros: u32,
}

const MALFORMED_DATETIME: CellError = CellError::Malformed("a DATETIME out of range");
const MALFORMED_TIME: CellError = CellError::Malformed("a TIME out of range");
const MALFORMED_FRACTION: CellError = CellError::Malformed("a fraction of a second out of range");

/// DATE: three bytes, little-endian, `year << 9 | month << 5 | day`.
#[inline]
pub(crate) fn date([low, middle, high]: [u8; 3]) -> (u16, u8, u8) {
    let packed = u32::from_le_bytes([low, middle, high, 0]);
    ((packed >> 9) as u16, (packed >> 5 & 15) as u8, (packed & 31) as u8)
}

/// DATETIME(fsp): five bytes and the fraction.
#[inline]
pub(crate) fn datetime(bytes: &[u8]) -> Result<DateTimeParts, CellError> {
    const OFFSET: u64 = 1 << 39;
    let (whole, fraction) = bytes.split_at_checked(5).ok_or(CellError::Truncated)?;
    let packed = uint_be(whole).checked_sub(OFFSET).ok_or(MALFORMED_DATETIME)?;
    datetime_parts(packed, micros(fraction)?)
}

/// Splits `date << 17 | time of day`.
#[inline]
fn datetime_parts(packed: u64, micros: u32) -> Result<DateTimeParts, CellError> {
    let year_month = packed >> 22;
    let year = u16::try_from(year_month / 13).map_err(|_| MALFORMED_DATETIME)?;
    let date = (year, (year_month % 13) as u8, (packed >> 17 & 31) as u8);
    let time = ((packed >> 12 & 31) as u8, (packed >> 6 & 63) as u8, (packed & 63) as u8);
    if time.0 > 23 || time.1 > 59 || time.2 > 59 || micros > 999_999 {
        return Err(MALFORMED_DATETIME);
    }
    Ok(DateTimeParts { date, time, micros })
}

/// TIMESTAMP(fsp): four bytes of seconds since the epoch and the fraction; `None` is the zero timestamp.
#[inline]
pub(crate) fn timestamp(bytes: &[u8]) -> Result<Option<i64>, CellError> {
    let (seconds, fraction) = bytes.split_at_checked(4).ok_or(CellError::Truncated)?;
    let value = uint_be(seconds) as i64 * 1_000_000 + i64::from(micros(fraction)?);
    Ok((value != 0).then_some(value))
}

/// TIME(fsp) in signed microseconds: three bytes and the fraction.
///
/// All bytes together, fraction included, are one number with an offset of half its range. So the fraction of a negative
/// time is in two's complement with the whole part: -0.1 s at fsp 1 is -1 whole and 0xF6 hundredths.
#[inline]
pub(crate) fn time(bytes: &[u8]) -> Result<i64, CellError> {
    let fraction_bytes = bytes.len().checked_sub(3).filter(|bytes| *bytes <= 3).ok_or(CellError::Truncated)?;
    let value = uint_be(bytes) as i64 - (1_i64 << (23 + 8 * fraction_bytes));
    let magnitude = value.unsigned_abs();
    let fraction = magnitude & ((1 << (8 * fraction_bytes)) - 1);
    let micros = fraction * MICROS_OF_FRACTION[fraction_bytes];
    time_parts(value < 0, magnitude >> (8 * fraction_bytes), micros).map(micros_of_time)
}

/// Microseconds of one unit of a fraction of so many bytes.
const MICROS_OF_FRACTION: [u64; 4] = [0, 10_000, 100, 1];

#[inline]
fn time_parts(negative: bool, packed: u64, micros: u64) -> Result<TimeParts, CellError> {
    let hours = packed >> 12;
    let (minutes, seconds) = ((packed >> 6 & 63) as u8, (packed & 63) as u8);
    if hours > 838 || minutes > 59 || seconds > 59 || micros > 999_999 {
        return Err(MALFORMED_TIME);
    }
    Ok(TimeParts { negative, hours: hours as u16, minutes, seconds, micros: micros as u32 })
}

#[inline]
fn micros_of_time(time: TimeParts) -> i64 {
    let seconds = i64::from(time.hours) * 3600 + i64::from(time.minutes) * 60 + i64::from(time.seconds);
    let micros = seconds * 1_000_000 + i64::from(time.micros);
    if time.negative { -micros } else { micros }
}

/// A fraction of zero to three bytes, two digits a byte, as microseconds.
#[inline]
fn micros(fraction: &[u8]) -> Result<u32, CellError> {
    let unit = MICROS_OF_FRACTION.get(fraction.len()).ok_or(MALFORMED_FRACTION)?;
    let micros = uint_be(fraction) * unit;
    if micros > 999_999 { Err(MALFORMED_FRACTION) } else { Ok(micros as u32) }
}

/// DATETIME before 5.6: the decimal number YYYYMMDDhhmmss.
pub(crate) fn old_datetime(number: u64) -> Result<DateTimeParts, CellError> {
    let pair = |place: u64| (number / place % 100) as u8;
    let year = u16::try_from(number / 10_000_000_000).map_err(|_| MALFORMED_DATETIME)?;
    let time = (pair(10_000), pair(100), pair(1));
    if time.0 > 23 || time.1 > 59 || time.2 > 59 {
        return Err(MALFORMED_DATETIME);
    }
    Ok(DateTimeParts { date: (year, pair(100_000_000), pair(1_000_000)), time, micros: 0 })
}

/// TIME before 5.6 in signed microseconds, from the decimal number hhhmmss.
pub(crate) fn old_time(number: i32) -> Result<i64, CellError> {
    let magnitude = u64::from(number.unsigned_abs());
    let (hours, minutes, seconds) = (magnitude / 10_000, magnitude / 100 % 100, magnitude % 100);
    if minutes > 59 {
        return Err(MALFORMED_TIME);
    }
    time_parts(number < 0, hours << 12 | minutes << 6 | seconds, 0).map(micros_of_time)
}

/// DATE, DATETIME and TIMESTAMP inside JSON: `date << 17 | time of day`, then 24 bits of microseconds.
pub(crate) fn packed_datetime(packed: i64) -> Result<DateTimeParts, CellError> {
    let packed = u64::try_from(packed).map_err(|_| MALFORMED_DATETIME)?;
    datetime_parts(packed >> 24, (packed & 0xFF_FFFF) as u32)
}

/// TIME inside JSON: the time of day, then 24 bits of microseconds, negative as a whole.
pub(crate) fn packed_time(packed: i64) -> Result<TimeParts, CellError> {
    let magnitude = packed.unsigned_abs();
    time_parts(packed < 0, magnitude >> 24, magnitude & 0xFF_FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_times_are_right_at_every_fsp() {
        // -00:00:00.1 at fsp 1, -00:00:01.10 at fsp 2, from the table in the server's my_time_packed_from_binary.
        assert_eq!(time(&[0x7F, 0xFF, 0xFF, 0xF6]), Ok(-100_000));
        assert_eq!(time(&[0x7F, 0xFF, 0xFE, 0xF6]), Ok(-1_100_000));
        assert_eq!(time(&[0x7F, 0xFF, 0xFF, 0x00]), Ok(-1_000_000));
        assert_eq!(time(&[0x80, 0x00, 0x00]), Ok(0));
        assert_eq!(time(&[0x7F, 0xFF, 0xFF]), Ok(-1_000_000));
        assert_eq!(time(&[0x7F, 0xFF, 0xFF, 0xFF, 0xFF]), Ok(-100));
        assert_eq!(time(&[0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]), Ok(-1));
        assert_eq!(time(&[0x80, 0x00, 0x00, 0x0F, 0x42, 0x3F]), Ok(999_999));
    }

    #[test]
    fn the_ends_of_the_time_range_are_read_and_beyond_is_refused() {
        let packed = 838_u32 << 12 | 59 << 6 | 59;
        let bytes = (packed + 0x80_0000).to_be_bytes();
        assert_eq!(time(&bytes[1..]), Ok(3_020_399_000_000));
        let negative = (0x80_0000 - packed).to_be_bytes();
        assert_eq!(time(&negative[1..]), Ok(-3_020_399_000_000));
        assert_eq!(time(&[0xFF, 0xFF, 0xFF]), Err(MALFORMED_TIME));
        assert_eq!(time(&[0x80, 0x00]), Err(CellError::Truncated));
    }

    #[test]
    fn zero_and_partial_dates_keep_their_zeros() {
        assert_eq!(date([0, 0, 0]), (0, 0, 0));
        let packed = 2024_u32 << 9 | 10;
        assert_eq!(date([packed as u8, (packed >> 8) as u8, (packed >> 16) as u8]), (2024, 0, 10));
        let zero = datetime(&[0x80, 0, 0, 0, 0]).unwrap();
        assert_eq!(zero, DateTimeParts { date: (0, 0, 0), time: (0, 0, 0), micros: 0 });
    }

    #[test]
    fn a_timestamp_of_zero_is_none_and_a_late_one_is_positive() {
        assert_eq!(timestamp(&[0, 0, 0, 0]), Ok(None));
        assert_eq!(timestamp(&[0xFF, 0xFF, 0xFF, 0xFF, 99]), Ok(Some(4_294_967_295_990_000)));
        assert_eq!(timestamp(&[0, 0, 0, 1, 100]), Err(MALFORMED_FRACTION));
    }

    #[test]
    fn old_types_are_decimal_numbers() {
        let parts = old_datetime(20_240_229_235_958).unwrap();
        assert_eq!(parts, DateTimeParts { date: (2024, 2, 29), time: (23, 59, 58), micros: 0 });
        assert_eq!(old_time(-8_385_959), Ok(-3_020_399_000_000));
        assert_eq!(old_time(6_099), Err(MALFORMED_TIME));
    }
}

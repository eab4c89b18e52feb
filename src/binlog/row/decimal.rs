//! DECIMAL as MySQL stores it, in row images and inside JSON.
//!
//! Nine decimal digits take four bytes, big-endian; digits that fill no group of nine take fewer, in front of the whole
//! part and behind the fraction. The first bit is inverted, and a negative number has all its bytes inverted, so that
//! bytes sort as numbers (`decimal2bin` in the server's strings/decimal.cc).

use super::error::CellError;

const GROUP_DIGITS: usize = 9;
/// Bytes that hold so many digits.
const BYTES_OF_DIGITS: [usize; GROUP_DIGITS + 1] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
/// Ten to the power of so many digits.
const POWERS: [u32; GROUP_DIGITS + 1] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// Where the digits of a DECIMAL(precision, scale) lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    whole_digits: usize,
    fraction_digits: usize,
}

/// A run of at most nine digits.
struct Group {
    value: u32,
    digits: usize,
    in_fraction: bool,
}

impl Layout {
    /// `scale` is at most `precision`.
    pub(crate) fn new(precision: u8, scale: u8) -> Self {
        Self { whole_digits: usize::from(precision.saturating_sub(scale)), fraction_digits: usize::from(scale) }
    }

    /// Bytes of every value.
    pub(crate) fn bytes(self) -> usize {
        part_bytes(self.whole_digits) + part_bytes(self.fraction_digits)
    }

    /// The value without its decimal point. Exact for up to 38 digits.
    #[inline]
    pub(crate) fn unscaled(self, bytes: &[u8]) -> Result<i128, CellError> {
        let mut magnitude = 0_i128;
        let negative = self.groups(bytes, |group| {
            magnitude = magnitude.wrapping_mul(i128::from(POWERS[group.digits])).wrapping_add(i128::from(group.value));
        })?;
        Ok(if negative { -magnitude } else { magnitude })
    }

    /// Appends the value as the server prints it: all digits of the scale, no leading zeros but one before the point.
    pub(crate) fn write_text(self, bytes: &[u8], text: &mut String) -> Result<(), CellError> {
        let sign = text.len();
        let mut leading = true;
        let mut zero = true;
        let mut in_fraction = false;
        let negative = self.groups(bytes, |group| {
            zero &= group.value == 0;
            if group.in_fraction && !in_fraction {
                text.push_str(if leading { "0." } else { "." });
                in_fraction = true;
                leading = false;
            }
            for place in (0..group.digits).rev() {
                let digit = group.value / POWERS[place] % 10;
                leading &= digit == 0;
                if !leading {
                    text.push(char::from(b'0' + digit as u8));
                }
            }
        })?;
        if leading {
            text.push('0');
        }
        if negative && !zero {
            text.insert(sign, '-');
        }
        Ok(())
    }

    /// Calls `each` for every group, the most significant first; true if the number is negative.
    #[inline]
    fn groups(self, bytes: &[u8], mut each: impl FnMut(Group)) -> Result<bool, CellError> {
        let negative = bytes.first().ok_or(CellError::Truncated)? & 0x80 == 0;
        let mask = if negative { 0xFF } else { 0 };
        let mut rest = bytes;
        let mut inversion = 0x80;
        let mut group = |digits: usize, in_fraction: bool| -> Result<(), CellError> {
            let (taken, behind) = rest.split_at_checked(BYTES_OF_DIGITS[digits]).ok_or(CellError::Truncated)?;
            rest = behind;
            let mut value = 0_u32;
            for byte in taken {
                value = value << 8 | u32::from(byte ^ mask ^ std::mem::take(&mut inversion));
            }
            if value >= POWERS[digits] {
                return Err(CellError::Malformed("digits of a DECIMAL out of range"));
            }
            each(Group { value, digits, in_fraction });
            Ok(())
        };
        let leading = self.whole_digits % GROUP_DIGITS;
        if leading > 0 {
            group(leading, false)?;
        }
        for _ in 0..self.whole_digits / GROUP_DIGITS {
            group(GROUP_DIGITS, false)?;
        }
        for _ in 0..self.fraction_digits / GROUP_DIGITS {
            group(GROUP_DIGITS, true)?;
        }
        let trailing = self.fraction_digits % GROUP_DIGITS;
        if trailing > 0 {
            group(trailing, true)?;
        }
        Ok(negative)
    }
}

fn part_bytes(digits: usize) -> usize {
    digits / GROUP_DIGITS * BYTES_OF_DIGITS[GROUP_DIGITS] + BYTES_OF_DIGITS[digits % GROUP_DIGITS]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(precision: u8, scale: u8, bytes: &[u8]) -> (i128, String) {
        let layout = Layout::new(precision, scale);
        assert_eq!(layout.bytes(), bytes.len());
        let mut text = String::new();
        layout.write_text(bytes, &mut text).unwrap();
        (layout.unscaled(bytes).unwrap(), text)
    }

    #[test]
    fn the_manuals_example_and_its_negative() {
        // 1234567890.1234 as DECIMAL(14,4), from the comment above decimal2bin.
        let positive = [0x81, 0x0D, 0xFB, 0x38, 0xD2, 0x04, 0xD2];
        let negative = positive.map(|byte| !byte);
        assert_eq!(both(14, 4, &positive), (12_345_678_901_234, "1234567890.1234".into()));
        assert_eq!(both(14, 4, &negative), (-12_345_678_901_234, "-1234567890.1234".into()));
    }

    #[test]
    fn small_negatives_keep_their_sign_and_scale() {
        assert_eq!(both(3, 2, &[0x80, 0x01]), (1, "0.01".into()));
        assert_eq!(both(3, 2, &[0x7F, 0xFE]), (-1, "-0.01".into()));
        assert_eq!(both(2, 2, &[0x81]), (1, "0.01".into()));
        assert_eq!(both(2, 2, &[0x80]), (0, "0.00".into()));
        assert_eq!(both(1, 0, &[0x80]), (0, "0".into()));
    }

    #[test]
    fn digits_out_of_range_and_missing_bytes_are_errors() {
        let layout = Layout::new(3, 2);
        assert!(matches!(layout.unscaled(&[0x8A, 0x00]), Err(CellError::Malformed(_))));
        assert_eq!(layout.unscaled(&[0x80]), Err(CellError::Truncated));
        assert_eq!(layout.unscaled(&[]), Err(CellError::Truncated));
    }
}

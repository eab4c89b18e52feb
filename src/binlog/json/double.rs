//! Doubles as the server prints them inside JSON.

use std::fmt::{self, Write};

use super::JsonError;
use super::scalar::cannot_fail;

/// Places that a plain number may have in front of its point, or zeros behind it before the first digit, less one
/// (`MAX_DECPT_FOR_F_FORMAT`).
const PLAIN_PLACES: i32 = 15;

/// Doubles with fewer significant digits in their shortest form are never halfway between two such forms.
const TIE_DIGITS_MIN: usize = 15;

/// As `my_gcvt` of the server's strings/dtoa.cc: the shortest digits that read back the same; with an exponent if more than
/// 14 zeros would stand behind the point, or if it is a whole number of more than 15 places. The printer of JSON adds `.0`
/// to other whole numbers.
pub(super) fn write_double(value: f64, text: &mut String) -> Result<(), JsonError> {
    if !value.is_finite() {
        return Err(JsonError("a number that is not finite"));
    }
    if value.is_sign_negative() {
        text.push('-');
    }
    if value == 0.0 {
        text.push_str("0.0");
        return Ok(());
    }
    let shortest = Scientific::shortest(value.abs()).map_err(cannot_fail)?;
    let (digits, exponent) = (shortest.digits(), shortest.exponent());
    // Places of the point, counted from before the first digit.
    let point = exponent + 1;
    let places = usize::try_from(point).unwrap_or(0);
    if point <= -PLAIN_PLACES || (point > PLAIN_PLACES && places >= digits.len()) {
        return with_exponent(digits, exponent, text);
    }
    if places == 0 {
        text.push_str("0.");
        text.extend(std::iter::repeat_n('0', point.unsigned_abs() as usize));
        text.push_str(digits);
    } else if let Some((whole, fraction)) = digits.split_at_checked(places).filter(|(_, fraction)| !fraction.is_empty())
    {
        text.push_str(whole);
        text.push('.');
        text.push_str(fraction);
    } else {
        text.push_str(digits);
        text.extend(std::iter::repeat_n('0', places - digits.len()));
        text.push_str(".0");
    }
    Ok(())
}

fn with_exponent(digits: &str, exponent: i32, text: &mut String) -> Result<(), JsonError> {
    let (first, others) = digits.split_at(1);
    text.push_str(first);
    if !others.is_empty() {
        text.push('.');
        text.push_str(others);
    }
    write!(text, "e{exponent}").map_err(cannot_fail)
}

/// A positive number as `d.ddde-x`, on the stack.
struct Scientific {
    /// The digits without the point, then `e` and the exponent.
    bytes: [u8; Self::LENGTH_MAX],
    length: usize,
}

impl Scientific {
    /// 17 digits, `e`, a sign and three digits, rounded up.
    const LENGTH_MAX: usize = 24;

    /// The fewest digits that read back as `value`; of several, the nearest to it, and halfway between two the even one,
    /// where Rust would take the greater.
    fn shortest(value: f64) -> Result<Self, fmt::Error> {
        let shortest = Self::of(format_args!("{value:e}"))?;
        let digits = shortest.digits().len();
        if digits >= TIE_DIGITS_MIN {
            let rounded = Self::of(format_args!("{value:.*e}", digits - 1))?;
            if rounded.read_back() == Some(value) {
                return Ok(rounded);
            }
        }
        Ok(shortest)
    }

    fn of(number: fmt::Arguments<'_>) -> Result<Self, fmt::Error> {
        let mut scientific = Self { bytes: [0; Self::LENGTH_MAX], length: 0 };
        scientific.write_fmt(number)?;
        Ok(scientific)
    }

    fn parts(&self) -> (&str, &str) {
        let text = std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default();
        text.split_once('e').unwrap_or((text, "0"))
    }

    fn digits(&self) -> &str {
        self.parts().0
    }

    fn exponent(&self) -> i32 {
        self.parts().1.parse().unwrap_or(0)
    }

    /// The number that the digits mean. They are read as a whole number, so the exponent is less by their count.
    fn read_back(&self) -> Option<f64> {
        let mut whole = Self { bytes: [0; Self::LENGTH_MAX], length: 0 };
        let digits = self.digits();
        write!(whole, "{digits}e{}", self.exponent() - (digits.len() as i32 - 1)).ok()?;
        std::str::from_utf8(&whole.bytes[..whole.length]).ok()?.parse().ok()
    }
}

impl Write for Scientific {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for byte in part.bytes().filter(|byte| *byte != b'.') {
            *self.bytes.get_mut(self.length).ok_or(fmt::Error)? = byte;
            self.length += 1;
        }
        Ok(())
    }
}

//! One value of a key: JSON to the [`KeyValue`] that a read of the same value gives, and back.
//!
//! A [`KeyValue`] has one spelling for each value: decimals with all digits of their scale, times with six digits of
//! fraction, binary in capital hexadecimal digits. JSON may be laxer; what it says must be exactly a value of the column.

use serde_json::{Number, Value, json};
use weir_model::{Column, ColumnType};

use super::KeyTextError;
use crate::key_value::KeyValue;

/// Beyond it a JSON number is not the same to every reader, so it is shown as a string.
const EXACT_NUMBER_MAX: u64 = 1 << 53;
/// Digits that a JSON number surely kept of what was written; it is read as a double,
const DOUBLE_DIGITS: usize = 15;
/// and in this range one rounding makes it.
const PLAIN_NUMBERS: std::ops::Range<f64> = 1e-7..1e15;
/// MySQL's TIME ends at 838:59:59.
const TIME_HOURS_MAX: u32 = 838;

/// Reads the value of `column`.
///
/// # Errors
/// If it is not exactly a value of the column's type; says what one looks like.
pub fn read(json: &Value, column: &Column) -> Result<KeyValue, KeyTextError> {
    let read = match &column.ty {
        ty if ty.is_integer() => whole_number(json, ty),
        ColumnType::Boolean | ColumnType::Bits(_) => bits(json, &column.ty),
        ColumnType::Decimal { precision, scale } => decimal(json, usize::from(*precision), usize::from(*scale)),
        ColumnType::Float | ColumnType::Double => floating(json, &column.ty),
        ColumnType::Date => text_of(json).and_then(|text| date(&text)).map(KeyValue::Temporal),
        ColumnType::DateTime { fsp } => text_of(json).and_then(|text| moment(&text, *fsp)).map(KeyValue::Temporal),
        ColumnType::Timestamp { fsp } => {
            text_of(json).and_then(|text| moment(text.trim_end_matches('Z'), *fsp)).map(KeyValue::Temporal)
        }
        ColumnType::Time { fsp } => text_of(json).and_then(|text| time(&text, *fsp)).map(KeyValue::Temporal),
        ColumnType::Binary => text_of(json).and_then(|text| hexadecimal(&text)),
        // As it stands: spaces are part of it.
        ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_) => {
            json.as_str().map(|text| KeyValue::Text(text.to_owned()))
        }
        _ => None,
    };
    read.ok_or_else(|| KeyTextError::Value { column: column.name.clone(), expected: expected(&column.ty) })
}

/// The value as JSON, exact for every reader: numbers beyond 2^53 and all decimals are strings, binary is hexadecimal.
pub fn show(value: &KeyValue, ty: &ColumnType) -> Value {
    match (value, ty) {
        (KeyValue::Int(v), ColumnType::Boolean) => json!(*v != 0),
        (KeyValue::UInt(v), ColumnType::Boolean) => json!(*v != 0),
        (KeyValue::Int(v), _) if v.unsigned_abs() <= EXACT_NUMBER_MAX => json!(v),
        (KeyValue::UInt(v), _) if *v <= EXACT_NUMBER_MAX => json!(v),
        (KeyValue::Int(v), _) => json!(v.to_string()),
        (KeyValue::UInt(v), _) => json!(v.to_string()),
        (KeyValue::Number(text), ColumnType::Float) => {
            // The shortest digits that tell it from other floats, not from other doubles.
            floating_json(&text.parse::<f32>().map_or_else(|_| text.clone(), |value| format!("{value:e}")))
        }
        (KeyValue::Number(text), ColumnType::Double) => floating_json(text),
        (KeyValue::Temporal(text), ty) => json!(as_mysql_spells(text, ty)),
        (KeyValue::Number(text) | KeyValue::Text(text) | KeyValue::Bytes(text), _) => json!(text),
    }
}

/// A floating number of the decimal digits `shortest`: as a JSON number where every reader keeps it, else as a string.
fn floating_json(shortest: &str) -> Value {
    let number = shortest.parse().ok().and_then(Number::from_f64).filter(|number| plain_digits(number).is_some());
    number.map_or_else(|| json!(shortest), Value::Number)
}

/// The digits of a JSON number with a fraction, if they surely are those that were written: readers, ours included, take it
/// for a double, and not all round many digits or a large exponent alike.
fn plain_digits(number: &Number) -> Option<String> {
    let value = number.as_f64()?;
    // `Display` of a double has no exponent, and no more digits than tell it from its neighbours.
    let text = value.to_string();
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).collect();
    let significant = digits.iter().skip_while(|digit| **digit == b'0').count();
    let is_small = value == 0.0 || PLAIN_NUMBERS.contains(&value.abs());
    (significant <= DOUBLE_DIGITS && is_small).then_some(text)
}

/// A string or a number as text, exactly; strings may stand between spaces.
fn text_of(json: &Value) -> Option<String> {
    match json {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) if number.is_f64() => plain_digits(number),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn whole_number(json: &Value, ty: &ColumnType) -> Option<KeyValue> {
    let value: i128 = text_of(json)?.parse().ok()?;
    let (least, greatest) = limits(ty)?;
    let is_year = *ty != ColumnType::Year || value == 0 || value > 1900;
    ((least..=greatest).contains(&value) && is_year).then(|| integer(value)).flatten()
}

/// As a read gives it: signed if it can be.
fn integer(value: i128) -> Option<KeyValue> {
    i64::try_from(value).map(KeyValue::Int).or_else(|_| u64::try_from(value).map(KeyValue::UInt)).ok()
}

fn limits(ty: &ColumnType) -> Option<(i128, i128)> {
    let signed = |bits: u32| (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1);
    let unsigned = |bits: u32| (0, (1i128 << bits) - 1);
    Some(match ty {
        ColumnType::Int8 => signed(8),
        ColumnType::Int16 => signed(16),
        ColumnType::Int24 => signed(24),
        ColumnType::Int32 => signed(32),
        ColumnType::Int64 => signed(64),
        ColumnType::UInt8 => unsigned(8),
        ColumnType::UInt16 => unsigned(16),
        ColumnType::UInt24 => unsigned(24),
        ColumnType::UInt32 => unsigned(32),
        ColumnType::UInt64 => unsigned(64),
        ColumnType::Year => (0, 2155),
        ColumnType::Boolean => (0, 1),
        ColumnType::Bits(count) => unsigned(u32::from(*count)),
        _ => return None,
    })
}

fn bits(json: &Value, ty: &ColumnType) -> Option<KeyValue> {
    let value: i128 = match (json, ty) {
        (Value::Bool(value), ColumnType::Boolean) => i128::from(*value),
        _ => match text_of(json)?.as_str() {
            "false" if *ty == ColumnType::Boolean => 0,
            "true" if *ty == ColumnType::Boolean => 1,
            text => text.parse().ok()?,
        },
    };
    let (least, greatest) = limits(ty)?;
    // A read gives the bits of such a column unsigned, however few they are.
    (least..=greatest).contains(&value).then(|| u64::try_from(value).ok().map(KeyValue::UInt)).flatten()
}

fn decimal(json: &Value, precision: usize, scale: usize) -> Option<KeyValue> {
    let text = text_of(json)?;
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !are_digits(whole) || !are_digits(fraction) || digits.ends_with('.') {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if whole.len() + scale > precision || fraction.len() > scale {
        return None;
    }
    let is_zero = whole.is_empty() && fraction.is_empty();
    let sign = if is_zero { "" } else { sign };
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(KeyValue::Number(if scale == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction:0<scale$}")
    }))
}

fn floating(json: &Value, ty: &ColumnType) -> Option<KeyValue> {
    let text = text_of(json)?;
    let value = match ty {
        ColumnType::Float => f64::from(text.parse::<f32>().ok()?),
        _ => text.parse::<f64>().ok()?,
    };
    value.is_finite().then(|| KeyValue::Number(format!("{value:e}")))
}

/// `2026-11-21`. Months and days may be 0, as MySQL has them.
fn date(text: &str) -> Option<String> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) =
        (digits(parts.next()?, 4..=4)?, digits(parts.next()?, 1..=2)?, digits(parts.next()?, 1..=2)?);
    (month <= 12 && day <= days_of(year, month)).then(|| format!("{year:04}-{month:02}-{day:02}"))
}

fn days_of(year: u32, month: u32) -> u32 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `2026-11-21 03:00:00.000000`; a day alone is its midnight.
fn moment(text: &str, fsp: u8) -> Option<String> {
    let (day, of_day) = text.split_once([' ', 'T']).unwrap_or((text, "00:00:00"));
    let (hours, rest) = hours_and_rest(of_day, fsp)?;
    (hours <= 23).then(|| date(day)).flatten().map(|day| format!("{day} {hours:02}:{rest}"))
}

/// `-838:59:59.000000`.
fn time(text: &str, fsp: u8) -> Option<String> {
    let (sign, of_day) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (hours, rest) = hours_and_rest(of_day, fsp)?;
    let is_zero = hours == 0 && rest == "00:00.000000";
    let sign = if is_zero { "" } else { sign };
    let is_inside = hours < TIME_HOURS_MAX || rest.as_str() <= "59:59.000000";
    (hours <= TIME_HOURS_MAX && is_inside).then(|| format!("{sign}{hours:02}:{rest}"))
}

/// The hours, and minutes, seconds and fraction as `00:00.000000`.
fn hours_and_rest(text: &str, fsp: u8) -> Option<(u32, String)> {
    let mut parts = text.splitn(3, ':');
    let (hours, minutes) = (digits(parts.next()?, 1..=3)?, digits(parts.next()?, 2..=2)?);
    let (seconds, fraction) = parts.next().map_or(("00", ""), |rest| rest.split_once('.').unwrap_or((rest, "")));
    let seconds = digits(seconds, 2..=2)?;
    let fraction = fraction.trim_end_matches('0');
    if minutes > 59 || seconds > 59 || fraction.len() > usize::from(fsp) {
        return None;
    }
    fraction
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| (hours, format!("{minutes:02}:{seconds:02}.{fraction:0<6}")))
}

fn digits(text: &str, count: std::ops::RangeInclusive<usize>) -> Option<u32> {
    (count.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

fn hexadecimal(text: &str) -> Option<KeyValue> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let are_bytes = digits.len().is_multiple_of(2) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    are_bytes.then(|| KeyValue::Bytes(digits.to_ascii_uppercase()))
}

/// With as many digits of fraction as the column has.
fn as_mysql_spells(text: &str, ty: &ColumnType) -> String {
    let fsp = match ty {
        ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } | ColumnType::Time { fsp } => usize::from(*fsp),
        _ => 0,
    };
    match text.split_once('.') {
        Some((whole, fraction)) if fsp == 0 && fraction.bytes().all(|byte| byte == b'0') => whole.to_owned(),
        Some((whole, fraction)) if fraction.bytes().skip(fsp).all(|byte| byte == b'0') => {
            format!("{whole}.{}", fraction.get(..fsp).unwrap_or(fraction))
        }
        _ => text.to_owned(),
    }
}

/// What a value of the type looks like.
fn expected(ty: &ColumnType) -> String {
    let fraction = |fsp: u8| match fsp {
        0 => String::new(),
        fsp => format!(", with up to {fsp} digits of fraction"),
    };
    match ty {
        ColumnType::Year => "a year: 0, or from 1901 to 2155".into(),
        ColumnType::Boolean => "true or false".into(),
        ty if limits(ty).is_some() => {
            let (least, greatest) = limits(ty).expect("just looked at");
            format!("a whole number from {least} to {greatest}")
        }
        ColumnType::Decimal { precision, scale } => format!(
            "a decimal number with up to {} digits before and {scale} behind the point, as a string if it is long",
            precision.saturating_sub(*scale)
        ),
        ColumnType::Float | ColumnType::Double => "a number, as a string if it is long".into(),
        ColumnType::Date => "a date such as \"2026-11-21\"".into(),
        ColumnType::DateTime { fsp } => {
            format!("a time such as \"2026-11-21 03:00:00\", without a zone{}", fraction(*fsp))
        }
        ColumnType::Timestamp { fsp } => format!("a time in UTC such as \"2026-11-21 03:00:00\"{}", fraction(*fsp)),
        ColumnType::Time { fsp } => format!("a time such as \"-12:30:00\", up to 838 hours{}", fraction(*fsp)),
        ColumnType::Binary => "hexadecimal digits, two a byte".into(),
        ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_) => "a string".into(),
        ty => format!("a column of another type: values of {} cannot be given, only the whole table", name_of(ty)),
    }
}

fn name_of(ty: &ColumnType) -> &'static str {
    match ty {
        ColumnType::Json => "JSON",
        ColumnType::Geometry => "GEOMETRY",
        _ => "VECTOR",
    }
}

#[cfg(test)]
mod tests;

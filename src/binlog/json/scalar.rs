//! Scalars of binary JSON as the server prints them.

use std::fmt::{self, Write};

use super::double::write_double;
use super::{JsonError, kind};
use crate::binlog::row::decimal::Layout;
use crate::binlog::row::temporal;

/// Bytes of a value of fixed length; `None` for the other types.
pub(super) fn width(kind: u8) -> Option<usize> {
    match kind {
        kind::LITERAL => Some(1),
        kind::INT16 | kind::UINT16 => Some(2),
        kind::INT32 | kind::UINT32 => Some(4),
        kind::INT64 | kind::UINT64 | kind::DOUBLE => Some(8),
        _ => None,
    }
}

/// A value of fixed length, in as many bytes as [`width`] says.
pub(super) fn write_fixed(kind: u8, bytes: &[u8], text: &mut String) -> Result<(), JsonError> {
    const WIDTH: JsonError = JsonError("a number of the wrong length");
    fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], JsonError> {
        bytes.try_into().map_err(|_| WIDTH)
    }
    let written = match kind {
        kind::LITERAL => match bytes {
            [0] => text.write_str("null"),
            [1] => text.write_str("true"),
            [2] => text.write_str("false"),
            _ => return Err(JsonError("an unknown literal")),
        },
        kind::INT16 => write!(text, "{}", i16::from_le_bytes(array(bytes)?)),
        kind::UINT16 => write!(text, "{}", u16::from_le_bytes(array(bytes)?)),
        kind::INT32 => write!(text, "{}", i32::from_le_bytes(array(bytes)?)),
        kind::UINT32 => write!(text, "{}", u32::from_le_bytes(array(bytes)?)),
        kind::INT64 => write!(text, "{}", i64::from_le_bytes(array(bytes)?)),
        kind::UINT64 => write!(text, "{}", u64::from_le_bytes(array(bytes)?)),
        kind::DOUBLE => return write_double(f64::from_le_bytes(array(bytes)?), text),
        _ => return Err(JsonError("an unknown type of value")),
    };
    written.map_err(cannot_fail)
}

/// Writing into a `String` has no way to fail, but its trait does.
pub(super) fn cannot_fail(_: fmt::Error) -> JsonError {
    JsonError("its text could not be written")
}

/// A string in quotes; only what JSON demands is escaped.
pub(super) fn write_string(bytes: &[u8], text: &mut String) -> Result<(), JsonError> {
    let string = std::str::from_utf8(bytes).map_err(|_| JsonError("a string that is not UTF-8"))?;
    text.push('"');
    let mut plain = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            0x0C => "\\f",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "\\u00",
            _ => continue,
        };
        text.push_str(&string[plain..at]);
        text.push_str(escape);
        if escape == "\\u00" {
            write!(text, "{byte:02x}").map_err(cannot_fail)?;
        }
        plain = at + 1;
    }
    text.push_str(&string[plain..]);
    text.push('"');
    Ok(())
}

/// Column types that a value of SQL keeps inside JSON.
mod field_type {
    pub(super) const TIMESTAMP: u8 = 7;
    pub(super) const DATE: u8 = 10;
    pub(super) const TIME: u8 = 11;
    pub(super) const DATETIME: u8 = 12;
    pub(super) const NEWDECIMAL: u8 = 246;
}

/// A value of SQL that JSON has no type for.
pub(super) fn write_opaque(field_type: u8, bytes: &[u8], text: &mut String) -> Result<(), JsonError> {
    match field_type {
        field_type::NEWDECIMAL => write_decimal(bytes, text),
        field_type::DATE | field_type::DATETIME | field_type::TIMESTAMP => {
            let parts = temporal::packed_datetime(packed(bytes)?).map_err(|_| DATE_OUT_OF_RANGE)?;
            let (year, month, day) = parts.date;
            write!(text, "\"{year:04}-{month:02}-{day:02}").map_err(cannot_fail)?;
            if field_type != field_type::DATE {
                let (hours, minutes, seconds) = parts.time;
                write!(text, " {hours:02}:{minutes:02}:{seconds:02}.{:06}", parts.micros).map_err(cannot_fail)?;
            }
            text.push('"');
            Ok(())
        }
        field_type::TIME => {
            let time = temporal::packed_time(packed(bytes)?).map_err(|_| DATE_OUT_OF_RANGE)?;
            let sign = if time.negative { "-" } else { "" };
            write!(text, "\"{sign}{:02}:{:02}:{:02}.{:06}\"", time.hours, time.minutes, time.seconds, time.micros)
                .map_err(cannot_fail)
        }
        _ => {
            write!(text, "\"base64:type{field_type}:").map_err(cannot_fail)?;
            write_base64(bytes, text);
            text.push('"');
            Ok(())
        }
    }
}

const DATE_OUT_OF_RANGE: JsonError = JsonError("a date or time out of range");

fn packed(bytes: &[u8]) -> Result<i64, JsonError> {
    bytes.try_into().map(i64::from_le_bytes).map_err(|_| JsonError("a date or time of the wrong length"))
}

/// Precision, scale, and the digits as in a row image.
fn write_decimal(bytes: &[u8], text: &mut String) -> Result<(), JsonError> {
    const MALFORMED: JsonError = JsonError("a malformed decimal");
    let [precision, scale, digits @ ..] = bytes else { return Err(MALFORMED) };
    if scale > precision {
        return Err(MALFORMED);
    }
    let layout = Layout::new(*precision, *scale);
    if layout.bytes() != digits.len() {
        return Err(MALFORMED);
    }
    layout.write_text(digits, text).map_err(|_| MALFORMED)
}

/// Base64 as the server writes it: a line break, escaped, behind every 76 characters that something follows.
fn write_base64(bytes: &[u8], text: &mut String) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const GROUPS_IN_LINE: usize = 76 / 4;
    for (index, group) in bytes.chunks(3).enumerate() {
        if index > 0 && index % GROUPS_IN_LINE == 0 {
            text.push_str("\\n");
        }
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
}

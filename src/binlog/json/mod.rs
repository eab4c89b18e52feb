//! MySQL's binary JSON as text, byte for byte what the server prints for the column.
//!
//! In: the value of a JSON column in a row image, or that of the image before and a difference to it. Out: text with `, ` and `: ` between its parts, keys in the stored
//! order, decimals and dates kept. A snapshot reads the same text from the server, so the two must be equal.
//!
//! The binary format is described in the server's sql-common/json_binary.h, the text in `wrapper_to_string` of
//! sql-common/json_dom.cc.

use self::container::{Container, Place};
use crate::binlog::row::cursor::{Cursor, Truncated};

mod container;
mod difference;
mod double;
mod scalar;
#[cfg(test)]
mod tests;

pub(in crate::binlog) use self::difference::{Applied, write_changed};

/// Binary JSON that cannot be read. Shows nothing of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not MySQL's binary JSON: {0}")]
pub struct JsonError(&'static str);

impl From<Truncated> for JsonError {
    fn from(_: Truncated) -> Self {
        Self("it ends inside a value")
    }
}

/// Containers inside each other; the server refuses documents deeper than this (`JSON_DOCUMENT_MAX_DEPTH`).
const DEPTH_MAX: usize = 100;

/// Appends the text of the document `bytes` to `text`. No bytes at all are the JSON null.
///
/// What is in `text` after an error is of no use.
pub fn write_text(bytes: &[u8], text: &mut String) -> Result<(), JsonError> {
    write_text_of(bytes, Wholes::Pointed, text)
}

/// How doubles that are whole numbers stand in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::binlog) enum Wholes {
    /// `1.0`.
    Pointed,
    /// `1`: as MySQL before 8.0 shows them.
    Plain,
}

/// The same in the form of some server.
pub(in crate::binlog) fn write_text_of(bytes: &[u8], wholes: Wholes, text: &mut String) -> Result<(), JsonError> {
    let Some((&kind, value)) = bytes.split_first() else {
        text.push_str("null");
        return Ok(());
    };
    Writer { unread: bytes.len(), depth: 0, wholes, text }.value(kind, value)
}

/// Type bytes of values.
mod kind {
    pub(super) const SMALL_OBJECT: u8 = 0;
    pub(super) const LARGE_OBJECT: u8 = 1;
    pub(super) const SMALL_ARRAY: u8 = 2;
    pub(super) const LARGE_ARRAY: u8 = 3;
    pub(super) const LITERAL: u8 = 4;
    pub(super) const INT16: u8 = 5;
    pub(super) const UINT16: u8 = 6;
    pub(super) const INT32: u8 = 7;
    pub(super) const UINT32: u8 = 8;
    pub(super) const INT64: u8 = 9;
    pub(super) const UINT64: u8 = 10;
    pub(super) const DOUBLE: u8 = 11;
    pub(super) const STRING: u8 = 12;
    pub(super) const OPAQUE: u8 = 15;
}

/// Width of the numbers that a container's head is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Small,
    Large,
}

impl Size {
    fn bytes(self) -> usize {
        match self {
            Self::Small => 2,
            Self::Large => 4,
        }
    }

    /// True for values that stand in the entry itself, in place of their offset.
    fn holds_inline(self, kind: u8) -> bool {
        match kind {
            kind::LITERAL | kind::INT16 | kind::UINT16 => true,
            kind::INT32 | kind::UINT32 => self == Self::Large,
            _ => false,
        }
    }
}

struct Writer<'t> {
    /// Bytes of the document that no value has claimed yet. Offsets that make values overlap would let a small document
    /// grow without bound; the server never writes such.
    unread: usize,
    depth: usize,
    wholes: Wholes,
    text: &'t mut String,
}

impl Writer<'_> {
    /// Writes the value of type `kind` that `bytes` begin with.
    fn value(&mut self, kind: u8, bytes: &[u8]) -> Result<(), JsonError> {
        let mut cursor = Cursor::new(bytes);
        match kind {
            kind::SMALL_OBJECT => self.container(bytes, Size::Small, true),
            kind::LARGE_OBJECT => self.container(bytes, Size::Large, true),
            kind::SMALL_ARRAY => self.container(bytes, Size::Small, false),
            kind::LARGE_ARRAY => self.container(bytes, Size::Large, false),
            kind::STRING => {
                let string = self.sized(&mut cursor)?;
                scalar::write_string(string, self.text)
            }
            kind::OPAQUE => {
                let field_type = cursor.u8()?;
                let payload = self.sized(&mut cursor)?;
                scalar::write_opaque(field_type, payload, self.text)
            }
            _ => {
                let width = scalar::width(kind).ok_or(JsonError("an unknown type of value"))?;
                self.claim(width)?;
                self.fixed(kind, cursor.take(width)?)
            }
        }
    }

    fn fixed(&mut self, kind: u8, bytes: &[u8]) -> Result<(), JsonError> {
        scalar::write_fixed(kind, bytes, self.text)?;
        if self.wholes == Wholes::Plain && kind == kind::DOUBLE {
            let shown = self.text.strip_suffix(".0").map_or(self.text.len(), str::len);
            self.text.truncate(shown);
        }
        Ok(())
    }

    fn container(&mut self, bytes: &[u8], size: Size, is_object: bool) -> Result<(), JsonError> {
        if self.depth == DEPTH_MAX {
            return Err(JsonError("it is nested too deeply"));
        }
        self.depth += 1;
        let mut container = Container::open(bytes, size, is_object)?;
        self.claim(container.head_bytes)?;
        self.text.push(if is_object { '{' } else { '[' });
        for index in 0..container.count {
            if index > 0 {
                self.text.push_str(", ");
            }
            if is_object {
                let key = container.next_key()?;
                self.claim(key.len())?;
                scalar::write_string(key, self.text)?;
                self.text.push_str(": ");
            }
            match container.next_value()? {
                // Claimed with the head.
                (kind, value, Place::Inline) => self.fixed(kind, value)?,
                (kind, value, Place::Behind) => self.value(kind, value)?,
            }
        }
        self.text.push(if is_object { '}' } else { ']' });
        self.depth -= 1;
        Ok(())
    }

    /// Bytes behind their length, which has seven bits a byte, the lowest first.
    fn sized<'a>(&mut self, cursor: &mut Cursor<'a>) -> Result<&'a [u8], JsonError> {
        let mut length = 0_u64;
        for place in 0..5 {
            let byte = cursor.u8()?;
            length |= u64::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                let length = usize::try_from(length).map_err(|_| Truncated)?;
                self.claim(length)?;
                return Ok(cursor.take(length)?);
            }
        }
        Err(JsonError("the length of a value is too long"))
    }

    fn claim(&mut self, bytes: usize) -> Result<(), JsonError> {
        self.unread = self.unread.checked_sub(bytes).ok_or(JsonError("its values overlap or it ends inside one"))?;
        Ok(())
    }
}

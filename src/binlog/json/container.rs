//! Objects and arrays of binary JSON, entry by entry.

use super::{JsonError, Size, scalar};
use crate::binlog::row::cursor::{Cursor, Truncated, uint_le};

/// Where an entry's value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the entry itself.
    Inline,
    /// Behind the entries: what is given begins with it.
    Behind,
}

/// An object or an array: count and size, then an entry a key (offset, length), then an entry a value (type, offset
/// or the value itself). Offsets count from the container's start.
pub(super) struct Container<'a> {
    bytes: &'a [u8],
    size: Size,
    keys: Cursor<'a>,
    values: Cursor<'a>,
    pub(super) count: usize,
    /// Bytes of everything in front of the keys and values themselves.
    pub(super) head_bytes: usize,
}

impl<'a> Container<'a> {
    pub(super) fn open(bytes: &'a [u8], size: Size, is_object: bool) -> Result<Self, JsonError> {
        let mut head = Cursor::new(bytes);
        let count = head.uint_le(size.bytes())? as usize;
        let length = head.uint_le(size.bytes())? as usize;
        let bytes = bytes.get(..length).ok_or(Truncated)?;
        let key_entries = if is_object { count.checked_mul(size.bytes() + 2).ok_or(Truncated)? } else { 0 };
        let value_entries = count.checked_mul(size.bytes() + 1).ok_or(Truncated)?;
        let keys = Cursor::new(head.take(key_entries)?);
        let values = Cursor::new(head.take(value_entries)?);
        Ok(Self { bytes, size, keys, values, count, head_bytes: 2 * size.bytes() + key_entries + value_entries })
    }

    /// The next key of an object, which has one for each of its values.
    pub(super) fn next_key(&mut self) -> Result<&'a [u8], JsonError> {
        let offset = self.keys.uint_le(self.size.bytes())? as usize;
        let length = self.keys.uint_le(2)? as usize;
        Ok(self.bytes.get(offset..).and_then(|rest| rest.get(..length)).ok_or(Truncated)?)
    }

    /// Type and bytes of the next value.
    pub(super) fn next_value(&mut self) -> Result<(u8, &'a [u8], Place), JsonError> {
        let kind = self.values.u8()?;
        let field = self.values.take(self.size.bytes())?;
        if self.size.holds_inline(kind) {
            let width = scalar::width(kind).ok_or(Truncated)?;
            return Ok((kind, field.get(..width).ok_or(Truncated)?, Place::Inline));
        }
        Ok((kind, self.bytes.get(uint_le(field) as usize..).ok_or(Truncated)?, Place::Behind))
    }
}

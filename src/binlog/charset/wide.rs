//! The character sets of two and four bytes a unit. Each function is `None` on bytes that are not well-formed.

/// A lone surrogate can be stored in ucs2; no UTF-8 can hold it, and the server itself shows NULL for it.
pub(super) fn append_ucs2(bytes: &[u8], out: &mut String) -> Option<()> {
    let (units, rest) = bytes.as_chunks::<2>();
    for unit in units {
        out.push(char::from_u32(u32::from(u16::from_be_bytes(*unit)))?);
    }
    rest.is_empty().then_some(())
}

pub(super) fn append_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16, out: &mut String) -> Option<()> {
    let (units, rest) = bytes.as_chunks::<2>();
    for character in char::decode_utf16(units.iter().map(|bytes| unit(*bytes))) {
        out.push(character.ok()?);
    }
    rest.is_empty().then_some(())
}

pub(super) fn append_utf32(bytes: &[u8], out: &mut String) -> Option<()> {
    let (units, rest) = bytes.as_chunks::<4>();
    for unit in units {
        out.push(char::from_u32(u32::from_be_bytes(*unit))?);
    }
    rest.is_empty().then_some(())
}

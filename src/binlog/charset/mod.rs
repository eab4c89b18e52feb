//! Text of a row image, in whatever character set its column has, as UTF-8.
//!
//! In: bytes and the collation id from the table map. Out: the text that the server itself shows to a utf8mb4 client, so
//! that the stream and a snapshot read the same. Bytes that are not well-formed in their character set, which the server
//! refuses to store, are an error and never replaced.

use crate::binlog::charset::single_byte::UpperHalf;

mod corrections;
mod multi_byte;
mod single_byte;
#[cfg(test)]
mod tests;
mod wide;

use multi_byte::MultiByte;

/// Collation id of `binary`: not text at all.
pub const BINARY_COLLATION: u32 = 63;
/// Collation id of `utf8mb4_general_ci`.
pub const UTF8MB4_COLLATION: u32 = 45;

/// A collation of the character set that the catalogue calls `name`; `None` if it is not known.
pub fn default_collation(name: &str) -> Option<u32> {
    /// Ids of collations that every server has; those of later versions are above, and of no other character sets.
    const IDS: std::ops::Range<u32> = 1..256;

    match name {
        "binary" => Some(BINARY_COLLATION),
        // What 5.7 and old versions of MariaDB call it.
        "utf8" => default_collation("utf8mb3"),
        _ => IDS.into_iter().find(|&id| Charset::of_collation(id).is_some_and(|charset| charset.name == name)),
    }
}

/// From a collation of MariaDB to the same without padding.
const NO_PADDING: u32 = 1024;

/// A character set that can be decoded, resolved once a column.
#[derive(Debug, Clone, Copy)]
pub struct Charset {
    name: &'static str,
    form: Form,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    /// utf8mb4, utf8mb3 and ascii: UTF-8 as it stands.
    Utf8,
    /// ASCII below 0x80, a table above.
    SingleByte(&'static UpperHalf),
    /// Swedish 7-bit, the only set that is not ASCII below 0x80.
    Swe7,
    MultiByte(&'static MultiByte),
    /// UTF-16 big-endian without surrogates.
    Ucs2,
    Utf16,
    Utf16Le,
    Utf32,
}

/// Bytes that are not well-formed text of their column's character set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("text that is not well-formed {0}")]
pub struct MalformedText(pub &'static str);

impl Charset {
    /// The character set of a collation of MySQL 5.7 to 9.x or MariaDB (`information_schema.collations.id`); `None` for
    /// `binary`, which is not text, and for ids that neither has.
    pub fn of_collation(id: u32) -> Option<Self> {
        let plain = |name, form| Some(Self { name, form });
        match id {
            // MariaDB's own collations of Unicode.
            576..=607 | 2048..=2303 => return plain("utf8mb3", Form::Utf8),
            608..=639 | 2304..=2559 => return plain("utf8mb4", Form::Utf8),
            640..=671 | 2560..=2815 => return plain("ucs2", Form::Ucs2),
            672..=703 | 2816..=3071 => return plain("utf16", Form::Utf16),
            736..=767 | 3072..=3327 => return plain("utf32", Form::Utf32),
            // Its collations without padding lie as far above those that they are made of. That of `binary` is none.
            1025..=1279 if id - NO_PADDING != BINARY_COLLATION => return Self::of_collation(id - NO_PADDING),
            _ => {}
        }
        Self::of_old_collation(id)
    }

    fn of_old_collation(id: u32) -> Option<Self> {
        use single_byte as table;
        let single = |name, upper| Some(Self { name, form: Form::SingleByte(upper) });
        let multi = |multi: &'static MultiByte| Some(Self { name: multi.name, form: Form::MultiByte(multi) });
        let plain = |name, form| Some(Self { name, form });
        match id {
            33 | 76 | 83 | 192..=215 | 223 => plain("utf8mb3", Form::Utf8),
            45 | 46 | 224..=247 | 255..=323 => plain("utf8mb4", Form::Utf8),
            11 | 65 => plain("ascii", Form::Utf8),
            5 | 8 | 15 | 31 | 47..=49 | 94 => single("latin1", &table::LATIN1),
            2 | 9 | 21 | 27 | 77 => single("latin2", &table::LATIN2),
            30 | 78 => single("latin5", &table::LATIN5),
            20 | 41 | 42 | 79 => single("latin7", &table::LATIN7),
            32 | 64 => single("armscii8", &table::ARMSCII8),
            26 | 34 | 44 | 66 | 99 => single("cp1250", &table::CP1250),
            14 | 23 | 50..=52 => single("cp1251", &table::CP1251),
            57 | 67 => single("cp1256", &table::CP1256),
            29 | 58 | 59 => single("cp1257", &table::CP1257),
            4 | 80 => single("cp850", &table::CP850),
            40 | 81 => single("cp852", &table::CP852),
            36 | 68 => single("cp866", &table::CP866),
            3 | 69 => single("dec8", &table::DEC8),
            92 | 93 => single("geostd8", &table::GEOSTD8),
            25 | 70 => single("greek", &table::GREEK),
            16 | 71 => single("hebrew", &table::HEBREW),
            6 | 72 => single("hp8", &table::HP8),
            37 | 73 => single("keybcs2", &table::KEYBCS2),
            7 | 74 => single("koi8r", &table::KOI8R),
            22 | 75 => single("koi8u", &table::KOI8U),
            38 | 43 => single("macce", &table::MACCE),
            39 | 53 => single("macroman", &table::MACROMAN),
            18 | 89 => single("tis620", &table::TIS620),
            10 | 82 => plain("swe7", Form::Swe7),
            1 | 84 => multi(&multi_byte::BIG5),
            95 | 96 => multi(&multi_byte::CP932),
            97 | 98 => multi(&multi_byte::EUCJPMS),
            19 | 85 => multi(&multi_byte::EUCKR),
            248..=250 => multi(&multi_byte::GB18030),
            24 | 86 => multi(&multi_byte::GB2312),
            28 | 87 => multi(&multi_byte::GBK),
            13 | 88 => multi(&multi_byte::SJIS),
            12 | 91 => multi(&multi_byte::UJIS),
            35 | 90 | 128..=151 | 159 => plain("ucs2", Form::Ucs2),
            54 | 55 | 101..=124 => plain("utf16", Form::Utf16),
            56 | 62 => plain("utf16le", Form::Utf16Le),
            60 | 61 | 160..=183 => plain("utf32", Form::Utf32),
            _ => None,
        }
    }

    /// MySQL's name of the character set.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The text of `bytes`: borrowed from them where they are UTF-8 already, else written over `scratch`.
    #[inline]
    pub fn decode<'a>(&self, bytes: &'a [u8], scratch: &'a mut String) -> Result<&'a str, MalformedText> {
        if let Form::Utf8 = self.form {
            return std::str::from_utf8(bytes).map_err(|_| MalformedText(self.name));
        }
        self.convert(bytes, scratch)
    }

    fn convert<'a>(&self, bytes: &'a [u8], scratch: &'a mut String) -> Result<&'a str, MalformedText> {
        let ascii_below_0x80 = matches!(self.form, Form::SingleByte(_) | Form::MultiByte(_));
        if ascii_below_0x80 && bytes.is_ascii() {
            return std::str::from_utf8(bytes).map_err(|_| MalformedText(self.name));
        }
        scratch.clear();
        let well_formed = match self.form {
            Form::Utf8 => std::str::from_utf8(bytes).map(|text| scratch.push_str(text)).ok(),
            Form::SingleByte(upper) => {
                scratch.extend(bytes.iter().map(|&byte| single_byte_char(upper, byte)));
                Some(())
            }
            Form::Swe7 => {
                scratch.extend(bytes.iter().map(|&byte| swe7_char(byte)));
                Some(())
            }
            Form::MultiByte(multi) => multi.append(bytes, scratch),
            Form::Ucs2 => wide::append_ucs2(bytes, scratch),
            Form::Utf16 => wide::append_utf16(bytes, u16::from_be_bytes, scratch),
            Form::Utf16Le => wide::append_utf16(bytes, u16::from_le_bytes, scratch),
            Form::Utf32 => wide::append_utf32(bytes, scratch),
        };
        well_formed.map(|()| scratch.as_str()).ok_or(MalformedText(self.name))
    }
}

fn single_byte_char(upper: &UpperHalf, byte: u8) -> char {
    match byte.checked_sub(0x80) {
        None => char::from(byte),
        Some(index) => char::from_u32(u32::from(upper[usize::from(index)])).unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

fn swe7_char(byte: u8) -> char {
    match byte {
        0x40 => 'É',
        0x5B => 'Ä',
        0x5C => 'Ö',
        0x5D => 'Å',
        0x5E => 'Ü',
        0x60 => 'é',
        0x7B => 'ä',
        0x7C => 'ö',
        0x7D => 'å',
        0x7E => 'ü',
        0x7F.. => '?',
        _ => char::from(byte),
    }
}

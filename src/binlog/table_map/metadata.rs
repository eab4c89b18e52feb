//! The optional metadata of a table map: a list of fields, each a type, a length and a value.

use super::{MapColumn, Signs, TableMap, WireType, Writer};
use crate::binlog::row::cursor::{Cursor, Truncated};

/// The optional metadata field that could not be read.
pub(super) struct Malformed(pub(super) &'static str);

/// Types of optional metadata (`Optional_metadata_field_type`).
mod field {
    pub(super) const SIGNEDNESS: u8 = 1;
    pub(super) const DEFAULT_CHARSET: u8 = 2;
    pub(super) const COLUMN_CHARSET: u8 = 3;
    pub(super) const COLUMN_NAME: u8 = 4;
    pub(super) const SET_STR_VALUE: u8 = 5;
    pub(super) const ENUM_STR_VALUE: u8 = 6;
    pub(super) const GEOMETRY_TYPE: u8 = 7;
    pub(super) const SIMPLE_PRIMARY_KEY: u8 = 8;
    pub(super) const PRIMARY_KEY_WITH_PREFIX: u8 = 9;
    pub(super) const ENUM_AND_SET_DEFAULT_CHARSET: u8 = 10;
    pub(super) const ENUM_AND_SET_COLUMN_CHARSET: u8 = 11;
    pub(super) const COLUMN_VISIBILITY: u8 = 12;
    pub(super) const VECTOR_DIMENSIONALITY: u8 = 13;
}

impl TableMap {
    /// Reads one field into the columns it is about; a field of an unknown type says nothing that is needed.
    pub(super) fn read_metadata(&mut self, kind: u8, value: &[u8], writer: Writer) -> Result<(), Malformed> {
        let mut value = Cursor::new(value);
        let character = match writer {
            Writer::Mysql | Writer::Mysql57 => WireType::is_character,
            Writer::Mariadb => WireType::is_character_of_mariadb,
        };
        let (what, read) = match kind {
            field::SIGNEDNESS => ("SIGNEDNESS", self.signedness(&mut value)),
            field::DEFAULT_CHARSET => ("DEFAULT_CHARSET", self.default_collation(&mut value, character)),
            field::COLUMN_CHARSET => ("COLUMN_CHARSET", self.collations(&mut value, character)),
            field::COLUMN_NAME => ("COLUMN_NAME", self.names(&mut value)),
            field::SET_STR_VALUE => {
                ("SET_STR_VALUE", self.members(&mut value, |wire| matches!(wire, WireType::Set { .. })))
            }
            field::ENUM_STR_VALUE => {
                ("ENUM_STR_VALUE", self.members(&mut value, |wire| matches!(wire, WireType::Enum { .. })))
            }
            field::GEOMETRY_TYPE => ("GEOMETRY_TYPE", self.geometry_types(&mut value)),
            field::SIMPLE_PRIMARY_KEY => ("SIMPLE_PRIMARY_KEY", self.primary_key(&mut value, false)),
            // With a prefix the rows still differ in the whole column, so the whole column serves as the key.
            field::PRIMARY_KEY_WITH_PREFIX => ("PRIMARY_KEY_WITH_PREFIX", self.primary_key(&mut value, true)),
            field::ENUM_AND_SET_DEFAULT_CHARSET => {
                ("ENUM_AND_SET_DEFAULT_CHARSET", self.default_collation(&mut value, WireType::is_enum_or_set))
            }
            field::ENUM_AND_SET_COLUMN_CHARSET => {
                ("ENUM_AND_SET_COLUMN_CHARSET", self.collations(&mut value, WireType::is_enum_or_set))
            }
            field::COLUMN_VISIBILITY => ("COLUMN_VISIBILITY", self.visibility(&mut value)),
            field::VECTOR_DIMENSIONALITY => ("VECTOR_DIMENSIONALITY", self.dimensions(&mut value)),
            _ => return Ok(()),
        };
        read.map_err(|Truncated| Malformed(what))
    }

    fn columns_of(&mut self, is_meant: impl Fn(WireType) -> bool) -> impl Iterator<Item = &mut MapColumn> {
        self.columns.iter_mut().filter(move |column| is_meant(column.wire))
    }

    fn signedness(&mut self, value: &mut Cursor<'_>) -> Result<(), Truncated> {
        self.signs = Signs::Told;
        let mut bits = Bits::new(value);
        self.columns_of(WireType::is_numeric).try_for_each(|column| {
            column.unsigned = bits.next()?;
            Ok(())
        })
    }

    fn visibility(&mut self, value: &mut Cursor<'_>) -> Result<(), Truncated> {
        let mut bits = Bits::new(value);
        self.columns.iter_mut().try_for_each(|column| {
            column.visible = bits.next()?;
            Ok(())
        })
    }

    /// The most frequent collation, then pairs of a column's number among its kind and its own collation.
    fn default_collation(&mut self, value: &mut Cursor<'_>, kind: fn(WireType) -> bool) -> Result<(), Truncated> {
        let default = collation(value)?;
        let mut columns: Vec<&mut MapColumn> = self.columns_of(kind).collect();
        for column in &mut columns {
            column.collation = Some(default);
        }
        while !value.is_empty() {
            let column = columns.get_mut(index(value)?).ok_or(Truncated)?;
            column.collation = Some(collation(value)?);
        }
        Ok(())
    }

    fn collations(&mut self, value: &mut Cursor<'_>, kind: fn(WireType) -> bool) -> Result<(), Truncated> {
        self.columns_of(kind).try_for_each(|column| {
            column.collation = Some(collation(value)?);
            Ok(())
        })
    }

    fn names(&mut self, value: &mut Cursor<'_>) -> Result<(), Truncated> {
        self.columns.iter_mut().try_for_each(|column| {
            let name = String::from_utf8(value.packed_bytes()?.to_vec()).map_err(|_| Truncated)?;
            column.name = Some(name);
            Ok(())
        })
    }

    fn members(&mut self, value: &mut Cursor<'_>, kind: fn(WireType) -> bool) -> Result<(), Truncated> {
        self.columns_of(kind).try_for_each(|column| {
            // Not collected with a capacity: the count is not to be trusted before the members have been read.
            for _ in 0..value.packed()? {
                column.members.push(value.packed_bytes()?.to_vec());
            }
            Ok(())
        })
    }

    fn geometry_types(&mut self, value: &mut Cursor<'_>) -> Result<(), Truncated> {
        self.columns_of(|wire| matches!(wire, WireType::Geometry { .. })).try_for_each(|column| {
            column.geometry_type = Some(value.packed()?);
            Ok(())
        })
    }

    fn dimensions(&mut self, value: &mut Cursor<'_>) -> Result<(), Truncated> {
        self.columns_of(|wire| matches!(wire, WireType::Vector { .. })).try_for_each(|column| {
            column.dimensions = Some(value.packed()?);
            Ok(())
        })
    }

    fn primary_key(&mut self, value: &mut Cursor<'_>, with_prefix: bool) -> Result<(), Truncated> {
        self.primary_key.clear();
        while !value.is_empty() {
            let column = index(value)?;
            if column >= self.columns.len() {
                return Err(Truncated);
            }
            self.primary_key.push(column);
            if with_prefix {
                value.packed()?;
            }
        }
        Ok(())
    }
}

fn collation(value: &mut Cursor<'_>) -> Result<u32, Truncated> {
    u32::try_from(value.packed()?).map_err(|_| Truncated)
}

fn index(value: &mut Cursor<'_>) -> Result<usize, Truncated> {
    usize::try_from(value.packed()?).map_err(|_| Truncated)
}

/// A bitmap, the most significant bit of each byte first.
struct Bits<'a, 'b> {
    bytes: &'b mut Cursor<'a>,
    byte: u8,
    left: u8,
}

impl<'a, 'b> Bits<'a, 'b> {
    fn new(bytes: &'b mut Cursor<'a>) -> Self {
        Self { bytes, byte: 0, left: 0 }
    }

    fn next(&mut self) -> Result<bool, Truncated> {
        if self.left == 0 {
            self.byte = self.bytes.u8()?;
            self.left = 8;
        }
        self.left -= 1;
        Ok(self.byte >> self.left & 1 == 1)
    }
}

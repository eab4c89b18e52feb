//! How the values of a column lie in a row image: the type code with the parameters of its metadata.

use std::fmt;

use crate::binlog::row::cursor::{Cursor, Truncated};

/// Type code and metadata of a column, resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireType {
    Tiny,
    Short,
    Int24,
    Long,
    LongLong,
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// BIT of this many bits.
    Bit {
        bits: u16,
    },
    Year,
    Date,
    /// TIMESTAMP before 5.6: whole seconds, little-endian.
    OldTimestamp,
    /// DATETIME before 5.6: a decimal number YYYYMMDDhhmmss.
    OldDateTime,
    /// TIME before 5.6: a decimal number hhmmss.
    OldTime,
    Timestamp {
        fsp: u8,
    },
    DateTime {
        fsp: u8,
    },
    Time {
        fsp: u8,
    },
    /// VARCHAR and VARBINARY of at most this many bytes.
    VarChar {
        bytes_max: u16,
    },
    /// CHAR and BINARY of this many bytes.
    Char {
        bytes_max: u16,
    },
    Enum {
        bytes: u8,
    },
    Set {
        bytes: u8,
    },
    /// The BLOB and TEXT families.
    Blob {
        length_bytes: u8,
    },
    Json {
        length_bytes: u8,
    },
    Geometry {
        length_bytes: u8,
    },
    Vector {
        length_bytes: u8,
    },
    /// VARCHAR and BLOB with the attribute COMPRESSED, which MariaDB alone has; their values cannot be read.
    Compressed,
}

/// Type codes (`enum_field_types`).
mod code {
    pub(super) const TINY: u8 = 1;
    pub(super) const SHORT: u8 = 2;
    pub(super) const LONG: u8 = 3;
    pub(super) const FLOAT: u8 = 4;
    pub(super) const DOUBLE: u8 = 5;
    pub(super) const TIMESTAMP: u8 = 7;
    pub(super) const LONGLONG: u8 = 8;
    pub(super) const INT24: u8 = 9;
    pub(super) const DATE: u8 = 10;
    pub(super) const TIME: u8 = 11;
    pub(super) const DATETIME: u8 = 12;
    pub(super) const YEAR: u8 = 13;
    pub(super) const NEWDATE: u8 = 14;
    pub(super) const VARCHAR: u8 = 15;
    pub(super) const BIT: u8 = 16;
    pub(super) const TIMESTAMP2: u8 = 17;
    pub(super) const DATETIME2: u8 = 18;
    pub(super) const TIME2: u8 = 19;
    pub(super) const BLOB_COMPRESSED: u8 = 140;
    pub(super) const VARCHAR_COMPRESSED: u8 = 141;
    pub(super) const VECTOR: u8 = 242;
    pub(super) const JSON: u8 = 245;
    pub(super) const NEWDECIMAL: u8 = 246;
    pub(super) const ENUM: u8 = 247;
    pub(super) const SET: u8 = 248;
    pub(super) const TINY_BLOB: u8 = 249;
    pub(super) const BLOB: u8 = 252;
    pub(super) const VAR_STRING: u8 = 253;
    pub(super) const STRING: u8 = 254;
    pub(super) const GEOMETRY: u8 = 255;
}

impl WireType {
    /// Reads the metadata of type `code`; `None` if the code is not known.
    pub(super) fn read(code: u8, metadata: &mut Cursor<'_>) -> Result<Option<Self>, Truncated> {
        let mut length_bytes = || match metadata.u8()? {
            bytes @ 1..=4 => Ok(bytes),
            _ => Err(Truncated),
        };
        Ok(Some(match code {
            code::TINY => Self::Tiny,
            code::SHORT => Self::Short,
            code::INT24 => Self::Int24,
            code::LONG => Self::Long,
            code::LONGLONG => Self::LongLong,
            code::YEAR => Self::Year,
            code::DATE | code::NEWDATE => Self::Date,
            code::TIMESTAMP => Self::OldTimestamp,
            code::DATETIME => Self::OldDateTime,
            code::TIME => Self::OldTime,
            code::TINY_BLOB..=code::BLOB => Self::Blob { length_bytes: length_bytes()? },
            code::JSON => Self::Json { length_bytes: length_bytes()? },
            code::GEOMETRY => Self::Geometry { length_bytes: length_bytes()? },
            code::VECTOR => Self::Vector { length_bytes: length_bytes()? },
            code::BLOB_COMPRESSED => metadata.u8().map(|_| Self::Compressed)?,
            code::VARCHAR_COMPRESSED => metadata.array::<2>().map(|_| Self::Compressed)?,
            code::FLOAT => metadata.u8().map(|_| Self::Float)?,
            code::DOUBLE => metadata.u8().map(|_| Self::Double)?,
            code::TIMESTAMP2 => Self::Timestamp { fsp: fsp(metadata)? },
            code::DATETIME2 => Self::DateTime { fsp: fsp(metadata)? },
            code::TIME2 => Self::Time { fsp: fsp(metadata)? },
            code::NEWDECIMAL => decimal(metadata.array()?)?,
            code::BIT => bit(metadata.array()?)?,
            code::VARCHAR | code::VAR_STRING => Self::VarChar { bytes_max: u16::from_le_bytes(metadata.array()?) },
            code::STRING => string(metadata.array()?)?,
            code::ENUM => Self::Enum { bytes: members_bytes(metadata.array()?, 2)? },
            code::SET => Self::Set { bytes: members_bytes(metadata.array()?, 8)? },
            _ => return Ok(None),
        }))
    }

    /// Columns that the SIGNEDNESS bitmap counts: YEAR is one of them.
    pub(super) fn is_numeric(self) -> bool {
        matches!(
            self,
            Self::Tiny
                | Self::Short
                | Self::Int24
                | Self::Long
                | Self::LongLong
                | Self::Float
                | Self::Double
                | Self::Decimal { .. }
                | Self::Year
        )
    }

    /// Columns that DEFAULT_CHARSET and COLUMN_CHARSET count: VECTOR is one of them, JSON and GEOMETRY are not.
    pub(super) fn is_character(self) -> bool {
        matches!(
            self,
            Self::VarChar { .. } | Self::Char { .. } | Self::Blob { .. } | Self::Vector { .. } | Self::Compressed
        )
    }

    /// The same in MariaDB's: GEOMETRY is one of them.
    pub(super) fn is_character_of_mariadb(self) -> bool {
        self.is_character() || matches!(self, Self::Geometry { .. })
    }

    pub(super) fn is_enum_or_set(self) -> bool {
        matches!(self, Self::Enum { .. } | Self::Set { .. })
    }
}

impl fmt::Display for WireType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Tiny => write!(f, "TINYINT"),
            Self::Short => write!(f, "SMALLINT"),
            Self::Int24 => write!(f, "MEDIUMINT"),
            Self::Long => write!(f, "INT"),
            Self::LongLong => write!(f, "BIGINT"),
            Self::Float => write!(f, "FLOAT"),
            Self::Double => write!(f, "DOUBLE"),
            Self::Decimal { precision, scale } => write!(f, "DECIMAL({precision},{scale})"),
            Self::Bit { bits } => write!(f, "BIT({bits})"),
            Self::Year => write!(f, "YEAR"),
            Self::Date => write!(f, "DATE"),
            Self::OldTimestamp => write!(f, "TIMESTAMP (before 5.6)"),
            Self::OldDateTime => write!(f, "DATETIME (before 5.6)"),
            Self::OldTime => write!(f, "TIME (before 5.6)"),
            Self::Timestamp { fsp } => write!(f, "TIMESTAMP({fsp})"),
            Self::DateTime { fsp } => write!(f, "DATETIME({fsp})"),
            Self::Time { fsp } => write!(f, "TIME({fsp})"),
            Self::VarChar { bytes_max } => write!(f, "VARCHAR or VARBINARY of {bytes_max} bytes"),
            Self::Char { bytes_max } => write!(f, "CHAR or BINARY of {bytes_max} bytes"),
            Self::Enum { bytes } => write!(f, "ENUM of {bytes} bytes"),
            Self::Set { bytes } => write!(f, "SET of {bytes} bytes"),
            Self::Blob { length_bytes } => write!(f, "BLOB or TEXT with {length_bytes} length bytes"),
            Self::Json { .. } => write!(f, "JSON"),
            Self::Geometry { .. } => write!(f, "GEOMETRY"),
            Self::Vector { .. } => write!(f, "VECTOR"),
            Self::Compressed => write!(f, "a COMPRESSED column"),
        }
    }
}

// Metadata that no server writes reads as `Truncated`: the caller reports both as malformed metadata.

fn fsp(metadata: &mut Cursor<'_>) -> Result<u8, Truncated> {
    metadata.u8().and_then(|fsp| if fsp <= 6 { Ok(fsp) } else { Err(Truncated) })
}

fn decimal([precision, scale]: [u8; 2]) -> Result<WireType, Truncated> {
    match (precision, scale) {
        (1..=65, 0..=30) if scale <= precision => Ok(WireType::Decimal { precision, scale }),
        _ => Err(Truncated),
    }
}

/// Bits beyond whole bytes, then whole bytes.
fn bit([bits, bytes]: [u8; 2]) -> Result<WireType, Truncated> {
    match u16::from(bytes) * 8 + u16::from(bits) {
        total @ 1..=64 if bits < 8 => Ok(WireType::Bit { bits: total }),
        _ => Err(Truncated),
    }
}

/// CHAR, BINARY, ENUM and SET share a code; the first byte has the real type. A CHAR longer than 255 bytes keeps the two
/// upper bits of its length, inverted, in bits 4 and 5 of that byte, which are set in every real type.
fn string([first, second]: [u8; 2]) -> Result<WireType, Truncated> {
    const LENGTH_BITS: u8 = 0x30;
    let real_type = first | LENGTH_BITS;
    let upper_length = u16::from(!first & LENGTH_BITS) << 4;
    match real_type {
        code::ENUM => Ok(WireType::Enum { bytes: members_bytes([first, second], 2)? }),
        code::SET => Ok(WireType::Set { bytes: members_bytes([first, second], 8)? }),
        code::STRING | code::VAR_STRING => Ok(WireType::Char { bytes_max: upper_length | u16::from(second) }),
        _ => Err(Truncated),
    }
}

fn members_bytes([_, bytes]: [u8; 2], bytes_max: u8) -> Result<u8, Truncated> {
    if (1..=bytes_max).contains(&bytes) { Ok(bytes) } else { Err(Truncated) }
}

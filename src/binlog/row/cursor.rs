//! Reading bytes from the front, never past the end.

/// There were fewer bytes than the format asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Truncated;

/// The bytes that are still to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Truncated> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Truncated> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A little-endian number of `bytes` bytes, at most 8.
    #[inline]
    pub(crate) fn uint_le(&mut self, bytes: usize) -> Result<u64, Truncated> {
        match bytes {
            // The lengths of strings, which a row is full of.
            1 => self.array::<1>().map(|[byte]| u64::from(byte)),
            2 => self.array().map(|bytes| u64::from(u16::from_le_bytes(bytes))),
            _ => self.take(bytes).map(uint_le),
        }
    }

    /// A length-encoded integer (MySQL protocol, "Length-Encoded Integer"); 0xFB and 0xFF begin none.
    pub(crate) fn packed(&mut self) -> Result<u64, Truncated> {
        match self.u8()? {
            0xFC => self.uint_le(2),
            0xFD => self.uint_le(3),
            0xFE => self.uint_le(8),
            0xFB | 0xFF => Err(Truncated),
            small => Ok(u64::from(small)),
        }
    }

    /// As many bytes as a length-encoded integer in front of them says.
    pub(crate) fn packed_bytes(&mut self) -> Result<&'a [u8], Truncated> {
        let length = self.packed()?;
        self.take(usize::try_from(length).map_err(|_| Truncated)?)
    }
}

/// A little-endian number of at most 8 bytes.
#[inline]
pub(crate) fn uint_le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// A big-endian number of at most 8 bytes.
#[inline]
pub(crate) fn uint_be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

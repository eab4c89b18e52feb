//! Reading the fields of an event's body. Every read is checked: a body that ends early is an error, never a panic.

use bytes::Bytes;

/// A field reaches beyond the end of what holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EndsEarly;

impl From<EndsEarly> for String {
    fn from(_: EndsEarly) -> Self {
        "it ends early, so the binlog is damaged or of an unknown format".into()
    }
}

/// What is left of a body. Slices share its memory.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    rest: Bytes,
}

impl Cursor {
    pub(super) fn new(bytes: &Bytes) -> Self {
        Self { rest: bytes.clone() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn take(&mut self, len: usize) -> Result<Bytes, EndsEarly> {
        if len > self.rest.len() {
            return Err(EndsEarly);
        }
        Ok(self.rest.split_to(len))
    }

    pub(super) fn skip(&mut self, len: usize) -> Result<(), EndsEarly> {
        self.take(len).map(drop)
    }

    pub(super) fn rest(self) -> Bytes {
        self.rest
    }

    /// A little-endian number of `len` bytes, at most 8.
    pub(super) fn uint(&mut self, len: usize) -> Result<u64, EndsEarly> {
        let mut bytes = [0_u8; 8];
        if len > self.rest.len() || len > bytes.len() {
            return Err(EndsEarly);
        }
        bytes[..len].copy_from_slice(&self.rest[..len]);
        bytes::Buf::advance(&mut self.rest, len);
        Ok(u64::from_le_bytes(bytes))
    }

    pub(super) fn u8(&mut self) -> Result<u8, EndsEarly> {
        self.uint(1).map(|n| n as u8)
    }

    pub(super) fn u16(&mut self) -> Result<u16, EndsEarly> {
        self.uint(2).map(|n| n as u16)
    }

    pub(super) fn u32(&mut self) -> Result<u32, EndsEarly> {
        self.uint(4).map(|n| n as u32)
    }

    pub(super) fn u64(&mut self) -> Result<u64, EndsEarly> {
        self.uint(8)
    }

    /// A length-encoded integer (MySQL client/server protocol, "Protocol::LengthEncodedInteger").
    pub(super) fn length_encoded(&mut self) -> Result<u64, EndsEarly> {
        match self.u8()? {
            0xfc => self.uint(2),
            0xfd => self.uint(3),
            0xfe => self.uint(8),
            small @ 0..=0xfa => Ok(u64::from(small)),
            0xfb | 0xff => Err(EndsEarly),
        }
    }

    /// As many bytes as a length-encoded integer says.
    pub(super) fn length_encoded_bytes(&mut self) -> Result<Bytes, EndsEarly> {
        let len = usize::try_from(self.length_encoded()?).map_err(|_| EndsEarly)?;
        self.take(len)
    }

    /// An unsigned number in the format of MySQL's serialisation library: as many trailing ones as bytes follow.
    pub(super) fn varlen_uint(&mut self) -> Result<u64, EndsEarly> {
        let first = *self.rest.first().ok_or(EndsEarly)?;
        let len = first.trailing_ones() as usize + 1;
        if len == 9 {
            self.skip(1)?;
            return self.u64();
        }
        Ok(self.uint(len)? >> len)
    }

    /// A signed number of the same library: the sign in the lowest bit.
    pub(super) fn varlen_int(&mut self) -> Result<i64, EndsEarly> {
        let raw = self.varlen_uint()?;
        let magnitude = (raw >> 1) as i64;
        Ok(if raw & 1 == 0 { magnitude } else { !magnitude })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(bytes: &[u8]) -> Cursor {
        Cursor::new(&Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn length_encoded_numbers_of_every_width() {
        assert_eq!(cursor(&[0xfa]).length_encoded(), Ok(250));
        assert_eq!(cursor(&[0xfc, 1, 2]).length_encoded(), Ok(0x201));
        assert_eq!(cursor(&[0xfd, 1, 2, 3]).length_encoded(), Ok(0x03_0201));
        assert_eq!(cursor(&[0xfe, 1, 0, 0, 0, 0, 0, 0, 1]).length_encoded(), Ok((1 << 56) + 1));
        assert_eq!(cursor(&[0xfe, 1]).length_encoded(), Err(EndsEarly));
        assert_eq!(cursor(&[0xff]).length_encoded(), Err(EndsEarly));
    }

    #[test]
    fn serialisation_library_numbers() {
        assert_eq!(cursor(&[0b1010]).varlen_uint(), Ok(5));
        assert_eq!(cursor(&[0b0000_0001, 0b1]).varlen_uint(), Ok(64));
        assert_eq!(cursor(&[0xff, 1, 0, 0, 0, 0, 0, 0, 0x80]).varlen_uint(), Ok((1 << 63) + 1));
        assert_eq!(cursor(&[0b0110]).varlen_int(), Ok(-2));
        assert_eq!(cursor(&[0b0100]).varlen_int(), Ok(1));
    }

    #[test]
    fn reading_past_the_end_is_an_error() {
        let mut short = cursor(&[1, 2]);
        assert_eq!(short.uint(4), Err(EndsEarly));
        assert_eq!(short.take(3), Err(EndsEarly));
        assert_eq!(short.u16(), Ok(0x201));
        assert!(short.is_empty());
    }
}

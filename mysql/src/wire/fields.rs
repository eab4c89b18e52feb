//! Reading the fields of a packet from the front. Every read is checked: a packet that ends early is an error, never a panic.

/// A field reaches beyond the end of its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndsEarly;

/// What is left of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    pub fn new(packet: &'a [u8]) -> Self {
        Self { rest: packet }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], EndsEarly> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(EndsEarly)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], EndsEarly> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(EndsEarly)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, EndsEarly> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub fn u16(&mut self) -> Result<u16, EndsEarly> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32, EndsEarly> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub fn u64(&mut self) -> Result<u64, EndsEarly> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length-encoded integer (MySQL client/server protocol, "Protocol::LengthEncodedInteger").
    #[inline]
    pub fn length_encoded(&mut self) -> Result<u64, EndsEarly> {
        match self.u8()? {
            small @ 0..=0xfa => Ok(u64::from(small)),
            0xfc => self.u16().map(u64::from),
            0xfd => self.array::<3>().map(|[a, b, c]| u64::from(u32::from_le_bytes([a, b, c, 0]))),
            0xfe => self.u64(),
            0xfb | 0xff => Err(EndsEarly),
        }
    }

    /// As many bytes as a length-encoded integer says.
    #[inline]
    pub fn length_encoded_bytes(&mut self) -> Result<&'a [u8], EndsEarly> {
        let len = usize::try_from(self.length_encoded()?).map_err(|_| EndsEarly)?;
        self.take(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_encoded_numbers_of_every_width() {
        assert_eq!(Fields::new(&[0xfa]).length_encoded(), Ok(250));
        assert_eq!(Fields::new(&[0xfc, 1, 2]).length_encoded(), Ok(0x201));
        assert_eq!(Fields::new(&[0xfd, 1, 2, 3]).length_encoded(), Ok(0x03_0201));
        assert_eq!(Fields::new(&[0xfe, 1, 0, 0, 0, 0, 0, 0, 1]).length_encoded(), Ok((1 << 56) + 1));
        assert_eq!(Fields::new(&[0xfe, 1]).length_encoded(), Err(EndsEarly));
        assert_eq!(Fields::new(&[0xfb]).length_encoded(), Err(EndsEarly));
    }

    #[test]
    fn a_length_beyond_the_packet_is_an_error_and_takes_no_memory() {
        let hostile = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Fields::new(&hostile).length_encoded_bytes(), Err(EndsEarly));
        assert_eq!(Fields::new(&[3, 1, 2]).length_encoded_bytes(), Err(EndsEarly));
        assert_eq!(Fields::new(&[2, 1, 2]).length_encoded_bytes(), Ok(&[1, 2][..]));
    }
}

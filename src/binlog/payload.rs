//! TRANSACTION_PAYLOAD_EVENT: a whole transaction in one zstd stream (`binlog_transaction_compression=ON`).
//!
//! The stream is unpacked piece by piece as its events are asked for, so memory does not grow with the transaction. That
//! it holds a whole transaction is for the caller to see; that it holds all the bytes it claims is seen here.

use std::io::{self, Read};

use bytes::{Buf, Bytes, BytesMut};

use super::cursor::{Cursor, EndsEarly};
use super::event::{Event, EventHeader, HEADER_LEN};

/// Unpacked at a time; larger events take what they need.
const PIECE_BYTES: usize = 256 << 10;

/// The events inside a payload, one after the other.
pub(super) struct Payload {
    stream: Unpacked,
    ready: BytesMut,
    /// Bytes that the event says are still to come, those in `ready` included.
    left: u64,
    events: u64,
}

enum Unpacked {
    Zstd(Box<zstd::Decoder<'static, bytes::buf::Reader<Bytes>>>),
    Plain(bytes::buf::Reader<Bytes>),
}

impl Read for Unpacked {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(stream) => stream.read(out),
            Self::Plain(stream) => stream.read(out),
        }
    }
}

impl Payload {
    pub(super) fn open(body: &Bytes) -> Result<Self, String> {
        let fields = Fields::parse(body)?;
        let stream = match fields.compression {
            0 => {
                let decoder = zstd::Decoder::with_buffer(fields.packed.clone().reader())
                    .map_err(|error| format!("zstd does not start: {error}"))?;
                Unpacked::Zstd(Box::new(decoder))
            }
            255 => Unpacked::Plain(fields.packed.clone().reader()),
            other => return Err(format!("compression type {other} is not known; only ZSTD and NONE are")),
        };
        let left = match (fields.unpacked_len, fields.compression) {
            (Some(len), _) => len,
            (None, 255) => fields.packed.len() as u64,
            (None, _) => return Err("it does not say how large it is unpacked".into()),
        };
        Ok(Self { stream, ready: BytesMut::new(), left, events: 0 })
    }

    /// Number of events handed out so far.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// The next event; `None` behind the last one. Events inside a payload have no checksum of their own.
    pub(super) fn next(&mut self) -> Result<Option<Event>, String> {
        if self.left == 0 {
            self.expect_end()?;
            return Ok(None);
        }
        self.fill(HEADER_LEN)?;
        let header = EventHeader::parse(&self.ready)?;
        let size = header.size as usize;
        if size < HEADER_LEN {
            return Err(format!("an inner event claims {size} bytes"));
        }
        self.fill(size)?;
        let bytes = self.ready.split_to(size).freeze();
        self.left -= size as u64;
        self.events += 1;
        Ok(Some(Event { header, body: bytes.slice(HEADER_LEN..), checksum: None }))
    }

    /// Whether every event has been handed out; verifies that the stream ends there too.
    pub(super) fn is_finished(&mut self) -> Result<bool, String> {
        if self.left > 0 {
            return Ok(false);
        }
        self.expect_end().map(|()| true)
    }

    /// Has at least `len` bytes ready.
    fn fill(&mut self, len: usize) -> Result<(), String> {
        if len as u64 > self.left {
            return Err(format!("an inner event reaches beyond the payload's {} remaining bytes", self.left));
        }
        while self.ready.len() < len {
            let have = self.ready.len();
            let wanted = (self.left - have as u64).min(PIECE_BYTES as u64) as usize;
            self.ready.resize(have + wanted, 0);
            let read = self.stream.read(&mut self.ready[have..]);
            self.ready.truncate(have + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(format!("it unpacks to {} bytes fewer than it says", self.left - have as u64)),
                Ok(_) => {}
                Err(error) => return Err(format!("it cannot be unpacked: {error}")),
            }
        }
        Ok(())
    }

    fn expect_end(&mut self) -> Result<(), String> {
        match self.stream.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err("it unpacks to more bytes than it says".into()),
            Err(error) => Err(format!("it cannot be unpacked to its end: {error}")),
        }
    }
}

/// The event's own fields, each type, length, value; then the packed bytes.
struct Fields {
    compression: u64,
    unpacked_len: Option<u64>,
    packed: Bytes,
}

impl Fields {
    fn parse(body: &Bytes) -> Result<Self, String> {
        const END: u64 = 0;
        const PACKED_LEN: u64 = 1;
        const COMPRESSION: u64 = 2;
        const UNPACKED_LEN: u64 = 3;

        let mut cursor = Cursor::new(body);
        let (mut packed_len, mut compression, mut unpacked_len) = (None, None, None);
        loop {
            let field = cursor.length_encoded()?;
            if field == END {
                break;
            }
            let mut value = Cursor::new(&cursor.length_encoded_bytes()?);
            match field {
                PACKED_LEN => packed_len = Some(value.length_encoded()?),
                COMPRESSION => compression = Some(value.length_encoded()?),
                UNPACKED_LEN => unpacked_len = Some(value.length_encoded()?),
                _ => {}
            }
        }
        let compression = compression.ok_or("it does not say how it is compressed")?;
        let packed_len = packed_len.ok_or("it does not say how large it is")?;
        let packed = cursor.take(usize::try_from(packed_len).map_err(|_| EndsEarly)?)?;
        if !cursor.is_empty() {
            return Err(format!("{} bytes follow the payload", cursor.len()));
        }
        Ok(Self { compression, unpacked_len, packed })
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::kind;
    use super::*;

    fn event(kind: u8, body_len: usize) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN + body_len];
        bytes[4] = kind;
        bytes[9..13].copy_from_slice(&((HEADER_LEN + body_len) as u32).to_le_bytes());
        bytes
    }

    fn payload(compression: u8, packed: &[u8], unpacked_len: u32) -> Bytes {
        let mut body = vec![2, 1, compression];
        if compression == 255 {
            body = vec![2, 3, 0xfc, 255, 0];
        }
        body.extend_from_slice(&[1, 4, 0xfd, packed.len() as u8, (packed.len() >> 8) as u8, 0]);
        body.extend_from_slice(&[3, 9, 0xfe]);
        body.extend_from_slice(&u64::from(unpacked_len).to_le_bytes());
        body.push(0);
        body.extend_from_slice(packed);
        body.into()
    }

    fn read(body: &Bytes) -> Result<Vec<usize>, String> {
        let mut payload = Payload::open(body)?;
        let mut lens = Vec::new();
        while let Some(event) = payload.next()? {
            lens.push(event.body.len());
        }
        assert!(payload.is_finished()?);
        Ok(lens)
    }

    #[test]
    fn events_of_any_size_come_out_whole() {
        let inner = [event(kind::QUERY, 5), event(kind::WRITE_ROWS, 3 * PIECE_BYTES + 1), event(kind::XID, 8)].concat();
        let packed = zstd::encode_all(&inner[..], 3).unwrap();
        assert_eq!(read(&payload(0, &packed, inner.len() as u32)), Ok(vec![5, 3 * PIECE_BYTES + 1, 8]));
    }

    #[test]
    fn an_uncompressed_payload_is_read_too() {
        let inner = [event(kind::QUERY, 5), event(kind::XID, 8)].concat();
        assert_eq!(read(&payload(255, &inner, inner.len() as u32)), Ok(vec![5, 8]));
    }

    #[test]
    fn a_payload_that_is_shorter_or_longer_than_it_says_is_refused() {
        let inner = [event(kind::QUERY, 5), event(kind::XID, 8)].concat();
        let packed = zstd::encode_all(&inner[..], 3).unwrap();
        assert!(read(&payload(0, &packed, inner.len() as u32 - 27)).unwrap_err().contains("more bytes"));
        assert!(read(&payload(0, &packed, inner.len() as u32 + 27)).unwrap_err().contains("fewer"));
    }

    #[test]
    fn damage_is_an_error_and_never_a_silent_end() {
        let inner = [event(kind::QUERY, 500), event(kind::XID, 8)].concat();
        let packed = zstd::encode_all(&inner[..], 3).unwrap();
        let whole = payload(0, &packed, inner.len() as u32);
        for cut in 0..whole.len() {
            assert!(read(&whole.slice(..cut)).is_err(), "cut at {cut}");
        }
    }
}

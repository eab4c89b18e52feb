//! CRC32 of every event. The server computes it and no client library compares it; here nothing is taken that fails it.

use bytes::Bytes;

use super::event::{Event, EventHeader, FLAG_IN_USE, HEADER_LEN, kind};

const CHECKSUM_LEN: usize = 4;

/// How a file's events are protected (`binlog_checksum`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChecksumAlgorithm {
    None,
    Crc32,
}

impl ChecksumAlgorithm {
    pub(super) fn from_code(code: u8) -> Result<Self, String> {
        match code {
            0 => Ok(Self::None),
            1 => Ok(Self::Crc32),
            other => Err(format!("checksum algorithm {other} is not known; set binlog_checksum to CRC32 or NONE")),
        }
    }
}

/// Divides an event of the log into header, body and checksum, and compares the checksum.
///
/// `algorithm` is that of the file's format description; a format description itself says its own.
pub(super) fn open_event(bytes: Bytes, algorithm: ChecksumAlgorithm) -> Result<Event, String> {
    let header = EventHeader::parse(&bytes)?;
    if bytes.len() != header.size as usize {
        return Err(format!("its header says {} bytes, but it has {}", header.size, bytes.len()));
    }
    if header.kind == kind::FORMAT_DESCRIPTION {
        return open_format_description(&bytes, header);
    }
    match algorithm {
        ChecksumAlgorithm::None => Ok(Event { header, body: bytes.slice(HEADER_LEN..), checksum: None }),
        ChecksumAlgorithm::Crc32 => {
            let (covered, stored) = split_checksum(&bytes)?;
            compare(crc32fast::hash(covered), stored)?;
            Ok(Event { header, body: bytes.slice(HEADER_LEN..covered.len()), checksum: Some(stored) })
        }
    }
}

/// A format description ends in its algorithm and always has room for a checksum. The checksum was computed before the
/// in-use flag was set, so it does not cover the flag.
fn open_format_description(bytes: &Bytes, header: EventHeader) -> Result<Event, String> {
    let (covered, stored) = split_checksum(bytes)?;
    let code = *covered.last().ok_or("it is empty")?;
    let mut checksum = None;
    if ChecksumAlgorithm::from_code(code)? == ChecksumAlgorithm::Crc32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&covered[..17]);
        crc.update(&(header.flags & !FLAG_IN_USE).to_le_bytes());
        crc.update(&covered[HEADER_LEN..]);
        compare(crc.finalize(), stored)?;
        checksum = Some(stored);
    }
    Ok(Event { header, body: bytes.slice(HEADER_LEN..covered.len()), checksum })
}

fn split_checksum(bytes: &Bytes) -> Result<(&[u8], u32), String> {
    match bytes.split_last_chunk::<CHECKSUM_LEN>() {
        Some((covered, stored)) if covered.len() >= HEADER_LEN => Ok((covered, u32::from_le_bytes(*stored))),
        _ => Err(format!("{} bytes leave no room for a checksum", bytes.len())),
    }
}

fn compare(computed: u32, stored: u32) -> Result<(), String> {
    if computed == stored {
        return Ok(());
    }
    Err(format!(
        "checksum mismatch: the event says {stored:08x}, its bytes give {computed:08x}. The binlog was damaged on disk or on \
         the way; compare the file with `mysqlbinlog --verify-binlog-checksum`, take an undamaged copy, or seed anew"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xid_event(algorithm: ChecksumAlgorithm) -> Vec<u8> {
        let crc = algorithm == ChecksumAlgorithm::Crc32;
        let size = HEADER_LEN + 8 + if crc { CHECKSUM_LEN } else { 0 };
        let mut bytes = vec![0; HEADER_LEN + 8];
        bytes[4] = kind::XID;
        bytes[9] = size as u8;
        if crc {
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_whole_event_gives_its_body_without_the_checksum() {
        for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::None] {
            let event = open_event(xid_event(algorithm).into(), algorithm).unwrap();
            assert_eq!(event.body.len(), 8);
            assert_eq!(event.checksum.is_some(), algorithm == ChecksumAlgorithm::Crc32);
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let good = xid_event(ChecksumAlgorithm::Crc32);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open_event(bad.into(), ChecksumAlgorithm::Crc32).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn an_event_too_short_for_its_checksum_is_refused() {
        let mut bytes = vec![0; HEADER_LEN + 2];
        bytes[9] = bytes.len() as u8;
        assert!(open_event(bytes.into(), ChecksumAlgorithm::Crc32).unwrap_err().contains("no room"));
    }
}

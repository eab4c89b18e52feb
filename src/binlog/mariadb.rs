//! What only MariaDB writes: its GTIDs, the list of them at the head of each file, and events that are compressed one by one.
//!
//! In: bodies of events. Out: a transaction's head, a position, plain bytes. Layouts: MariaDB documentation, "Replication
//! Protocol", GTID_EVENT, GTID_LIST_EVENT and the compressed events.

use std::io::Read;

use bytes::Bytes;
use weir_model::{Gtid, GtidSet};

use super::TransactionHead;
use super::cursor::Cursor;
use super::event::Event;
use crate::limits::UNCOMPRESSED_EVENT_BYTES_MAX;

/// A GTID event, which also takes the place of BEGIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupHead {
    pub(super) head: TransactionHead,
    /// The group is one statement, which nothing ends.
    pub(super) is_standalone: bool,
}

/// Number, domain, flags; what the flags bring behind them is not needed. The server is the one of the event's header.
pub(super) fn parse_gtid(event: &Event) -> Result<GroupHead, String> {
    const FLAG_STANDALONE: u8 = 1;
    const FLAG_XA_PREPARED: u8 = 64;
    const FLAG_XA_COMPLETED: u8 = 128;

    let mut cursor = Cursor::new(&event.body);
    let number = cursor.u64()?;
    let domain = cursor.uint(4)? as u32;
    let flags = cursor.u8()?;
    if number == 0 {
        return Err("transaction number 0".into());
    }
    if flags & (FLAG_XA_PREPARED | FLAG_XA_COMPLETED) != 0 {
        return Err("XA transactions of two phases are not supported on MariaDB. Use plain transactions on the captured server; to \
                    go on behind this one, end every XA transaction (XA RECOVER lists them) and seed the tables anew"
            .into());
    }
    let head = TransactionHead {
        gtid: Gtid::of_domain(domain, event.header.server_id, number),
        original_commit_us: 0,
        immediate_commit_us: u64::from(event.header.timestamp_s) * 1_000_000,
        checksum: event.checksum,
    };
    Ok(GroupHead { head, is_standalone: flags & FLAG_STANDALONE != 0 })
}

/// GTID_LIST_EVENT: what had been logged before its file began. Of a domain it names the last transaction of every server, the
/// last of all behind the others.
pub(super) fn parse_gtid_list(body: &Bytes) -> Result<GtidSet, String> {
    /// The upper bits are flags.
    const COUNT_MASK: u64 = (1 << 28) - 1;

    let mut cursor = Cursor::new(body);
    let count = cursor.uint(4)? & COUNT_MASK;
    let mut set = GtidSet::default();
    for _ in 0..count {
        let (domain, server_id, number) = (cursor.uint(4)? as u32, cursor.uint(4)? as u32, cursor.u64()?);
        set.insert(&Gtid::of_domain(domain, server_id, number));
    }
    Ok(set)
}

/// The bytes that a compressed event holds: a head that says how and how long, that many bytes of length, most significant
/// first, and a zlib stream.
pub(super) fn uncompressed(packed: &Bytes) -> Result<Bytes, String> {
    const IS_COMPRESSED: u8 = 0x80;
    const ALGORITHM_MASK: u8 = 0x70;
    const LENGTH_MASK: u8 = 0x07;

    let mut cursor = Cursor::new(packed);
    let head = cursor.u8()?;
    if head & IS_COMPRESSED == 0 || head & ALGORITHM_MASK != 0 {
        return Err(format!("compression {head:#04x} is not known; only zlib is"));
    }
    let length_bytes = usize::from(head & LENGTH_MASK);
    let length = cursor.take(length_bytes)?.iter().fold(0_u64, |length, &byte| length << 8 | u64::from(byte));
    if !(1..=4).contains(&length_bytes) || length > UNCOMPRESSED_EVENT_BYTES_MAX {
        return Err(format!("it claims {length} bytes uncompressed, which no event has; the binlog is damaged"));
    }
    let mut bytes = Vec::new();
    // One byte more than it claims, to see that there is none.
    let stream = flate2::read::ZlibDecoder::new(&packed[1 + length_bytes..]);
    stream.take(length + 1).read_to_end(&mut bytes).map_err(|error| format!("its zlib stream is damaged: {error}"))?;
    if bytes.len() as u64 != length {
        return Err(format!("it claims {length} bytes uncompressed and holds {}", bytes.len()));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::event::{EventHeader, kind};
    use super::*;

    #[test]
    fn the_server_of_a_gtid_is_the_one_of_the_header() {
        let header = EventHeader {
            timestamp_s: 5,
            kind: kind::MARIADB_GTID,
            server_id: 7,
            size: 0,
            next_offset_low: 1,
            flags: 0,
        };
        let mut body = 42_u64.to_le_bytes().to_vec();
        body.extend_from_slice(&3_u32.to_le_bytes());
        body.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0]);
        let group = parse_gtid(&Event { header, body: body.into(), checksum: Some(9) }).unwrap();
        assert_eq!((group.head.gtid.to_string().as_str(), group.is_standalone), ("3-7-42", true));
        assert_eq!((group.head.identifying_us(), group.head.checksum), (5_000_000, Some(9)));
    }

    #[test]
    fn a_list_gives_the_last_transaction_of_each_domain() {
        let mut body = (3_u32 | 1 << 28).to_le_bytes().to_vec();
        for (domain, server, number) in [(0_u32, 2_u32, 8_u64), (0, 1, 9), (4, 1, 2)] {
            body.extend_from_slice(&domain.to_le_bytes());
            body.extend_from_slice(&server.to_le_bytes());
            body.extend_from_slice(&number.to_le_bytes());
        }
        let body = Bytes::from(body);
        assert_eq!(parse_gtid_list(&body).unwrap().to_string(), "0-1-9,4-1-2");
        for cut in 0..body.len() {
            assert!(parse_gtid_list(&body.slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    fn packed(plain: &[u8], claimed: usize) -> Bytes {
        let mut stream = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        stream.write_all(plain).unwrap();
        let mut bytes = vec![0x83];
        bytes.extend_from_slice(&(claimed as u32).to_be_bytes()[1..]);
        bytes.extend(stream.finish().unwrap());
        bytes.into()
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back_and_a_part_of_it_does_not(plain in prop::collection::vec(any::<u8>(), 0..400)) {
            let whole = packed(&plain, plain.len());
            prop_assert_eq!(uncompressed(&whole), Ok(Bytes::from(plain.clone())));
            prop_assert!(uncompressed(&packed(&plain, plain.len() + 1)).is_err());
            if !plain.is_empty() {
                prop_assert!(uncompressed(&packed(&plain, plain.len() - 1)).is_err());
            }
            prop_assert!(uncompressed(&whole.slice(..4)).is_err());
        }
    }

    #[test]
    fn another_compression_and_a_hostile_length_are_refused() {
        assert!(uncompressed(&Bytes::from_static(&[0x91, 1, 0])).unwrap_err().contains("not known"));
        assert!(uncompressed(&Bytes::from_static(&[0x84, 0xff, 0xff, 0xff, 0xff, 0])).unwrap_err().contains("claims"));
    }
}

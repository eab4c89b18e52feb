//! GTIDs on the wire: the events that name a transaction, and whole sets in PREVIOUS_GTIDS_LOG_EVENT and in the dump command.

use std::collections::BTreeMap;
use std::str;

use bytes::{BufMut, Bytes};
use uuid::Uuid;
use weir_model::position::GtidServer;
use weir_model::{Gtid, GtidSet};

use super::TransactionHead;
use super::cursor::{Cursor, EndsEarly};
use super::event::Event;

/// GTID_LOG_EVENT: flags, uuid, number, logical clock, and from MySQL 8.0.1 on commit times of 7 bytes each.
pub(super) fn parse_gtid(event: &Event) -> Result<TransactionHead, String> {
    let mut cursor = Cursor::new(&event.body);
    cursor.skip(1)?;
    let uuid = uuid_text(&cursor.take(16)?)?;
    let gno = cursor.u64()?;
    timed(event, Gtid::new(&uuid, "", gno), cursor)
}

/// ANONYMOUS_GTID_LOG_EVENT: the same with no uuid and no number. What is to stand for them is `gtid`.
pub(super) fn parse_anonymous(event: &Event, gtid: Gtid) -> Result<TransactionHead, String> {
    let mut cursor = Cursor::new(&event.body);
    cursor.skip(1 + 16 + 8)?;
    timed(event, gtid, cursor)
}

/// The head of a transaction by what stands behind its number.
fn timed(event: &Event, gtid: Gtid, mut cursor: Cursor) -> Result<TransactionHead, String> {
    const LOGICAL_CLOCK: u8 = 2;
    /// Set in the immediate commit time if the original one differs and follows.
    const ORIGINAL_FOLLOWS: u64 = 1 << 55;

    let mut immediate_us = u64::from(event.header.timestamp_s) * 1_000_000;
    let mut original_us = 0;
    if cursor.len() >= 17 && cursor.u8()? == LOGICAL_CLOCK {
        cursor.skip(16)?;
        if cursor.len() >= 7 {
            immediate_us = cursor.uint(7)?;
            original_us = immediate_us & !ORIGINAL_FOLLOWS;
            if immediate_us & ORIGINAL_FOLLOWS != 0 {
                immediate_us = original_us;
                original_us = cursor.uint(7)?;
            }
        }
    }
    head(event, gtid, original_us, immediate_us)
}

/// GTID_TAGGED_LOG_EVENT (MySQL 8.3 on): numbered fields in the format of MySQL's serialisation library.
pub(super) fn parse_tagged_gtid(event: &Event) -> Result<TransactionHead, String> {
    let mut cursor = Cursor::new(&event.body);
    let version = cursor.varlen_uint()?;
    if version != 1 {
        return Err(format!("version {version} of the serialisation format is not known"));
    }
    let size = usize::try_from(cursor.varlen_uint()?).map_err(|_| EndsEarly)?;
    let last_needed_field = cursor.varlen_uint()?;
    let consumed = event.body.len() - cursor.len();
    let mut fields = Cursor::new(&cursor.take(size.checked_sub(consumed).ok_or(EndsEarly)?)?);

    let (mut uuid, mut tag, mut gno) = (None, String::new(), None);
    let (mut immediate_us, mut original_us) = (0, None);
    while !fields.is_empty() {
        match fields.varlen_uint()? {
            0 | 8..=11 => fields.varlen_uint().map(drop)?,
            1 => {
                let mut bytes = [0_u8; 16];
                for byte in &mut bytes {
                    *byte = u8::try_from(fields.varlen_uint()?).map_err(|_| "its uuid is not one")?;
                }
                uuid = Some(Uuid::from_bytes(bytes).to_string());
            }
            2 => gno = u64::try_from(fields.varlen_int()?).ok(),
            3 => tag = tag_text(&mut fields)?,
            4 | 5 => fields.varlen_int().map(drop)?,
            6 => immediate_us = fields.varlen_uint()?,
            7 => original_us = Some(fields.varlen_uint()?),
            field if field > last_needed_field => break,
            field => return Err(format!("field {field} is not known and must not be ignored")),
        }
    }
    let (Some(uuid), Some(gno)) = (uuid, gno) else {
        return Err("it names no transaction".into());
    };
    head(event, Gtid::new(&uuid, &tag, gno), original_us.unwrap_or(immediate_us), immediate_us)
}

fn head(event: &Event, gtid: Gtid, original_us: u64, immediate_us: u64) -> Result<TransactionHead, String> {
    if gtid.gno == 0 {
        return Err("transaction number 0".into());
    }
    Ok(TransactionHead {
        gtid,
        original_commit_us: original_us,
        immediate_commit_us: immediate_us,
        checksum: event.checksum,
    })
}

fn uuid_text(bytes: &[u8]) -> Result<String, EndsEarly> {
    Ok(Uuid::from_slice(bytes).map_err(|_| EndsEarly)?.to_string())
}

fn tag_text(cursor: &mut Cursor) -> Result<String, String> {
    let len = usize::try_from(cursor.varlen_uint()?).map_err(|_| EndsEarly)?;
    let bytes = cursor.take(len)?;
    Ok(str::from_utf8(&bytes).map_err(|_| "its tag is not text")?.to_owned())
}

/// Set in both ends of a set's 8-byte count when its members have tags; the count lies between.
const TAGGED: u8 = 1;

/// A set as MySQL sends it: a count, then uuid, tag (in the tagged format only), and intervals that exclude their end.
pub(super) fn encode_gtid_set(set: &GtidSet) -> Result<Vec<u8>, String> {
    let mut servers: BTreeMap<&GtidServer, Vec<(u64, u64)>> = BTreeMap::new();
    for (server, first, last) in set.ranges() {
        servers.entry(server).or_default().push((first, last));
    }
    let tagged = servers.keys().any(|server| !server.tag.is_empty());
    let mut bytes = Vec::with_capacity(8 + 48 * servers.len());
    let count = servers.len() as u64;
    let format = u64::from(TAGGED);
    bytes.put_u64_le(if tagged { count << 8 | format << 56 | format } else { count });
    for (server, ranges) in servers {
        let uuid = Uuid::try_parse(&server.uuid).map_err(|_| format!("`{}` is not a server's uuid", server.uuid))?;
        bytes.put_slice(uuid.as_bytes());
        if tagged {
            // A tag has at most 32 characters, so its length fits the one-byte form.
            bytes.put_u8((server.tag.len() as u8) << 1);
            bytes.put_slice(server.tag.as_bytes());
        }
        bytes.put_u64_le(ranges.len() as u64);
        for (first, last) in ranges {
            bytes.put_u64_le(first);
            bytes.put_u64_le(last + 1);
        }
    }
    Ok(bytes)
}

/// The inverse of [`encode_gtid_set`]: the body of a PREVIOUS_GTIDS_LOG_EVENT.
pub(super) fn decode_gtid_set(bytes: &Bytes) -> Result<GtidSet, String> {
    let mut cursor = Cursor::new(bytes);
    let count = cursor.u64()?;
    let tagged = (count >> 56) as u8 == TAGGED;
    let count = if tagged { count >> 8 & ((1 << 48) - 1) } else { count };
    let mut set = GtidSet::default();
    for _ in 0..count {
        let uuid = uuid_text(&cursor.take(16)?)?;
        let tag = if tagged { tag_text(&mut cursor)? } else { String::new() };
        let server = GtidServer { uuid: uuid.into(), tag: tag.into() };
        for _ in 0..cursor.u64()? {
            let (first, end) = (cursor.u64()?, cursor.u64()?);
            if first == 0 || end <= first {
                return Err("an interval of the GTID set is empty".into());
            }
            set.insert_range(server.clone(), first, end - 1);
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::event::{EventHeader, kind};
    use super::*;

    fn event(kind: u8, body: Vec<u8>) -> Event {
        let header = EventHeader { timestamp_s: 5, kind, server_id: 7, size: 0, next_offset_low: 1, flags: 0 };
        Event { header, body: body.into(), checksum: Some(7) }
    }

    fn untagged(times: &[u8]) -> Event {
        let mut body = vec![0];
        body.extend_from_slice(&[0x11; 16]);
        body.extend_from_slice(&9_u64.to_le_bytes());
        body.push(2);
        body.extend_from_slice(&[0; 16]);
        body.extend_from_slice(times);
        event(kind::GTID, body)
    }

    #[test]
    fn one_commit_time_stands_for_both() {
        let head = parse_gtid(&untagged(&[1, 2, 0, 0, 0, 0, 0])).unwrap();
        assert_eq!(head.gtid.to_string(), "11111111-1111-1111-1111-111111111111:9");
        assert_eq!((head.original_commit_us, head.immediate_commit_us), (0x201, 0x201));
        assert_eq!(head.checksum, Some(7));
    }

    #[test]
    fn the_high_bit_says_that_the_original_time_follows() {
        let head = parse_gtid(&untagged(&[5, 0, 0, 0, 0, 0, 0x80, 3, 0, 0, 0, 0, 0, 0])).unwrap();
        assert_eq!((head.original_commit_us, head.immediate_commit_us), (3, 5));
        assert!(parse_gtid(&untagged(&[5, 0, 0, 0, 0, 0, 0x80, 3])).is_err());
    }

    #[test]
    fn without_commit_times_the_second_of_the_header_counts() {
        let head = parse_gtid(&untagged(&[])).unwrap();
        assert_eq!((head.original_commit_us, head.immediate_commit_us), (0, 5_000_000));
    }

    proptest! {
        #[test]
        fn sets_survive_the_wire(members in prop::collection::vec((0_u8..3, 0_usize..3, 1_u64..60), 0..40)) {
            let mut set = GtidSet::default();
            for (server, tag, gno) in members {
                let uuid = Uuid::from_bytes([server; 16]).to_string();
                set.insert(&Gtid::new(&uuid, ["", "batch", "a_2"][tag], gno));
            }
            let bytes = Bytes::from(encode_gtid_set(&set).unwrap());
            prop_assert_eq!(decode_gtid_set(&bytes), Ok(set));
            for cut in 0..bytes.len() {
                prop_assert!(decode_gtid_set(&bytes.slice(..cut)).is_err());
            }
        }
    }
}

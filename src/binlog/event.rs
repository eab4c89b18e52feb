//! The envelope of a binlog event: 19 bytes of header, the body, and behind it the checksum.

use std::borrow::Cow;

use bytes::Bytes;
use weir_mysql::server::counts_years;

use super::checksum::ChecksumAlgorithm;
use super::cursor::{Cursor, EndsEarly};
use super::table_map::Writer;

/// Bytes of the header that every event begins with.
pub(super) const HEADER_LEN: usize = 19;
/// The header's flag of a file that its server still writes to, or died while writing.
pub(super) const FLAG_IN_USE: u16 = 0x1;
/// The header's flag of an event made up for the dump, which stands in no file.
const FLAG_ARTIFICIAL: u16 = 0x20;
/// The header's flag of an event that a reader who doesn't know it may skip.
pub(super) const FLAG_IGNORABLE: u16 = 0x80;

/// Event type codes (MySQL source, `libs/mysql/binlog/event/binlog_event.h`).
pub(super) mod kind {
    pub(in crate::binlog) const QUERY: u8 = 2;
    pub(in crate::binlog) const STOP: u8 = 3;
    pub(in crate::binlog) const ROTATE: u8 = 4;
    pub(in crate::binlog) const INTVAR: u8 = 5;
    pub(in crate::binlog) const APPEND_BLOCK: u8 = 9;
    pub(in crate::binlog) const DELETE_FILE: u8 = 11;
    pub(in crate::binlog) const RAND: u8 = 13;
    pub(in crate::binlog) const USER_VAR: u8 = 14;
    pub(in crate::binlog) const FORMAT_DESCRIPTION: u8 = 15;
    pub(in crate::binlog) const XID: u8 = 16;
    pub(in crate::binlog) const BEGIN_LOAD_QUERY: u8 = 17;
    pub(in crate::binlog) const EXECUTE_LOAD_QUERY: u8 = 18;
    pub(in crate::binlog) const TABLE_MAP: u8 = 19;
    pub(in crate::binlog) const WRITE_ROWS_V1: u8 = 23;
    pub(in crate::binlog) const UPDATE_ROWS_V1: u8 = 24;
    pub(in crate::binlog) const DELETE_ROWS_V1: u8 = 25;
    pub(in crate::binlog) const INCIDENT: u8 = 26;
    pub(in crate::binlog) const HEARTBEAT: u8 = 27;
    pub(in crate::binlog) const IGNORABLE: u8 = 28;
    pub(in crate::binlog) const ROWS_QUERY: u8 = 29;
    pub(in crate::binlog) const WRITE_ROWS: u8 = 30;
    pub(in crate::binlog) const UPDATE_ROWS: u8 = 31;
    pub(in crate::binlog) const DELETE_ROWS: u8 = 32;
    pub(in crate::binlog) const GTID: u8 = 33;
    pub(in crate::binlog) const ANONYMOUS_GTID: u8 = 34;
    pub(in crate::binlog) const PREVIOUS_GTIDS: u8 = 35;
    pub(in crate::binlog) const XA_PREPARE: u8 = 38;
    pub(in crate::binlog) const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub(in crate::binlog) const TRANSACTION_PAYLOAD: u8 = 40;
    pub(in crate::binlog) const HEARTBEAT_V2: u8 = 41;
    pub(in crate::binlog) const GTID_TAGGED: u8 = 42;
    // MariaDB's own (MariaDB source, `sql/log_event.h`).
    pub(in crate::binlog) const ANNOTATE_ROWS: u8 = 160;
    pub(in crate::binlog) const BINLOG_CHECKPOINT: u8 = 161;
    pub(in crate::binlog) const MARIADB_GTID: u8 = 162;
    pub(in crate::binlog) const GTID_LIST: u8 = 163;
    pub(in crate::binlog) const START_ENCRYPTION: u8 = 164;
    pub(in crate::binlog) const QUERY_COMPRESSED: u8 = 165;
    pub(in crate::binlog) const WRITE_ROWS_COMPRESSED_V1: u8 = 166;
    pub(in crate::binlog) const UPDATE_ROWS_COMPRESSED_V1: u8 = 167;
    pub(in crate::binlog) const DELETE_ROWS_COMPRESSED_V1: u8 = 168;
    pub(in crate::binlog) const WRITE_ROWS_COMPRESSED: u8 = 169;
    pub(in crate::binlog) const UPDATE_ROWS_COMPRESSED: u8 = 170;
    pub(in crate::binlog) const DELETE_ROWS_COMPRESSED: u8 = 171;
}

/// The type's name as `mysqlbinlog` and the manual write it; the number for one that is unknown.
pub(super) fn kind_name(kind: u8) -> Cow<'static, str> {
    let name = match kind {
        kind::QUERY => "QUERY_EVENT",
        kind::STOP => "STOP_EVENT",
        kind::ROTATE => "ROTATE_EVENT",
        kind::INTVAR => "INTVAR_EVENT",
        kind::APPEND_BLOCK => "APPEND_BLOCK_EVENT",
        kind::DELETE_FILE => "DELETE_FILE_EVENT",
        kind::RAND => "RAND_EVENT",
        kind::USER_VAR => "USER_VAR_EVENT",
        kind::FORMAT_DESCRIPTION => "FORMAT_DESCRIPTION_EVENT",
        kind::XID => "XID_EVENT",
        kind::BEGIN_LOAD_QUERY => "BEGIN_LOAD_QUERY_EVENT",
        kind::EXECUTE_LOAD_QUERY => "EXECUTE_LOAD_QUERY_EVENT",
        kind::TABLE_MAP => "TABLE_MAP_EVENT",
        kind::WRITE_ROWS_V1 => "WRITE_ROWS_EVENT_V1",
        kind::UPDATE_ROWS_V1 => "UPDATE_ROWS_EVENT_V1",
        kind::DELETE_ROWS_V1 => "DELETE_ROWS_EVENT_V1",
        kind::INCIDENT => "INCIDENT_EVENT",
        kind::HEARTBEAT => "HEARTBEAT_LOG_EVENT",
        kind::IGNORABLE => "IGNORABLE_LOG_EVENT",
        kind::ROWS_QUERY => "ROWS_QUERY_LOG_EVENT",
        kind::WRITE_ROWS => "WRITE_ROWS_EVENT",
        kind::UPDATE_ROWS => "UPDATE_ROWS_EVENT",
        kind::DELETE_ROWS => "DELETE_ROWS_EVENT",
        kind::GTID => "GTID_LOG_EVENT",
        kind::ANONYMOUS_GTID => "ANONYMOUS_GTID_LOG_EVENT",
        kind::PREVIOUS_GTIDS => "PREVIOUS_GTIDS_LOG_EVENT",
        kind::XA_PREPARE => "XA_PREPARE_LOG_EVENT",
        kind::PARTIAL_UPDATE_ROWS => "PARTIAL_UPDATE_ROWS_EVENT",
        kind::TRANSACTION_PAYLOAD => "TRANSACTION_PAYLOAD_EVENT",
        kind::HEARTBEAT_V2 => "HEARTBEAT_LOG_EVENT_V2",
        kind::GTID_TAGGED => "GTID_TAGGED_LOG_EVENT",
        kind::ANNOTATE_ROWS => "ANNOTATE_ROWS_EVENT",
        kind::BINLOG_CHECKPOINT => "BINLOG_CHECKPOINT_EVENT",
        kind::MARIADB_GTID => "GTID_EVENT",
        kind::GTID_LIST => "GTID_LIST_EVENT",
        kind::START_ENCRYPTION => "START_ENCRYPTION_EVENT",
        kind::QUERY_COMPRESSED => "QUERY_COMPRESSED_EVENT",
        kind::WRITE_ROWS_COMPRESSED_V1 => "WRITE_ROWS_COMPRESSED_EVENT_V1",
        kind::UPDATE_ROWS_COMPRESSED_V1 => "UPDATE_ROWS_COMPRESSED_EVENT_V1",
        kind::DELETE_ROWS_COMPRESSED_V1 => "DELETE_ROWS_COMPRESSED_EVENT_V1",
        kind::WRITE_ROWS_COMPRESSED => "WRITE_ROWS_COMPRESSED_EVENT",
        kind::UPDATE_ROWS_COMPRESSED => "UPDATE_ROWS_COMPRESSED_EVENT",
        kind::DELETE_ROWS_COMPRESSED => "DELETE_ROWS_COMPRESSED_EVENT",
        other => return Cow::Owned(format!("event type {other}")),
    };
    Cow::Borrowed(name)
}

/// The fields of the common header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventHeader {
    /// Seconds since the epoch when the statement began.
    pub(super) timestamp_s: u32,
    pub(super) kind: u8,
    /// Id of the server that wrote the event first.
    pub(super) server_id: u32,
    /// Length of the whole event: header, body and checksum.
    pub(super) size: u32,
    /// Offset behind the event, modulo 2^32; 0 for events made up for the dump.
    pub(super) next_offset_low: u32,
    pub(super) flags: u16,
}

impl EventHeader {
    /// Takes apart the first [`HEADER_LEN`] bytes of an event.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, EndsEarly> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(EndsEarly)?;
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Ok(Self {
            timestamp_s: u32_at(0),
            kind: header[4],
            server_id: u32_at(5),
            size: u32_at(9),
            next_offset_low: u32_at(13),
            flags: u16::from_le_bytes([header[17], header[18]]),
        })
    }

    /// Made up by the server for this dump, and in no file.
    pub(super) fn is_artificial(&self) -> bool {
        self.flags & FLAG_ARTIFICIAL != 0 || self.next_offset_low == 0
    }
}

/// An event whose checksum has been verified and taken off.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) header: EventHeader,
    pub(super) body: Bytes,
    pub(super) checksum: Option<u32>,
}

/// What the FORMAT_DESCRIPTION_EVENT at the head of each file says about the events that follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) checksums: ChecksumAlgorithm,
    /// Length of the fixed part of each event type's body, from type 1 on.
    post_header_lens: Bytes,
    /// As the server that wrote the file calls itself.
    server_version: String,
}

impl Format {
    /// Binlog version, server version, creation time and length of the common header.
    const FIXED_LEN: usize = 2 + Self::SERVER_VERSION_LEN + 4 + 1;
    const SERVER_VERSION_LEN: usize = 50;

    /// Before any file's own description is known: today's layout, and no way to look inside.
    pub(super) fn before_any(checksums: ChecksumAlgorithm) -> Self {
        Self { checksums, post_header_lens: Bytes::new(), server_version: String::new() }
    }

    /// Parses the body with its checksum algorithm as last byte (the checksum itself is off).
    pub(super) fn parse(body: &Bytes) -> Result<Self, String> {
        let mut cursor = Cursor::new(body);
        let version = cursor.u16()?;
        if version != 4 {
            return Err(format!("binlog version {version}; only version 4 (MySQL 5.0 and later) can be read"));
        }
        let server_version = cursor.take(Self::SERVER_VERSION_LEN)?;
        let server_version = String::from_utf8_lossy(&server_version).trim_end_matches('\0').to_owned();
        cursor.skip(Self::FIXED_LEN - 3 - Self::SERVER_VERSION_LEN)?;
        let header_len = cursor.u8()?;
        if usize::from(header_len) != HEADER_LEN {
            return Err(format!("event headers of {header_len} bytes; only {HEADER_LEN} are known"));
        }
        let lens = cursor.len().checked_sub(1).ok_or(EndsEarly)?;
        let post_header_lens = cursor.take(lens)?;
        let checksums = ChecksumAlgorithm::from_code(cursor.u8()?)?;
        Ok(Self { checksums, post_header_lens, server_version })
    }

    /// Which family's server wrote the file.
    pub(super) fn writer(&self) -> Writer {
        match &self.server_version {
            version if version.contains("MariaDB") => Writer::Mariadb,
            version if version.starts_with("5.") => Writer::Mysql57,
            _ => Writer::Mysql,
        }
    }

    /// Whether the server may be one that leaves YEAR columns out where table maps tell of signs.
    pub(super) fn may_omit_years(&self) -> bool {
        !self.server_version.is_empty() && !counts_years(&self.server_version)
    }

    /// Length of the fixed part of a body of this type; `None` if the server did not know the type.
    pub(super) fn post_header_len(&self, kind: u8) -> Option<u8> {
        self.post_header_lens.get(usize::from(kind).checked_sub(1)?).copied()
    }
}

/// Where the log goes on: the body of a ROTATE_EVENT.
pub(super) fn parse_rotate(body: &Bytes) -> Result<(String, u64), String> {
    let mut cursor = Cursor::new(body);
    let offset = cursor.u64()?;
    Ok((file_name(&cursor.rest())?, offset))
}

/// File and offset that a HEARTBEAT_LOG_EVENT_V2 carries as fields of type, length, value.
pub(super) fn parse_heartbeat_v2(body: &Bytes) -> Result<(String, u64), String> {
    let mut cursor = Cursor::new(body);
    let (mut file, mut offset) = (None, None);
    while !cursor.is_empty() {
        match cursor.length_encoded()? {
            0 => break,
            1 => file = Some(file_name(&cursor.length_encoded_bytes()?)?),
            2 => offset = Some(Cursor::new(&cursor.length_encoded_bytes()?).length_encoded()?),
            _ => cursor.length_encoded_bytes().map(drop)?,
        }
    }
    file.zip(offset).ok_or_else(|| "it carries no position".into())
}

/// A binlog file's name in the body of a ROTATE or HEARTBEAT event.
pub(super) fn file_name(bytes: &[u8]) -> Result<String, String> {
    let name = std::str::from_utf8(bytes).map_err(|_| "the binlog's file name is not UTF-8")?;
    Ok(name.trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_lie_where_the_format_says() {
        let bytes = [1, 0, 0, 0, 33, 7, 0, 0, 0, 79, 0, 0, 0, 0xe9, 3, 0, 0, 0x80, 0];
        let header = EventHeader::parse(&bytes).unwrap();
        assert_eq!(
            header,
            EventHeader {
                timestamp_s: 1,
                kind: kind::GTID,
                server_id: 7,
                size: 79,
                next_offset_low: 1001,
                flags: FLAG_IGNORABLE
            }
        );
        assert!(!header.is_artificial());
        assert_eq!(EventHeader::parse(&bytes[..18]), Err(EndsEarly));
    }

    #[test]
    fn heartbeat_v2_carries_offsets_beyond_four_gibibytes() {
        let mut body = vec![1, 13];
        body.extend_from_slice(b"binlog.000042");
        body.extend_from_slice(&[2, 9, 0xfe, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        assert_eq!(parse_heartbeat_v2(&body.into()), Ok(("binlog.000042".into(), 2 << 32)));
        assert!(parse_heartbeat_v2(&Bytes::from_static(&[1, 2, b'a', b'b'])).is_err());
    }

    #[test]
    fn unknown_types_are_named_by_number() {
        assert_eq!(kind_name(99), "event type 99");
    }
}

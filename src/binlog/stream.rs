//! The live binlog: a server sends it as it would to a replica (COM_BINLOG_DUMP_GTID; MariaDB: COM_BINLOG_DUMP behind
//! `@slave_connect_state`; without GTIDs: COM_BINLOG_DUMP from a place in the log).

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use mysql_async::Opts;
use tokio::time::timeout;
use uuid::Uuid;
use weir_model::{GtidSet, LogPosition};
use weir_mysql::wire::{self, Connection, EOF, ERROR, OK, WireError, parse_error};

use super::assemble::{Assembler, Place};
use super::checksum::{ChecksumAlgorithm, open_event};
use super::event::EventHeader;
use super::gtid::encode_gtid_set;
use super::{EventBody, LogError, Source, SourceError, SourceEvent};
use crate::limits::{HEARTBEAT_PERIOD, SOURCE_CONNECT_MAX, SOURCE_SILENCE_MAX};

/// Server errors that pass by themselves: too many connections, shutdown, killed, network trouble, idle timeout.
const PASSING: [u16; 12] = [1040, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1226, 1317, 4031];

impl From<WireError> for SourceError {
    fn from(error: WireError) -> Self {
        let why = error.to_string();
        match error {
            WireError::Io(_) | WireError::Protocol(_) => Self::Retryable { why },
            WireError::Server { code, .. } if PASSING.contains(&code) => Self::Retryable { why },
            WireError::Server { .. } | WireError::Settings(_) | WireError::Tls(_) | WireError::LoginKind(_) => {
                Self::AuthOrConfig { why }
            }
        }
    }
}

/// Reads the binlog of a running server, from the transactions that it lacks on.
///
/// The end of the log is not the end of the stream: [`Source::next`] waits, and the server's heartbeats come as
/// [`EventBody::Position`]. A server that is silent for longer than [`SOURCE_SILENCE_MAX`] is given up.
pub struct LiveSource {
    connection: Connection,
    assembler: Assembler,
    file: Arc<str>,
    /// Behind the last event. Counted in 64 bits, since events carry only the lower 32.
    offset: u64,
    /// A packet that was read while connecting.
    first: Option<Bytes>,
    /// Where the stream of a source without GTIDs was asked to begin, until something has come from there.
    begins: Option<LogPosition>,
}

impl LiveSource {
    /// Asks the server for every transaction that is not in `from`. Returns once the server has begun to send, so a
    /// position that it no longer has is found out here. Of a source without GTIDs some that are in `from` may come, too.
    ///
    /// `server_id` must differ from that of every server and reader of the replication topology; the server ends an
    /// older dump with the same id.
    pub async fn connect(opts: Opts, from: &GtidSet, server_id: u32) -> Result<Self, SourceError> {
        let connecting = async {
            let mut connection = wire::log_in(&opts).await?;
            let is_mariadb = is_mariadb(&mut connection).await?;
            let checksums = prepare(&mut connection, is_mariadb, from, server_id).await?;
            connection.expect_ok(&register_command(server_id)).await.map_err(denied_behind_login)?;
            let begins = from.log_end().map(|(_, place)| place);
            let dump = match &begins {
                Some(place) => plain_dump_command(server_id, place),
                // MariaDB does not look at the place once the session has named a position.
                None if is_mariadb => plain_dump_command(server_id, &LogPosition::default()),
                None => dump_command(server_id, &encode_gtid_set(from).map_err(WireError::Settings)?),
            };
            connection.command(&dump).await?;
            let assembler = Assembler::new(checksums).behind(from);
            let mut source = Self { connection, assembler, file: "".into(), offset: 0, first: None, begins };
            let packet = source.connection.read_packet().await?;
            match packet.first() {
                Some(&OK) => source.first = Some(packet),
                _ => return Err(source.refused(&packet)),
            }
            Ok(source)
        };
        timeout(SOURCE_CONNECT_MAX, connecting).await.unwrap_or_else(|_| {
            let (host, port, wait_s) = (opts.ip_or_hostname(), opts.tcp_port(), SOURCE_CONNECT_MAX.as_secs());
            Err(SourceError::Retryable {
                why: format!("{host}:{port} did not begin to send the binlog within {wait_s} s"),
            })
        })
    }

    async fn read_packet(&mut self) -> Result<Bytes, SourceError> {
        if let Some(packet) = self.first.take() {
            return Ok(packet);
        }
        // No timer while packets stand ready.
        if let Some(packet) = self.connection.buffered_packet()? {
            return Ok(packet);
        }
        match timeout(SOURCE_SILENCE_MAX, self.connection.read_packet()).await {
            Ok(packet) => Ok(packet?),
            Err(_) => {
                let silence_s = SOURCE_SILENCE_MAX.as_secs();
                Err(SourceError::Retryable {
                    why: format!("the server sent nothing, not even a heartbeat, for {silence_s} s"),
                })
            }
        }
    }

    fn take_packet(&mut self, packet: &Bytes) -> Result<(), SourceError> {
        if packet.first() != Some(&OK) {
            return Err(self.refused(packet));
        }
        let is_artificial = self.take_event(packet.slice(1..)).map_err(|error| match &self.begins {
            Some(place) => LogError { why: format!("{}; {}", error.why, not_at(place)), ..error },
            None => error,
        })?;
        if !is_artificial {
            self.begins = None;
        }
        Ok(())
    }

    /// Whether the event was made up, and stands in no file.
    fn take_event(&mut self, bytes: Bytes) -> Result<bool, LogError> {
        let header = EventHeader::parse(&bytes).map_err(|why| self.place(self.offset, self.offset).error(0, why))?;
        let place = self.place_of(&header);
        let event = open_event(bytes, self.assembler.checksums()).map_err(|why| place.error(header.kind, why))?;
        self.assembler.feed(&event, &place)?;
        self.offset = place.end;
        Ok(header.is_artificial())
    }

    /// Made-up events take no room in the log.
    fn place_of(&self, header: &EventHeader) -> Place {
        if header.is_artificial() {
            return self.place(self.offset, self.offset);
        }
        let end = unwrapped_offset(self.offset, header.next_offset_low);
        self.place(end.saturating_sub(u64::from(header.size)), end)
    }

    fn place(&self, start: u64, end: u64) -> Place {
        Place { file: Arc::clone(&self.file), start, end }
    }

    /// A packet that is no event: what it means for the caller.
    fn refused(&self, packet: &Bytes) -> SourceError {
        match packet.first() {
            Some(&ERROR) => self.server_error(parse_error(packet)),
            Some(&EOF) if packet.len() < 9 => SourceError::Retryable {
                why: "the server ended the stream (it is shutting down or killed the dump)".into(),
            },
            _ => WireError::protocol("the server sent a packet that is no event").into(),
        }
    }

    /// Error 1236 stands for everything that can go wrong with a dump; only its words tell what it was.
    fn server_error(&self, error: WireError) -> SourceError {
        const DUMP_FAILED: u16 = 1236;

        let WireError::Server { code: DUMP_FAILED, message, .. } = error else {
            return error.into();
        };
        if message.contains("purged") || message.contains("Could not find first log file") {
            return SourceError::Purged { message };
        }
        if message.contains("AUTO_POSITION") {
            return SourceError::AuthOrConfig {
                why: format!(
                    "the source does not name its transactions by GTIDs any more, by which it was followed: {SWITCHED} The server \
                     says: {message}"
                ),
            };
        }
        if message.contains("not in the master's binlog") {
            return SourceError::AuthOrConfig {
                why: format!(
                    "the source does not have the transaction that the tables hold last: it was reset, or another server went \
                     on in its domain. Point [source] url at the right one, or seed anew with `weir snapshot`. The server says: \
                     {message}"
                ),
            };
        }
        if message.contains("same server_uuid/server_id") {
            return SourceError::AuthOrConfig {
                why: format!(
                    "another reader with the same server id took the binlog stream over; give this service a [source] \
                     server_id of its own, or stop the other one. The server says: {message}"
                ),
            };
        }
        if message.contains("more GTIDs than") {
            return SourceError::AuthOrConfig {
                why: format!(
                    "the source lacks transactions that the tables hold: it was restored, reset, or failed over to a replica \
                     that was behind. Seed the tables anew. The server says: {message}"
                ),
            };
        }
        if message.contains("could not find next log") {
            // The log was reset under the reader; what that means is told by where it is by now.
            return SourceError::Retryable { why: format!("the server says: {message}") };
        }
        if let Some(place) = &self.begins {
            return SourceError::AuthOrConfig { why: format!("{}. The server says: {message}", not_at(place)) };
        }
        let mut place = self.place(self.offset, self.offset).error(0, format!("the server says: {message}"));
        place.event = "binlog dump".into();
        place.into()
    }
}

impl Source for LiveSource {
    async fn next(&mut self) -> Result<Option<SourceEvent>, SourceError> {
        loop {
            if let Some(event) = self.assembler.next()? {
                if let EventBody::Position = event.body {
                    if *self.file != *event.end.file {
                        self.file = event.end.file.as_str().into();
                    }
                    self.offset = event.end.offset;
                }
                return Ok(Some(event));
            }
            let packet = self.read_packet().await?;
            self.take_packet(&packet)?;
        }
    }
}

/// An id for a reader that was given none: in the upper half, which people rarely use, and hardly ever twice the same.
pub fn random_server_id() -> u32 {
    Uuid::new_v4().as_u128() as u32 | 1 << 31
}

/// A way out for a source whose gtid_mode is another one by now.
const SWITCHED: &str = "set gtid_mode as it was, or seed the tables anew with `weir snapshot`.";

/// Why a source without GTIDs cannot go on at `place`.
fn not_at(place: &LogPosition) -> String {
    format!(
        "at {place}, where the tables have come to, the source's binlog cannot be read on: it was reset or restored, so its history is \
         another one. Seed the tables anew with `weir snapshot`"
    )
}

async fn is_mariadb(connection: &mut Connection) -> Result<bool, WireError> {
    let version = connection.query_row("SELECT VERSION()").await?;
    Ok(version.iter().any(|version| version.contains("MariaDB")))
}

/// Tells the server how the session wants its events. Old names are set beside today's; the server ignores the rest. MariaDB is
/// told the position here, too.
async fn prepare(
    connection: &mut Connection,
    is_mariadb: bool,
    from: &GtidSet,
    server_id: u32,
) -> Result<ChecksumAlgorithm, WireError> {
    let named = if is_mariadb { "'ON', ''" } else { "@@global.gtid_mode, @@global.server_uuid" };
    let row = connection.query_row(&format!("SELECT {named}, @@global.binlog_checksum")).await?;
    let [gtid_mode, server_uuid, checksum] = &row[..] else {
        return Err(WireError::protocol("the server does not know its own gtid_mode"));
    };
    if (gtid_mode == "ON") == from.is_of_log() {
        return Err(WireError::Settings(format!(
            "the source runs with gtid_mode={gtid_mode}, and `{from}` is no position of such a server: {SWITCHED}"
        )));
    }
    // Asked on the very connection that is read: a proxy may lead each to another server.
    if let Some((log, _)) = from.log_end().filter(|(log, _)| !log.server.eq_ignore_ascii_case(server_uuid)) {
        return Err(WireError::Settings(format!(
            "the source is server {server_uuid} by now, and without GTIDs the position is one of server {} alone. Point [source] url at \
             that one itself, or seed the tables anew with `weir snapshot`",
            log.server
        )));
    }
    if !from.is_empty() && !from.is_of_log() && from.is_of_domains() != is_mariadb {
        return Err(WireError::Settings(format!(
            "the source is {}, and `{from}` is no position of such a server",
            if is_mariadb { "MariaDB" } else { "MySQL" }
        )));
    }
    let checksums = match checksum.as_str() {
        "CRC32" => ChecksumAlgorithm::Crc32,
        "NONE" => ChecksumAlgorithm::None,
        other => return Err(WireError::Settings(format!("binlog_checksum={other} is not known"))),
    };
    let heartbeat_ns = HEARTBEAT_PERIOD.as_nanos();
    // The same for the same id, so that a server which still serves our broken connection ends that one.
    let uuid = Uuid::from_u128(0x7765_6972_0000_4000_8000_0000_0000_0000 | u128::from(server_id));
    connection
        .execute(&format!(
            "SET @source_heartbeat_period = {heartbeat_ns}, @master_heartbeat_period = {heartbeat_ns}, \
             @source_binlog_checksum = '{checksum}', @master_binlog_checksum = '{checksum}', \
             @replica_uuid = '{uuid}', @slave_uuid = '{uuid}'"
        ))
        .await?;
    if is_mariadb {
        // Who says 4 knows GTIDs, and BEGIN in them. Strict: a position that the log does not have is an error.
        connection
            .execute(&format!(
                "SET @mariadb_slave_capability = 4, @slave_connect_state = '{from}', @slave_gtid_strict_mode = 1, \
                 @slave_gtid_ignore_duplicates = 0"
            ))
            .await?;
    }
    Ok(checksums)
}

/// Who has logged in and is denied still lacks a privilege; the server's words don't say which.
fn denied_behind_login(error: WireError) -> WireError {
    match error {
        WireError::Server { code: 1045 | 1227, message, .. } => WireError::Settings(format!(
            "the source's user may not read the binlog; GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* to it. The \
             server says: {message}"
        )),
        other => other,
    }
}

/// COM_REGISTER_SLAVE, so that we show up in SHOW REPLICAS. Host, user, password, port, rank and source id stay empty.
fn register_command(server_id: u32) -> Vec<u8> {
    const COM_REGISTER_SLAVE: u8 = 0x15;
    let mut bytes = vec![COM_REGISTER_SLAVE];
    bytes.put_u32_le(server_id);
    bytes.put_bytes(0, 3 + 2 + 4 + 4);
    bytes
}

/// COM_BINLOG_DUMP_GTID from the first file on; the server skips what `set` holds.
fn dump_command(server_id: u32, set: &[u8]) -> Vec<u8> {
    const COM_BINLOG_DUMP_GTID: u8 = 0x1e;
    const HEARTBEAT_V2: u16 = 0x2;
    const THROUGH_GTID: u16 = 0x4;

    let mut bytes = vec![COM_BINLOG_DUMP_GTID];
    bytes.put_u16_le(HEARTBEAT_V2 | THROUGH_GTID);
    bytes.put_u32_le(server_id);
    bytes.put_u32_le(0); // length of the file name
    bytes.put_u64_le(LogPosition::FIRST_OFFSET);
    bytes.put_u32_le(set.len() as u32);
    bytes.put_slice(set);
    bytes
}

/// COM_BINLOG_DUMP from `place` on. It has 32 bits for an offset; beyond them the file is read from its beginning, and the caller
/// passes over what it has.
fn plain_dump_command(server_id: u32, place: &LogPosition) -> Vec<u8> {
    const COM_BINLOG_DUMP: u8 = 0x12;
    const FIRST_OFFSET: u32 = LogPosition::FIRST_OFFSET as u32;

    let mut bytes = vec![COM_BINLOG_DUMP];
    bytes.put_u32_le(u32::try_from(place.offset).unwrap_or(FIRST_OFFSET).max(FIRST_OFFSET));
    bytes.put_u16_le(0); // flags
    bytes.put_u32_le(server_id);
    bytes.put_slice(place.file.as_bytes());
    bytes
}

/// The 64-bit offset at or behind `from` whose lower half is `low`.
fn unwrapped_offset(from: u64, low: u32) -> u64 {
    let candidate = (from >> 32 << 32) | u64::from(low);
    if candidate < from { candidate + (1 << 32) } else { candidate }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_errors_are_sorted_by_what_to_do() {
        let error = |code: u16| {
            let packet = [&[ERROR][..], &code.to_le_bytes(), b"#08S01words"].concat();
            SourceError::from(parse_error(&packet))
        };
        assert!(matches!(error(1053), SourceError::Retryable { why } if why.contains("words (error 1053)")));
        assert!(matches!(error(1045), SourceError::AuthOrConfig { .. }));
    }

    #[test]
    fn offsets_go_on_beyond_four_gibibytes() {
        assert_eq!(unwrapped_offset(4, 200), 200);
        assert_eq!(unwrapped_offset(200, 200), 200);
        assert_eq!(unwrapped_offset(0xffff_ff00, 0x10), 0x1_0000_0010);
        assert_eq!(unwrapped_offset(0x3_ffff_ff00, 0x10), 0x4_0000_0010);
    }

    #[test]
    fn server_ids_lie_in_the_upper_half() {
        for _ in 0..100 {
            assert!(random_server_id() >= 1 << 31);
        }
    }

    #[test]
    fn a_dump_from_a_place_beyond_32_bits_begins_with_its_file() {
        let place = |offset| LogPosition { file: "binlog.000007".into(), offset };
        let bytes = plain_dump_command(7, &place(0x1234));
        assert_eq!(bytes, [&[0x12, 0x34, 0x12, 0, 0, 0, 0, 7, 0, 0, 0][..], b"binlog.000007"].concat());
        assert_eq!(plain_dump_command(7, &place(1 << 32))[1..5], [4, 0, 0, 0]);
        assert_eq!(plain_dump_command(7, &LogPosition::default()).len(), 11);
    }

    #[test]
    fn the_dump_command_is_laid_out_as_the_protocol_says() {
        let bytes = dump_command(7, &[9; 8]);
        assert_eq!(bytes[..7], [0x1e, 6, 0, 7, 0, 0, 0]);
        assert_eq!(bytes[7..11], [0; 4]);
        assert_eq!(bytes[11..19], 4_u64.to_le_bytes());
        assert_eq!(bytes[19..23], [8, 0, 0, 0]);
        assert_eq!(bytes.len(), 23 + 8);
    }
}

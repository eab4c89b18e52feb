//! Raw events become [`SourceEvent`]s: the state machine of groups, table maps and compressed transactions.
//!
//! A group is a GTID event and what it names: either one statement, or BEGIN, changes, and an end. MariaDB's GTID event stands
//! for BEGIN, too. What does not fit this grammar is an error, since guessing here would lose or double rows.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use weir_model::position::LogName;
use weir_model::{Gtid, GtidSet, LogPosition, Xid};

use super::checksum::ChecksumAlgorithm;
use super::cursor::Cursor;
use super::event::{Event, FLAG_IGNORABLE, Format, file_name, kind, kind_name, parse_heartbeat_v2, parse_rotate};
use super::gtid::{parse_anonymous, parse_gtid, parse_tagged_gtid};
use super::mariadb;
use super::payload::Payload;
use super::query::{Control, Query, control, xid_of};
use super::rows_event::RowsEvent;
use super::table_map::TableMap;
use super::{EventBody, LogError, RowsImage, SourceEvent, TransactionHead};

/// Where an event stands in the log.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) file: Arc<str>,
    pub(super) start: u64,
    /// Offset behind the event.
    pub(super) end: u64,
}

impl Place {
    fn end_position(&self) -> LogPosition {
        LogPosition { file: self.file.to_string(), offset: self.end }
    }

    fn start_position(&self) -> LogPosition {
        LogPosition { file: self.file.to_string(), offset: self.start }
    }

    /// An error about the event that stands here.
    pub(super) fn error(&self, kind: u8, why: impl Into<String>) -> LogError {
        LogError { at: self.start_position(), event: kind_name(kind).into_owned(), why: why.into() }
    }
}

/// How far the current group has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// Between groups.
    None,
    /// The GTID has been read; what it names comes next.
    Named,
    /// Behind BEGIN, or XA START if it is of a branch.
    Open { rows: bool, branch: bool },
}

/// Feed it events in log order; after each, take what it has ready until there is nothing.
pub(super) struct Assembler {
    format: Format,
    group: Group,
    maps: TableMaps,
    payload: Option<(Payload, Place)>,
    ready: VecDeque<SourceEvent>,
    /// What has come, and what the server was told that we have: nothing of it may come again.
    known: GtidSet,
    /// The log is that of a server which sends only what we lack. Files hold what they hold.
    sends_the_rest: bool,
    /// The log whose transactions have no GTIDs, and are named by the places where they begin.
    log: Option<LogName>,
}

impl Assembler {
    pub(super) fn new(checksums: ChecksumAlgorithm) -> Self {
        Self {
            format: Format::before_any(checksums),
            group: Group::None,
            maps: TableMaps::default(),
            payload: None,
            ready: VecDeque::new(),
            known: GtidSet::default(),
            sends_the_rest: false,
            log: None,
        }
    }

    /// Nothing of `position` comes any more; transactions have no GTIDs if it has none.
    pub(super) fn behind(mut self, position: &GtidSet) -> Self {
        self.known = position.clone();
        self.sends_the_rest = true;
        self.of_log(position)
    }

    /// Transactions have no GTIDs if `position` has none.
    pub(super) fn of_log(mut self, position: &GtidSet) -> Self {
        self.log = position.log_end().map(|(log, _)| log.clone());
        self
    }

    /// The algorithm that the next event is protected with.
    pub(super) fn checksums(&self) -> ChecksumAlgorithm {
        self.format.checksums
    }

    /// Whether a group has begun and not ended.
    pub(super) fn in_group(&self) -> bool {
        self.group != Group::None
    }

    /// Takes one event. Everything made of the one before must have been taken by [`Self::next`].
    pub(super) fn feed(&mut self, event: &Event, place: &Place) -> Result<(), LogError> {
        self.take_event(event, place).map_err(|why| place.error(event.header.kind, why))
    }

    /// What is ready, in order; `None` when another event must be fed.
    pub(super) fn next(&mut self) -> Result<Option<SourceEvent>, LogError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some((mut payload, place)) = self.payload.take() else {
                return Ok(None);
            };
            match self.take_inner(&mut payload, &place) {
                Ok(true) => self.payload = Some((payload, place)),
                Ok(false) => {}
                Err(why) => {
                    let why = format!("at its inner event {}: {why}", payload.events());
                    return Err(place.error(kind::TRANSACTION_PAYLOAD, why));
                }
            }
        }
    }

    fn take_event(&mut self, event: &Event, place: &Place) -> Result<(), String> {
        match event.header.kind {
            kind::FORMAT_DESCRIPTION => {
                self.expect_no_group()?;
                self.format = Format::parse(&event.body)?;
                self.maps.forget();
                self.position(place);
            }
            kind::ROTATE => {
                self.expect_no_group()?;
                if !event.header.is_artificial() {
                    self.maps.forget();
                }
                let (file, offset) = parse_rotate(&event.body)?;
                self.ready.push_back(SourceEvent { end: LogPosition { file, offset }, body: EventBody::Position });
            }
            kind::HEARTBEAT => {
                self.heartbeat(file_name(&event.body)?, place.end);
            }
            kind::HEARTBEAT_V2 => {
                let (file, offset) = parse_heartbeat_v2(&event.body)?;
                self.heartbeat(file, offset);
            }
            kind::PREVIOUS_GTIDS => {
                self.expect_no_group()?;
                self.position(place);
            }
            kind::STOP => {
                self.expect_no_group()?;
                match place.end_position().next_file().filter(|_| self.log.is_some()) {
                    // Nothing stands behind it in its file, and without GTIDs the position alone tells that nothing is missing.
                    Some(end) => self.ready.push_back(SourceEvent { end, body: EventBody::Position }),
                    None => self.position(place),
                }
            }
            kind::GTID | kind::GTID_TAGGED if self.log.is_some() => return Err(GTID_AMONG_PLACES.into()),
            kind::GTID => {
                self.expect_no_group()?;
                self.begin_new(parse_gtid(event)?, place)?;
            }
            kind::GTID_TAGGED => {
                self.expect_no_group()?;
                self.begin_new(parse_tagged_gtid(event)?, place)?;
            }
            kind::ANONYMOUS_GTID => {
                self.expect_no_group()?;
                let log = self.log.as_ref().ok_or(NO_GTID_AMONG_GTIDS)?;
                let gtid = Gtid::of_log(log, &place.start_position()).map_err(|error| error.to_string())?;
                self.begin(EventBody::Begin(parse_anonymous(event, gtid)?), place);
            }
            kind::MARIADB_GTID => {
                self.expect_no_group()?;
                let group = mariadb::parse_gtid(event)?;
                self.expect_rising(&group)?;
                self.begin(EventBody::Begin(group.head), place);
                if !group.is_standalone {
                    self.group = Group::Open { rows: false, branch: false };
                }
            }
            kind::GTID_LIST | kind::BINLOG_CHECKPOINT => {
                if !self.in_group() {
                    self.position(place);
                }
            }
            kind::TRANSACTION_PAYLOAD => {
                if self.group != Group::Named {
                    return Err("it does not follow a GTID".into());
                }
                self.payload = Some((Payload::open(&event.body)?, place.clone()));
            }
            _ => self.take_group_event(event, place)?,
        }
        Ok(())
    }

    /// One event from inside a payload; whether there may be more.
    ///
    /// The end of the transaction is handed out only after the payload proves whole, since a caller acts on it.
    fn take_inner(&mut self, payload: &mut Payload, place: &Place) -> Result<bool, String> {
        let Some(event) = payload.next()? else {
            return Err("the compressed transaction ends without XID or COMMIT".into());
        };
        self.take_group_event(&event, place).map_err(|why| format!("{}: {why}", kind_name(event.header.kind)))?;
        if self.in_group() {
            return Ok(true);
        }
        if payload.is_finished()? {
            return Ok(false);
        }
        Err("events follow the end of the compressed transaction".into())
    }

    /// Events that make up a group, wherever they were packed.
    fn take_group_event(&mut self, event: &Event, place: &Place) -> Result<(), String> {
        match event.header.kind {
            kind::QUERY => self.take_query(Query::parse(&event.body)?, place),
            kind::QUERY_COMPRESSED => self.take_query(Query::parse_compressed(&event.body)?, place),
            kind::XID => {
                self.expect_open()?;
                self.commit(place);
                Ok(())
            }
            kind::TABLE_MAP => {
                self.expect_open()?;
                self.maps.insert(&event.body, &self.format)
            }
            kind::WRITE_ROWS
            | kind::UPDATE_ROWS
            | kind::PARTIAL_UPDATE_ROWS
            | kind::DELETE_ROWS
            | kind::WRITE_ROWS_V1
            | kind::UPDATE_ROWS_V1
            | kind::DELETE_ROWS_V1
            | kind::WRITE_ROWS_COMPRESSED
            | kind::UPDATE_ROWS_COMPRESSED
            | kind::DELETE_ROWS_COMPRESSED
            | kind::WRITE_ROWS_COMPRESSED_V1
            | kind::UPDATE_ROWS_COMPRESSED_V1
            | kind::DELETE_ROWS_COMPRESSED_V1 => self.take_rows(event, place),
            kind::ROWS_QUERY | kind::ANNOTATE_ROWS | kind::IGNORABLE => Ok(()),
            kind::XA_PREPARE => self.take_xa_prepare(event, place),
            other if event.header.flags & FLAG_IGNORABLE != 0 && refusal(other, &event.body).is_none() => Ok(()),
            other => Err(refusal(other, &event.body).unwrap_or_else(|| {
                "this type of event is not known, and its flags do not say that it may be skipped. A newer weir may know it"
                    .into()
            })),
        }
    }

    fn take_query(&mut self, query: Query, place: &Place) -> Result<(), String> {
        match (control(&query.sql), self.group) {
            (_, Group::None) => return Err("it stands outside a transaction".into()),
            (Control::Begin, Group::Named) => self.group = Group::Open { rows: false, branch: false },
            (Control::XaStart, Group::Named) => {
                self.group = Group::Open { rows: false, branch: true };
                self.push(place, EventBody::XaStart);
            }
            (outcome @ (Control::XaCommit | Control::XaRollback), Group::Named) => {
                let commits = outcome == Control::XaCommit;
                self.push(place, EventBody::XaSettled { xid: xid_of(&query.sql)?, commits });
                self.commit(place);
            }
            (Control::None, Group::Named) => {
                self.push(place, EventBody::Statement { database: query.database, sql: query.sql });
                self.commit(place);
            }
            (Control::XaOther | Control::XaCommit, _) => {
                return Err("an XA statement where the server writes none; a newer weir may know it".into());
            }
            (_, Group::Named) => return Err("transaction control where a transaction should begin".into()),
            (Control::None, Group::Open { .. }) => {
                self.push(place, EventBody::Statement { database: query.database, sql: query.sql });
            }
            (Control::Commit, Group::Open { branch: false, .. })
            | (Control::Rollback | Control::XaRollback, Group::Open { rows: false, .. }) => self.commit(place),
            (Control::Commit, Group::Open { branch: true, .. }) => {
                return Err("COMMIT inside an XA transaction, which ends otherwise".into());
            }
            (Control::Savepoint | Control::XaEnd, Group::Open { .. })
            | (Control::RollbackToSavepoint, Group::Open { rows: false, .. }) => {}
            (
                Control::Rollback | Control::RollbackToSavepoint | Control::XaRollback,
                Group::Open { rows: true, .. },
            ) => {
                return Err(
                    "the transaction was rolled back although rows of it are logged: it changed a table whose engine \
                            knows no transactions. What that table holds can't be told from the log. Move it to InnoDB \
                            (ALTER TABLE … ENGINE=InnoDB) and seed it anew"
                        .into(),
                );
            }
            (Control::Begin | Control::XaStart, Group::Open { .. }) => {
                return Err("a transaction begins inside another".into());
            }
        }
        Ok(())
    }

    fn take_rows(&mut self, event: &Event, place: &Place) -> Result<(), String> {
        self.expect_open()?;
        let rows = RowsEvent::parse(event, &self.format)?;
        if rows.is_dummy() {
            self.maps.end_statement();
            return Ok(());
        }
        let (map, described) = self.maps.get(rows.table_id)?;
        if map.columns.len() != rows.column_count {
            let (has, said) = (rows.column_count, map.columns.len());
            return Err(format!("rows of {has} columns for {}, whose TABLE_MAP_EVENT has {said}", map.id()));
        }
        if rows.ends_statement {
            self.maps.end_statement();
        }
        if let Group::Open { rows, .. } = &mut self.group {
            *rows = true;
        }
        let RowsEvent { kind, present, present_after, has_differences, rows, .. } = rows;
        let image = RowsImage { map, kind, present, present_after, has_differences, rows, described };
        self.push(place, EventBody::Rows(image));
        Ok(())
    }

    /// XA COMMIT … ONE PHASE ends in this event too; only the first of two phases leaves the outcome open.
    fn take_xa_prepare(&mut self, event: &Event, place: &Place) -> Result<(), String> {
        if !matches!(self.group, Group::Open { branch: true, .. }) {
            return Err("it stands outside an XA transaction".into());
        }
        let (one_phase, xid) = parse_xa_prepare(&event.body)?;
        if one_phase {
            self.commit(place);
        } else {
            self.end_group(place, EventBody::XaPrepared { xid });
        }
        Ok(())
    }

    fn begin(&mut self, head: EventBody, place: &Place) {
        self.group = Group::Named;
        self.push(place, head);
    }

    fn commit(&mut self, place: &Place) {
        self.end_group(place, EventBody::Commit);
    }

    fn end_group(&mut self, place: &Place, end: EventBody) {
        self.group = Group::None;
        self.maps.end_statement();
        self.push(place, end);
    }

    /// A position that stands in a file; made-up events have none of their own.
    fn position(&mut self, place: &Place) {
        if place.end > place.start {
            self.push(place, EventBody::Position);
        }
    }

    /// Only between groups: inside one, the position is not a place to go on from.
    fn heartbeat(&mut self, file: String, offset: u64) {
        if !self.in_group() {
            self.ready.push_back(SourceEvent { end: LogPosition { file, offset }, body: EventBody::Position });
        }
    }

    fn push(&mut self, place: &Place, body: EventBody) {
        self.ready.push_back(SourceEvent { end: place.end_position(), body });
    }

    fn expect_no_group(&self) -> Result<(), String> {
        if self.in_group() {
            return Err(
                "the transaction before it has no end: the binlog is damaged, or a file is missing or was copied \
                        while the server wrote to it"
                    .into(),
            );
        }
        Ok(())
    }

    /// A position of MariaDB is the last number of each domain, so one that comes behind a greater one would be taken for known.
    fn expect_rising(&mut self, group: &mariadb::GroupHead) -> Result<(), String> {
        let gtid = &group.head.gtid;
        if let Some(last) = self.known.last_of_domain(gtid).filter(|last| last.gno >= gtid.gno) {
            return Err(format!(
                "transaction {gtid} comes behind {last}: the numbers of a domain must rise. SET GLOBAL gtid_strict_mode = ON \
                 on every server that writes, give servers that write at the same time domains of their own, and seed the \
                 tables anew"
            ));
        }
        self.known.insert(gtid);
        Ok(())
    }

    /// A transaction of MySQL begins, which must be one that has not come: a server that was reset counts from 1 again, and its
    /// transactions would be taken for the former ones.
    fn begin_new(&mut self, head: TransactionHead, place: &Place) -> Result<(), String> {
        let gtid = &head.gtid;
        if self.sends_the_rest {
            if self.known.contains(gtid) {
                return Err(format!(
                    "transaction {gtid} comes again although the server was told that it is known: the server was reset (RESET BINARY \
                     LOGS AND GTIDS, RESET MASTER) or restored meanwhile, so its history is another one. `weir snapshot` seeds every table anew"
                ));
            }
            self.known.insert(gtid);
        }
        self.begin(EventBody::Begin(head), place);
        Ok(())
    }

    fn expect_open(&self) -> Result<(), String> {
        match self.group {
            Group::Open { .. } => Ok(()),
            _ => Err("it stands outside a transaction".into()),
        }
    }
}

/// Whether the branch commits at once, and its name: one-phase flag, format, the lengths of both parts, the parts
/// (`XA_prepare_event` in libs/mysql/binlog/event/control_events.h).
fn parse_xa_prepare(body: &Bytes) -> Result<(bool, Xid), String> {
    let mut cursor = Cursor::new(body);
    let one_phase = cursor.u8()? != 0;
    let format = cursor.u32()?;
    let part = |len: u32| usize::try_from(len).map_err(|_| "an XA name of impossible length");
    let (gtrid, bqual) = (part(cursor.u32()?)?, part(cursor.u32()?)?);
    let (gtrid, bqual) = (cursor.take(gtrid)?.to_vec(), cursor.take(bqual)?.to_vec());
    Ok((one_phase, Xid { format, gtrid, bqual }))
}

const NO_GTID_AMONG_GTIDS: &str = "a transaction without a GTID, in a log that is followed by GTIDs: gtid_mode was switched off, or \
    not on everywhere. Set gtid_mode = ON again, or end the switch with gtid_mode = OFF, by which the source is followed by file and \
    position; then seed the tables anew with `weir snapshot`";
const GTID_AMONG_PLACES: &str = "a transaction with a GTID, in a log that is followed by file and position: gtid_mode is being \
    switched on, or the source is a replica of a server that has GTIDs. End the switch with gtid_mode = ON, then seed the tables anew \
    with `weir snapshot`";

/// Why an event that is known cannot be taken.
fn refusal(kind: u8, body: &Bytes) -> Option<String> {
    let why = match kind {
        kind::INCIDENT => {
            let message = body.get(3..).map(String::from_utf8_lossy).unwrap_or_default();
            return Some(format!(
                "the server says that events may be missing from its log ({message}). Seed the tables anew from here"
            ));
        }
        kind::INTVAR
        | kind::RAND
        | kind::USER_VAR
        | kind::APPEND_BLOCK
        | kind::DELETE_FILE
        | kind::BEGIN_LOAD_QUERY
        | kind::EXECUTE_LOAD_QUERY => {
            "a change was logged as a statement, whose rows can't be known. Set binlog_format=ROW (and in open sessions \
             too), then seed the tables anew"
        }
        kind::START_ENCRYPTION => {
            "the binlog is encrypted, which is not supported: set encrypt_binlog=OFF on the source, and FLUSH BINARY LOGS"
        }
        kind::FORMAT_DESCRIPTION
        | kind::ROTATE
        | kind::STOP
        | kind::PREVIOUS_GTIDS
        | kind::HEARTBEAT
        | kind::HEARTBEAT_V2
        | kind::GTID
        | kind::GTID_TAGGED
        | kind::ANONYMOUS_GTID
        | kind::MARIADB_GTID
        | kind::TRANSACTION_PAYLOAD => "it may not stand inside a compressed transaction",
        _ => return None,
    };
    Some(why.into())
}

/// The tables that the statement at hand has described.
///
/// A description is kept beyond its statement, but only to be recognised when it comes again unchanged: rows may refer
/// to descriptions of their own statement alone.
#[derive(Default)]
struct TableMaps {
    known: HashMap<u64, KnownMap>,
    statement: u64,
}

struct KnownMap {
    body: Bytes,
    map: Arc<TableMap>,
    statement: u64,
}

impl TableMaps {
    /// Ids grow with every reopened table, so old ones are let go at this many.
    const KNOWN_MAX: usize = 4096;

    fn insert(&mut self, body: &Bytes, format: &Format) -> Result<(), String> {
        let id = super::rows_event::parse_table_id(&mut Cursor::new(body), kind::TABLE_MAP, format)?;
        if let Some(known) = self.known.get_mut(&id)
            && known.body == *body
        {
            known.statement = self.statement;
            return Ok(());
        }
        let map = TableMap::parse_of(format.writer(), body).map_err(|error| error.to_string())?;
        let map = Arc::new(if format.may_omit_years() { map.with_doubtful_years() } else { map });
        if self.known.len() >= Self::KNOWN_MAX {
            self.known.retain(|_, known| known.statement == self.statement);
        }
        self.known.insert(id, KnownMap { body: Bytes::copy_from_slice(body), map, statement: self.statement });
        Ok(())
    }

    /// The table, and the body that describes it.
    fn get(&self, id: u64) -> Result<(Arc<TableMap>, Bytes), String> {
        match self.known.get(&id) {
            Some(known) if known.statement == self.statement => Ok((Arc::clone(&known.map), known.body.clone())),
            _ => Err(format!("rows of table id {id}, which no TABLE_MAP_EVENT of its statement describes")),
        }
    }

    fn end_statement(&mut self) {
        self.statement += 1;
    }

    /// Ids mean something else behind a restart of the server.
    fn forget(&mut self) {
        self.known.clear();
    }
}

#[cfg(test)]
mod tests;

//! The envelope of WRITE, UPDATE, PARTIAL_UPDATE and DELETE_ROWS events: which table, which columns, and where the row images lie.

use bytes::Bytes;

use super::RowsKind;
use super::cursor::{Cursor, EndsEarly};
use super::event::{Event, Format, kind};
use super::mariadb;

/// A row event without its table's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowsEvent {
    pub(super) table_id: u64,
    pub(super) kind: RowsKind,
    /// The statement's last row event: the table maps sent for it are no longer valid.
    pub(super) ends_statement: bool,
    pub(super) column_count: usize,
    pub(super) present: Bytes,
    pub(super) present_after: Bytes,
    /// After images begin with what says which documents are logged as differences.
    pub(super) has_differences: bool,
    pub(super) rows: Bytes,
}

impl RowsEvent {
    /// Table id of an event that only says "the statement ends here".
    const NO_TABLE: u64 = 0xff_ffff;
    const FLAG_STATEMENT_END: u16 = 0x1;

    pub(super) fn parse(event: &Event, format: &Format) -> Result<Self, String> {
        let (kind, has_extra_data, is_compressed) = match event.header.kind {
            kind::WRITE_ROWS => (RowsKind::Insert, true, false),
            kind::UPDATE_ROWS | kind::PARTIAL_UPDATE_ROWS => (RowsKind::Update, true, false),
            kind::DELETE_ROWS => (RowsKind::Delete, true, false),
            kind::WRITE_ROWS_V1 => (RowsKind::Insert, false, false),
            kind::UPDATE_ROWS_V1 => (RowsKind::Update, false, false),
            kind::DELETE_ROWS_V1 => (RowsKind::Delete, false, false),
            kind::WRITE_ROWS_COMPRESSED => (RowsKind::Insert, true, true),
            kind::UPDATE_ROWS_COMPRESSED => (RowsKind::Update, true, true),
            kind::DELETE_ROWS_COMPRESSED => (RowsKind::Delete, true, true),
            kind::WRITE_ROWS_COMPRESSED_V1 => (RowsKind::Insert, false, true),
            kind::UPDATE_ROWS_COMPRESSED_V1 => (RowsKind::Update, false, true),
            kind::DELETE_ROWS_COMPRESSED_V1 => (RowsKind::Delete, false, true),
            _ => return Err("it is no row event".into()),
        };
        let mut cursor = Cursor::new(&event.body);
        let table_id = parse_table_id(&mut cursor, event.header.kind, format)?;
        let flags = cursor.u16()?;
        if has_extra_data {
            let len = usize::from(cursor.u16()?);
            cursor.skip(len.checked_sub(2).ok_or(EndsEarly)?)?;
        }
        let column_count = usize::try_from(cursor.length_encoded()?).map_err(|_| EndsEarly)?;
        let present = cursor.take(column_count.div_ceil(8))?;
        let present_after =
            if kind == RowsKind::Update { cursor.take(column_count.div_ceil(8))? } else { Bytes::new() };
        let ends_statement = flags & Self::FLAG_STATEMENT_END != 0;
        let has_differences = event.header.kind == kind::PARTIAL_UPDATE_ROWS;
        let rows = if is_compressed { mariadb::uncompressed(&cursor.rest())? } else { cursor.rest() };
        Ok(Self { table_id, kind, ends_statement, column_count, present, present_after, has_differences, rows })
    }

    /// An event without a table, which servers write to end a statement whose rows were all filtered out.
    pub(super) fn is_dummy(&self) -> bool {
        self.table_id == Self::NO_TABLE && self.ends_statement && self.rows.is_empty()
    }
}

/// The table's id at the head of a TABLE_MAP or row event: 6 bytes, 4 in formats of MySQL 5.1 betas.
pub(super) fn parse_table_id(cursor: &mut Cursor, kind: u8, format: &Format) -> Result<u64, EndsEarly> {
    cursor.uint(if format.post_header_len(kind) == Some(6) { 4 } else { 6 })
}

#[cfg(test)]
mod tests {
    use super::super::checksum::ChecksumAlgorithm;
    use super::super::event::EventHeader;
    use super::*;

    fn parse(kind: u8, body: &[u8]) -> Result<RowsEvent, String> {
        let header = EventHeader { timestamp_s: 0, kind, server_id: 7, size: 0, next_offset_low: 1, flags: 0 };
        let event = Event { header, body: Bytes::copy_from_slice(body), checksum: None };
        RowsEvent::parse(&event, &Format::before_any(ChecksumAlgorithm::Crc32))
    }

    #[test]
    fn an_update_has_two_column_bitmaps_and_extra_data_is_skipped() {
        let rows =
            parse(kind::UPDATE_ROWS, &[7, 0, 0, 0, 0, 1, 1, 0, 4, 0, 9, 9, 9, 0xff, 1, 0xf0, 0, 42, 43]).unwrap();
        assert_eq!(rows.table_id, (1 << 40) + 7);
        assert!(rows.ends_statement);
        assert_eq!(rows.column_count, 9);
        assert_eq!((&rows.present[..], &rows.present_after[..]), (&[0xff, 1][..], &[0xf0, 0][..]));
        assert_eq!(&rows.rows[..], &[42, 43]);
    }

    #[test]
    fn version_one_has_no_extra_data() {
        let rows = parse(kind::DELETE_ROWS_V1, &[7, 0, 0, 0, 0, 0, 0, 0, 2, 3, 42]).unwrap();
        assert_eq!((rows.kind, rows.ends_statement), (RowsKind::Delete, false));
        assert_eq!((&rows.present[..], &rows.rows[..]), (&[3][..], &[42][..]));
    }

    #[test]
    fn the_statement_end_without_a_table_is_a_dummy() {
        let rows = parse(kind::WRITE_ROWS, &[0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 2, 0, 1, 0xff]).unwrap();
        assert!(rows.is_dummy());
    }

    #[test]
    fn a_body_cut_in_its_head_is_refused() {
        let whole = [7, 0, 0, 0, 0, 1, 1, 0, 2, 0, 9, 0xff, 1, 0xf0, 0];
        for cut in 0..whole.len() {
            assert!(parse(kind::UPDATE_ROWS, &whole[..cut]).is_err(), "cut at {cut}");
        }
    }
}

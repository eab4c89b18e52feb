//! The smallest reader of a recorded binlog file that the tests need: table maps and row events, nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::binlog::row::cursor::{Cursor, Truncated};
use crate::binlog::{RowsImage, RowsKind, TableMap};

const TABLE_MAP: u8 = 19;
const WRITE_ROWS: u8 = 30;
const UPDATE_ROWS: u8 = 31;
const DELETE_ROWS: u8 = 32;
const HEADER_BYTES: usize = 19;
const CHECKSUM_BYTES: usize = 4;

/// Every row event of a binlog file with checksums, in order.
pub(super) fn row_events(file: &[u8]) -> Vec<RowsImage> {
    assert_eq!(&file[..4], b"\xFEbin");
    let mut maps = HashMap::new();
    let mut events = Vec::new();
    for (kind, body) in bodies(file) {
        match kind {
            TABLE_MAP => {
                let map = TableMap::parse(body).unwrap();
                maps.insert(map.table_id, Arc::new(map));
            }
            WRITE_ROWS => events.push(rows(RowsKind::Insert, body, &maps).unwrap()),
            UPDATE_ROWS => events.push(rows(RowsKind::Update, body, &maps).unwrap()),
            DELETE_ROWS => events.push(rows(RowsKind::Delete, body, &maps).unwrap()),
            _ => {}
        }
    }
    events
}

/// The bodies of the table maps in a binlog file.
pub(super) fn table_map_bodies(file: &[u8]) -> Vec<&[u8]> {
    bodies(file).filter(|(kind, _)| *kind == TABLE_MAP).map(|(_, body)| body).collect()
}

fn bodies(file: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = &file[4..];
    std::iter::from_fn(move || {
        let length = u32::from_le_bytes(rest.get(9..13)?.try_into().unwrap()) as usize;
        let (event, behind) = rest.split_at(length);
        rest = behind;
        Some((event[4], &event[HEADER_BYTES..length - CHECKSUM_BYTES]))
    })
}

fn rows(kind: RowsKind, body: &[u8], maps: &HashMap<u64, Arc<TableMap>>) -> Result<RowsImage, Truncated> {
    let mut cursor = Cursor::new(body);
    let table_id = cursor.uint_le(6)?;
    cursor.take(2)?;
    let extra = cursor.uint_le(2)? as usize;
    cursor.take(extra - 2)?;
    let bitmap_bytes = (cursor.packed()? as usize).div_ceil(8);
    let present = Bytes::copy_from_slice(cursor.take(bitmap_bytes)?);
    let present_after = match kind {
        RowsKind::Update => Bytes::copy_from_slice(cursor.take(bitmap_bytes)?),
        _ => Bytes::new(),
    };
    let rows = Bytes::copy_from_slice(cursor.take(cursor.remaining())?);
    let (map, described) = (maps[&table_id].clone(), Bytes::new());
    Ok(RowsImage { map, kind, present, present_after, has_differences: false, rows, described })
}

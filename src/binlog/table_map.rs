//! TABLE_MAP_EVENT.

use bytes::Bytes;

/// A table map that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the table map ends early")]
pub struct RowError;

/// A table as the binlog describes it just before its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMap {
    pub table_id: u64,
    pub database: String,
    pub table: String,
}

impl TableMap {
    pub fn parse(body: &[u8]) -> Result<Self, RowError> {
        let mut cursor = super::cursor::Cursor::new(&Bytes::copy_from_slice(body));
        let name = |cursor: &mut super::cursor::Cursor| -> Option<String> {
            let len = usize::from(cursor.u8().ok()?);
            let text = cursor.take(len).ok()?;
            cursor.skip(1).ok()?;
            Some(String::from_utf8_lossy(&text).into_owned())
        };
        let table_id = cursor.uint(6).map_err(|_| RowError)?;
        cursor.skip(2).map_err(|_| RowError)?;
        let database = name(&mut cursor).ok_or(RowError)?;
        let table = name(&mut cursor).ok_or(RowError)?;
        Ok(Self { table_id, database, table })
    }
}

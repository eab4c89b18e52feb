//! Row images of an XA branch as bytes, to be decoded once its outcome is known: in memory, and in parts beside the tables.
//!
//! A part is a sequence of frames, a tag and fields with their lengths before them: the body of a TABLE_MAP_EVENT as the
//! source wrote it, or a row image of the table that was described last. A part stands for itself.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::binlog::table_map::Signs;
use crate::binlog::{RowsImage, RowsKind, TableMap};

const TABLE: u8 = 0;
const INSERT: u8 = 1;
const UPDATE: u8 = 2;
const DELETE: u8 = 3;
/// An update whose JSON documents may be logged as differences.
const UPDATE_BY_DIFFERENCES: u8 = 4;
/// A table whose map is not trusted in what it says of signs: the server's version is not in its body.
const TABLE_OF_DOUBTFUL_YEARS: u8 = 5;

/// Row images that are being put together.
#[derive(Debug, Default)]
pub(super) struct RowsWriter {
    bytes: BytesMut,
    described: Bytes,
}

impl RowsWriter {
    pub(super) fn push(&mut self, image: &RowsImage) {
        if self.bytes.is_empty() || self.described != image.described {
            let is_doubtful = image.map.signs == Signs::Unreliable;
            self.bytes.put_u8(if is_doubtful { TABLE_OF_DOUBTFUL_YEARS } else { TABLE });
            put_field(&mut self.bytes, &image.described);
            self.described = image.described.clone();
        }
        self.bytes.put_u8(match image.kind {
            RowsKind::Insert => INSERT,
            RowsKind::Update if image.has_differences => UPDATE_BY_DIFFERENCES,
            RowsKind::Update => UPDATE,
            RowsKind::Delete => DELETE,
        });
        for field in [&image.present, &image.present_after, &image.rows] {
            put_field(&mut self.bytes, field);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What was pushed since the last call, as a part.
    pub(super) fn take(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }
}

/// The images of a part, one after the other.
#[derive(Debug)]
pub(super) struct RowsReader {
    rest: Bytes,
    table: Option<(Arc<TableMap>, Bytes)>,
}

impl RowsReader {
    pub(super) fn new(part: Bytes) -> Self {
        Self { rest: part, table: None }
    }

    /// The next image; `None` behind the last one.
    ///
    /// # Errors
    /// If the bytes are not what [`RowsWriter`] makes.
    pub(super) fn next(&mut self) -> Result<Option<RowsImage>, String> {
        while !self.rest.is_empty() {
            let tag = self.rest.get_u8();
            let kind = match tag {
                TABLE | TABLE_OF_DOUBTFUL_YEARS => {
                    let body = self.field()?;
                    let map = TableMap::parse(&body).map_err(|error| error.to_string())?;
                    let map = if tag == TABLE { map } else { map.with_doubtful_years() };
                    self.table = Some((Arc::new(map), body));
                    continue;
                }
                INSERT => RowsKind::Insert,
                UPDATE | UPDATE_BY_DIFFERENCES => RowsKind::Update,
                DELETE => RowsKind::Delete,
                other => return Err(format!("a frame of unknown kind {other}")),
            };
            let (present, present_after, rows) = (self.field()?, self.field()?, self.field()?);
            let (map, described) = self.table.clone().ok_or("rows before their table")?;
            let has_differences = tag == UPDATE_BY_DIFFERENCES;
            return Ok(Some(RowsImage { map, kind, present, present_after, has_differences, rows, described }));
        }
        Ok(None)
    }

    fn field(&mut self) -> Result<Bytes, String> {
        let len = self.rest.try_get_u32_le().map_err(|_| ENDS_EARLY)? as usize;
        if len > self.rest.len() {
            return Err(ENDS_EARLY.into());
        }
        Ok(self.rest.split_to(len))
    }
}

const ENDS_EARLY: &str = "a frame ends early";

fn put_field(bytes: &mut BytesMut, field: &[u8]) {
    let len = u32::try_from(field.len()).expect("an event has at most 4 GiB");
    bytes.put_u32_le(len);
    bytes.put_slice(field);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of one INT column, as its body and its map.
    fn table(name: u8) -> (Bytes, Arc<TableMap>) {
        let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, name, 0, 1, 3, 0, 0];
        // Optional metadata: a column's name.
        body.extend([4, 2, 1, b'a']);
        let body = Bytes::from(body);
        let map = Arc::new(TableMap::parse(&body).unwrap());
        (body, map)
    }

    fn image(name: u8, kind: RowsKind, rows: &'static [u8]) -> RowsImage {
        let (described, map) = table(name);
        let present = Bytes::from_static(&[0xff]);
        let present_after = if kind == RowsKind::Update { present.clone() } else { Bytes::new() };
        let (has_differences, rows) = (false, Bytes::from_static(rows));
        RowsImage { map, kind, present, present_after, has_differences, rows, described }
    }

    fn read(part: Bytes) -> Result<Vec<RowsImage>, String> {
        let mut reader = RowsReader::new(part);
        std::iter::from_fn(|| reader.next().transpose()).collect()
    }

    fn told(image: &RowsImage) -> (String, RowsKind, bool, Bytes, Bytes, Bytes) {
        let RowsImage { map, kind, present, present_after, has_differences, rows, .. } = image.clone();
        (map.table.clone(), kind, has_differences, present, present_after, rows)
    }

    #[test]
    fn images_come_out_as_they_went_in_and_each_part_stands_for_itself() {
        let images = [
            image(b't', RowsKind::Insert, &[0, 1, 0, 0, 0]),
            image(b't', RowsKind::Update, &[0, 1, 0, 0, 0, 0, 2, 0, 0, 0]),
            image(b'u', RowsKind::Delete, &[0, 9, 0, 0, 0]),
            RowsImage { has_differences: true, ..image(b'u', RowsKind::Update, &[0, 8, 0, 0, 0, 0, 3, 0, 0, 0]) },
        ];
        let mut writer = RowsWriter::default();
        images[..3].iter().for_each(|image| writer.push(image));
        let first = writer.take();
        assert_eq!(writer.len(), 0);
        writer.push(&images[3]);
        let second = writer.take();
        let out = [read(first).unwrap(), read(second).unwrap()].concat();
        assert_eq!(out.iter().map(told).collect::<Vec<_>>(), images.iter().map(told).collect::<Vec<_>>());
    }

    #[test]
    fn a_part_that_ends_early_is_an_error_or_holds_fewer_images() {
        let mut writer = RowsWriter::default();
        writer.push(&image(b't', RowsKind::Insert, &[0, 1, 0, 0, 0]));
        let whole = writer.take();
        for cut in 0..whole.len() {
            assert!(
                read(whole.slice(..cut)).is_ok_and(|images| images.is_empty()) || read(whole.slice(..cut)).is_err()
            );
        }
        assert!(read(Bytes::from_static(&[9])).is_err());
        assert!(read(Bytes::from_static(&[INSERT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])).is_err());
    }
}

//! The key index kept on local disk, so that a restart need not read the table's keys.
//!
//! Beside the index lies what it was the index of: the files, and which rows of them were dead. Data files never change and
//! are named once, so whatever has become of the table since, the difference of two sets of files tells what must be
//! read ([`Table::adopt`]). Never the source of truth: missing, torn or of another table, it is not used.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use weir_model::Order;
use weir_model::schema::escape_name;

use super::buckets::Buckets;
use super::delta::Add;
use super::files::DataFile;
use super::index::{Index, IndexHome, IndexSnapshot};
use super::writer::orders_of_entry;
use super::{Table, TableError};
use crate::limits::{INDEX_KEPT_AFTER_ROWS, INDEX_KEPT_AFTER_SHARE, INDEX_KEPT_ROWS_MIN};
use crate::modes;

/// What the index was the index of.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// The table's id, which another of its name has not.
    table_id: String,
    /// Names of the record key's columns.
    key: Vec<String>,
    bucket_count: u32,
    owned: Vec<u32>,
    next_file: u32,
    files: Vec<KeptFile>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptFile {
    number: u32,
    bucket: Option<u32>,
    rows: u32,
    add: Add,
    /// Bytes of the bitmap of dead rows, which stand behind the header in this order.
    dead_bytes: u64,
}

/// An index that is to be written; writing it needs nothing of the table.
#[derive(Debug)]
pub struct Keeping {
    path: PathBuf,
    header: Vec<u8>,
    snapshot: IndexSnapshot,
}

impl Keeping {
    /// Writes it; blocks. What was kept before stays until this is whole.
    ///
    /// # Errors
    /// When the disk cannot be written; the table is as good without it.
    pub fn write(self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            modes::create_folders(folder)?;
        }
        self.snapshot.write(&self.path, &self.header).map(|_| ())
    }
}

/// What was kept of a table.
pub(super) struct Kept {
    pub index: Index,
    pub files: BTreeMap<u32, DataFile>,
    pub next_file: u32,
}

/// Where the index of a table lies; tables of one name in several warehouses are told apart by their ids.
fn path_of(home: &IndexHome, table: &str, buckets: &Buckets) -> Option<PathBuf> {
    let owned: Vec<String> = buckets.owned.iter().map(u32::to_string).collect();
    let shares = crc32fast::hash(owned.join(",").as_bytes());
    Some(home.folder()?.join(format!("{}.{}-{shares:08x}.index", escape_name(table), buckets.count)))
}

/// The index that was kept of the table of this id and key; blocks.
pub(super) fn read(
    home: &IndexHome,
    table: &str,
    table_id: &str,
    key: &[&str],
    buckets: &Buckets,
    floor: impl Fn(u32) -> Order,
) -> Option<Kept> {
    let path = path_of(home, table, buckets)?;
    let read = match Index::read(&path, buckets.clone(), floor, home.clone()) {
        Ok(read) => read?,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the kept key index cannot be read; the table's keys are");
            return None;
        }
    };
    let (header, index) = read;
    let (header, files) = parse(&header)?;
    let owned: Vec<u32> = buckets.owned.iter().copied().collect();
    let is_it = header.table_id == table_id
        && header.key.iter().map(String::as_str).eq(key.iter().copied())
        && (header.bucket_count, &header.owned) == (buckets.count, &owned);
    is_it.then_some(Kept { index, files, next_file: header.next_file })
}

fn parse(bytes: &[u8]) -> Option<(Header, BTreeMap<u32, DataFile>)> {
    let (length, rest) = bytes.split_at_checked(8)?;
    let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let (json, mut bitmaps) = rest.split_at_checked(length)?;
    let mut header: Header = serde_json::from_slice(json).ok()?;
    let mut files = BTreeMap::new();
    for KeptFile { number, bucket, rows, add, dead_bytes } in std::mem::take(&mut header.files) {
        let (dead, rest) = bitmaps.split_at_checked(usize::try_from(dead_bytes).ok()?)?;
        bitmaps = rest;
        let dead = RoaringBitmap::deserialize_from(dead).ok()?;
        let orders = orders_of_entry(&add);
        files.insert(number, DataFile { add, bucket, rows, dead, orders });
    }
    Some((header, files))
}

/// Whether an index of `rows`, of which `unkept` have been learned since it was kept, is worth keeping.
fn is_worth_keeping(rows: u64, unkept: u64, is_last: bool) -> bool {
    let after = INDEX_KEPT_AFTER_ROWS.max(rows / INDEX_KEPT_AFTER_SHARE);
    rows >= INDEX_KEPT_ROWS_MIN && unkept > 0 && (is_last || unkept >= after)
}

impl Table {
    /// The index as it is, if it is worth keeping: enough has changed since it was kept, or it is the last chance.
    pub fn keeping(&mut self, is_last: bool) -> Option<Keeping> {
        if is_worth_keeping(self.index.len() as u64, self.unkept_rows, is_last) { self.keep() } else { None }
    }

    /// The index as it is.
    pub(super) fn keep(&mut self) -> Option<Keeping> {
        let path = path_of(&self.writer.index_home, &self.schema.table.to_string(), self.buckets())?;
        let snapshot = match self.index.snapshot() {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::warn!(table = %self.schema.table, %error, "the key index cannot be kept");
                return None;
            }
        };
        self.unkept_rows = 0;
        Some(Keeping { path, header: self.kept_header().ok()?, snapshot })
    }

    fn kept_header(&self) -> Result<Vec<u8>, TableError> {
        let mut bitmaps = Vec::new();
        let mut files = Vec::with_capacity(self.files.len());
        for (number, file) in &self.files {
            let before = bitmaps.len();
            file.dead.serialize_into(&mut bitmaps)?;
            let dead_bytes = (bitmaps.len() - before) as u64;
            let DataFile { add, bucket, rows, .. } = file;
            files.push(KeptFile { number: *number, bucket: *bucket, rows: *rows, add: add.clone(), dead_bytes });
        }
        let header = Header {
            table_id: self.identity.0.clone(),
            key: self.schema.key_names().into_iter().map(str::to_owned).collect(),
            bucket_count: self.buckets().count,
            owned: self.buckets().owned.iter().copied().collect(),
            next_file: self.next_file,
            files,
        };
        let json = serde_json::to_vec(&header).expect("a header is plain data");
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json);
        bytes.extend(bitmaps);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_kept_when_reading_the_keys_again_would_take_longer() {
        let (small, large) = (INDEX_KEPT_ROWS_MIN - 1, 50_000_000);
        assert!(!is_worth_keeping(small, small, true));
        assert!(!is_worth_keeping(large, 0, true));
        assert!(is_worth_keeping(large, 1, true));
        assert!(!is_worth_keeping(large, large / INDEX_KEPT_AFTER_SHARE - 1, false));
        assert!(is_worth_keeping(large, large / INDEX_KEPT_AFTER_SHARE, false));
        assert!(!is_worth_keeping(INDEX_KEPT_ROWS_MIN, INDEX_KEPT_AFTER_ROWS - 1, false));
    }
}

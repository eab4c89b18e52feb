//! The index against a plain map, in memory and on disk, and what becomes of it when its disk fails.

mod disk;
mod figures;
mod model;
mod snapshots;

use std::collections::BTreeMap;

use super::*;
use crate::table::Buckets;

/// Rows that each file of these tests may have.
const FILE_ROWS: u32 = 1 << 20;

fn address(n: u32) -> RowAddress {
    RowAddress { file: n % 7, row: n / 7 }
}

fn with_files(mut index: Index) -> Index {
    (0..7).for_each(|file| index.add_file(file, FILE_ROWS).unwrap());
    index
}

fn in_memory() -> Index {
    with_files(Index::new(Buckets::whole(), |_| Order::MIN, IndexHome::unbounded()))
}

/// A home with no memory but for a few tiny pages for each index, so that pages come and go all the time.
fn tiny_home(folder: &tempfile::TempDir) -> IndexHome {
    let mut home = IndexHome::new(IndexBudget::new(0), folder.path());
    (home.page_bytes, home.memory_min) = (64, 1024);
    home
}

fn on_disk(folder: &tempfile::TempDir) -> Index {
    with_files(Index::new(Buckets::whole(), |_| Order::MIN, tiny_home(folder)))
}

/// A key that is an integer, or 18 bytes as a composite key of two integers has them.
fn key(n: i64, bytes: bool) -> RecordKey {
    if !bytes {
        return RecordKey::Int(n);
    }
    let mut key = [0x80; 18];
    key[..9].copy_from_slice(&[&[0x80], &n.to_be_bytes()[..]].concat());
    RecordKey::Bytes(key.into())
}

fn contents(index: &Index) -> BTreeMap<KeyBytes, RowAddress> {
    let mut all = BTreeMap::new();
    index.for_each(|key, address| assert_eq!(all.insert(KeyBytes::of(key), address), None, "{key:?} twice"));
    all
}

/// A key that can be sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum KeyBytes {
    Int(i64),
    Bytes(Vec<u8>),
}

impl KeyBytes {
    fn of(key: KeyRef<'_>) -> Self {
        match key {
            KeyRef::Int(value) => Self::Int(value),
            KeyRef::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
        }
    }
}

#[test]
fn deletes_above_the_floor_are_remembered_until_the_key_returns() {
    let mut index = with_files(Index::new(Buckets::whole(), |_| Order::new(1, 1), IndexHome::unbounded()));
    let key = RecordKey::Int(5);
    index.delete(&key, Order::new(1, 2), |_| true);
    assert_eq!(index.locate(key.as_ref()), Located::Deleted(Order::new(1, 2)));
    index.put(key.as_ref(), address(0));
    index.delete(&key, Order::new(1, 1), |_| true);
    assert_eq!(index.locate(key.as_ref()), Located::Absent);
}

#[test]
fn a_raised_floor_forgets_what_lies_below() {
    let mut index = in_memory();
    for seq in 1..4 {
        index.delete(&RecordKey::Int(seq), Order::new(1, seq), |_| true);
    }
    index.raise_floor(0, Order::new(1, 2));
    assert_eq!(index.locate(KeyRef::Int(2)), Located::Absent);
    assert_eq!(index.locate(KeyRef::Int(3)), Located::Deleted(Order::new(1, 3)));
}

#[test]
fn each_bucket_remembers_its_own_deletes_above_its_own_floor() {
    let mut index = with_files(Index::new(Buckets::all(4), |_| Order::MIN, IndexHome::unbounded()));
    let buckets = Buckets::all(4);
    for id in 1..40 {
        index.delete(&RecordKey::Int(id), Order::new(1, id), |bucket| bucket != 3);
    }
    index.raise_floor(1, Order::new(1, 100));
    for id in 1..40 {
        let expected = match buckets.of(KeyRef::Int(id)) {
            0 | 2 => Located::Deleted(Order::new(1, id)),
            _ => Located::Absent,
        };
        assert_eq!(index.locate(KeyRef::Int(id)), expected);
        index.put(KeyRef::Int(id), address(0));
    }
    assert_eq!((index.floor(0), index.floor(1)), (Some(Order::MIN), Some(Order::new(1, 100))));
    assert!(index.deletes.is_empty());
}

#[test]
fn a_row_of_a_file_that_was_not_added_is_told_and_one_of_a_file_that_is_gone_is_none() {
    let mut index = in_memory();
    index.put(KeyRef::Int(1), RowAddress { file: 99, row: 0 });
    assert!(index.health().unwrap_err().to_string().contains("file 99"));

    let mut index = in_memory();
    index.put(KeyRef::Int(1), address(3));
    index.remove_file(4);
    assert_eq!(index.live(KeyRef::Int(1)), Some(address(3)));
    index.health().unwrap();
    index.remove_file(3);
    assert_eq!(index.live(KeyRef::Int(1)), None);
    assert_eq!(index.put(KeyRef::Int(1), address(2)), None);
    assert_eq!(index.live(KeyRef::Int(1)), Some(address(2)));
    index.health().unwrap();
}

//! An index written and read again.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

const HEADER: &[u8] = b"shop.orders at 17";

fn read(path: &Path, home: IndexHome) -> Option<(Vec<u8>, Index)> {
    Index::read(path, Buckets::whole(), |_| Order::new(5, 5), home).unwrap()
}

/// An index of so many keys and a few of the other form.
fn index_of(home: IndexHome, keys: i64, bytes: bool) -> Index {
    let mut index = with_files(Index::new(Buckets::whole(), |_| Order::MIN, home));
    index.remove_file(5);
    index.add_file(5, FILE_ROWS).unwrap();
    for n in 0..keys {
        index.put(key(n, bytes).as_ref(), address(n as u32));
    }
    (0..keys / 3).for_each(|n| index.delete(&key(n, bytes), Order::new(1, n), |_| true));
    // The other form takes room of its own.
    (0..keys / 1_000).for_each(|n| _ = index.put(key(n, !bytes).as_ref(), address(n as u32)));
    index
}

fn path_in(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("state").join("orders.index")
}

#[test]
fn an_index_is_read_as_it_was_written_and_goes_on() {
    for (bytes, written_on_disk, read_on_disk) in
        [(false, false, false), (true, false, false), (false, true, false), (true, true, true), (false, false, true)]
    {
        let folder = tempfile::tempdir().unwrap();
        let home = |disk| if disk { tiny_home(&folder) } else { IndexHome::unbounded() };
        let index = index_of(home(written_on_disk), 3_000, bytes);
        assert_eq!(index.on_disk(), written_on_disk);
        index.snapshot().unwrap().write(&path_in(&folder), HEADER).unwrap();
        let (header, mut again) = read(&path_in(&folder), home(read_on_disk)).unwrap();
        assert_eq!((&header[..], again.on_disk()), (HEADER, read_on_disk));
        assert_eq!((again.len(), contents(&again)), (index.len(), contents(&index)));
        // Remembered deletes are not in it, and floors are the opener's.
        assert_eq!(again.locate(key(1, bytes).as_ref()), Located::Absent);
        assert_eq!(again.floor(0), Some(Order::new(5, 5)));
        // Its files are, and none gets the places of one that is gone.
        again.add_file(8, 10).unwrap();
        for n in 0..3_000 {
            let (old, now) = (index.live(key(n, bytes).as_ref()), RowAddress { file: 8, row: n as u32 % 10 });
            assert_eq!(again.put(key(n, bytes).as_ref(), now), old);
            assert_eq!(again.live(key(n, bytes).as_ref()), Some(now));
        }
        again.health().unwrap();
    }
}

#[test]
fn what_is_written_meanwhile_is_not_in_the_snapshot() {
    for bytes in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        for home in [IndexHome::unbounded(), tiny_home(&folder)] {
            let mut index = index_of(home, 3_000, bytes);
            let before = contents(&index);
            let snapshot = index.snapshot().unwrap();
            for n in 0..6_000 {
                index.put(key(n, bytes).as_ref(), address(n as u32 + 7));
            }
            (2_000..3_000).for_each(|n| index.delete(&key(n, bytes), Order::MIN, |_| true));
            index.drop_rows(|address| address.file == 2);
            let path = path_in(&folder);
            std::thread::spawn(move || snapshot.write(&path, HEADER)).join().unwrap().unwrap();
            (6_000..7_000).for_each(|n| _ = index.put(key(n, bytes).as_ref(), address(n as u32)));
            let (_, again) = read(&path_in(&folder), IndexHome::unbounded()).unwrap();
            assert_eq!(contents(&again), before);
            index.health().unwrap();
        }
    }
}

#[test]
fn an_empty_index_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let index = Index::new(Buckets::whole(), |_| Order::MIN, IndexHome::unbounded());
    index.snapshot().unwrap().write(&path_in(&folder), b"").unwrap();
    let (header, again) = read(&path_in(&folder), IndexHome::unbounded()).unwrap();
    assert_eq!((header.len(), again.len()), (0, 0));
}

/// A small snapshot's bytes, and where they are.
fn written(folder: &tempfile::TempDir, bytes: bool) -> (Vec<u8>, PathBuf) {
    index_of(IndexHome::unbounded(), 8, bytes).snapshot().unwrap().write(&path_in(folder), HEADER).unwrap();
    (std::fs::read(path_in(folder)).unwrap(), path_in(folder))
}

/// Whether a file of these bytes is taken for an index.
fn is_taken(mut file: &[u8]) -> bool {
    let (length, home) = (file.len() as u64, IndexHome::unbounded());
    match Index::read_from(&mut file, length, Buckets::whole(), |_| Order::MIN, home) {
        Ok(index) => index.is_some(),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            false
        }
    }
}

#[test]
fn every_byte_counts() {
    for bytes in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (mut file, path) = written(&folder, bytes);
        assert!(is_taken(&file));
        for at in 0..file.len() {
            file[at] ^= 1 << (at % 8);
            assert!(!is_taken(&file), "byte {at} of {} flipped", file.len());
            file[at] ^= 1 << (at % 8);
            assert!(!is_taken(&file[..at]), "cut to {at} of {}", file.len());
        }
        file.push(0);
        assert!(!is_taken(&file), "longer than it should be");
        file.truncate(file.len() / 2);
        std::fs::write(&path, &file).unwrap();
        assert!(read(&path, IndexHome::unbounded()).is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_of_any_kind_is_seen(bytes: bool, at in any::<prop::sample::Index>(), junk in prop::collection::vec(any::<u8>(), 1..64)) {
        let folder = tempfile::tempdir().unwrap();
        let (whole, _) = written(&folder, bytes);
        let mut damaged = whole.clone();
        let at = at.index(whole.len());
        let end = (at + junk.len()).min(whole.len());
        damaged[at..end].copy_from_slice(&junk[..end - at]);
        prop_assume!(damaged != whole);
        prop_assert!(!is_taken(&damaged));
    }
}

#[test]
fn what_a_crash_left_is_not_read_and_does_not_hinder() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path.with_extension("index.tmp"), b"weir-idx and no more").unwrap();
    assert!(read(&path, IndexHome::unbounded()).is_none());
    written(&folder, false);
    assert!(read(&path, IndexHome::unbounded()).is_some());
    assert!(!path.with_extension("index.tmp").exists());
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_the_former_one() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, path) = written(&folder, false);
    // Its temporary name is taken by a folder.
    std::fs::create_dir(path.with_extension("index.tmp")).unwrap();
    index_of(IndexHome::unbounded(), 10, false).snapshot().unwrap().write(&path, HEADER).unwrap_err();
    assert_eq!(std::fs::read(&path).unwrap(), whole);
}

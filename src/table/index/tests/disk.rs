//! Budgets, and disks that fail.

use std::fs::File;
use std::io::Seek;
use std::path::Path;

use super::*;

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn indexes_keep_to_their_budget_together() {
    let folder = tempfile::tempdir().unwrap();
    let budget = IndexBudget::new(2 << 20);
    let home = IndexHome::new(budget.clone(), folder.path());
    let new = |_| with_files(Index::new(Buckets::whole(), |_| Order::MIN, home.clone()));
    let mut indexes: Vec<Index> = (0..3).map(new).collect();
    let most = (2 << 20) + 3 * home.memory_min;
    for n in 0..60_000_i64 {
        for (i, index) in indexes.iter_mut().enumerate() {
            index.put(key(n, i == 1).as_ref(), address(n as u32));
        }
        if n % 1_000 == 0 {
            let bytes: usize = indexes.iter().map(|index| index.bytes_of_keys()).sum();
            let pages = indexes.iter().filter_map(|index| Some(index.pages.as_ref()?.bytes_in_memory()));
            let bytes = bytes + pages.sum::<usize>();
            assert!(bytes <= most && budget.used() <= most, "{bytes}, {} of {most} bytes at {n} keys", budget.used());
        }
    }
    assert!(indexes.iter().any(Index::on_disk));
    for (i, index) in indexes.iter().enumerate() {
        for n in 0..60_000_i64 {
            assert_eq!(index.live(key(n, i == 1).as_ref()), Some(address(n as u32)));
        }
        index.health().unwrap();
    }
    // A file without a name needs no cleaning.
    assert_eq!(names_in(folder.path()), Vec::<String>::new());
    drop(indexes);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_small_index_stays_in_memory_though_the_budget_is_used_up() {
    let folder = tempfile::tempdir().unwrap();
    let home = IndexHome::new(IndexBudget::new(0), folder.path());
    let mut index = with_files(Index::new(Buckets::whole(), |_| Order::MIN, home));
    for n in 0..3_000 {
        index.put(KeyRef::Int(n), address(n as u32));
    }
    assert!(!index.on_disk());
    for n in 3_000..30_000 {
        index.put(KeyRef::Int(n), address(n as u32));
    }
    assert!(index.on_disk());
}

#[test]
fn scratch_files_that_were_left_are_removed_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["12-0.scratch", "orders.snapshot"] {
        std::fs::write(folder.path().join(name), "x").unwrap();
    }
    let _home = IndexHome::new(IndexBudget::new(0), folder.path());
    assert_eq!(names_in(folder.path()), ["orders.snapshot"]);
}

/// An index on disk with more pages than are kept.
fn filled(folder: &tempfile::TempDir, bytes: bool) -> Index {
    let mut index = on_disk(folder);
    for n in 0..5_000 {
        index.put(key(n, bytes).as_ref(), address(n as u32));
    }
    assert!(index.on_disk());
    index.health().unwrap();
    index
}

fn use_all(index: &mut Index, bytes: bool) {
    for n in 0..6_000 {
        index.live(key(n, bytes).as_ref());
        index.put(key(n, bytes).as_ref(), address(n as u32 + 1));
    }
    for n in 0..6_000 {
        index.delete(&key(n, bytes), Order::MIN, |_| true);
    }
    index.for_each(|_, _| ());
    index.drop_rows(|_| true);
    assert_eq!(index.pick(|_| true, |_| true).count(), 0);
}

#[test]
fn an_index_whose_disk_takes_nothing_any_more_is_right_until_it_says_so() {
    for bytes in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut index = filled(&folder, bytes);
        // With that, no page that is kept differs from the file's.
        (0..5_000).for_each(|n| _ = index.live(key(n, bytes).as_ref()));
        let path = folder.path().join("copy");
        let pages = index.pages.as_ref().unwrap();
        let mut own = pages.replace_file(File::create(&path).unwrap());
        own.rewind().unwrap();
        io::copy(&mut own, &mut File::create(&path).unwrap()).unwrap();
        // Can be read, but not written.
        pages.replace_file(File::open(&path).unwrap());
        let mut answers = 0;
        for n in 0..10_000 {
            let found = index.live(key(n, bytes).as_ref());
            if index.health().is_err() {
                break;
            }
            answers += 1;
            assert_eq!(found, (n < 5_000).then(|| address(n as u32)));
            index.put(key(n, bytes).as_ref(), address(n as u32 + 1));
        }
        assert!((1..10_000).contains(&answers), "{answers} answers");
        index.snapshot().unwrap_err();
        use_all(&mut index, bytes);
        index.health().unwrap_err();
    }
}

#[test]
fn a_full_disk_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = filled(&folder, false);
    let full = File::options().read(true).write(true).open("/dev/full").unwrap();
    let own = index.pages.as_ref().unwrap().replace_file(full);
    // A new region is written before anything is read of it.
    let region = index.pages.as_ref().unwrap().store(&[1; 100], 100, 1);
    assert_eq!(index.health().unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(region.room(), 0);
    // It does not pass.
    index.pages.as_ref().unwrap().replace_file(own);
    use_all(&mut index, false);
    assert_eq!(index.health().unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[test]
fn an_index_whose_file_was_cut_or_has_other_bytes_is_not_believed() {
    for (bytes, len) in [(false, 0), (true, 0), (false, 10_000_000), (true, 10_000_000)] {
        let folder = tempfile::tempdir().unwrap();
        let mut index = filled(&folder, bytes);
        let zeros = tempfile::tempfile().unwrap();
        zeros.set_len(len).unwrap();
        index.pages.as_ref().unwrap().replace_file(zeros);
        use_all(&mut index, bytes);
        let kind = index.health().unwrap_err().kind();
        assert!(matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData), "{kind}");
    }
}

#[test]
fn an_index_that_has_nowhere_to_move_to_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let home = IndexHome::new(IndexBudget::new(0), &blocked);
    let mut index = with_files(Index::new(Buckets::whole(), |_| Order::MIN, home));
    for n in 0..30_000 {
        index.put(KeyRef::Int(n), address(n as u32));
    }
    assert!(index.health().unwrap_err().to_string().contains("file"), "{:?}", index.health());
}

#[test]
fn a_scratch_file_does_not_grow_with_every_growth_of_a_shard() {
    let folder = tempfile::tempdir().unwrap();
    let mut home = IndexHome::new(IndexBudget::new(0), folder.path());
    home.memory_min = 512 << 10;
    let mut index = with_files(Index::new(Buckets::whole(), |_| Order::MIN, home));
    for n in 0..100_000_i64 {
        index.put(KeyRef::Int(n), address(n as u32));
    }
    let bytes = index.pages.as_ref().unwrap().bytes_on_disk();
    assert!(bytes < 5_000_000, "{bytes} bytes of a file for 100,000 keys");
}

//! A restart with an index that was kept on local disk: the same table as one without, whatever has happened since.

use std::path::Path;

use super::*;
use crate::table::deletes::VectorFile;

fn at_home(folder: &Path) -> Writer {
    Writer { index_home: IndexHome::new(IndexBudget::new(usize::MAX), folder), ..writer(1) }
}

async fn open_at(warehouse: &Warehouse, folder: &Path) -> Table {
    Table::open(warehouse, &id(), at_home(folder), Buckets::whole()).await.unwrap().unwrap()
}

fn texts(table: &Table, ids: std::ops::Range<i64>) -> Vec<Option<(String, u32)>> {
    let path = |address: RowAddress| (table.files[&address.file].add.path.clone(), address.row);
    ids.map(|id| table.live(record_key(table.schema(), id).as_ref()).map(path)).collect()
}

/// Opens with what was kept, and without: both know the same of every key.
async fn same_as_rebuilt(warehouse: &Warehouse, folder: &Path) -> Table {
    let kept = open_at(warehouse, folder).await;
    let rebuilt = open(warehouse, 1).await;
    assert_eq!(texts(&kept, -5..60), texts(&rebuilt, -5..60));
    assert_eq!(kept.figures(), rebuilt.figures());
    assert_eq!(kept.state(), rebuilt.state());
    kept
}

async fn filled(warehouse: &Warehouse, folder: &Path, schema: &TableSchema) -> Table {
    let buckets = Buckets::whole();
    let mut table = Table::create(warehouse, schema, at_home(folder), TableState::default(), buckets).await.unwrap();
    for n in 0..6 {
        let rows: Vec<(i64, Order, &str)> = (0..10).map(|id| (n * 7 + id, at(n * 20 + id + 1), "x")).collect();
        let change = stream_change(&table, &rows, &[(n * 7 - 1, at(n * 20 + 11))]);
        committed(&mut table, change).await;
    }
    table
}

#[tokio::test]
async fn with_what_was_kept_no_key_is_read_that_was_known() {
    for schema in [schema(), composite_schema()] {
        let (warehouse, folder) = (in_memory(), tempfile::tempdir().unwrap());
        let mut table = filled(&warehouse, folder.path(), &schema).await;
        table.keep().unwrap().write().unwrap();
        drop(table);
        let table = same_as_rebuilt(&warehouse, folder.path()).await;
        assert_eq!(table.unkept_rows, 0);
    }
}

#[tokio::test]
async fn what_has_happened_since_is_taken_in() {
    let (warehouse, folder) = (in_memory(), tempfile::tempdir().unwrap());
    let mut table = filled(&warehouse, folder.path(), &schema()).await;
    table.keep().unwrap().write().unwrap();
    // Updates, deletes, new rows; then a compaction, and changes again.
    let change = stream_change(&table, &[(3, at(300), "new"), (50, at(301), "first")], &[(9, at(302)), (10, at(303))]);
    committed(&mut table, change).await;
    same_as_rebuilt(&warehouse, folder.path()).await;
    while let Some(rewriting) = table.compaction(Effort::Full) {
        let rewritten = rewriting.run().await.unwrap();
        table.commit_rewritten(rewritten).await.unwrap();
    }
    let change = stream_change(&table, &[(10, at(310), "again"), (3, at(311), "newer")], &[(11, at(312))]);
    committed(&mut table, change).await;
    let mut kept = same_as_rebuilt(&warehouse, folder.path()).await;
    upsert(&mut kept, &[(9, at(320), "back"), (12, at(321), "on")]).await;
    let rows = scan(&warehouse, None).await;
    assert_eq!((&rows[&9], &rows[&12]), (&row(at(320), "back"), &row(at(321), "on")));
    assert_eq!(verify::verify(&warehouse, &id()).await.unwrap().problem_count, 0);
}

#[tokio::test]
async fn rows_that_someone_has_brought_back_are_read() {
    let (warehouse, folder) = (in_memory(), tempfile::tempdir().unwrap());
    let mut table = filled(&warehouse, folder.path(), &schema()).await;
    table.keep().unwrap().write().unwrap();
    // As a RESTORE does: a file with a vector that marks less.
    let address = table.live(KeyRef::Int(3)).unwrap();
    let file = &table.files[&address.file];
    let (mut dead, mut vectors) = (file.dead.clone(), VectorFile::new(uuid::Uuid::from_u128(4)));
    let gone = dead.min().unwrap();
    dead.remove(gone);
    dead.insert(address.row);
    let actions = [
        delta::Action { remove: Some(file.remove(0)), ..Default::default() },
        delta::Action { add: Some(file.with_vector(vectors.push(&dead))), ..Default::default() },
    ];
    table.files().put(&delta::vector_file_name(uuid::Uuid::from_u128(4)), vectors.finish()).await.unwrap();
    table.log.put(table.version() + 1, log::serialise(&actions)).await.unwrap();
    same_as_rebuilt(&warehouse, folder.path()).await;
}

#[tokio::test]
async fn what_is_of_another_table_or_torn_is_not_used() {
    let (warehouse, folder) = (in_memory(), tempfile::tempdir().unwrap());
    let mut table = filled(&warehouse, folder.path(), &schema()).await;
    let rows = table.figures().1;
    table.keep().unwrap().write().unwrap();
    let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&path).unwrap();
    for damage in [bytes.len() / 3, bytes.len() / 2, bytes.len() - 2] {
        let mut damaged = bytes.clone();
        damaged[damage] ^= 4;
        std::fs::write(&path, damaged).unwrap();
        assert!(open_at(&warehouse, folder.path()).await.unkept_rows >= rows, "read anew");
        std::fs::write(&path, &bytes[..damage]).unwrap();
        assert!(open_at(&warehouse, folder.path()).await.unkept_rows >= rows, "read anew");
    }
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(open_at(&warehouse, folder.path()).await.unkept_rows, 0);
    // A table of the same name that was made anew.
    let other = in_memory();
    let mut table = filled(&other, folder.path(), &schema()).await;
    upsert(&mut table, &[(1, at(400), "y")]).await;
    assert!(open_at(&other, folder.path()).await.unkept_rows > 0);
    same_as_rebuilt(&other, folder.path()).await;
}

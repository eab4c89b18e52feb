//! Tables whose key index does not stay in memory, and those whose index fails.

use std::path::Path;

use super::*;

const ROWS: i64 = 12_000;

/// A writer whose indexes have no memory but what each may take anyway.
fn writer_without_memory(folder: &Path) -> Writer {
    Writer { index_home: IndexHome::new(IndexBudget::new(0), folder), ..writer(1) }
}

async fn empty(warehouse: &Warehouse, writer: Writer) -> Table {
    Table::create(warehouse, &schema(), writer, TableState::default(), Buckets::whole()).await.unwrap()
}

fn all_rows(text: &str) -> Vec<(i64, Order, &str)> {
    (0..ROWS).map(|id| (id, at(id), text)).collect()
}

#[tokio::test]
async fn a_table_whose_index_is_on_disk_is_the_same() {
    let (warehouse, folder) = (in_memory(), tempfile::tempdir().unwrap());
    let mut table = empty(&warehouse, writer_without_memory(folder.path())).await;
    upsert(&mut table, &all_rows("first")).await;
    assert!(table.index.on_disk());
    let again: Vec<_> = (0..ROWS).step_by(3).map(|id| (id, at(ROWS + id), "second")).collect();
    let gone: Vec<_> = (1..ROWS).step_by(3).map(|id| (id, at(2 * ROWS + id))).collect();
    let change = stream_change(&table, &again, &gone);
    committed(&mut table, change).await;

    let expected: Rows = (0..ROWS)
        .filter(|id| id % 3 != 1)
        .map(|id| (id, if id % 3 == 0 { row(at(ROWS + id), "second") } else { row(at(id), "first") }))
        .collect();
    assert_eq!(scan(&warehouse, None).await, expected);
    let opened = Table::open(&warehouse, &id(), writer_without_memory(folder.path()), Buckets::whole()).await;
    let reopened = opened.unwrap().unwrap();
    assert_eq!((reopened.index_figures().0, table.index_figures().0), (expected.len(), expected.len()));
    assert_eq!(live_rows(&table), live_rows(&reopened));
}

/// Where the row of each key is, by the name of its file.
fn live_rows(table: &Table) -> BTreeMap<(i64, Vec<u8>), (String, u32)> {
    let mut rows = BTreeMap::new();
    table.index.for_each(|key, RowAddress { file, row }| {
        rows.insert(key.to_owned_bytes(), (table.files[&file].add.path.clone(), row));
    });
    rows
}

#[tokio::test]
async fn nothing_is_committed_that_a_failed_index_had_a_say_in() {
    let (warehouse, folder) = (in_memory(), tempfile::tempdir().unwrap());
    let blocked = folder.path().join("a file");
    std::fs::write(&blocked, "").unwrap();
    let mut table = empty(&warehouse, writer_without_memory(&blocked)).await;
    upsert(&mut table, &[(1, at(1), "while all fits")]).await;

    // It is in, but the index could not take it up.
    let change = stream_change(&table, &all_rows("all"), &[]);
    assert!(matches!(table.commit(change).await, Err(TableError::Disk(_))));
    let version = open(&warehouse, 1).await.version();
    assert_eq!((version, scan(&warehouse, None).await.len()), (2, ROWS as usize));

    let change = stream_change(&table, &[(1, at(ROWS + 1), "never")], &[]);
    assert!(matches!(table.commit(change).await, Err(TableError::Disk(_))));
    assert_eq!(open(&warehouse, 1).await.version(), version);
    let opened = Table::open(&warehouse, &id(), writer_without_memory(&blocked), Buckets::whole()).await;
    assert!(matches!(opened, Err(TableError::Disk(_))), "{opened:?}");

    // With room it goes on.
    let opened = Table::open(&warehouse, &id(), writer_without_memory(folder.path()), Buckets::whole()).await;
    upsert(&mut opened.unwrap().unwrap(), &[(1, at(ROWS + 1), "after all")]).await;
    assert_eq!(scan(&warehouse, None).await[&1], row(at(ROWS + 1), "after all"));
}

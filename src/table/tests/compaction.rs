//! Files written again: nothing changes but where rows lie, whatever dies meanwhile.

use super::*;
use weir_model::layout::{Layout, Storage};

/// Compacts until nothing is left to do; gives how often.
async fn compact(table: &mut Table, effort: Effort) -> usize {
    let mut times = 0;
    while let Some(rewriting) = table.compaction(effort) {
        let rewritten = rewriting.run().await.unwrap();
        assert!(matches!(table.commit_rewritten(rewritten).await.unwrap(), Some(CommitOutcome::Committed { .. })));
        times += 1;
        assert!(times < 100, "it ends");
    }
    times
}

/// A table of `commits` files that overlap: each updates half of what the last one wrote.
async fn of_many_files(warehouse: &Warehouse, commits: i64) -> Table {
    let mut table =
        Table::create(warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    for n in 0..commits {
        let texts: Vec<String> = (0..10).map(|id| format!("{n}-{id}")).collect();
        let rows: Vec<(i64, Order, &str)> =
            (0..10).map(|id| (n * 5 + id, at(n * 10 + id + 1), texts[id as usize].as_str())).collect();
        upsert(&mut table, &rows).await;
    }
    table
}

#[tokio::test]
async fn many_files_become_one_with_the_same_rows() {
    let warehouse = in_memory();
    let mut table = of_many_files(&warehouse, 20).await;
    let before = scan(&warehouse, None).await;
    assert_eq!(compact(&mut table, Effort::Full).await, 1);
    assert_eq!(scan(&warehouse, None).await, before);
    assert_eq!(table.figures().0, 1);
    assert_eq!(table.figures().1, before.len() as u64);
    // The index says where the rows lie now: what is changed next dies in the new file.
    upsert(&mut table, &[(3, at(500), "new")]).await;
    let rows = scan(&warehouse, None).await;
    assert_eq!((rows.len(), &rows[&3]), (before.len(), &row(at(500), "new")));
    let again = open(&warehouse, 1).await;
    assert_eq!(again.figures().1, before.len() as u64);
}

#[tokio::test]
async fn what_dies_while_files_are_read_is_dead_in_the_new_file() {
    let warehouse = in_memory();
    let mut table = of_many_files(&warehouse, 20).await;
    let rewriting = table.compaction(Effort::Full).unwrap();
    let rewritten = rewriting.run().await.unwrap();
    let change = stream_change(&table, &[(7, at(600), "later"), (200, at(601), "first")], &[(8, at(602))]);
    committed(&mut table, change).await;
    let before = scan(&warehouse, None).await;
    assert!(matches!(table.commit_rewritten(rewritten).await.unwrap(), Some(CommitOutcome::Committed { .. })));
    assert_eq!(scan(&warehouse, None).await, before);
    assert_eq!(before[&7], row(at(600), "later"));
    assert!(!before.contains_key(&8));
    open(&warehouse, 1).await;
}

#[tokio::test]
async fn what_was_read_in_vain_is_given_up() {
    let warehouse = in_memory();
    let mut table = of_many_files(&warehouse, 12).await;
    let (first, second) = (table.compaction(Effort::Full).unwrap(), table.compaction(Effort::Full).unwrap());
    let (first, second) = (first.run().await.unwrap(), second.run().await.unwrap());
    assert!(table.commit_rewritten(first).await.unwrap().is_some());
    let before = scan(&warehouse, None).await;
    assert!(table.commit_rewritten(second).await.unwrap().is_none());
    assert_eq!(scan(&warehouse, None).await, before);
    let files = objects(warehouse.store().as_ref()).await;
    let vectors = files.iter().filter(|path| path.contains("part-")).count();
    assert_eq!(vectors, 12 + 1, "the file that was written in vain is gone");
}

#[tokio::test]
async fn a_full_one_rids_a_large_file_of_its_dead() {
    let warehouse = in_memory();
    let mut table = of_many_files(&warehouse, 1).await;
    let change = stream_change(&table, &[], &[(2, at(70)), (3, at(71))]);
    committed(&mut table, change).await;
    assert!(table.compaction(Effort::Steady).is_none());
    compact(&mut table, Effort::Full).await;
    assert_eq!(scan(&warehouse, None).await.len(), 8);
    assert!(table.files.values().all(|file| file.dead.is_empty()));
    assert!(table.compaction(Effort::Full).is_none());
}

#[tokio::test]
async fn a_table_that_someone_else_has_compacted_goes_on() {
    let warehouse = in_memory();
    let mut table = of_many_files(&warehouse, 20).await;
    let mut other = open(&warehouse, 1).await;
    compact(&mut other, Effort::Full).await;
    let change = stream_change(&table, &[(1, at(700), "mine")], &[(5, at(701))]);
    assert!(matches!(table.commit(change).await.unwrap(), CommitOutcome::Moved));
    assert_eq!(table.absorb().await.unwrap(), Absorbed::Beside);
    let change = stream_change(&table, &[(1, at(700), "mine")], &[(5, at(701))]);
    committed(&mut table, change).await;
    let rows = scan(&warehouse, None).await;
    assert_eq!(rows[&1], row(at(700), "mine"));
    assert!(!rows.contains_key(&5));
    // And the other way round: what it was about to compact has changed.
    let rewriting = other.compaction(Effort::Full);
    assert!(rewriting.is_none());
    assert_eq!(other.absorb().await.unwrap(), Absorbed::Moved, "changes of the stream are in");
    open(&warehouse, 1).await;
}

#[tokio::test]
async fn a_foreign_delete_is_taken_in() {
    let warehouse = in_memory();
    let mut table = of_many_files(&warehouse, 3).await;
    // As an engine that deletes writes it: a vector, and no record of ours.
    let other = open(&warehouse, 1).await;
    let number = other.live(KeyRef::Int(0)).unwrap().file;
    let mut vector = deletes::VectorFile::new(uuid::Uuid::from_u128(9));
    let dead = &other.files[&number].dead | &[0, 1].into_iter().collect();
    let add = other.files[&number].with_vector(vector.push(&dead));
    let remove = other.files[&number].remove(0);
    let name = delta::vector_file_name(uuid::Uuid::from_u128(9));
    other.files().put(&name, vector.finish()).await.unwrap();
    let actions = [
        delta::Action { remove: Some(remove), ..Default::default() },
        delta::Action { add: Some(add), ..Default::default() },
    ];
    table.log.put(table.version() + 1, log::serialise(&actions)).await.unwrap();
    let left = scan(&warehouse, None).await;
    assert!(!left.contains_key(&0) && !left.contains_key(&1));

    let change = stream_change(&table, &[(0, at(800), "again")], &[]);
    assert!(matches!(table.commit(change).await.unwrap(), CommitOutcome::Moved));
    assert_eq!(table.absorb().await.unwrap(), Absorbed::Beside);
    assert_eq!(table.locate(KeyRef::Int(0)), Located::Absent);
    upsert(&mut table, &[(0, at(800), "again")]).await;
    let rows = scan(&warehouse, None).await;
    assert_eq!((rows.len(), &rows[&0]), (left.len() + 1, &row(at(800), "again")));
}

fn copied() -> TableSchema {
    TableSchema { layout: Layout { storage: Storage::CopyOnWrite, ..Layout::default() }, ..schema() }
}

#[tokio::test]
async fn a_table_that_is_copied_on_write_has_no_vectors() {
    let warehouse = in_memory();
    let mut table =
        Table::create(&warehouse, &copied(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    let mut expected = Rows::new();
    for n in 0..12 {
        let texts: Vec<String> = (0..10).map(|id| format!("{n}-{id}")).collect();
        let rows: Vec<(i64, Order, &str)> =
            (0..10).map(|id| (n * 4 + id, at(n * 11 + id + 1), texts[id as usize].as_str())).collect();
        let change = stream_change(&table, &rows, &[(n * 4 - 3, at(n * 11 + 11))]);
        committed(&mut table, change).await;
        for (id, order, text) in rows {
            expected.insert(id, row(order, text));
        }
        expected.remove(&(n * 4 - 3));
        assert_eq!(scan(&warehouse, None).await, expected);
        if n == 6 {
            compact(&mut table, Effort::Full).await;
            table = open(&warehouse, 1).await;
        }
    }
    // Rows die while files are read.
    let rewritten = table.compaction(Effort::Full).unwrap().run().await.unwrap();
    upsert(&mut table, &[(20, at(900), "late")]).await;
    expected.insert(20, row(at(900), "late"));
    table.commit_rewritten(rewritten).await.unwrap();
    assert_eq!(scan(&warehouse, None).await, expected);
    assert!(table.files.values().all(|file| file.add.deletion_vector.is_none()));
    assert!(!objects(warehouse.store().as_ref()).await.iter().any(|path| path.contains("deletion_vector")));
    open(&warehouse, 1).await;
}

#[tokio::test]
async fn a_chunk_of_which_rows_lose_is_copied_too() {
    let warehouse = in_memory();
    let table = Table::create(&warehouse, &copied(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    let mut table = begin_seed(table).await;
    let staged = chunk(&table, &[(1, "old"), (2, "two"), (3, "gone")], at(5)).await;
    let change = stream_change(&table, &[(1, at(8), "new")], &[(3, at(9))]);
    committed(&mut table, change).await;
    merge(&mut table, staged).await;
    let expected = Rows::from([(1, row(at(8), "new")), (2, row(at(5), "two"))]);
    assert_eq!(scan(&warehouse, None).await, expected);
    assert!(table.files.values().all(|file| file.dead.is_empty()));
    open(&warehouse, 1).await;
}

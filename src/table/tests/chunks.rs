//! Chunks of a load against the stream: of each key the greater order stays.

use super::support::*;
use crate::table::{TableChange, TableError, TableState};
use crate::trace::{Hop, Tally};

#[tokio::test]
async fn the_greater_order_wins_both_ways() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    apply(&mut table, &[(1, 1), (2, 2)], &[]).await;
    begin_seed(&mut table, 3).await;
    // A file of both orders, so that each row's own decides.
    apply(&mut table, &[(3, 4), (4, 9)], &[]).await;
    merge(&mut table, &[1, 2, 3, 4, 5], 6).await;
    assert_eq!(live(&warehouse).await, expected(&[(1, 6), (2, 6), (3, 6), (4, 9), (5, 6)]));
    assert_eq!(places(&open(&warehouse, 2).await, 0..9), places(&table, 0..9));
}

#[tokio::test]
async fn a_chunk_that_loses_everywhere_leaves_no_file() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    begin_seed(&mut table, 1).await;
    apply(&mut table, &[(1, 5)], &[(2, 6)]).await;
    let staged = chunk(&table, &[1, 2], 4).await;
    let name = staged.as_ref().unwrap().name().to_owned();
    let change = TableChange { staged, ..TableChange::to(table.state().clone()) };
    commit(&mut table, change).await;
    assert_eq!(live(&warehouse).await, expected(&[(1, 5)]));
    let left = warehouse.list(&warehouse.table_path(&id())).await.unwrap();
    assert!(left.iter().all(|(file, _)| *file != name));
}

#[tokio::test]
async fn a_delete_behind_the_chunks_order_is_remembered_while_the_table_is_loaded() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    apply(&mut table, &[(1, 1)], &[]).await;
    begin_seed(&mut table, 2).await;
    apply(&mut table, &[], &[(1, 5), (2, 6)]).await;
    merge(&mut table, &[1, 2, 3], 4).await;
    assert_eq!(live(&warehouse).await, expected(&[(3, 4)]));
}

#[tokio::test]
async fn a_delete_before_the_chunks_order_loses_to_it() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    begin_seed(&mut table, 1).await;
    apply(&mut table, &[(1, 2)], &[]).await;
    apply(&mut table, &[], &[(1, 3)]).await;
    // The key came back without an event: another table took this one's name.
    merge(&mut table, &[1], 4).await;
    assert_eq!(live(&warehouse).await, expected(&[(1, 4)]));
    assert_eq!(places(&open(&warehouse, 2).await, 0..3), places(&table, 0..3));
}

#[tokio::test]
async fn a_chunk_below_the_floor_is_refused() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    begin_seed(&mut table, 1).await;
    let staged = chunk(&table, &[1], 3).await;
    apply(&mut table, &[(1, 2)], &[]).await;
    apply(&mut table, &[], &[(1, 5)]).await;
    let mut table = open(&warehouse, 2).await;
    assert!(!table.may_merge(at(3)));
    let change = TableChange { staged, ..TableChange::to(table.state().clone()) };
    assert!(matches!(table.commit(change).await, Err(TableError::Rule { .. })));
    assert_eq!(live(&warehouse).await, expected(&[]));
}

#[tokio::test]
async fn a_seed_goes_on_after_a_restart_with_the_floor_at_the_greatest_order() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    begin_seed(&mut table, 1).await;
    apply(&mut table, &[(1, 5)], &[(2, 6)]).await;
    let mut table = open(&warehouse, 2).await;
    assert!(table.state().seed.is_some());
    assert!(!table.may_merge(at(6)) && table.may_merge(at(7)));
    apply(&mut table, &[], &[(1, 8)]).await;
    merge(&mut table, &[1, 3], 7).await;
    assert_eq!(live(&warehouse).await, expected(&[(3, 7)]));
}

#[tokio::test]
async fn what_became_of_a_chunks_rows_is_counted() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    begin_seed(&mut table, 1).await;
    apply(&mut table, &[(1, 9)], &[(2, 8)]).await;
    merge(&mut table, &[3], 5).await;
    let staged = chunk(&table, &[1, 2, 3, 4], 5).await;
    let change = TableChange { staged, accounts: Tally::default(), ..TableChange::to(table.state().clone()) };
    let crate::table::CommitOutcome::Committed { accounts, .. } = table.commit(change).await.unwrap() else { panic!() };
    let total = |hop| accounts.iter().filter(|count| count.hop == hop).map(|count| count.count).sum::<u64>();
    assert_eq!(
        [Hop::ChunkRead, Hop::ChunkUpserted, Hop::ChunkStale, Hop::ChunkDuplicate].map(total),
        [4, 1, 2, 1]
    );
    assert_eq!(live(&warehouse).await, expected(&[(1, 9), (3, 5), (4, 5)]));
}

#[tokio::test]
async fn a_file_whose_orders_are_not_known_is_read_row_by_row() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    begin_seed(&mut table, 1).await;
    apply(&mut table, &[(1, 2), (2, 9)], &[]).await;
    // As a foreign writer, or a checkpoint without tags, leaves it.
    for file in table.files.values_mut() {
        file.orders = crate::table::writer::FileOrders::UNKNOWN;
    }
    merge(&mut table, &[1, 2], 5).await;
    assert_eq!(live(&warehouse).await, expected(&[(1, 5), (2, 9)]));
    let ended = TableState { seed: None, ..table.state().clone() };
    let change = TableChange { remove_below: Some(at(9)), ..TableChange::to(ended) };
    commit(&mut table, change).await;
    assert_eq!(live(&warehouse).await, expected(&[(2, 9)]));
}

#[tokio::test]
async fn a_column_that_the_source_spells_anew_keeps_its_name_in_a_chunk() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    begin_seed(&mut table, 1).await;
    let staged = chunk_of(&table, schema_of(false, &["V"]), &[1], 2).await;
    let change = TableChange { staged, ..TableChange::to(table.state().clone()) };
    commit(&mut table, change).await;
    assert_eq!(rows(&warehouse, None).await.unwrap()["1"].texts["v"].as_deref(), Some("V-1-2"));
}

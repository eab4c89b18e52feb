//! Commits without anyone in between: what is asked is what is read.

use std::collections::BTreeMap;

use super::support::*;
use crate::table::history::figures;
use crate::table::{TableChange, TableError};

#[tokio::test]
async fn what_is_committed_is_read_at_its_version() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    assert_eq!(live(&warehouse).await, expected(&[]));
    let first = apply(&mut table, &[(1, 1), (2, 2), (3, 3)], &[]).await;
    let second = apply(&mut table, &[(2, 4)], &[(3, 5)]).await;
    assert_eq!(live(&warehouse).await, expected(&[(1, 1), (2, 4)]));
    let before = rows(&warehouse, Some(first)).await.unwrap();
    assert_eq!(before.values().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(before["2"].texts["v"].as_deref(), Some("v-2-2"));
    assert!(matches!(rows(&warehouse, Some(second + 1)).await, Err(TableError::NoVersion { .. })));
}

#[tokio::test]
async fn a_reopened_table_stands_where_it_stood() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    apply(&mut table, &[(1, 1), (2, 2), (3, 3)], &[]).await;
    apply(&mut table, &[(2, 4)], &[(3, 5)]).await;
    let again = open(&warehouse, 2).await;
    assert_eq!(again.state(), table.state());
    assert_eq!(again.version(), table.version());
    assert_eq!(places(&again, 0..5), places(&table, 0..5));
    assert_eq!(again.floor(), at(5));
}

#[tokio::test]
async fn a_commit_without_changes_moves_the_position_alone() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    apply(&mut table, &[(1, 1)], &[]).await;
    let files = figures(&warehouse, &id()).await.unwrap().unwrap().files;
    let mut next = table.state().clone();
    next.gtid_set = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-9".parse().unwrap();
    let change = TableChange { rows: Some(lake_rows(table.schema(), &[])), ..TableChange::to(next.clone()) };
    commit(&mut table, change).await;
    assert_eq!(open(&warehouse, 2).await.state().gtid_set, next.gtid_set);
    assert_eq!(figures(&warehouse, &id()).await.unwrap().unwrap().files, files);
    assert_eq!(live(&warehouse).await, expected(&[(1, 1)]));
}

#[tokio::test]
async fn a_file_whose_rows_are_all_dead_goes() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    apply(&mut table, &[(1, 1), (2, 2)], &[]).await;
    apply(&mut table, &[(1, 3)], &[]).await;
    let figures_of = || async { figures(&warehouse, &id()).await.unwrap().unwrap() };
    assert_eq!((figures_of().await.files, figures_of().await.rows_dead), (2, 1));
    apply(&mut table, &[], &[(2, 4)]).await;
    assert_eq!((figures_of().await.files, figures_of().await.rows_dead, figures_of().await.rows), (1, 0, 1));
    assert_eq!(places(&open(&warehouse, 2).await, 0..5), places(&table, 0..5));
}

#[tokio::test]
async fn a_key_that_is_deleted_and_comes_back_lives_once() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    begin_seed(&mut table, 1).await;
    apply(&mut table, &[(1, 2)], &[]).await;
    apply(&mut table, &[], &[(1, 3)]).await;
    apply(&mut table, &[(1, 4)], &[]).await;
    assert_eq!(live(&warehouse).await, expected(&[(1, 4)]));
    assert_eq!(places(&open(&warehouse, 2).await, 0..3), places(&table, 0..3));
}

#[tokio::test]
async fn an_added_column_is_null_in_older_files() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    apply(&mut table, &[(1, 1), (2, 2)], &[]).await;
    let wider = schema_of(false, &["v", "w"]);
    let change = TableChange {
        evolve: Some(wider.clone()),
        rows: Some(lake_rows(&wider, &[(2, 3)])),
        ..TableChange::to(state(&table, 3))
    };
    commit(&mut table, change).await;
    let found = rows(&warehouse, None).await.unwrap();
    let texts = |v: &str, w: Option<&str>| -> BTreeMap<String, Option<String>> {
        [("v".to_owned(), Some(v.to_owned())), ("w".to_owned(), w.map(str::to_owned))].into()
    };
    assert_eq!(found["1"].texts, texts("v-1-1", None));
    assert_eq!(found["2"].texts, texts("v-2-3", Some("w-2-3")));
    assert_eq!(open(&warehouse, 2).await.schema().as_ref(), &wider);
}

#[tokio::test]
async fn columns_are_never_taken_away_from_rows_that_stay() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    let narrower = schema_of(false, &[]);
    let change = TableChange { evolve: Some(narrower), ..TableChange::to(table.state().clone()) };
    assert!(matches!(table.commit(change).await, Err(TableError::Rule { .. })));
    assert_eq!(open(&warehouse, 2).await.schema().as_ref(), &schema());
}

#[tokio::test]
async fn clear_takes_every_row_and_the_deletes_below_it() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    begin_seed(&mut table, 1).await;
    apply(&mut table, &[(1, 2), (2, 3)], &[]).await;
    apply(&mut table, &[], &[(2, 4)]).await;
    let change = TableChange { clear: Some(at(5)), ..TableChange::to(state(&table, 5)) };
    commit(&mut table, change).await;
    assert_eq!(live(&warehouse).await, expected(&[]));
    assert!(!table.may_merge(at(5)) && table.may_merge(at(6)));
    apply(&mut table, &[(1, 6)], &[]).await;
    assert_eq!(live(&warehouse).await, expected(&[(1, 6)]));
    assert_eq!(places(&open(&warehouse, 2).await, 0..5), places(&table, 0..5));
}

#[tokio::test]
async fn rows_that_a_load_did_not_find_go_at_its_end() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    // One file wholly below the start, one wholly above, one that has both.
    apply(&mut table, &[(1, 1), (2, 2)], &[]).await;
    begin_seed(&mut table, 10).await;
    apply(&mut table, &[(3, 3), (4, 12)], &[]).await;
    apply(&mut table, &[(5, 13)], &[]).await;
    merge(&mut table, &[1], 11).await;
    let ended = crate::table::TableState { seed: None, ..table.state().clone() };
    let change = TableChange { remove_below: Some(at(10)), ..TableChange::to(ended) };
    commit(&mut table, change).await;
    assert_eq!(live(&warehouse).await, expected(&[(1, 11), (4, 12), (5, 13)]));
    assert_eq!(places(&open(&warehouse, 2).await, 0..9), places(&table, 0..9));
}

#[tokio::test]
async fn a_key_that_is_changed_twice_in_a_commit_is_refused() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    for (upserts, deletes) in [(vec![(1, 1), (1, 2)], vec![]), (vec![(1, 1), (2, 2)], vec![(2, 3)])] {
        let change = stream(&table, &upserts, &deletes);
        assert!(matches!(table.commit(change).await, Err(TableError::Rule { .. })));
    }
    assert_eq!(live(&warehouse).await, expected(&[]));
}

#[tokio::test]
async fn a_state_that_gives_something_up_is_refused() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    apply(&mut table, &[(1, 5)], &[]).await;
    let mut fallen = table.state().clone();
    fallen.greatest.clear();
    assert!(matches!(table.commit(TableChange::to(fallen)).await, Err(TableError::Rule { .. })));
}

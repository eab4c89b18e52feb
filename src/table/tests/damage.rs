//! What is stored and is not what it should be is told, never read as something else.

use bytes::Bytes;
use object_store::ObjectStoreExt;

use super::support::*;
use crate::table::delta::Action;
use crate::table::log::{Log, commit_name, serialise};
use crate::table::{Table, TableError, Warehouse};

async fn file_with(warehouse: &Warehouse, part: &str) -> String {
    let names = warehouse.list(&warehouse.table_path(&id())).await.unwrap();
    names.into_iter().map(|(name, _)| name).find(|name| name.contains(part)).unwrap()
}

async fn opened(warehouse: &Warehouse) -> Result<Option<Table>, TableError> {
    Table::open(warehouse, &id(), writer(2)).await
}

#[tokio::test]
async fn a_damaged_deletion_vector_is_told() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    apply(&mut table, &[(1, 1), (2, 2)], &[]).await;
    apply(&mut table, &[], &[(1, 3)]).await;
    let path = warehouse.table_path(&id()).join(file_with(&warehouse, "deletion_vector").await);
    let good = warehouse.get(&path).await.unwrap().to_vec();
    for at in 1..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        warehouse.put(&path, Bytes::from(bad)).await.unwrap();
        assert!(matches!(opened(&warehouse).await, Err(TableError::Damaged(_))), "byte {at}");
        assert!(matches!(rows(&warehouse, None).await, Err(TableError::Damaged(_))), "byte {at}");
    }
    warehouse.put(&path, Bytes::from(good[..good.len() - 1].to_vec())).await.unwrap();
    assert!(matches!(opened(&warehouse).await, Err(TableError::Damaged(_))));
    warehouse.store().delete(&path).await.unwrap();
    assert!(opened(&warehouse).await.is_err());
}

#[tokio::test]
async fn a_version_that_is_missing_from_the_log_is_told() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    let lost = apply(&mut table, &[(1, 1)], &[]).await;
    apply(&mut table, &[(2, 2)], &[]).await;
    let path = warehouse.table_path(&id()).join("_delta_log").join(commit_name(lost));
    warehouse.store().delete(&path).await.unwrap();
    assert!(matches!(opened(&warehouse).await, Err(TableError::Damaged(_))));
    assert!(matches!(rows(&warehouse, None).await, Err(TableError::Damaged(_))));
}

#[tokio::test]
async fn a_version_that_is_not_a_commit_is_told() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    let version = apply(&mut table, &[(1, 1)], &[]).await;
    let path = warehouse.table_path(&id()).join("_delta_log").join(commit_name(version));
    let bytes = warehouse.get(&path).await.unwrap();
    warehouse.put(&path, bytes.slice(..bytes.len() / 2)).await.unwrap();
    assert!(matches!(opened(&warehouse).await, Err(TableError::Damaged(_))));
}

/// Puts a version that a foreign writer could have: `change` edits the actions of the table's newest own commit.
async fn foreign(warehouse: &Warehouse, table: &Table, change: impl Fn(&mut Action)) {
    let log = Log::new(warehouse, &id());
    let mut actions = log.read(table.version()).await.unwrap();
    actions.retain(|action| action.commit_info.is_none() && action.txn.is_none());
    actions.iter_mut().for_each(change);
    log.put(table.version() + 1, serialise(&actions)).await.unwrap();
}

#[tokio::test]
async fn two_live_rows_of_one_key_are_told() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    apply(&mut table, &[(1, 1), (2, 2)], &[]).await;
    let folder = warehouse.table_path(&id());
    let name = file_with(&warehouse, ".parquet").await;
    let bytes = warehouse.get(&folder.clone().join(name.as_str())).await.unwrap();
    warehouse.put(&folder.join("part-copy.parquet"), bytes).await.unwrap();
    foreign(&warehouse, &table, |action| {
        if let Some(add) = &mut action.add {
            add.path = "part-copy.parquet".into();
        }
    })
    .await;
    let Err(TableError::Damaged(what)) = opened(&warehouse).await else { panic!("two live rows were taken") };
    assert!(what.contains("two live rows of one key"), "{what}");
}

#[tokio::test]
async fn a_file_with_other_rows_than_its_entry_says_is_told() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    apply(&mut table, &[(1, 1), (2, 2)], &[]).await;
    foreign(&warehouse, &table, |action| {
        if let Some(add) = &mut action.add {
            add.stats = Some(r#"{"numRecords":3}"#.into());
        }
    })
    .await;
    assert!(matches!(opened(&warehouse).await, Err(TableError::Damaged(_))));
}

#[tokio::test]
async fn columns_that_someone_else_changed_stop_the_table() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    let wider = schema_of(false, &["v", "w"]);
    let change =
        crate::table::TableChange { evolve: Some(wider), ..crate::table::TableChange::to(table.state().clone()) };
    commit(&mut table, change).await;
    assert!(opened(&warehouse).await.is_ok());
    foreign(&warehouse, &table, |action| {
        if let Some(meta_data) = &mut action.meta_data {
            meta_data.schema_string = meta_data.schema_string.replace("\"w\"", "\"x\"");
        }
    })
    .await;
    assert!(matches!(opened(&warehouse).await, Err(TableError::Rule { .. })));
}

#[tokio::test]
async fn a_protocol_that_someone_else_changed_stops_the_table() {
    let warehouse = in_memory();
    let table = create(&warehouse).await;
    foreign(&warehouse, &table, |action| {
        if let Some(protocol) = &mut action.protocol {
            protocol.writer_features.as_mut().unwrap().push("rowTracking".into());
        }
    })
    .await;
    assert!(matches!(opened(&warehouse).await, Err(TableError::Rule { .. })));
}

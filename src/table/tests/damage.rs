//! What is stored and is not what it should be is told, never read as something else.

use bytes::Bytes;
use object_store::ObjectStoreExt;

use super::*;
use crate::table::delta::Action;
use crate::table::log::{commit_name, serialise};

/// Version 1 has the rows 1 and 2, version 2 deletes 1.
async fn table_with_a_vector(warehouse: &Warehouse) -> Table {
    let mut table =
        Table::create(warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    upsert(&mut table, &[(1, at(1), "a"), (2, at(2), "b")]).await;
    let change = stream_change(&table, &[], &[(1, at(3))]);
    committed(&mut table, change).await;
    table
}

async fn opened(warehouse: &Warehouse) -> Result<Option<Table>, TableError> {
    Table::open(warehouse, &id(), writer(1), Buckets::whole()).await
}

async fn scanned(warehouse: &Warehouse) -> Result<(), TableError> {
    Scan::open(warehouse, &id(), None, None).await?.for_each(|_| Ok(())).await
}

fn commit_path(table: &Table, version: i64) -> Path {
    table.path.clone().join("_delta_log").join(commit_name(version))
}

/// Puts the next version as a foreign writer could: the actions of `version`, each changed by `edit`.
async fn put_foreign(table: &Table, version: i64, edit: impl Fn(&mut Action)) {
    let mut actions = table.log.read(version).await.unwrap();
    actions.retain(|action| action.commit_info.is_none() && action.txn.is_none());
    actions.iter_mut().for_each(edit);
    table.log.put(table.version() + 1, serialise(&actions)).await.unwrap();
}

#[tokio::test]
async fn a_deletion_vector_with_any_byte_flipped_or_missing_is_told() {
    let warehouse = in_memory();
    let table = table_with_a_vector(&warehouse).await;
    let names = objects(&**warehouse.store()).await;
    let path = Path::from(names.into_iter().find(|name| name.ends_with(".bin")).unwrap());
    let good = warehouse.get(&path).await.unwrap();
    // The first byte is the version of the file's format; the descriptor points behind it.
    for place in 1..good.len() {
        let mut bad = good.to_vec();
        bad[place] ^= 0x40;
        warehouse.put(&path, Bytes::from(bad)).await.unwrap();
        assert!(matches!(opened(&warehouse).await, Err(TableError::Damaged(_))), "byte {place}");
        assert!(matches!(scanned(&warehouse).await, Err(TableError::Damaged(_))), "byte {place}");
    }
    warehouse.put(&path, good.slice(..good.len() - 1)).await.unwrap();
    assert!(opened(&warehouse).await.is_err());
    warehouse.store().delete(&path).await.unwrap();
    assert!(opened(&warehouse).await.is_err());
    warehouse.put(&path, good).await.unwrap();
    assert_eq!(opened(&warehouse).await.unwrap().unwrap().figures(), table.figures());
}

#[tokio::test]
async fn a_version_that_is_missing_or_torn_is_told() {
    let warehouse = in_memory();
    let table = table_with_a_vector(&warehouse).await;
    let path = commit_path(&table, 1);
    let bytes = warehouse.get(&path).await.unwrap();
    warehouse.put(&path, bytes.slice(..bytes.len() - 9)).await.unwrap();
    assert!(matches!(opened(&warehouse).await, Err(TableError::Damaged(_))));
    warehouse.store().delete(&path).await.unwrap();
    assert!(matches!(opened(&warehouse).await, Err(TableError::Damaged(_))));
    assert!(matches!(scanned(&warehouse).await, Err(TableError::Damaged(_))));
}

#[tokio::test]
async fn a_file_with_other_rows_than_its_entry_says_is_told() {
    let warehouse = in_memory();
    let table = table_with_a_vector(&warehouse).await;
    put_foreign(&table, 1, |action| {
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
    let table = table_with_a_vector(&warehouse).await;
    put_foreign(&table, 0, |action| {
        if let Some(meta_data) = &mut action.meta_data {
            meta_data.schema_string = meta_data.schema_string.replace("\"text\"", "\"words\"");
        }
    })
    .await;
    assert!(matches!(opened(&warehouse).await, Err(TableError::Rule { .. })));
}

#[tokio::test]
async fn a_table_of_a_newer_version_is_refused_by_its_format_and_left_alone() {
    let warehouse = in_memory();
    let table = table_with_a_vector(&warehouse).await;
    let objects_before = objects(&**warehouse.store()).await;
    let newest = commit_path(&table, table.version());
    let good = warehouse.get(&newest).await.unwrap();
    let told = |error: TableError| {
        assert!(matches!(error, TableError::Newer { found: Format(2), .. }) && !error.is_damage(), "{error}");
        assert!(error.to_string().contains("has format 2; this version of weir knows 1"), "{error}");
    };
    // Its record is of a shape that this version does not know.
    let newer =
        r#"{"commitInfo": {"timestamp": 1, "operation": "MERGE", "weir": {"format": 2, "state": ["otherwise"]}}}"#;
    warehouse.put(&newest, newer.into()).await.unwrap();
    told(opened(&warehouse).await.unwrap_err());
    told(scanned(&warehouse).await.unwrap_err());
    // The property alone: of a table whose newer commits have been cleaned away.
    warehouse.put(&newest, good).await.unwrap();
    put_foreign(&table, 0, |action| {
        action.add = None;
        action.protocol = None;
        if let Some(meta_data) = &mut action.meta_data {
            meta_data.configuration.insert("weir.format".into(), "2".into());
        }
    })
    .await;
    told(opened(&warehouse).await.unwrap_err());
    assert_eq!(objects(&**warehouse.store()).await.len(), objects_before.len() + 1);
}

#[tokio::test]
async fn a_table_from_before_formats_were_named_is_of_the_first() {
    let warehouse = in_memory();
    let table = table_with_a_vector(&warehouse).await;
    for version in 0..=table.version() {
        let path = commit_path(&table, version);
        let text = String::from_utf8(warehouse.get(&path).await.unwrap().to_vec()).unwrap();
        let before = text.replace("\"weir.format\":\"1\",", "").replace("\"format\":1,", "");
        assert_ne!(before, text);
        warehouse.put(&path, before.into()).await.unwrap();
    }
    assert_eq!(opened(&warehouse).await.unwrap().unwrap().figures(), table.figures());
    scanned(&warehouse).await.unwrap();
}

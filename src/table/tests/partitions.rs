//! Tables with partitions: where files lie and what the log says of it, rows that move, and what is read back.

use std::collections::BTreeSet;

use arrow_array::types::Date32Type;
use weir_model::Layout;
use weir_model::key::KeyRef;
use weir_model::partition::date_text;

use super::buckets::COUNT;
use super::*;
use crate::table::delta::Add;
use crate::table::log::{Replay, serialise};

/// The tables of this room with columns that texts tell, partitioned so.
pub(super) fn partitioned(schema: TableSchema, partition_by: &[&str]) -> TableSchema {
    let mut schema = schema;
    schema.columns.push(column("part", ColumnType::Int16));
    schema.columns.push(column("at", ColumnType::DateTime { fsp: 0 }));
    let partitions = partition_by.iter().map(|text| text.parse().unwrap()).collect();
    TableSchema { layout: Layout { partitions, ..Layout::default() }, ..schema }
}

async fn create(warehouse: &Warehouse, partition_by: &[&str]) -> Table {
    let schema = partitioned(schema(), partition_by);
    Table::create(warehouse, &schema, writer(1), TableState::default(), Buckets::whole()).await.unwrap()
}

async fn replay(table: &Table) -> Replay {
    table.log.replay(None).await.unwrap().unwrap()
}

/// The partition of each file, as the log says it, with its live rows.
async fn files(table: &Table) -> Vec<(BTreeMap<String, Option<String>>, i64)> {
    let live = |add: &Add| {
        let dead = add.deletion_vector.as_ref().map_or(0, |vector| vector.cardinality);
        statistics::rows_of(add.stats.as_deref()).unwrap() as i64 - dead
    };
    let mut files: Vec<_> =
        replay(table).await.files.values().map(|add| (add.partition_values.clone(), live(add))).collect();
    files.sort();
    files
}

fn of(values: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<String>> {
    values.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
}

/// What the log tells of each row is what its other columns say.
pub(super) async fn told_truly(warehouse: &Warehouse, schema: &TableSchema) {
    let scan = Scan::open(warehouse, &id(), None, None).await.unwrap();
    scan.for_each(|batch| {
        let texts = batch.column_by_name("text").unwrap().as_string::<i32>().clone();
        let rows: Vec<(i64, &str)> = batch
            .column_by_name("id")
            .unwrap()
            .as_primitive::<Int64Type>()
            .values()
            .iter()
            .enumerate()
            .map(|(row, id)| (*id, texts.value(row)))
            .collect();
        let source = source_rows(schema, &rows);
        let made = schema.made_columns(source.columns(), rows.len()).unwrap();
        let expected = source.columns().iter().chain(&made);
        for (field, expected) in schema.lake_arrow().fields().iter().zip(expected) {
            if !field.name().starts_with('n') {
                assert_eq!(batch.column_by_name(field.name()).unwrap(), expected, "{}", field.name());
            }
        }
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_commit_writes_a_file_a_partition_and_the_log_says_which() {
    let warehouse = in_memory();
    let mut table = create(&warehouse, &["part", "d = day(at)"]).await;
    // Of the texts "1" and "9" part is 1, of "3" NULL; `at` is the first day, and of "9" the third.
    upsert(&mut table, &[(1, at(1), "1"), (2, at(2), "1"), (3, at(3), "3")]).await;
    upsert(&mut table, &[(2, at(4), "9")]).await;
    let (first, third) = (Some("1970-01-01"), Some("1970-01-03"));
    let expected = [
        (of(&[("part", None), ("d", first)]), 1),
        (of(&[("part", Some("1")), ("d", first)]), 1),
        (of(&[("part", Some("1")), ("d", third)]), 1),
    ];
    assert_eq!(files(&table).await, expected);
    let replay = replay(&table).await;
    assert_eq!(replay.meta_data.unwrap().partition_columns, ["part", "d"]);
    for add in replay.files.values() {
        let value = |name: &str| add.partition_values[name].clone().unwrap_or("__HIVE_DEFAULT_PARTITION__".into());
        let folder = format!("part={}/d={}/part-", value("part"), value("d"));
        assert!(add.path.starts_with(&folder) && add.path.ends_with(".parquet"), "{}", add.path);
        let stats: serde_json::Value = serde_json::from_str(add.stats.as_ref().unwrap()).unwrap();
        assert!(stats["minValues"].get("part").is_none() && stats["minValues"].get("id").is_some(), "{stats}");
    }
    // Vectors lie in the table's own folder: readers look for them there.
    let objects = objects(&**warehouse.store()).await;
    let of_kind = |suffix: &str| objects.iter().filter(|path| path.ends_with(suffix)).collect::<Vec<_>>();
    assert!(of_kind(".bin").iter().all(|path| path.starts_with("shop/orders/deletion_vector_")), "{objects:?}");
    assert!(!of_kind(".bin").is_empty());
    assert!(of_kind(".parquet").iter().all(|path| path.starts_with("shop/orders/part=")), "{objects:?}");
    told_truly(&warehouse, table.schema()).await;
}

#[tokio::test]
async fn a_row_that_moves_dies_there_and_lives_here_within_a_commit_and_across() {
    let warehouse = in_memory();
    let mut table = create(&warehouse, &["part"]).await;
    upsert(&mut table, &[(1, at(1), "1"), (2, at(2), "2"), (3, at(3), "1"), (4, at(4), "2")]).await;
    assert_eq!(files(&table).await, [(of(&[("part", Some("1"))]), 2), (of(&[("part", Some("2"))]), 2)]);
    // Both directions in one commit, and one into NULL.
    upsert(&mut table, &[(1, at(5), "2"), (2, at(6), "1"), (3, at(7), "3")]).await;
    let (one, two, null) = (of(&[("part", Some("1"))]), of(&[("part", Some("2"))]), of(&[("part", None)]));
    // Of the first file of 1 no row is left; it is gone.
    assert_eq!(files(&table).await, [(null, 1), (one.clone(), 1), (two.clone(), 1), (two.clone(), 1)]);
    let expected = |rows: &[(i64, i64, &str)]| -> Rows {
        rows.iter().map(|(id, order, text)| (*id, row(at(*order), text))).collect()
    };
    let rows = scan(&warehouse, None).await;
    assert_eq!(rows, expected(&[(1, 5, "2"), (2, 6, "1"), (3, 7, "3"), (4, 4, "2")]));
    // And back, across commits and a restart; a delete finds the row where it is.
    let mut table = open(&warehouse, 2).await;
    let change = stream_change(&table, &[(3, at(8), "1"), (1, at(9), "1")], &[(2, at(10))]);
    committed(&mut table, change).await;
    assert_eq!(files(&table).await, [(one, 2), (two, 1)]);
    assert_eq!(scan(&warehouse, None).await, expected(&[(1, 9, "1"), (3, 8, "1"), (4, 4, "2")]));
    told_truly(&warehouse, table.schema()).await;
    assert_eq!(open(&warehouse, 3).await.figures(), table.figures());
}

#[tokio::test]
async fn a_key_column_that_files_leave_out_is_read_from_the_log() {
    let warehouse = in_memory();
    let schema = partitioned(composite_schema(), &["code", "b = bucket(2, id)"]);
    let mut table =
        Table::create(&warehouse, &schema, writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    upsert(&mut table, &[(1, at(1), "1"), (2, at(2), "2"), (4, at(3), "3")]).await;
    let mut table = begin_seed(open(&warehouse, 1).await).await;
    let change = stream_change(&table, &[(4, at(14), "new")], &[(2, at(15))]);
    committed(&mut table, change).await;
    // A chunk that another process reads from its files.
    let told: Vec<String> = chunk(&table, &[(1, "7"), (2, "7"), (4, "7"), (5, "7"), (6, "7")], at(13))
        .await
        .iter()
        .map(|part| serde_json::to_string(&part.describe()).unwrap())
        .collect();
    assert!(told.len() > 2, "{told:?}");
    let mut staged = Vec::new();
    for told in &told {
        let told: StagedFile = serde_json::from_str(told).unwrap();
        staged.push(StagedChunk::open(table.files(), told).await.unwrap().unwrap());
    }
    merge(&mut table, staged).await;
    let expected =
        Rows::from([(1, row(at(13), "7")), (4, row(at(14), "new")), (5, row(at(13), "7")), (6, row(at(13), "7"))]);
    assert_eq!(scan(&warehouse, None).await, expected);
    told_truly(&warehouse, &schema).await;
    assert_eq!(open(&warehouse, 2).await.index_figures().0, 4);
    // Of columns that the log alone tells there are as many rows as in the files.
    let columns = ["b".to_owned(), "code".to_owned()];
    let mut codes = Vec::new();
    let scan = Scan::open(&warehouse, &id(), None, Some(&columns)).await.unwrap();
    scan.for_each(|batch| {
        codes.extend(batch.column(1).as_string::<i32>().iter().map(|code| code.unwrap().to_owned()));
        Ok(())
    })
    .await
    .unwrap();
    codes.sort();
    assert_eq!(codes, ["c0", "c1", "c1", "c2"]);
}

#[tokio::test]
async fn a_chunk_of_a_sharded_table_is_a_file_a_partition_of_a_bucket() {
    let warehouse = in_memory();
    let schema = Arc::new(partitioned(schema(), &["part"]));
    let table =
        Table::create(&warehouse, &schema, writer(1), TableState::default(), Buckets::all(COUNT)).await.unwrap();
    let mut writer = ChunkWriter::create(table.files(), schema.clone(), at(5), Window(0), COUNT).unwrap();
    let texts: Vec<(i64, String)> = (0..60).map(|id| (id, (id % 7).to_string())).collect();
    for rows in texts.chunks(11) {
        let rows: Vec<(i64, &str)> = rows.iter().map(|(id, text)| (*id, text.as_str())).collect();
        writer.write(&source_rows(&schema, &rows)).await.unwrap();
    }
    let staged = writer.finish().await.unwrap();
    let places: BTreeSet<(u32, PartitionValues)> =
        staged.iter().map(|part| (part.bucket(), part.file.partition.clone())).collect();
    let expected: BTreeSet<(u32, Option<i16>)> =
        (0..60).map(|id| (super::buckets::bucket_of(id), part(&texts[id as usize].1))).collect();
    assert_eq!((places.len(), staged.len()), (expected.len(), expected.len()));
    assert!(expected.len() > 15);
    assert_eq!(staged.iter().map(StagedChunk::rows).sum::<u64>(), 60);
    for part in &staged {
        for row in 0..part.rows() as usize {
            assert_eq!(part.keys.get(row).bucket(COUNT), part.bucket());
        }
        let opened = StagedChunk::open(table.files(), part.describe()).await.unwrap().unwrap();
        let keys =
            |part: &StagedChunk| (0..part.keys.len()).map(|row| part.keys.get(row).to_owned()).collect::<Vec<_>>();
        assert_eq!(keys(&opened), keys(part));
        table.files().discard(part.name()).await;
        assert!(StagedChunk::open(table.files(), part.describe()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_a_folder_is_refused_and_nothing_is_written() {
    let warehouse = in_memory();
    let mut table = begin_seed(create(&warehouse, &["text"]).await).await;
    upsert(&mut table, &[(1, at(2), "plain")]).await;
    let before = objects(&**warehouse.store()).await;
    let change = stream_change(&table, &[(2, at(3), "EU"), (3, at(4), "not plain")], &[]);
    let refused = table.commit(change).await.unwrap_err();
    assert!(matches!(&refused, TableError::PartitionValue { column, .. } if column == "text"), "{refused}");
    assert!(!refused.to_string().contains("not plain"), "{refused}");
    let mut writer = ChunkWriter::create(table.files(), table.schema().clone(), at(5), Window(0), 1).unwrap();
    writer.write(&source_rows(table.schema(), &[(4, "EU")])).await.unwrap();
    let refused = writer.write(&source_rows(table.schema(), &[(5, "")])).await;
    assert!(matches!(refused, Err(TableError::PartitionValue { .. })));
    drop(writer);
    assert_eq!(objects(&**warehouse.store()).await, before);
    assert_eq!(scan(&warehouse, None).await, Rows::from([(1, row(at(2), "plain"))]));
}

#[tokio::test]
async fn a_table_does_not_begin_with_partitions_that_its_columns_cannot_have() {
    for (by, word) in [
        ("gone", "no column gone"),
        ("at", "timestamp_ntz"),
        ("PART", "spells it part"),
        ("ID = day(at)", "another name"),
    ] {
        let warehouse = in_memory();
        let schema = partitioned(schema(), &[by]);
        let refused = Table::create(&warehouse, &schema, writer(1), TableState::default(), Buckets::whole()).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(word) && refused.contains("shop.orders"), "{refused}");
        assert!(objects(&**warehouse.store()).await.is_empty());
    }
    // Nor is it opened with others than it has.
    let warehouse = in_memory();
    create(&warehouse, &["part"]).await;
    let other = partitioned(schema(), &["d = day(at)"]);
    let opened = Table::open_or_create(&warehouse, &other, writer(1), TableState::default(), Buckets::whole()).await;
    assert!(matches!(opened, Err(TableError::Layout { .. })));
}

#[tokio::test]
async fn rows_without_the_column_lie_in_the_partition_of_null() {
    let warehouse = in_memory();
    let mut table = begin_seed(create(&warehouse, &["part", "d = day(at)"]).await).await;
    upsert(&mut table, &[(1, at(2), "1")]).await;
    // The source has dropped both columns, and spells the others in another way.
    let mut narrow = table.schema().as_ref().clone();
    narrow.columns.truncate(2);
    narrow.columns[1].name = "Text".into();
    let rows = source_rows(&schema(), &[(1, "7"), (2, "8")]);
    let mut writer = ChunkWriter::create(table.files(), Arc::new(narrow.clone()), at(3), Window(0), 1).unwrap();
    writer.write(&RecordBatch::try_new(narrow.arrow(), rows.columns().to_vec()).unwrap()).await.unwrap();
    let staged = writer.finish().await.unwrap();
    merge(&mut table, staged).await;
    assert_eq!(scan(&warehouse, None).await, Rows::from([(1, row(at(3), "7")), (2, row(at(3), "8"))]));
    assert_eq!(files(&table).await, [(of(&[("part", None), ("d", None)]), 2)]);
    let objects = objects(&**warehouse.store()).await;
    let nulls = "shop/orders/part=__HIVE_DEFAULT_PARTITION__/d=__HIVE_DEFAULT_PARTITION__/part-";
    assert!(objects.iter().any(|path| path.starts_with(nulls)), "{objects:?}");
}

#[tokio::test]
async fn a_chunk_for_other_partitions_or_with_a_key_in_two_of_them_is_refused() {
    let warehouse = in_memory();
    let mut table = begin_seed(create(&warehouse, &["part"]).await).await;
    let state = table.state().clone();
    let twice = chunk(&table, &[(1, "1"), (2, "1"), (1, "2")], at(2)).await;
    assert_eq!(twice.len(), 2);
    let plain = partitioned(schema(), &[]);
    let mut writer = ChunkWriter::create(table.files(), Arc::new(plain.clone()), at(2), Window(0), 1).unwrap();
    writer.write(&source_rows(&plain, &[(1, "1")])).await.unwrap();
    let other = writer.finish().await.unwrap();
    for (staged, word) in [(twice, "two rows of one key"), (other, "another layout")] {
        let refused = table.commit(TableChange { staged, ..TableChange::to(state.clone()) }).await;
        assert!(matches!(&refused, Err(TableError::Rule { rule, .. }) if rule.contains(word)), "{refused:?}");
    }
    let layout = Layout { partitions: Vec::new(), ..table.schema().layout.clone() };
    let evolve = Some(TableSchema { layout, ..table.schema().as_ref().clone() });
    let refused = table.commit(TableChange { evolve, ..TableChange::to(state) }).await;
    assert!(matches!(&refused, Err(TableError::Rule { rule, .. }) if rule.contains("layout")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_the_log_keeps_the_partitions_and_their_nulls() {
    let warehouse = in_memory();
    let mut table = create(&warehouse, &["part", "d = day(at)"]).await;
    upsert(&mut table, &[(1, at(1), "1"), (2, at(2), "3"), (3, at(3), "3")]).await;
    upsert(&mut table, &[(2, at(4), "5")]).await;
    let by_commits = files(&table).await;
    checkpoint::write(&warehouse, &table.path).await.unwrap();
    for version in 0..2 {
        let path = table.path.clone().join("_delta_log").join(log::commit_name(version));
        object_store::ObjectStoreExt::delete(&**warehouse.store(), &path).await.unwrap();
    }
    assert_eq!(files(&table).await, by_commits);
    assert!(by_commits.iter().any(|(values, _)| values["part"].is_none()), "{by_commits:?}");
    // Other readers take what delta-rs has written: each entry names both columns, NULL or not.
    let name = format!("{:020}.checkpoint.parquet", table.version());
    let bytes = warehouse.get(&table.path.clone().join("_delta_log").join(name)).await.unwrap();
    let batches =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    let mut adds = 0;
    for batch in batches {
        let batch = batch.unwrap();
        let add = batch.column_by_name("add").unwrap().as_struct();
        let values = add.column_by_name("partitionValues").unwrap().as_map();
        for row in (0..batch.num_rows()).filter(|row| add.is_valid(*row)) {
            let names: BTreeSet<String> =
                values.value(row).column(0).as_string::<i32>().iter().map(|name| name.unwrap().to_owned()).collect();
            assert_eq!(names, BTreeSet::from(["part".to_owned(), "d".to_owned()]));
            adds += 1;
        }
    }
    assert_eq!(adds, by_commits.len());
    let mut table = open(&warehouse, 2).await;
    upsert(&mut table, &[(3, at(5), "1")]).await;
    assert_eq!(open(&warehouse, 3).await.figures(), table.figures());
    told_truly(&warehouse, table.schema()).await;
}

#[tokio::test]
async fn a_foreign_writers_entries_are_read_whatever_their_folders_and_nulls() {
    let warehouse = in_memory();
    let mut table = create(&warehouse, &["part"]).await;
    upsert(&mut table, &[(1, at(1), "3"), (2, at(2), "3"), (3, at(3), "1")]).await;
    // As an OPTIMIZE of somebody else would: the file of NULL in no folder of that name, with NULL left out, or empty.
    let replay = replay(&table).await;
    let of_null = replay.files.values().find(|add| add.partition_values["part"].is_none()).unwrap().clone();
    let bytes = warehouse.get(&table.folder().child(&of_null.path)).await.unwrap();
    let mut version = table.version();
    let mut path = of_null.path.clone();
    for values in [BTreeMap::new(), of(&[("part", Some(""))])] {
        version += 1;
        let copy = format!("elsewhere-{version}.parquet");
        table.files().put(&copy, bytes.clone()).await.unwrap();
        let remove = delta::Remove {
            path: std::mem::replace(&mut path, copy.clone()),
            deletion_timestamp: Some(0),
            data_change: false,
            extended_file_metadata: None,
            partition_values: None,
            size: None,
            deletion_vector: None,
        };
        let add = Add { path: copy, partition_values: values, data_change: false, ..of_null.clone() };
        let actions = [
            delta::Action { remove: Some(remove), ..delta::Action::default() },
            delta::Action { add: Some(add), ..delta::Action::default() },
        ];
        table.log.put(version, serialise(&actions)).await.unwrap();
        told_truly(&warehouse, table.schema()).await;
        let mut reopened = open(&warehouse, 2).await;
        assert_eq!(reopened.index_figures().0, 3);
        if version == table.version() + 2 {
            upsert(&mut reopened, &[(1, at(9), "2")]).await;
            let null = of(&[("part", None)]);
            let entries = files(&reopened).await;
            assert_eq!(entries[0], (null, 1), "an entry of ours says NULL as the protocol does: {entries:?}");
        }
    }
}

#[tokio::test]
async fn thousands_of_partitions_in_one_commit_are_as_many_files() {
    let warehouse = in_memory();
    let mut table = create(&warehouse, &["b = bucket(1500, id)"]).await;
    let upserts: Vec<(i64, Order, &str)> = (0..6_000).map(|id| (id, at(1), "1")).collect();
    upsert(&mut table, &upserts).await;
    let distinct: BTreeSet<u64> = (0..6_000).map(|id| KeyRef::Int(id).hash64() % 1_500).collect();
    assert_eq!(table.figures().0, distinct.len() as u64);
    assert!(distinct.len() > 1_400);
    assert_eq!(open(&warehouse, 2).await.figures(), table.figures());
    assert_eq!(scan(&warehouse, None).await.len(), 6_000);
}

#[tokio::test]
async fn a_warehouse_on_disk_holds_a_folder_a_partition() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    let warehouse = Warehouse::open(&url, &BTreeMap::new()).unwrap();
    let mut table = create(&warehouse, &["d = day(at)", "text"]).await;
    upsert(&mut table, &[(1, at(1), "5"), (2, at(2), "-7.x")]).await;
    upsert(&mut table, &[(1, at(3), "9")]).await;
    let root = folder.path().join("shop/orders");
    let mut folders: Vec<String> = Vec::new();
    for day in std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let name = day.file_name().unwrap().to_str().unwrap().to_owned();
        if name != "_delta_log" {
            let inner = std::fs::read_dir(&day).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            folders.extend(inner.map(|inner| format!("{name}/{inner}")));
        }
    }
    folders.sort();
    let day = |text: &str| date_text(source_day(text).into());
    let mut expected: Vec<String> = ["5", "-7.x", "9"].map(|text| format!("d={}/text={text}", day(text))).into();
    expected.sort();
    assert_eq!(folders, expected);
    let table = open(&Warehouse::open(&url, &BTreeMap::new()).unwrap(), 2).await;
    assert_eq!(table.figures().1, 2);
    told_truly(&warehouse, table.schema()).await;
}

fn source_day(text: &str) -> i32 {
    let schema = partitioned(schema(), &["d = day(at)"]);
    let rows = source_rows(&schema, &[(1, text)]);
    schema.made_columns(rows.columns(), 1).unwrap()[0].as_primitive::<Date32Type>().value(0)
}

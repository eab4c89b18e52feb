//! One table from its creation on: what each kind of commit does, and what readers and a restart see of it.

use serde_json::Value;

use super::*;

#[tokio::test]
async fn the_newest_change_of_a_key_is_its_row() {
    let warehouse = in_memory();
    let mut table =
        Table::create(&warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    upsert(&mut table, &[(1, at(1), "a"), (2, at(2), "b"), (3, at(3), "c")]).await;
    let change = stream_change(&table, &[(2, at(4), "B")], &[(3, at(5)), (9, at(6))]);
    committed(&mut table, change).await;
    let expected = Rows::from([(1, row(at(1), "a")), (2, row(at(4), "B"))]);
    assert_eq!(scan(&warehouse, None).await, expected);
    assert_eq!(scan(&warehouse, Some(1)).await.len(), 3);
    assert_eq!(table.figures().0, 2);
    assert_eq!(table.figures().1, 2);
    assert_eq!(
        Table::open(&warehouse, &id(), writer(2), Buckets::whole()).await.unwrap().unwrap().figures(),
        table.figures()
    );
}

#[tokio::test]
async fn a_file_without_a_live_row_leaves_the_table() {
    let warehouse = in_memory();
    let mut table =
        Table::create(&warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    upsert(&mut table, &[(1, at(1), "a"), (2, at(2), "b")]).await;
    upsert(&mut table, &[(1, at(3), "A")]).await;
    upsert(&mut table, &[(2, at(4), "B")]).await;
    assert_eq!(table.figures().0, 2);
    let figures = history::figures(&warehouse, &id()).await.unwrap().unwrap();
    assert_eq!((figures.files, figures.rows, figures.rows_dead), (2, 2, 0));
}

#[tokio::test]
async fn of_a_chunk_only_rows_that_the_stream_has_not_touched_since_enter() {
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    upsert(&mut table, &[(1, at(2), "old"), (2, at(3), "old")]).await;
    let order0 = at(5);
    let chunk = chunk(&table, &[(1, "chunk"), (2, "chunk"), (3, "chunk"), (4, "chunk"), (5, "chunk")], order0).await;
    let change = stream_change(&table, &[(2, at(6), "new"), (3, at(7), "new")], &[(4, at(8))]);
    committed(&mut table, change).await;
    assert!(table.may_merge(0, order0));
    let state = table.state().clone();
    let accounts = committed(&mut table, TableChange { staged: chunk, ..TableChange::to(state) }).await;
    let expected = Rows::from([
        (1, row(order0, "chunk")),
        (2, row(at(6), "new")),
        (3, row(at(7), "new")),
        (5, row(order0, "chunk")),
    ]);
    assert_eq!(scan(&warehouse, None).await, expected);
    assert_eq!(total(&accounts, Hop::ChunkRead), 5);
    assert_eq!((total(&accounts, Hop::ChunkUpserted), total(&accounts, Hop::ChunkStale)), (2, 3));
}

#[tokio::test]
async fn a_chunk_all_of_whose_rows_lose_leaves_no_file() {
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    let chunk = chunk(&table, &[(1, "chunk")], at(2)).await;
    let file = chunk[0].name().to_owned();
    upsert(&mut table, &[(1, at(3), "new")]).await;
    let state = table.state().clone();
    committed(&mut table, TableChange { staged: chunk, ..TableChange::to(state) }).await;
    assert_eq!(scan(&warehouse, None).await, Rows::from([(1, row(at(3), "new"))]));
    assert!(objects(&**warehouse.store()).await.iter().all(|path| !path.ends_with(&file)));
}

#[tokio::test]
async fn a_chunk_that_repeats_a_key_is_refused_and_nothing_is_written() {
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    let chunk = chunk(&table, &[(1, "a"), (2, "b"), (1, "c")], at(2)).await;
    let state = table.state().clone();
    let refused = table.commit(TableChange { staged: chunk, ..TableChange::to(state) }).await;
    assert!(matches!(refused, Err(TableError::Rule { .. })));
    assert_eq!(scan(&warehouse, None).await, Rows::new());
}

#[tokio::test]
async fn a_restart_forgets_deletes_and_refuses_chunks_that_could_lose_to_them() {
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    let change = stream_change(&table, &[], &[(4, at(8))]);
    committed(&mut table, change).await;
    assert!(table.may_merge(0, at(5)));
    let table = open(&warehouse, 2).await;
    assert!(!table.may_merge(0, at(5)));
    assert!(table.may_merge(0, at(9)));
    assert_eq!(table.floor_of(record_key(&schema(), 4).as_ref()), at(8));
}

#[tokio::test]
async fn the_end_of_a_load_removes_what_no_chunk_found() {
    let warehouse = in_memory();
    let mut table =
        Table::create(&warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    upsert(&mut table, &[(1, Order::new(1, 0), "gone"), (2, Order::new(2, 0), "stays")]).await;
    upsert(&mut table, &[(7, Order::new(2, 0), "gone too")]).await;
    let mut table = begin_seed(table).await;
    upsert(&mut table, &[(3, at(3), "stream")]).await;
    let chunk = chunk(&table, &[(2, "stays")], at(4)).await;
    let state = table.state().clone();
    committed(&mut table, TableChange { staged: chunk, ..TableChange::to(state) }).await;
    let mut state = table.state().clone();
    let start = state.seed.take().unwrap().start;
    let accounts =
        committed(&mut table, TableChange { remove_below: Some(below(start)), ..TableChange::to(state) }).await;
    let expected = Rows::from([(2, row(at(4), "stays")), (3, row(at(3), "stream"))]);
    assert_eq!(scan(&warehouse, None).await, expected);
    assert_eq!(total(&accounts, Hop::ChunkRemoved), 2);
    assert_eq!(table.locate(record_key(&schema(), 1).as_ref()), Located::Absent);
    assert_eq!(table.index_figures().0, 2);
}

#[tokio::test]
async fn truncation_empties_the_table_and_raises_the_floor() {
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    let change = stream_change(&table, &[(1, at(3), "a")], &[(2, at(4))]);
    committed(&mut table, change).await;
    let mut state = table.state().clone();
    raise(&mut state, at(5));
    committed(&mut table, TableChange { clear: Some(clear(at(5))), ..TableChange::to(state) }).await;
    assert_eq!(scan(&warehouse, None).await, Rows::new());
    assert_eq!((table.floor_of(record_key(&schema(), 2).as_ref()), table.figures()), (at(5), (0, 0, 0)));
    assert_eq!(table.locate(record_key(&schema(), 2).as_ref()), Located::Absent);
    assert_eq!(scan(&warehouse, Some(table.version() - 1)).await.len(), 1);
}

#[tokio::test]
async fn rows_older_than_a_column_have_null_in_it() {
    let warehouse = in_memory();
    let mut table =
        Table::create(&warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    upsert(&mut table, &[(1, at(1), "a"), (2, at(2), "b")]).await;
    let mut wider = schema();
    wider.columns.push(column("n", ColumnType::Int64));
    let state = table.state().clone();
    committed(&mut table, TableChange { evolve: Some(wider.clone()), ..TableChange::to(state) }).await;
    upsert(&mut table, &[(2, at(3), "B")]).await;
    assert_eq!(open(&warehouse, 2).await.schema().columns, wider.columns);

    let columns = ["n".to_owned(), "id".to_owned()];
    let scan = Scan::open(&warehouse, &id(), None, Some(&columns)).await.unwrap();
    let mut read = Vec::new();
    scan.for_each(|batch| {
        let column = |i: usize| batch.column(i).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
        read.extend(column(0).into_iter().zip(column(1)));
        Ok(())
    })
    .await
    .unwrap();
    read.sort_unstable();
    assert_eq!(read, [(None, Some(1)), (Some(20), Some(2))]);
    let missing = Scan::open(&warehouse, &id(), None, Some(&["none".to_owned()])).await;
    assert!(matches!(missing, Err(TableError::NoColumn { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_says_what_the_commits_say() {
    let warehouse = in_memory();
    let mut table =
        Table::create(&warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    upsert(&mut table, &[(1, at(1), "a"), (2, at(2), "b"), (3, at(3), "c")]).await;
    upsert(&mut table, &[(2, at(4), "B")]).await;
    checkpoint::write(&warehouse, &table.path).await.unwrap();
    let log = Log::new(&warehouse, &id());
    let by_commits = log.replay(None).await.unwrap().unwrap();
    assert_eq!(log.versions().await.unwrap().checkpoints, [2]);

    // Without the commits below it, the checkpoint alone must do.
    for version in 0..2 {
        let path = table.path.clone().join("_delta_log").join(log::commit_name(version));
        object_store::ObjectStoreExt::delete(&**warehouse.store(), &path).await.unwrap();
    }
    let by_checkpoint = log.replay(None).await.unwrap().unwrap();
    let entries = |replay: &log::Replay| -> Vec<Value> {
        let mut entries: Vec<Value> = replay.files.values().map(|add| serde_json::to_value(add).unwrap()).collect();
        entries.iter_mut().for_each(|entry| entry["dataChange"] = Value::Null);
        entries
    };
    assert_eq!(entries(&by_checkpoint), entries(&by_commits));
    assert_eq!(by_checkpoint.own, by_commits.own);
    assert!(by_checkpoint.protocol.unwrap().is_of(&schema()));
    assert!(by_checkpoint.meta_data.unwrap().has_columns_of(&schema()));

    upsert(&mut table, &[(3, at(5), "C")]).await;
    let expected = Rows::from([(1, row(at(1), "a")), (2, row(at(4), "B")), (3, row(at(5), "C"))]);
    assert_eq!(scan(&warehouse, None).await, expected);
    assert_eq!(open(&warehouse, 2).await.figures(), table.figures());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_checkpoint_costs_time_and_not_the_table() {
    let warehouse = in_memory();
    let mut table =
        Table::create(&warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    upsert(&mut table, &[(1, at(1), "a")]).await;
    let torn = table.path.clone().join("_delta_log").join(format!("{:020}.checkpoint.parquet", 1));
    warehouse.put(&torn, bytes::Bytes::from_static(b"PAR1")).await.unwrap();
    assert_eq!(scan(&warehouse, None).await, Rows::from([(1, row(at(1), "a"))]));
}

#[tokio::test]
async fn another_sources_table_and_a_foreign_protocol_are_not_touched() {
    let warehouse = in_memory();
    let table = Table::create(&warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    let other = Writer::new("crm", 9);
    assert!(matches!(
        Table::open(&warehouse, &id(), other, Buckets::whole()).await,
        Err(TableError::OtherSource { .. })
    ));
    let again = Table::create(&warehouse, &schema(), writer(2), TableState::default(), Buckets::whole()).await;
    assert!(matches!(again, Err(TableError::Rule { .. })));
    let mut protocol = delta::Protocol::of(&schema());
    protocol.writer_features.as_mut().unwrap().push("columnMapping".into());
    let action = delta::Action { protocol: Some(protocol), ..Default::default() };
    table.log.put(1, log::serialise(&[action])).await.unwrap();
    assert!(matches!(Table::open(&warehouse, &id(), writer(2), Buckets::whole()).await, Err(TableError::Rule { .. })));
}

#[tokio::test]
async fn tables_are_listed_by_the_names_they_have_in_mysql() {
    let warehouse = in_memory();
    for table in [TableId::new("shop", "orders"), TableId::new("_weir", "é 1"), TableId::new("shop", "a_x1")] {
        let schema = TableSchema { table, ..schema() };
        Table::create(&warehouse, &schema, writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    }
    warehouse.put(&warehouse.state_path("shop").join("state"), bytes::Bytes::new()).await.unwrap();
    let tables = warehouse.list_tables().await.unwrap();
    let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["_weir.é 1", "shop.a_x1", "shop.orders"]);
}

#[tokio::test]
async fn history_begins_behind_the_version_it_is_asked_for() {
    let warehouse = in_memory();
    let mut table =
        Table::create(&warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    upsert(&mut table, &[(1, at(1), "a")]).await;
    upsert(&mut table, &[(1, at(2), "b")]).await;
    let versions = async |after| {
        let commits = history::commits_since(&warehouse, &id(), after).await.unwrap();
        commits.iter().map(|c| (c.version, c.record.as_ref().unwrap().state.commits)).collect::<Vec<_>>()
    };
    assert_eq!(versions(None).await, [(0, 1), (1, 2), (2, 3)]);
    assert_eq!(versions(Some(1)).await, [(2, 3)]);
    assert_eq!(versions(Some(2)).await, []);
}

#[tokio::test]
async fn a_warehouse_on_disk_outlives_its_writer() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/new/lake", folder.path().display());
    let warehouse = Warehouse::open(&url, &BTreeMap::new()).unwrap();
    warehouse.probe_writable().await.unwrap();
    let mut table =
        Table::create(&warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    upsert(&mut table, &[(1, at(1), "a"), (2, at(2), "b")]).await;
    upsert(&mut table, &[(1, at(3), "A")]).await;
    let warehouse = Warehouse::open(&url, &BTreeMap::new()).unwrap();
    assert_eq!(scan(&warehouse, None).await.len(), 2);
    assert_eq!(warehouse.list_tables().await.unwrap(), [id()]);
    assert!(Warehouse::open("hdfs://lake/x", &BTreeMap::new()).is_err());
}

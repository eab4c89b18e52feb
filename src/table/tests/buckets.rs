//! A table that is sharded: what is each bucket's own, and chunks that go from one process to another.

use std::collections::BTreeSet;

use arrow_array::UInt32Array;
use arrow_select::take::take_record_batch;
use weir_model::key::KeyRef;

use super::*;
use crate::table::delta::{Action, Add, Remove};
use crate::table::log::serialise;
use crate::table::partition::{file_rows, rows_by_partition};
use crate::table::writer::FileWriter;

pub(super) const COUNT: u32 = 5;

pub(super) fn of(owned: &[u32]) -> Buckets {
    Buckets { count: COUNT, owned: owned.iter().copied().collect() }
}

pub(super) fn bucket_of(id: i64) -> u32 {
    KeyRef::Int(id).bucket(COUNT)
}

/// The `n`-th id of a bucket.
pub(super) fn id_in(bucket: u32, n: usize) -> i64 {
    (0..).filter(|id| bucket_of(*id) == bucket).nth(n).unwrap()
}

/// A new table that is shared by buckets, for a writer of all.
pub(super) async fn create_shared(warehouse: &Warehouse) -> Table {
    create_shared_of(warehouse, &schema()).await
}

pub(super) async fn create_shared_of(warehouse: &Warehouse, schema: &TableSchema) -> Table {
    Table::create(warehouse, schema, writer(1), TableState::default(), Buckets::all(COUNT)).await.unwrap()
}

pub(super) async fn open_of(warehouse: &Warehouse, owned: &[u32]) -> Table {
    Table::open(warehouse, &id(), writer(1), of(owned)).await.unwrap().unwrap()
}

/// Changes of the topic: what a bucket has of them moves its share by one offset and one publish.
pub(super) fn sharded_change(table: &Table, upserts: &[(i64, Order, &str)], deletes: &[(i64, Order)]) -> TableChange {
    let count = table.buckets().count;
    let bucket = |id: i64| KeyRef::Int(id).bucket(count);
    let mut state = table.state().clone();
    let ids = upserts.iter().map(|(id, order, _)| (*id, *order)).chain(deletes.iter().copied());
    for (id, order) in ids.clone() {
        let bucket = bucket(id) as usize;
        state.greatest[bucket] = state.greatest[bucket].max(order);
        state.order = state.order.max(OrderState(order));
    }
    let touched: BTreeSet<u32> = ids.map(|(id, _)| bucket(id)).collect();
    let mut rows = Vec::new();
    for touched in touched {
        move_share(&mut state, touched);
        let of_bucket: Vec<_> = upserts.iter().copied().filter(|(id, _, _)| bucket(*id) == touched).collect();
        let [of_bucket] = <[BucketRows; 1]>::try_from(stream_change(table, &of_bucket, &[]).rows).unwrap();
        rows.push(BucketRows { bucket: touched, ..of_bucket });
    }
    let deletes = deletes.iter().map(|(id, order)| (RecordKey::Int(*id), *order)).collect();
    TableChange { rows, deletes, ..TableChange::to(state) }
}

pub(super) fn move_share(state: &mut TableState, bucket: u32) {
    let share = &mut state.shares[bucket as usize];
    "topic-1".clone_into(&mut share.topic);
    share.offset += 1;
    share.publish += 1;
}

pub(super) async fn put(table: &mut Table, upserts: &[(i64, Order, &str)], deletes: &[(i64, Order)]) {
    let change = sharded_change(table, upserts, deletes);
    committed(table, change).await;
}

/// Whether it went in; otherwise the table has moved.
pub(super) async fn went_in(table: &mut Table, change: TableChange) -> bool {
    match table.commit(change).await.unwrap() {
        CommitOutcome::Committed { .. } => true,
        CommitOutcome::Moved => false,
        CommitOutcome::Fenced { epoch } => panic!("fenced by {epoch}"),
    }
}

/// A load of a bucket begins.
fn load_begun(table: &Table, bucket: u32, start: Order) -> TableChange {
    let mut state = table.state().clone();
    move_share(&mut state, bucket);
    state.shares[bucket as usize].seed = Some(SeedProgress { plan: 1, done: Vec::new(), start, part: false });
    state.order = state.order.max(OrderState(start));
    TableChange::to(state)
}

/// What an OPTIMIZE of someone else leaves: one file a partition, without tags, instead of all.
pub(super) async fn optimise(warehouse: &Warehouse, table: &Table) {
    let replay = table.log.replay(None).await.unwrap().unwrap();
    // Not the writer's columns: it may not have heard of the newest.
    let schema = replay.own.as_ref().and_then(|(_, record)| record.state.schema.clone()).unwrap();
    let mut writers: BTreeMap<PartitionValues, FileWriter> = BTreeMap::new();
    if schema.layout.partitions.is_empty() {
        writers.insert(PartitionValues::default(), FileWriter::new(&schema).unwrap());
    }
    let scan = Scan::open(warehouse, &id(), None, None).await.unwrap();
    scan.for_each(|batch| {
        for (partition, rows) in rows_by_partition(&schema, &batch)? {
            let rows = file_rows(&schema, &take_record_batch(&batch, &UInt32Array::from(rows))?)?;
            writers.entry(partition).or_insert_with(|| FileWriter::new(&schema).unwrap()).write(&rows)?;
        }
        Ok(())
    })
    .await
    .unwrap();
    let mut actions: Vec<Action> = Vec::new();
    for add in replay.files.into_values() {
        let remove = Remove {
            path: add.path,
            deletion_timestamp: Some(0),
            data_change: false,
            extended_file_metadata: None,
            partition_values: None,
            size: None,
            deletion_vector: add.deletion_vector,
        };
        actions.push(Action { remove: Some(remove), ..Action::default() });
    }
    for (partition, writer) in writers {
        let file = writer.finish().unwrap();
        let add = Add {
            path: partition.path_of(&schema.layout, &file.name),
            partition_values: partition.entry(&schema.layout),
            size: file.bytes.len() as i64,
            modification_time: 0,
            data_change: false,
            stats: Some(file.stats),
            tags: None,
            deletion_vector: None,
        };
        table.files().put(&add.path, file.bytes).await.unwrap();
        actions.push(Action { add: Some(add), ..Action::default() });
    }
    table.log.put(replay.version + 1, serialise(&actions)).await.unwrap();
}

#[tokio::test]
async fn buckets_of_different_places_in_the_stream_keep_their_own_floors() {
    let warehouse = in_memory();
    let mut table = create_shared(&warehouse).await;
    put(&mut table, &[(id_in(0, 0), at(100), "far"), (id_in(1, 0), at(50), "behind")], &[]).await;
    for table in [&table, &open_of(&warehouse, &[0, 1]).await] {
        assert_eq!(table.floor_of(KeyRef::Int(id_in(0, 1))), at(100));
        assert_eq!(table.floor_of(KeyRef::Int(id_in(1, 1))), at(50));
        assert!(table.may_merge(1, at(60)) && !table.may_merge(0, at(60)));
    }
    // What another one owns is neither merged nor indexed.
    let table = open_of(&warehouse, &[1]).await;
    assert!(!table.may_merge(0, at(200)));
    assert_eq!(table.locate(KeyRef::Int(id_in(0, 0))), Located::Absent);
    assert_eq!((table.index_figures().0, table.figures().0), (1, 1));
}

#[tokio::test]
async fn deletes_are_remembered_only_in_buckets_that_are_loaded() {
    let warehouse = in_memory();
    let mut table = create_shared(&warehouse).await;
    let begun = load_begun(&table, 0, at(1));
    committed(&mut table, begun).await;
    put(&mut table, &[], &[(id_in(0, 0), at(5)), (id_in(1, 0), at(6))]).await;
    assert_eq!(table.locate(KeyRef::Int(id_in(0, 0))), Located::Deleted(at(5)));
    assert_eq!(table.locate(KeyRef::Int(id_in(1, 0))), Located::Absent);
    assert!(table.may_merge(0, at(3)) && !table.may_merge(1, at(3)));
}

#[tokio::test]
async fn a_chunk_that_one_process_wrote_is_merged_bucket_by_bucket_by_others() {
    let warehouse = in_memory();
    let mut all = create_shared(&warehouse).await;
    for bucket in 0..COUNT {
        let begun = load_begun(&all, bucket, at(1));
        committed(&mut all, begun).await;
    }
    let order0 = at(5);
    let mut writer = ChunkWriter::create(all.files(), Arc::new(schema()), order0, Window(60_000), COUNT).unwrap();
    let ids: Vec<i64> = (0..40).filter(|id| bucket_of(*id) != 4).collect();
    for ids in ids.chunks(7) {
        let rows: Vec<_> = ids.iter().map(|id| (*id, "chunk")).collect();
        writer.write(&source_rows(&schema(), &rows)).await.unwrap();
    }
    let staged = writer.finish().await.unwrap();
    assert_eq!(staged.iter().map(StagedChunk::bucket).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let told: Vec<String> = staged.iter().map(|part| serde_json::to_string(&part.describe()).unwrap()).collect();
    drop(staged);

    let mut expected: Rows = ids.iter().map(|id| (*id, row(order0, "chunk"))).collect();
    let (mut a, mut b) = (open_of(&warehouse, &[0, 1]).await, open_of(&warehouse, &[2, 3, 4]).await);
    put(&mut b, &[(id_in(3, 0), at(6), "stream")], &[(id_in(2, 1), at(7))]).await;
    expected.insert(id_in(3, 0), row(at(6), "stream"));
    expected.remove(&id_in(2, 1));
    for told in told {
        let described: StagedFile = serde_json::from_str(&told).unwrap();
        let table = if described.bucket < 2 { &mut a } else { &mut b };
        let part = StagedChunk::open(table.files(), described.clone()).await.unwrap().unwrap();
        assert_eq!(part.describe(), described);
        let mut state = table.state().clone();
        move_share(&mut state, described.bucket);
        let accounts = committed(table, TableChange { staged: vec![part], ..TableChange::to(state) }).await;
        assert_eq!(total(&accounts, Hop::ChunkRead), described.rows);
    }
    assert_eq!(scan(&warehouse, None).await, expected);
    let all = open_of(&warehouse, &[0, 1, 2, 3, 4]).await;
    assert_eq!(all.index_figures().0, expected.len());
}

#[tokio::test]
async fn a_chunk_whose_file_is_gone_or_other_is_told() {
    let warehouse = in_memory();
    let table = create_shared(&warehouse).await;
    let mut writer = ChunkWriter::create(table.files(), Arc::new(schema()), at(5), Window(0), COUNT).unwrap();
    writer.write(&source_rows(&schema(), &[(1, "a")])).await.unwrap();
    let described = writer.finish().await.unwrap()[0].describe();
    let more = StagedFile { rows: 2, ..described.clone() };
    assert!(matches!(StagedChunk::open(table.files(), more).await, Err(TableError::Damaged(_))));
    table.files().discard(&described.name).await;
    assert!(StagedChunk::open(table.files(), described).await.unwrap().is_none());
}

#[tokio::test]
async fn a_chunk_that_could_not_go_in_is_there_for_the_next_attempt() {
    let warehouse = in_memory();
    let mut new = create_shared(&warehouse).await;
    let begun = load_begun(&new, 1, at(1));
    committed(&mut new, begun).await;
    let mut old = open_of(&warehouse, &[1]).await;
    let mut respelled = schema();
    respelled.columns[1].name = "Text".into();
    let mut writer = ChunkWriter::create(old.files(), Arc::new(respelled.clone()), at(5), Window(0), COUNT).unwrap();
    let rows = source_rows(&schema(), &[(id_in(1, 0), "chunk")]);
    writer.write(&RecordBatch::try_new(respelled.arrow(), rows.columns().to_vec()).unwrap()).await.unwrap();
    let staged = writer.finish().await.unwrap();
    let described = staged[0].describe();
    let before = objects(&**warehouse.store()).await.len();
    put(&mut new, &[(id_in(1, 1), at(4), "stream")], &[]).await;
    let mut state = old.state().clone();
    move_share(&mut state, 1);
    assert!(!went_in(&mut old, TableChange { staged, ..TableChange::to(state) }).await);
    // Data and version of the other's commit.
    assert_eq!(objects(&**warehouse.store()).await.len(), before + 2);
    let part = StagedChunk::open(new.files(), described).await.unwrap().unwrap();
    merge(&mut new, vec![part]).await;
    let expected = Rows::from([(id_in(1, 0), row(at(5), "chunk")), (id_in(1, 1), row(at(4), "stream"))]);
    assert_eq!(scan(&warehouse, None).await, expected);
}

/// Rows in all buckets, two commits each, of the orders 10 and 20, at last in one file of no one bucket if `mixed`.
pub(super) async fn two_rows_a_bucket(warehouse: &Warehouse, mixed: bool) -> Rows {
    let mut table = create_shared(warehouse).await;
    let mut rows = Rows::new();
    for (n, order) in [(0, at(10)), (1, at(20))] {
        let upserts: Vec<_> = (0..COUNT).map(|bucket| (id_in(bucket, n), order, "x")).collect();
        put(&mut table, &upserts, &[]).await;
        rows.extend(upserts.iter().map(|(id, order, text)| (*id, row(*order, text))));
    }
    if mixed {
        optimise(warehouse, &table).await;
    }
    rows
}

#[tokio::test]
async fn clearing_and_the_end_of_a_load_touch_only_their_buckets() {
    for mixed in [false, true] {
        let warehouse = in_memory();
        let mut expected = two_rows_a_bucket(&warehouse, mixed).await;
        let mut table = open_of(&warehouse, &[0, 1, 2]).await;
        assert_eq!(table.index_figures().0, 6);
        let mut state = table.state().clone();
        move_share(&mut state, 1);
        state.greatest[1] = at(30);
        let cleared = Clear { at: at(30), buckets: [1].into() };
        committed(&mut table, TableChange { clear: Some(cleared), ..TableChange::to(state) }).await;
        expected.retain(|id, _| bucket_of(*id) != 1);
        assert_eq!(scan(&warehouse, None).await, expected, "mixed: {mixed}");
        assert_eq!(table.floor_of(KeyRef::Int(id_in(1, 0))), at(30));
        assert_eq!(table.floor_of(KeyRef::Int(id_in(2, 0))), at(20));

        let mut state = table.state().clone();
        move_share(&mut state, 2);
        let below = RemoveBelow { order: at(15), buckets: [2].into() };
        let change = TableChange { remove_below: Some(below), ..TableChange::to(state) };
        assert_eq!(total(&committed(&mut table, change).await, Hop::ChunkRemoved), 1);
        expected.retain(|id, (order, _)| bucket_of(*id) != 2 || *order >= at(15));
        assert_eq!(scan(&warehouse, None).await, expected, "mixed: {mixed}");
        assert_eq!(table.index_figures().0, 3);
        assert_eq!(open_of(&warehouse, &[0, 1, 2]).await.figures(), table.figures());
    }
}

#[tokio::test]
async fn a_row_in_a_file_of_another_bucket_is_told() {
    let warehouse = in_memory();
    let mut table = create_shared(&warehouse).await;
    put(&mut table, &[(id_in(1, 0), at(1), "a")], &[]).await;
    let mut add = table.files.values().next().unwrap().add.clone();
    add.tags.as_mut().unwrap().insert("weir.bucket".into(), Some("2".into()));
    table.log.put(2, serialise(&[Action { add: Some(add), ..Action::default() }])).await.unwrap();
    let opened = Table::open(&warehouse, &id(), writer(1), of(&[2])).await;
    assert!(matches!(opened, Err(TableError::Damaged(what)) if what.contains("bucket 1")));
}

#[tokio::test]
async fn the_number_of_buckets_is_fixed_when_the_table_is_created() {
    let warehouse = in_memory();
    create_shared(&warehouse).await;
    for buckets in [Buckets::whole(), Buckets::all(COUNT + 1), of(&[COUNT])] {
        let opened = Table::open(&warehouse, &id(), writer(1), buckets).await;
        assert!(matches!(opened, Err(TableError::Rule { rule, .. }) if rule.contains("buckets")));
    }
}

#[tokio::test]
async fn a_state_of_buckets_that_are_not_ours_is_refused() {
    let warehouse = in_memory();
    create_shared(&warehouse).await;
    let mut table = open_of(&warehouse, &[1]).await;
    let mut state = table.state().clone();
    move_share(&mut state, 2);
    let refused = table.commit(TableChange::to(state)).await;
    assert!(matches!(refused, Err(TableError::Rule { rule, .. }) if rule.contains("does not have")));
}

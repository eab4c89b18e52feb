//! What every store of a warehouse must do, run against each of them: a folder on disk, and a bucket of a real server.
//!
//! A test hands over an empty warehouse; what is put stays there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use tokio::sync::Notify;
use weir_model::{Column, ColumnType, Layout, Order, OrderState, RecordKeys, TableId, TableSchema, clock};

use super::faulty::{Fault, FaultyStore};
use super::location::Put;
use super::log::commit_name;
use super::{BucketRows, Buckets, CommitOutcome, Scan, Table, TableChange, TableError, TableState, Warehouse, Writer};

/// Objects in one folder: more than a server lists at once.
const MANY: usize = 1_100;
/// Names that several put at once, one after another.
const RACES: usize = 60;
/// Those who put each of them.
const RACERS: usize = 4;

/// Runs the whole contract.
///
/// # Panics
/// When it is broken.
pub async fn upheld_by(warehouse: &Warehouse) {
    warehouse.probe_writable().await.unwrap();
    what_is_put_is_what_is_read(warehouse).await;
    a_name_that_is_taken_keeps_its_object(warehouse).await;
    what_is_deleted_is_gone(warehouse).await;
    when_something_was_written_is_told(warehouse).await;
    listings_are_whole_and_in_order(warehouse).await;
    parts_become_one_object_only_when_complete(warehouse).await;
    of_racing_writers_one_wins_and_the_others_are_told(warehouse).await;
    a_writer_that_stalled_before_its_put_overwrites_nothing(warehouse).await;
    an_answer_that_was_lost_is_settled(warehouse).await;
}

fn at(name: &str) -> Path {
    Path::from(name)
}

async fn what_is_put_is_what_is_read(warehouse: &Warehouse) {
    let store = warehouse.store();
    // Larger than any buffer on the way.
    let large: Bytes = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>().into();
    for bytes in [Bytes::new(), Bytes::from_static(b"x"), large] {
        warehouse.put(&at("read/a"), bytes.clone()).await.unwrap();
        assert!(warehouse.get(&at("read/a")).await.unwrap() == bytes, "{} bytes are read as they were", bytes.len());
        assert_eq!(store.head(&at("read/a")).await.unwrap().size, bytes.len() as u64);
    }
    let ranges = [0..7, 4_999_990..5_000_000, 251..252];
    for (range, part) in ranges.iter().zip(store.get_ranges(&at("read/a"), &ranges).await.unwrap()) {
        let expected: Vec<u8> = range.clone().map(|n| (n % 251) as u8).collect();
        assert_eq!(part, expected, "{range:?}");
        assert_eq!(store.get_range(&at("read/a"), range.clone()).await.unwrap(), expected, "{range:?}");
    }
    assert!(matches!(warehouse.get(&at("read/b")).await, Err(TableError::Store(Error::NotFound { .. }))));
    assert!(matches!(store.head(&at("read/b")).await, Err(Error::NotFound { .. })));
    // A folder is not an object.
    assert!(!warehouse.exists(&at("read")).await.unwrap());
}

async fn a_name_that_is_taken_keeps_its_object(warehouse: &Warehouse) {
    let name = at("taken/a");
    assert_eq!(warehouse.put_if_absent(&name, "first".into()).await.unwrap(), Put::Done);
    for other in ["second", "first", ""] {
        assert_eq!(warehouse.put_if_absent(&name, other.into()).await.unwrap(), Put::Taken);
    }
    assert_eq!(warehouse.get(&name).await.unwrap(), "first");
    warehouse.put(&name, "third".into()).await.unwrap();
    assert_eq!(warehouse.get(&name).await.unwrap(), "third");
}

async fn what_is_deleted_is_gone(warehouse: &Warehouse) {
    let name = at("gone/a");
    warehouse.put(&name, "x".into()).await.unwrap();
    warehouse.delete(&name).await.unwrap();
    assert!(!warehouse.exists(&name).await.unwrap());
    assert_eq!(warehouse.list(&at("gone")).await.unwrap(), []);
    assert_eq!(warehouse.put_if_absent(&name, "y".into()).await.unwrap(), Put::Done);
    warehouse.delete(&at("gone/b")).await.unwrap();
}

/// Cleaning goes by it; what a listing says may be finer.
async fn when_something_was_written_is_told(warehouse: &Warehouse) {
    let (name, before) = (at("told/a"), clock::now_ms());
    warehouse.put(&name, "x".into()).await.unwrap();
    let listed = warehouse.list(&at("told")).await.unwrap()[0].modified_ms;
    let asked = warehouse.written_ms(&name).await.unwrap().unwrap();
    assert_eq!(listed / 1_000, asked / 1_000);
    // The clock may be another machine's.
    assert!((listed - before).abs() < 3_600_000, "{listed} {before}");
}

async fn listings_are_whole_and_in_order(warehouse: &Warehouse) {
    let store = warehouse.store();
    let name = |n: usize| format!("{n:020}.json");
    let puts = (0..MANY).map(|n| {
        let path = at("list/many").join(name(n));
        async move { warehouse.put(&path, Bytes::from(vec![b'x'; n % 3])).await.unwrap() }
    });
    futures::stream::iter(puts).buffer_unordered(16).collect::<Vec<()>>().await;
    // Beside it, one whose name begins alike.
    for other in ["list/many-more/a", "list/many.json", "list/other/deep/a"] {
        warehouse.put(&at(other), "x".into()).await.unwrap();
    }
    let listed = warehouse.list(&at("list/many")).await.unwrap();
    assert_eq!(
        listed.into_iter().map(|object| object.name).collect::<Vec<_>>(),
        (0..MANY).map(name).collect::<Vec<_>>()
    );
    let objects: Vec<_> = store.list(Some(&at("list/many"))).try_collect().await.unwrap();
    assert!(objects.iter().map(|object| object.size).eq((0..MANY).map(|n| (n % 3) as u64)));
    let offset = at("list/many").join(name(MANY - 3));
    let names = |objects: Vec<object_store::ObjectMeta>| {
        objects.into_iter().map(|object| object.location.to_string()).collect::<Vec<_>>()
    };
    let behind: Vec<_> = store.list_with_offset(Some(&at("list/many")), &offset).try_collect().await.unwrap();
    assert_eq!(names(behind), [MANY - 2, MANY - 1].map(|n| format!("list/many/{}", name(n))));
    let found = store.list_with_delimiter(Some(&at("list"))).await.unwrap();
    let folders: BTreeSet<String> = found.common_prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(folders, ["list/many", "list/many-more", "list/other"].map(str::to_owned).into());
    assert_eq!(names(found.objects), ["list/many.json"]);
    assert_eq!(warehouse.list(&at("list/nothing")).await.unwrap(), []);
}

async fn parts_become_one_object_only_when_complete(warehouse: &Warehouse) {
    let (name, store) = (at("parts/a"), warehouse.store());
    let mut upload = store.put_multipart(&name).await.unwrap();
    upload.put_part("one ".into()).await.unwrap();
    upload.put_part("two".into()).await.unwrap();
    assert!(!warehouse.exists(&name).await.unwrap());
    upload.complete().await.unwrap();
    assert_eq!(warehouse.get(&name).await.unwrap(), "one two");
}

async fn of_racing_writers_one_wins_and_the_others_are_told(warehouse: &Warehouse) {
    for race in 0..RACES {
        let name = at(&format!("race/{race}"));
        let racers = (0..RACERS).map(|racer| {
            let (warehouse, name) = (warehouse.clone(), name.clone());
            // Of different lengths, so that one written over another would show, too.
            let bytes = Bytes::from(format!("{racer}").repeat(1 + racer * 1_000));
            tokio::spawn(async move { (warehouse.put_if_absent(&name, bytes.clone()).await.unwrap(), bytes) })
        });
        let mut winners = Vec::new();
        for racer in racers.collect::<Vec<_>>() {
            let (put, bytes) = racer.await.unwrap();
            winners.extend((put == Put::Done).then_some(bytes));
        }
        assert_eq!(winners.len(), 1, "winners of race {race}");
        assert!(warehouse.get(&name).await.unwrap() == winners[0], "the object of race {race} is the winner's");
    }
}

/// Writer A has staged version N+1 and stalls; B, who opened the table at N as well, commits; then A goes on.
async fn a_writer_that_stalled_before_its_put_overwrites_nothing(warehouse: &Warehouse) {
    let table = create(warehouse, "stalled").await;
    let faulty = Arc::new(FaultyStore::over(warehouse.store().clone()));
    let stalling = warehouse.through(|_| faulty.clone());
    let [mut a, mut b] = [open(&stalling, &table).await, open(warehouse, &table).await];
    let (reached, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    faulty.plan(&commit_name(1), Fault::Stalled { reached: reached.clone(), go: go.clone() });
    let change = upserts(&a, &[1, 2], 10);
    let stalled = tokio::spawn(async move { a.commit(change).await });
    reached.notified().await;
    commit(&mut b, &[2, 3], 20).await;
    go.notify_one();
    assert!(matches!(stalled.await.unwrap().unwrap(), CommitOutcome::Moved));
    assert_eq!(rows(warehouse, &table).await, BTreeMap::from([(2, 21), (3, 22)]));
    // The loser's files are gone, and it goes on behind the winner.
    let files = warehouse.list(&warehouse.table_path(&table)).await.unwrap();
    assert_eq!(files.len(), 1, "{files:?}");
    let mut a = open(&stalling, &table).await;
    commit(&mut a, &[1, 2], 30).await;
    assert_eq!(rows(warehouse, &table).await, BTreeMap::from([(1, 31), (2, 32), (3, 22)]));
}

/// The commit is in the log once, whichever answer was lost, and its writer knows.
async fn an_answer_that_was_lost_is_settled(warehouse: &Warehouse) {
    let table = create(warehouse, "settled").await;
    let faulty = Arc::new(FaultyStore::over(warehouse.store().clone()));
    let mut writer = open(&warehouse.through(|_| faulty.clone()), &table).await;
    for (n, fault) in [Fault::AnswerLost, Fault::Retried, Fault::Lost].into_iter().enumerate() {
        faulty.plan(&commit_name(n as i64 + 1), fault);
        commit(&mut writer, &[n as i64], 10 * (n as i64 + 1)).await;
    }
    assert_eq!(rows(warehouse, &table).await, BTreeMap::from([(0, 11), (1, 21), (2, 31)]));
    assert_eq!(open(warehouse, &table).await.version(), 3);
    assert!(warehouse.list_tables().await.unwrap().contains(&table));
}

fn writer() -> Writer {
    Writer::new("contract", 1)
}

/// A table of one column, the key.
async fn create(warehouse: &Warehouse, name: &str) -> TableId {
    let table = TableId::new("odd na.me", name);
    let columns = vec![Column { name: "id".into(), ty: ColumnType::Int64, nullable: true }];
    let schema = TableSchema { table: table.clone(), columns, key: vec![0], layout: Layout::default() };
    Table::create(warehouse, &schema, writer(), TableState::default(), Buckets::whole()).await.unwrap();
    table
}

async fn open(warehouse: &Warehouse, table: &TableId) -> Table {
    Table::open(warehouse, table, writer(), Buckets::whole()).await.unwrap().unwrap()
}

/// Rows of `ids`, ascending, with orders that follow `seq`.
fn upserts(table: &Table, ids: &[i64], seq: i64) -> TableChange {
    let schema = table.schema();
    let orders = 1..=ids.len() as i64;
    let columns: [ArrayRef; 3] = [
        Arc::new(Int64Array::from(ids.to_vec())),
        Arc::new(Int64Array::from_iter_values(orders.clone().map(|_| 1_000))),
        Arc::new(Int64Array::from_iter_values(orders.map(|n| seq + n))),
    ];
    let rows = RecordBatch::try_new(schema.lake_arrow(), columns.into()).unwrap();
    let keys = RecordKeys::of(&rows, &schema.key_names()).unwrap();
    let mut state = table.state().clone();
    let greatest = Order::new(1_000, seq + ids.len() as i64);
    (state.order, state.greatest) = (OrderState(greatest), vec![greatest]);
    TableChange { rows: vec![BucketRows { bucket: 0, rows, keys }], ..TableChange::to(state) }
}

async fn commit(table: &mut Table, ids: &[i64], seq: i64) {
    let change = upserts(table, ids, seq);
    let outcome = table.commit(change).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");
}

/// Live rows: the `seq` of each id. A key that is there twice panics.
async fn rows(warehouse: &Warehouse, table: &TableId) -> BTreeMap<i64, i64> {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    let mut rows = BTreeMap::new();
    let scan = Scan::open(warehouse, table, None, None).await.unwrap();
    scan.for_each(|batch| {
        let longs = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
        for (id, seq) in longs("id").values().iter().zip(longs("_weir_seq").values()) {
            assert!(rows.insert(*id, *seq).is_none(), "two live rows of {id}");
        }
        Ok(())
    })
    .await
    .unwrap();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_folder_on_disk_upholds_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}/lake", folder.path().display());
        upheld_by(&Warehouse::open(&url, &BTreeMap::new()).unwrap()).await;
    }
}

//! A checkpoint of the log stands for every commit below it.

use std::collections::BTreeMap;
use std::time::Duration;

use object_store::ObjectStoreExt;
use serde_json::Value;

use super::support::*;
use crate::limits::DELTA_CHECKPOINT_EVERY;
use crate::table::log::{Log, Replay, commit_name};
use crate::table::{Table, TableChange, Warehouse};

const KEYS: i64 = 40;

/// Commits that leave deletion vectors, deletes and an added column behind, past a checkpoint.
async fn past_a_checkpoint(warehouse: &Warehouse) -> Table {
    let mut table = create(warehouse).await;
    let mut seq = 0;
    while table.version() < DELTA_CHECKPOINT_EVERY as i64 + 5 {
        if table.version() == 20 {
            let evolve = Some(schema_of(false, &["v", "w"]));
            let change = TableChange { evolve, ..TableChange::to(table.state().clone()) };
            commit(&mut table, change).await;
        }
        if table.version() == DELTA_CHECKPOINT_EVERY as i64 {
            wait_for_checkpoint(warehouse).await;
        }
        let ids: Vec<i64> = (0..4).map(|i| (seq * 7 + i * 11) % KEYS).collect();
        let upserts: Vec<(i64, i64)> = ids[..3].iter().map(|id| (*id, seq + 1)).collect();
        apply(&mut table, &upserts, &[(ids[3], seq + 2)]).await;
        seq += 2;
    }
    table
}

async fn wait_for_checkpoint(warehouse: &Warehouse) {
    let last = warehouse.table_path(&id()).join("_delta_log").join("_last_checkpoint");
    for _ in 0..200 {
        if warehouse.get(&last).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no checkpoint was written");
}

/// The table as the commits alone have it.
async fn replay_of_commits(log: &Log) -> Replay {
    let mut replay = Replay::default();
    for version in log.versions().await.unwrap() {
        for action in log.read(version).await.unwrap() {
            replay.apply(action, version);
        }
        replay.version = version;
    }
    replay
}

fn comparable(replay: &Replay) -> BTreeMap<&'static str, Value> {
    BTreeMap::from([
        ("version", replay.version.into()),
        ("files", serde_json::to_value(&replay.files).unwrap()),
        ("metaData", serde_json::to_value(&replay.meta_data).unwrap()),
        ("protocol", serde_json::to_value(&replay.protocol).unwrap()),
        ("txns", serde_json::to_value(&replay.txns).unwrap()),
        ("own", serde_json::to_value(&replay.own).unwrap()),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_says_what_the_commits_below_it_say() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = Warehouse::open(&format!("file://{}", folder.path().display()), &BTreeMap::new()).unwrap();
    let table = past_a_checkpoint(&warehouse).await;
    let log = Log::new(&warehouse, &id());
    let of_commits = replay_of_commits(&log).await;
    let rows_of_commits = rows(&warehouse, None).await.unwrap();
    assert!(of_commits.files.values().any(|add| add.deletion_vector.is_some()));

    // A damaged checkpoint is as good as none.
    let log_folder = warehouse.table_path(&id()).join("_delta_log");
    let path = log_folder.clone().join(format!("{DELTA_CHECKPOINT_EVERY:020}.checkpoint.parquet"));
    let checkpoint = warehouse.get(&path).await.unwrap();
    warehouse.put(&path, checkpoint.slice(..checkpoint.len() / 2)).await.unwrap();
    assert_eq!(comparable(&log.replay(None).await.unwrap().unwrap()), comparable(&of_commits));
    warehouse.put(&path, checkpoint).await.unwrap();

    // Without a commit below the checkpoint nothing but it can be read.
    for version in 0..DELTA_CHECKPOINT_EVERY as i64 {
        warehouse.store().delete(&log_folder.clone().join(commit_name(version))).await.unwrap();
    }
    let of_checkpoint = log.replay(None).await.unwrap().unwrap();
    for (part, value) in comparable(&of_commits) {
        assert_eq!(comparable(&of_checkpoint)[part], value, "{part}");
    }
    assert_eq!(rows(&warehouse, None).await.unwrap(), rows_of_commits);
    let reopened = open(&warehouse, 2).await;
    assert_eq!(places(&reopened, 0..KEYS), places(&table, 0..KEYS));
    for file in reopened.files.values() {
        let same = table.files.values().find(|other| other.add.path == file.add.path).unwrap();
        assert_eq!((file.orders, &file.dead), (same.orders, &same.dead));
    }
}

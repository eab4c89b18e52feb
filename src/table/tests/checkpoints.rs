//! The checkpoint that is written beside the commits stands for every one below it.

use std::time::Duration;

use object_store::ObjectStoreExt;
use serde_json::Value;

use super::*;
use crate::limits::DELTA_CHECKPOINT_EVERY;
use crate::table::log::{Replay, commit_name};

const IDS: i64 = 40;
const EVERY: i64 = DELTA_CHECKPOINT_EVERY as i64;

/// Commits that leave vectors, deletes and an added column behind, some of them past a checkpoint.
async fn past_a_checkpoint(warehouse: &Warehouse) -> Table {
    let mut table =
        Table::create(warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    let mut seq = 0;
    while table.version() < EVERY + 5 {
        if table.version() == 20 {
            let mut evolved = schema();
            evolved.columns.push(column("n", ColumnType::Int64));
            let change = TableChange { evolve: Some(evolved), ..TableChange::to(table.state().clone()) };
            committed(&mut table, change).await;
        }
        if table.version() == EVERY {
            wait_for_checkpoint(&table).await;
        }
        let ids: Vec<i64> = (0..4).map(|i| (seq * 7 + i * 11) % IDS).collect();
        let upserts: Vec<(i64, Order, &str)> = ids[..3].iter().map(|id| (*id, at(seq + 1), "text")).collect();
        let change = stream_change(&table, &upserts, &[(ids[3], at(seq + 2))]);
        committed(&mut table, change).await;
        seq += 2;
    }
    table
}

async fn wait_for_checkpoint(table: &Table) {
    for _ in 0..200 {
        if table.log.versions().await.unwrap().checkpoints == [EVERY] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no checkpoint was written");
}

async fn replay_of_commits(table: &Table) -> Replay {
    let mut replay = Replay::default();
    for version in 0..=table.version() {
        for action in table.log.read(version).await.unwrap() {
            replay.apply(action, version);
        }
        replay.version = version;
    }
    replay
}

/// Every part of a replay; `dataChange` says something of a commit, not of the table.
fn parts(replay: &Replay) -> [Value; 5] {
    let mut files = serde_json::to_value(&replay.files).unwrap();
    files.as_object_mut().unwrap().values_mut().for_each(|add| add["dataChange"] = Value::Null);
    [
        replay.version.into(),
        files,
        serde_json::to_value(&replay.meta_data).unwrap(),
        serde_json::to_value(&replay.protocol).unwrap(),
        serde_json::to_value(&replay.own).unwrap(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_from_the_checkpoint_is_that_of_all_commits() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = Warehouse::open(&format!("file://{}", folder.path().display()), &BTreeMap::new()).unwrap();
    let table = past_a_checkpoint(&warehouse).await;
    let of_commits = replay_of_commits(&table).await;
    let rows = scan(&warehouse, None).await;
    assert!(of_commits.files.values().any(|add| add.deletion_vector.is_some()));

    // Without a commit below the checkpoint only it can tell.
    for version in 0..EVERY {
        let path = table.path.clone().join("_delta_log").join(commit_name(version));
        warehouse.store().delete(&path).await.unwrap();
    }
    let of_checkpoint = table.log.replay(None).await.unwrap().unwrap();
    for (of_checkpoint, of_commits) in parts(&of_checkpoint).into_iter().zip(parts(&of_commits)) {
        assert_eq!(of_checkpoint, of_commits);
    }
    assert_eq!(scan(&warehouse, None).await, rows);
    let reopened = open(&warehouse, 1).await;
    assert_eq!(reopened.figures(), table.figures());
    for file in reopened.files.values() {
        let same = table.files.values().find(|other| other.add.path == file.add.path).unwrap();
        assert_eq!((file.orders, &file.dead), (same.orders, &same.dead));
    }
}

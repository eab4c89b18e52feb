//! Lost answers, other writers and full disks: what the commit protocol makes of them.

use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStoreExt;

use super::*;
use crate::table::delta::{Action, CommitInfo};
use crate::table::faulty::{Fault, FaultyStore};
use crate::table::log::{commit_name, serialise};

/// A table at version 1 with the rows 1, 2 and 3.
async fn table_of_three() -> (Arc<FaultyStore>, Warehouse, Table) {
    let store = Arc::new(FaultyStore::default());
    let warehouse = Warehouse::in_store(store.clone());
    let mut table =
        Table::create(&warehouse, &schema(), writer(5), TableState::default(), Buckets::whole()).await.unwrap();
    upsert(&mut table, &[(1, at(1), "a"), (2, at(2), "b"), (3, at(3), "c")]).await;
    (store, warehouse, table)
}

fn three() -> Rows {
    Rows::from([(1, row(at(1), "a")), (2, row(at(2), "b")), (3, row(at(3), "c"))])
}

fn three_updated() -> Rows {
    Rows::from([(1, row(at(1), "a")), (2, row(at(4), "B")), (3, row(at(3), "c"))])
}

/// A version that changes no row, written by `source` in `epoch`.
fn version_of(table: &Table, source: &str, epoch: u64) -> Bytes {
    let record = CommitRecord {
        format: CommitRecord::FORMAT,
        source: source.into(),
        commit_id: "theirs".into(),
        state: TableState { epoch, ..table.state().clone() },
        accounts: Vec::new(),
        cleans: Vec::new(),
    };
    serialise(&table.frame("MERGE", record, 0))
}

fn foreign_version() -> Bytes {
    let info = CommitInfo {
        timestamp: 1,
        operation: "OPTIMIZE".into(),
        operation_parameters: None,
        engine_info: None,
        weir: None,
    };
    serialise(&[Action { commit_info: Some(info), ..Action::default() }])
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_in_the_table_once() {
    let (store, warehouse, mut table) = table_of_three().await;
    store.plan(&commit_name(2), Fault::AnswerLost);
    let change = stream_change(&table, &[(2, at(4), "B")], &[]);
    committed(&mut table, change).await;
    assert_eq!(table.version(), 2);
    assert_eq!(scan(&warehouse, None).await, three_updated());
    upsert(&mut table, &[(2, at(5), "BB")]).await;
    assert_eq!(open(&warehouse, 5).await.figures(), table.figures());
}

#[tokio::test]
async fn however_answers_are_lost_a_commit_is_in_the_log_once() {
    let sequences: [&[Fault]; 6] = [
        &[Fault::Lost, Fault::AnswerLost],
        &[Fault::AnswerLost, Fault::Lost],
        &[Fault::Lost, Fault::AnswerLost, Fault::Lost],
        &[Fault::Retried],
        &[Fault::Lost, Fault::Retried],
        &[Fault::Retried, Fault::Unreadable],
    ];
    for faults in sequences {
        let (store, warehouse, mut table) = table_of_three().await;
        faults.iter().for_each(|fault| store.plan(&commit_name(2), fault.clone()));
        upsert(&mut table, &[(2, at(4), "B")]).await;
        assert_eq!(scan(&warehouse, None).await, three_updated(), "{faults:?}");
        let commits = history::commits_since(&warehouse, &id(), None).await.unwrap();
        let numbers: Vec<u64> = commits.iter().map(|commit| commit.record.as_ref().unwrap().state.commits).collect();
        assert_eq!(numbers, [1, 2, 3], "{faults:?}");
    }
}

#[tokio::test]
async fn a_commit_that_did_not_arrive_before_someone_elses_is_moved() {
    let (store, warehouse, mut table) = table_of_three().await;
    store.plan(&commit_name(2), Fault::Lost);
    store.plan(&commit_name(2), Fault::Overtaken(foreign_version()));
    let before = objects(&*store).await.len();
    let change = stream_change(&table, &[(2, at(4), "B")], &[]);
    assert!(matches!(table.commit(change).await.unwrap(), CommitOutcome::Moved));
    assert_eq!((objects(&*store).await.len(), scan(&warehouse, None).await), (before + 1, three()));
}

#[tokio::test]
async fn a_version_that_is_cleaned_away_before_its_writer_is_known_does_not_count() {
    for fault in [Fault::AnswerLost, Fault::Overtaken(foreign_version())] {
        let (store, _, mut table) = table_of_three().await;
        store.plan(&commit_name(2), fault);
        store.plan(&commit_name(2), Fault::CleanedAway);
        let change = stream_change(&table, &[(2, at(4), "B")], &[]);
        assert!(matches!(table.commit(change).await.unwrap(), CommitOutcome::Moved));
        // It may have been ours: a checkpoint can name what we wrote.
        let names = objects(&*store).await;
        assert_eq!(names.iter().filter(|name| name.ends_with(".parquet")).count(), 2);
    }
}

#[tokio::test]
async fn a_version_whose_writer_cannot_be_read_at_once_is_asked_for_again() {
    let (store, warehouse, mut table) = table_of_three().await;
    store.plan(&commit_name(2), Fault::AnswerLost);
    store.plan(&commit_name(2), Fault::Unreadable);
    upsert(&mut table, &[(2, at(4), "B")]).await;
    assert_eq!((table.version(), scan(&warehouse, None).await), (2, three_updated()));
}

#[tokio::test]
async fn a_table_whose_creation_was_not_answered_is_created_once() {
    let store = Arc::new(FaultyStore::default());
    let warehouse = Warehouse::in_store(store.clone());
    store.plan(&commit_name(0), Fault::AnswerLost);
    let mut table =
        Table::create(&warehouse, &schema(), writer(5), TableState::default(), Buckets::whole()).await.unwrap();
    upsert(&mut table, &[(1, at(1), "a")]).await;
    assert_eq!(open(&warehouse, 5).await.version(), 1);
}

#[tokio::test]
async fn a_commit_behind_a_version_that_was_cleaned_away_does_not_count() {
    let (store, _, mut table) = table_of_three().await;
    store.delete(&table.path.clone().join("_delta_log").join(commit_name(1))).await.unwrap();
    let change = stream_change(&table, &[(2, at(4), "B")], &[]);
    assert!(matches!(table.commit(change).await.unwrap(), CommitOutcome::Moved));
    // Should someone read it after all, nothing that it names is missing.
    let names = objects(&*store).await;
    assert_eq!(names.iter().filter(|name| name.ends_with(".parquet")).count(), 2);
}

#[tokio::test]
async fn a_commit_that_did_not_arrive_is_put_again() {
    let (store, warehouse, mut table) = table_of_three().await;
    store.plan(&commit_name(2), Fault::Lost);
    store.plan(&commit_name(2), Fault::Lost);
    let change = stream_change(&table, &[(2, at(4), "B")], &[]);
    committed(&mut table, change).await;
    assert_eq!(scan(&warehouse, None).await, three_updated());
}

#[tokio::test]
async fn a_version_taken_by_someone_else_moves_the_table_and_leaves_nothing_of_ours() {
    for theirs in [foreign_version(), version_of(&table_of_three().await.2, "shop", 4)] {
        let (store, warehouse, mut table) = table_of_three().await;
        store.plan(&commit_name(2), Fault::Overtaken(theirs));
        let before = objects(&*store).await.len();
        let change = stream_change(&table, &[(2, at(4), "B")], &[]);
        assert!(matches!(table.commit(change).await.unwrap(), CommitOutcome::Moved));
        assert_eq!(objects(&*store).await.len(), before + 1);
        assert_eq!(scan(&warehouse, None).await, three());

        // Opened anew, the same change goes in behind it.
        let mut table = open(&warehouse, 5).await;
        upsert(&mut table, &[(2, at(4), "B")]).await;
        assert_eq!((table.version(), scan(&warehouse, None).await), (3, three_updated()));
    }
}

#[tokio::test]
async fn a_greater_epoch_fences_the_writer_and_whoever_opens_with_a_lower_one() {
    let (store, warehouse, mut table) = table_of_three().await;
    store.plan(&commit_name(2), Fault::Overtaken(version_of(&table, "shop", 6)));
    let change = stream_change(&table, &[(2, at(4), "B")], &[]);
    assert!(matches!(table.commit(change).await.unwrap(), CommitOutcome::Fenced { epoch: 6 }));
    let opened = Table::open(&warehouse, &id(), writer(5), Buckets::whole()).await;
    assert!(matches!(opened, Err(TableError::Fenced { epoch: 6, .. })));
    assert!(Table::open(&warehouse, &id(), writer(7), Buckets::whole()).await.unwrap().is_some());
}

#[tokio::test]
async fn data_that_cannot_be_written_leaves_the_table_as_it_was() {
    for suffix in [".parquet", ".bin"] {
        let (store, warehouse, mut table) = table_of_three().await;
        store.plan(suffix, Fault::Lost);
        let change = stream_change(&table, &[(2, at(4), "B")], &[]);
        assert!(table.commit(change).await.is_err());
        assert_eq!(scan(&warehouse, None).await, three());
        let mut table = open(&warehouse, 5).await;
        upsert(&mut table, &[(2, at(4), "B")]).await;
        assert_eq!(scan(&warehouse, None).await, three_updated());
    }
}

#[tokio::test]
async fn a_store_that_was_away_while_data_was_written_or_read_is_told_from_one_that_refused() {
    let (store, warehouse, mut table) = table_of_three().await;
    store.plan(".parquet", Fault::Lost);
    let change = stream_change(&table, &[(2, at(4), "B")], &[]);
    assert!(table.commit(change).await.is_err_and(|error| error.is_away()));
    store.plan(".parquet", Fault::Unreadable);
    let opened = Table::open(&warehouse, &id(), writer(5), Buckets::whole()).await;
    assert!(opened.is_err_and(|error| error.is_away()));
    let refused = || object_store::Error::PermissionDenied { path: "x".into(), source: "403".into() };
    let mut table = open(&warehouse, 5).await;
    store.plan(".parquet", Fault::Answered(refused));
    let change = stream_change(&table, &[(2, at(4), "B")], &[]);
    assert!(table.commit(change).await.is_err_and(|error| !error.is_away()));
}

#[tokio::test]
async fn a_listing_that_comes_late_hides_no_commit_from_whoever_writes_behind_it() {
    let (store, warehouse, mut table) = table_of_three().await;
    store.plan("_delta_log", Fault::Late(Duration::from_millis(50)));
    let (late, ()) = tokio::join!(open(&warehouse, 5), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        upsert(&mut table, &[(2, at(4), "B")]).await;
    });
    let mut late = late;
    assert_eq!(late.version(), 1);
    let change = stream_change(&late, &[(1, at(4), "A")], &[]);
    assert!(matches!(late.commit(change).await.unwrap(), CommitOutcome::Moved));
    assert_eq!(scan(&warehouse, None).await, three_updated());
}

#[tokio::test]
async fn a_store_that_overwrites_is_refused_and_one_that_refuses_is_taken() {
    let store = Arc::new(FaultyStore::default());
    let warehouse = Warehouse::in_store(store.clone());
    store.plan("", Fault::Overwriting);
    store.plan("", Fault::Overwriting);
    let refused = warehouse.probe_writable().await.unwrap_err();
    assert!(refused.to_string().contains("does not honour If-None-Match"), "{refused}");
    for faults in [&[][..], &[Fault::Retried]] {
        faults.iter().for_each(|fault| store.plan("", fault.clone()));
        warehouse.probe_writable().await.unwrap();
    }
    assert_eq!(objects(&*store).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_store_that_never_answers_ends_in_an_error_and_a_restart_finds_what_holds() {
    let (store, warehouse, mut table) = table_of_three().await;
    for _ in 0..=crate::limits::AMBIGUOUS_PUT_TRIES {
        store.plan(&commit_name(2), Fault::Lost);
    }
    let change = stream_change(&table, &[(2, at(4), "B")], &[]);
    assert!(matches!(table.commit(change).await, Err(TableError::Store(_))));
    assert_eq!(open(&warehouse, 5).await.state().commits, 2);
    assert_eq!(scan(&warehouse, None).await, three());
}

#[tokio::test]
async fn a_version_is_put_after_everything_it_names() {
    let (store, _, mut table) = table_of_three().await;
    store.take_written();
    upsert(&mut table, &[(2, at(4), "B")]).await;
    let written = store.take_written();
    assert_eq!(written.len(), 3);
    assert!(written[2].ends_with(&commit_name(2)), "{written:?}");
}

/// A table of two buckets with a writer of each, and an id of each.
async fn two_writers() -> (Arc<FaultyStore>, Warehouse, [Table; 2], [i64; 2]) {
    let store = Arc::new(FaultyStore::default());
    let warehouse = Warehouse::in_store(store.clone());
    let (state, all) = (TableState::default(), Buckets::all(2));
    Table::create(&warehouse, &schema(), writer(5), state, all).await.unwrap();
    let open = async |bucket| {
        let buckets = Buckets { count: 2, owned: [bucket].into() };
        Table::open(&warehouse, &id(), writer(5), buckets).await.unwrap().unwrap()
    };
    let ids = [0, 1].map(|bucket| (0..).find(|id| weir_model::key::KeyRef::Int(*id).bucket(2) == bucket).unwrap());
    let tables = [open(0).await, open(1).await];
    (store, warehouse, tables, ids)
}

/// The next version by a writer of a shared table, which changes no row.
fn version_beside(table: &Table) -> Bytes {
    let mut state = TableState { commits: table.state().commits + 1, ..table.state().clone() };
    let bucket = *table.buckets().owned.first().unwrap();
    state.shares[bucket as usize].offset += 1;
    let record = CommitRecord {
        format: CommitRecord::FORMAT,
        source: "shop".into(),
        commit_id: "theirs".into(),
        state,
        accounts: Vec::new(),
        cleans: Vec::new(),
    };
    serialise(&table.frame("MERGE", record, 0))
}

#[tokio::test]
async fn a_commit_is_in_once_behind_a_writer_beside_however_answers_are_lost() {
    let (_, _, [_, b], _) = two_writers().await;
    let theirs = || Fault::Overtaken(version_beside(&b));
    let sequences: [(&[Fault], i64); 8] = [
        (&[theirs()], 2),
        (&[Fault::Lost, theirs()], 2),
        (&[Fault::AnswerLost], 1),
        (&[Fault::Lost, Fault::AnswerLost, Fault::Unreadable, Fault::Unreadable], 1),
        (&[theirs(), Fault::Unreadable, Fault::Unreadable], 2),
        (&[Fault::AnswerLost, Fault::Lost], 1),
        (&[Fault::Retried], 1),
        (&[theirs(), Fault::Retried], 2),
    ];
    for (faults, version) in sequences {
        let (store, warehouse, [mut a, mut b], [id_a, id_b]) = two_writers().await;
        faults.iter().for_each(|fault| store.plan(&commit_name(1), fault.clone()));
        let change = buckets::sharded_change(&a, &[(id_a, at(1), "a")], &[]);
        committed(&mut a, change).await;
        assert_eq!(a.version(), version, "{faults:?}");
        assert_eq!(a.state().shares.iter().map(|share| share.offset).collect::<Vec<_>>(), [1, version - 1]);
        // The other goes on behind it, unless its own bucket has moved.
        let change = buckets::sharded_change(&b, &[(id_b, at(1), "b")], &[]);
        let outcome = b.commit(change).await.unwrap();
        assert_eq!(matches!(outcome, CommitOutcome::Committed { .. }), version == 1, "{faults:?}");
        assert_eq!(scan(&warehouse, None).await.len(), 3 - version as usize);
    }
}

#[tokio::test]
async fn a_commit_that_lost_its_place_to_a_foreign_version_behind_a_writer_beside_leaves_nothing() {
    let (store, warehouse, [mut a, b], [id_a, _]) = two_writers().await;
    store.plan(&commit_name(1), Fault::Overtaken(version_beside(&b)));
    store.plan(&commit_name(2), Fault::Overtaken(foreign_version()));
    let before = objects(&*store).await.len();
    let change = buckets::sharded_change(&a, &[(id_a, at(1), "a")], &[]);
    assert!(matches!(a.commit(change).await.unwrap(), CommitOutcome::Moved));
    assert_eq!((objects(&*store).await.len(), scan(&warehouse, None).await), (before + 2, Rows::new()));
}

#[tokio::test]
async fn a_second_live_row_of_a_key_is_found_when_the_table_is_opened() {
    let (_, warehouse, table) = table_of_three().await;
    // A foreign append of a file whose rows the table already has, as RESTORE would make it.
    let add = table.files[&0].add.clone();
    let copy = delta::Add { path: "copy.parquet".into(), ..add.clone() };
    let bytes = warehouse.get(&table.path.clone().join(add.path)).await.unwrap();
    warehouse.put(&table.path.clone().join("copy.parquet"), bytes).await.unwrap();
    table.log.put(2, serialise(&[Action { add: Some(copy), ..Action::default() }])).await.unwrap();
    let opened = Table::open(&warehouse, &id(), writer(5), Buckets::whole()).await;
    assert!(matches!(opened, Err(TableError::Damaged(what)) if what.contains("shop.orders")));
}

//! Several writers of one table: each changes its own buckets, and their commits stand behind one another.

use std::collections::BTreeSet;
use std::time::Duration;

use super::buckets::{
    COUNT, bucket_of, create_shared, id_in, move_share, of, open_of, optimise, put, sharded_change, two_rows_a_bucket,
    went_in,
};
use super::*;
use crate::table::delta::Action;
use crate::table::family::Theirs;

/// Changes that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Commits `rounds` random changes of its own buckets, one after another.
async fn write_rounds(mut table: Table, rounds: u64, seed: u64) -> (Rows, u64) {
    let mut random = Random(seed);
    let (mut rows, mut seq) = (Rows::new(), 0);
    let ids: Vec<i64> = (0..120).filter(|id| table.buckets().owns(bucket_of(*id))).collect();
    for round in 0..rounds {
        let text = format!("{seed}/{round}");
        let (mut upserts, mut deletes) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..1 + random.below(6) {
            seq += 1;
            let id = ids[random.below(ids.len() as u64) as usize];
            upserts.remove(&id);
            deletes.remove(&id);
            if random.below(4) == 0 {
                deletes.insert(id, at(seq));
                rows.remove(&id);
            } else {
                upserts.insert(id, at(seq));
                rows.insert(id, row(at(seq), &text));
            }
        }
        let upserts: Vec<_> = upserts.into_iter().map(|(id, order)| (id, order, text.as_str())).collect();
        let deletes: Vec<_> = deletes.into_iter().collect();
        let change = sharded_change(&table, &upserts, &deletes);
        assert!(went_in(&mut table, change).await, "seed {seed}, round {round}");
    }
    (rows, rounds)
}

/// Writers with these buckets commit side by side on local disk; the table is then what they all say.
async fn side_by_side(owned: &[&[u32]], rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    let warehouse = Warehouse::open(&url, &BTreeMap::new()).unwrap();
    create_shared(&warehouse).await;
    let mut writers = tokio::task::JoinSet::new();
    for (n, owned) in owned.iter().enumerate() {
        let table = open_of(&warehouse, owned).await;
        writers.spawn(write_rounds(table, rounds, 17 + n as u64));
    }
    let (mut expected, mut commits) = (Rows::new(), 1);
    while let Some(written) = writers.join_next().await {
        let (rows, rounds) = written.unwrap();
        expected.extend(rows);
        commits += rounds;
    }
    assert_eq!(scan(&warehouse, None).await, expected);
    let all = Table::open(&warehouse, &id(), writer(1), Buckets::all(COUNT)).await.unwrap().unwrap();
    assert_eq!((all.index_figures().0, all.figures().1), (expected.len(), expected.len() as u64));
    let history = history::commits_since(&warehouse, &id(), None).await.unwrap();
    let numbers: Vec<u64> = history.iter().map(|commit| commit.record.as_ref().unwrap().state.commits).collect();
    assert_eq!(numbers, (1..=commits).collect::<Vec<_>>());
    let figures = history::figures(&warehouse, &id()).await.unwrap().unwrap();
    assert_eq!(figures.state.as_ref(), Some(all.state()));
    let mut states = history.iter().map(|commit| &commit.record.as_ref().unwrap().state);
    let mut before = states.next().unwrap();
    for state in states {
        assert_eq!(record::may_follow(before, state), Ok(()));
        before = state;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_commit_side_by_side() {
    side_by_side(&[&[0, 1, 2], &[3, 4]], 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_writers_commit_side_by_side() {
    side_by_side(&[&[0, 3], &[1], &[2, 4]], 30).await;
}

#[tokio::test]
async fn of_two_commits_of_the_same_offsets_one_is_in_and_the_other_has_moved() {
    let warehouse = in_memory();
    create_shared(&warehouse).await;
    let mut expected = Rows::new();
    for round in 0..20 {
        // Bucket 1 is taken over while its old owner still commits; each has another bucket besides.
        let (mut old, mut new) = (open_of(&warehouse, &[0, 1]).await, open_of(&warehouse, &[1, 2]).await);
        let (seq, taken) = (10 * round + 1, id_in(1, round as usize));
        let of_old = sharded_change(&old, &[(taken, at(seq), "same"), (id_in(0, 0), at(seq), "old")], &[]);
        let of_new = sharded_change(&new, &[(taken, at(seq), "same"), (id_in(2, 0), at(seq), "new")], &[]);
        let (old_in, new_in) = if round % 2 == 0 {
            tokio::join!(went_in(&mut old, of_old), went_in(&mut new, of_new))
        } else {
            let new_in = went_in(&mut new, of_new).await;
            (went_in(&mut old, of_old).await, new_in)
        };
        assert!(old_in != new_in, "round {round}: {old_in} {new_in}");
        expected.insert(taken, row(at(seq), "same"));
        if old_in {
            expected.insert(id_in(0, 0), row(at(seq), "old"));
        } else {
            expected.insert(id_in(2, 0), row(at(seq), "new"));
        }
        assert_eq!(scan(&warehouse, None).await, expected);
    }
}

#[tokio::test]
async fn offsets_that_leave_no_row_are_taken_in_by_one_of_two_owners_too() {
    let warehouse = in_memory();
    create_shared(&warehouse).await;
    let (mut old, mut new) = (open_of(&warehouse, &[0, 1]).await, open_of(&warehouse, &[1, 2]).await);
    // A delete of a row that is not there writes no file: only the share tells.
    let of_old = sharded_change(&old, &[], &[(id_in(1, 0), at(1))]);
    let of_new = sharded_change(&new, &[(id_in(2, 0), at(1), "new")], &[(id_in(1, 0), at(1))]);
    assert!(went_in(&mut old, of_old).await);
    assert!(!went_in(&mut new, of_new).await);
    assert_eq!((scan(&warehouse, None).await, old.state().shares[1].offset), (Rows::new(), 1));
}

#[tokio::test]
async fn a_commit_behind_others_is_worked_out_once_and_names_only_its_own_shares() {
    let warehouse = in_memory();
    let all = create_shared(&warehouse).await;
    let (mut a, mut b) = (open_of(&warehouse, &[0, 1]).await, open_of(&warehouse, &[2, 3, 4]).await);
    for seq in 1..4 {
        put(&mut b, &[(id_in(2, 0), at(seq), "b")], &[]).await;
    }
    put(&mut a, &[(id_in(1, 0), at(1), "a")], &[]).await;
    assert_eq!((a.version(), a.state().commits), (4, 5));
    let offsets: Vec<i64> = a.state().shares.iter().map(|share| share.offset).collect();
    assert_eq!(offsets, [0, 1, 3, 0, 0]);
    assert_eq!(a.state().greatest[1..3], [at(1), at(3)]);
    let txns: Vec<_> = all.log.read(4).await.unwrap().into_iter().filter_map(|action| action.txn).collect();
    let named: Vec<_> = txns.iter().map(|txn| (txn.app_id.as_str(), txn.version)).collect();
    assert_eq!(named, [("weir:shop:shop.orders:topic-1:1", 1)]);
    assert_eq!(b.identity_id(), a.identity_id());
}

#[tokio::test]
async fn owners_of_one_mixed_file_see_each_others_changes_of_it() {
    let warehouse = in_memory();
    let mut expected = two_rows_a_bucket(&warehouse, true).await;
    let (mut a, mut b) = (open_of(&warehouse, &[0, 1]).await, open_of(&warehouse, &[2, 3, 4]).await);
    assert_eq!((a.index_figures().0, b.index_figures().0), (4, 6));
    put(&mut a, &[(id_in(0, 0), at(31), "A")], &[]).await;
    let change = sharded_change(&b, &[(id_in(2, 0), at(32), "B")], &[]);
    assert!(!went_in(&mut b, change).await);
    let mut b = open_of(&warehouse, &[2, 3, 4]).await;
    put(&mut b, &[(id_in(2, 0), at(32), "B")], &[(id_in(3, 0), at(33))]).await;
    expected.extend([(id_in(0, 0), row(at(31), "A")), (id_in(2, 0), row(at(32), "B"))]);
    expected.remove(&id_in(3, 0));
    assert_eq!(scan(&warehouse, None).await, expected);
}

fn with(columns: &[&str]) -> TableSchema {
    let mut wider = schema();
    wider.columns.extend(columns.iter().map(|name| column(name, ColumnType::Int64)));
    wider
}

fn evolved(table: &Table, bucket: u32, columns: &[&str]) -> TableChange {
    let mut state = table.state().clone();
    move_share(&mut state, bucket);
    TableChange { evolve: Some(with(columns)), ..TableChange::to(state) }
}

#[tokio::test]
async fn columns_that_one_writer_adds_the_others_have() {
    let warehouse = in_memory();
    create_shared(&warehouse).await;
    let (mut a, mut b) = (open_of(&warehouse, &[0, 1]).await, open_of(&warehouse, &[2, 3, 4]).await);
    let change = evolved(&a, 0, &["n"]);
    committed(&mut a, change).await;
    // Rows that were read before the column was there.
    put(&mut b, &[(id_in(2, 0), at(1), "b")], &[]).await;
    assert_eq!(b.schema().as_ref(), &with(&["n"]));
    put(&mut b, &[(id_in(2, 1), at(2), "b")], &[]).await;
    assert_eq!(b.state().schema, Some(with(&["n"])));
    let opened = open_of(&warehouse, &[0, 1, 2, 3, 4]).await;
    assert_eq!((opened.schema(), opened.index_figures().0), (b.schema(), 2));
    assert_eq!(scan(&warehouse, None).await.len(), 2);
}

#[tokio::test]
async fn of_two_writers_that_add_columns_the_second_adds_only_what_is_missing_or_has_moved() {
    for (theirs, ours, outcome) in [
        (&["n"][..], &["n"][..], Some(&["n"][..])),
        (&["n"], &["n", "m"], Some(&["n", "m"])),
        (&["n", "m"], &["n"], Some(&["n", "m"])),
        (&["n"], &["m"], None),
    ] {
        let warehouse = in_memory();
        create_shared(&warehouse).await;
        let (mut a, mut b) = (open_of(&warehouse, &[0, 1]).await, open_of(&warehouse, &[2, 3, 4]).await);
        let (of_a, of_b) = (evolved(&a, 0, theirs), evolved(&b, 3, ours));
        committed(&mut a, of_a).await;
        assert_eq!(went_in(&mut b, of_b).await, outcome.is_some());
        if let Some(columns) = outcome {
            assert_eq!(b.schema().as_ref(), &with(columns));
            let meta_data = b.log.read(2).await.unwrap().into_iter().any(|action| action.meta_data.is_some());
            assert_eq!(meta_data, ours.len() > theirs.len());
            put(&mut a, &[(id_in(1, 0), at(1), "a")], &[]).await;
            assert_eq!(open_of(&warehouse, &[1]).await.schema().as_ref(), &with(columns));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_create_a_table_at_once_all_go_on_from_one_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    let warehouse = Warehouse::open(&url, &BTreeMap::new()).unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for bucket in 0..COUNT {
        let warehouse = warehouse.clone();
        writers.spawn(async move {
            let state = TableState::default();
            let mut table =
                Table::open_or_create(&warehouse, &schema(), writer(1), state, of(&[bucket])).await.unwrap();
            put(&mut table, &[(id_in(bucket, 0), at(1), "x")], &[]).await;
            table.identity_id().to_owned()
        });
    }
    let ids: BTreeSet<String> = writers.join_all().await.into_iter().collect();
    assert_eq!((ids.len(), scan(&warehouse, None).await.len()), (1, COUNT as usize));
    let table = open_of(&warehouse, &[0]).await;
    assert_eq!((table.version(), table.state().commits), (i64::from(COUNT), u64::from(COUNT) + 1));
}

#[tokio::test]
async fn an_epoch_fences_no_writer_of_a_shared_table_and_the_greatest_is_kept() {
    let warehouse = in_memory();
    create_shared(&warehouse).await;
    let mut newer = Table::open(&warehouse, &id(), writer(7), of(&[0])).await.unwrap().unwrap();
    let mut older = open_of(&warehouse, &[1, 2]).await;
    put(&mut newer, &[(id_in(0, 0), at(1), "newer")], &[]).await;
    put(&mut older, &[(id_in(1, 0), at(1), "older")], &[]).await;
    assert_eq!(older.state().epoch, 7);
    let mut opened = open_of(&warehouse, &[1, 2]).await;
    put(&mut opened, &[(id_in(2, 0), at(1), "older")], &[]).await;
    assert_eq!((opened.state().epoch, scan(&warehouse, None).await.len()), (7, 3));
}

#[tokio::test]
async fn a_version_that_is_not_of_a_writer_beside_moves_the_table() {
    let warehouse = in_memory();
    two_rows_a_bucket(&warehouse, false).await;
    let mut table = open_of(&warehouse, &[1]).await;
    optimise(&warehouse, &table).await;
    let change = sharded_change(&table, &[(id_in(1, 0), at(30), "x")], &[]);
    assert!(!went_in(&mut table, change).await);

    // As a writer beside, but with a file of ours, with one of nobody's bucket, or with another protocol.
    let table = open_of(&warehouse, &[1]).await;
    let beside = open_of(&warehouse, &[2]).await;
    let mut state = beside.state().clone();
    move_share(&mut state, 2);
    state.commits += 1;
    let record = |source: &str| CommitRecord {
        format: CommitRecord::FORMAT,
        source: source.into(),
        commit_id: "theirs".into(),
        state: state.clone(),
        accounts: Vec::new(),
        cleans: Vec::new(),
    };
    let file = table.files.values().next().unwrap();
    let add = Action { add: Some(file.add.clone()), ..Action::default() };
    let remove = Action { remove: Some(file.remove(0)), ..Action::default() };
    let mut protocol = delta::Protocol::of(table.schema());
    protocol.writer_features.as_mut().unwrap().push("columnMapping".into());
    let protocol = Action { protocol: Some(protocol), ..Action::default() };
    let judged = |source: &str, more: Option<&Action>| {
        let mut actions = beside.frame("MERGE", record(source), 0);
        actions.extend(more.cloned());
        matches!(table.judge(&actions, &Default::default()), Theirs::Beside(_))
    };
    assert!(judged("shop", None));
    assert!(!judged("crm", None));
    for more in [add, remove, protocol] {
        assert!(!judged("shop", Some(&more)), "{more:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_far_behind_catches_up_past_a_checkpoint() {
    let warehouse = in_memory();
    create_shared(&warehouse).await;
    let (mut a, mut b) = (open_of(&warehouse, &[0]).await, open_of(&warehouse, &[1]).await);
    for seq in 1..=crate::limits::DELTA_CHECKPOINT_EVERY as i64 {
        put(&mut a, &[(id_in(0, 0), at(seq), "a")], &[]).await;
    }
    for _ in 0..200 {
        if !a.log.versions().await.unwrap().checkpoints.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    put(&mut b, &[(id_in(1, 0), at(1), "b")], &[]).await;
    assert_eq!(b.version(), a.version() + 1);
    let all = open_of(&warehouse, &[0, 1, 2, 3, 4]).await;
    assert_eq!((all.state(), all.index_figures().0), (b.state(), 2));
}

//! Cleaning: what goes, what stays, and who may still name what is about to go.

use std::time::Duration;

use super::*;
use crate::table::clean::{Garbage, Look, Retention, clean_log, find_garbage, remove};

const HOUR_MS: i64 = 3_600_000;

pub(super) fn now_ms() -> i64 {
    weir_model::clock::now_ms() + 1_000
}

pub(super) fn at_once(alone: bool) -> Retention {
    Retention { kept: Duration::ZERO, look: Look::Thorough { alone } }
}

async fn clean(table: &mut Table, mut garbage: Garbage) -> usize {
    let mut removed = 0;
    while !garbage.names.is_empty() {
        let (outcome, names) = table.commit_cleaning(&mut garbage).await.unwrap();
        assert!(matches!(outcome, CommitOutcome::Committed { .. }));
        remove(&table.files(), &names).await;
        removed += names.len();
    }
    removed
}

/// Removes what nothing names, as one who knows that nobody else writes.
pub(super) async fn clean_all(table: &mut Table, warehouse: &Warehouse) {
    let garbage = find_garbage(warehouse, &id(), at_once(true), now_ms()).await.unwrap();
    clean(table, garbage).await;
}

async fn updated(warehouse: &Warehouse) -> Table {
    let mut table =
        Table::create(warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    for n in 0..4 {
        upsert(&mut table, &[(1, at(n * 2 + 1), "a"), (n + 2, at(n * 2 + 2), "b")]).await;
    }
    table
}

#[tokio::test]
async fn what_was_replaced_goes_after_its_retention_and_readers_keep_theirs() {
    let warehouse = in_memory();
    let mut table = updated(&warehouse).await;
    let before = scan(&warehouse, None).await;
    let rewritten = table.compaction(Effort::Full).unwrap().run().await.unwrap();
    table.commit_rewritten(rewritten).await.unwrap();
    let kept = Retention { kept: Duration::from_secs(3_600), look: Look::Quick };
    assert_eq!(find_garbage(&warehouse, &id(), kept, now_ms()).await.unwrap().names, Vec::<String>::new());
    let thorough = Retention { look: Look::Thorough { alone: true }, ..kept };
    assert_eq!(find_garbage(&warehouse, &id(), thorough, now_ms()).await.unwrap().names, Vec::<String>::new());
    assert_eq!(scan(&warehouse, Some(2)).await.len(), 3);

    let garbage = find_garbage(&warehouse, &id(), at_once(false), now_ms()).await.unwrap();
    // Four data files, and the vectors over three of them.
    assert_eq!(clean(&mut table, garbage).await, 4 + 3);
    assert_eq!(scan(&warehouse, None).await, before);
    // A day later the quick look finds the same.
    let warehouse = in_memory();
    let mut table = updated(&warehouse).await;
    let rewritten = table.compaction(Effort::Full).unwrap().run().await.unwrap();
    table.commit_rewritten(rewritten).await.unwrap();
    let garbage = find_garbage(&warehouse, &id(), kept, now_ms() + 24 * HOUR_MS).await.unwrap();
    assert_eq!(clean(&mut table, garbage).await, 4 + 3);
    assert_eq!(scan(&warehouse, None).await, before);
}

#[tokio::test]
async fn a_file_that_may_be_under_way_stays_until_it_is_old() {
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    let staged = chunk(&table, &[(1, "a")], at(5)).await;
    let name = staged[0].name().to_owned();
    let garbage = find_garbage(&warehouse, &id(), at_once(false), now_ms()).await.unwrap();
    assert_eq!(garbage.names, Vec::<String>::new());
    let garbage = find_garbage(&warehouse, &id(), at_once(false), now_ms() + 13 * HOUR_MS).await.unwrap();
    assert_eq!(garbage.names, std::slice::from_ref(&name));
    let garbage = find_garbage(&warehouse, &id(), at_once(true), now_ms()).await.unwrap();
    assert_eq!(garbage.names, [name]);
    merge(&mut table, staged).await;
    let garbage = find_garbage(&warehouse, &id(), at_once(true), now_ms() + 13 * HOUR_MS).await.unwrap();
    assert_eq!(garbage.names, Vec::<String>::new());
}

/// The writer of a bucket staged a chunk and slept; the owner of the first bucket took its file for an orphan.
#[tokio::test]
async fn who_was_about_to_name_a_file_that_goes_is_told() {
    let warehouse = in_memory();
    let table = Table::create(&warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    let mut sleeper = begin_seed(table).await;
    let staged = chunk(&sleeper, &[(1, "a")], at(5)).await;
    let mut cleaner = open(&warehouse, 1).await;
    let mut garbage = Garbage { names: vec![staged[0].name().to_owned()], bytes: 1 };
    let (outcome, names) = cleaner.commit_cleaning(&mut garbage).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed { .. }));
    let described = staged[0].describe();
    let state = sleeper.state().clone();
    let change = TableChange { staged, ..TableChange::to(state) };
    assert!(matches!(sleeper.commit(change).await.unwrap(), CommitOutcome::Moved));
    remove(&cleaner.files(), &names).await;
    assert_eq!(sleeper.absorb().await.unwrap(), Absorbed::Beside);
    assert!(StagedChunk::open(sleeper.files(), described).await.unwrap().is_none());
}

#[tokio::test]
async fn a_log_is_cut_behind_what_is_shipped_and_reads_the_same() {
    let warehouse = in_memory();
    let mut table = updated(&warehouse).await;
    checkpoint::write(&warehouse, &table.path).await.unwrap();
    upsert(&mut table, &[(1, at(50), "c")]).await;
    let before = scan(&warehouse, None).await;
    let cut = async |shipped, now_ms| clean_log(&warehouse, &id(), Duration::ZERO, shipped, now_ms).await.unwrap();
    assert_eq!(cut(2, now_ms()).await, 0, "the trace lacks what would go");
    assert_eq!(cut(5, now_ms() - HOUR_MS).await, 0, "nothing is old");
    assert_eq!(cut(5, now_ms()).await, 4);
    assert_eq!(table.log.versions().await.unwrap().commits, [4, 5]);
    assert_eq!(scan(&warehouse, None).await, before);
    assert_eq!(open(&warehouse, 1).await.version(), 5);
    upsert(&mut table, &[(1, at(60), "d")]).await;
    assert_eq!(cut(6, now_ms()).await, 0, "it begins there already");
}

#[tokio::test]
async fn a_log_keeps_the_newest_own_commit_however_many_are_foreign() {
    let warehouse = in_memory();
    let table = updated(&warehouse).await;
    for version in 5..9 {
        table.log.put(version, log::serialise(&[])).await.unwrap();
    }
    checkpoint::write(&warehouse, &table.path).await.unwrap();
    assert_eq!(clean_log(&warehouse, &id(), Duration::ZERO, 8, now_ms()).await.unwrap(), 0);
    assert_eq!(open(&warehouse, 1).await.version(), 8);
}

#[tokio::test]
async fn damage_is_found_and_named() {
    let warehouse = in_memory();
    let table = updated(&warehouse).await;
    let sound = verify::verify(&warehouse, &id()).await.unwrap();
    assert_eq!((sound.problem_count, sound.rows), (0, 5));
    // A vector that was replaced by an older one: rows rise from the dead.
    let number = *table.files.keys().next().unwrap();
    let mut add = table.files[&number].add.clone();
    add.deletion_vector = None;
    let actions = [
        delta::Action { remove: Some(table.files[&number].remove(0)), ..Default::default() },
        delta::Action { add: Some(add), ..Default::default() },
    ];
    table.log.put(table.version() + 1, log::serialise(&actions)).await.unwrap();
    let doubled = verify::verify(&warehouse, &id()).await.unwrap();
    assert!(doubled.problems.iter().any(|problem| problem.contains("both are live")), "{doubled:?}");
    // A file that is gone.
    let path = table.files.values().last().unwrap().add.path.clone();
    table.files().discard(&path).await;
    let gone = verify::verify(&warehouse, &id()).await.unwrap();
    assert!(gone.problems.iter().any(|problem| problem.starts_with(&path)), "{gone:?}");
}

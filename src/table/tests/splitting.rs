//! Files of several buckets, as foreign writers leave them, become one a bucket, whatever their owners do meanwhile.

use std::collections::BTreeSet;

use tokio::sync::Notify;
use weir_model::layout::{Layout, Storage, TableMode};

use super::buckets::{
    COUNT, bucket_of, create_shared_of, id_in, open_of, optimise, put, sharded_change, two_rows_a_bucket, went_in,
};
use super::*;
use crate::limits::{CHUNK_FILE_AGE_MAX, UPKEEP_TRIES_MAX};
use crate::table::delta::Action;
use crate::table::faulty::{Fault, FaultyStore};
use crate::table::log::{Log, commit_name, serialise};
use crate::table::writer::bucket_of_entry;

/// Splits what there is to split.
async fn split(table: &mut Table) {
    let rewritten = table.compaction(Effort::Steady).unwrap().run().await.unwrap();
    is_in(table.commit_rewritten(rewritten).await.unwrap());
}

fn is_in(outcome: Option<CommitOutcome>) {
    assert!(matches!(outcome, Some(CommitOutcome::Committed { .. })), "{outcome:?}");
}

/// The buckets that the table's files say, one a file.
async fn buckets_told(warehouse: &Warehouse) -> Vec<Option<u32>> {
    let replay = Log::new(warehouse, &id()).replay(None).await.unwrap().unwrap();
    let mut told: Vec<Option<u32>> = replay.files.values().map(|add| bucket_of_entry(add, COUNT)).collect();
    told.sort_unstable();
    told
}

/// The table holds together, and these are its rows.
async fn holds(warehouse: &Warehouse, expected: &Rows) {
    let verified = verify::verify(warehouse, &id()).await.unwrap();
    assert_eq!(verified.problems, Vec::<String>::new());
    assert_eq!(scan(warehouse, None).await, *expected);
}

/// A writer knows of its buckets what one that opens the table now would.
async fn knows_as_opened(table: &Table, warehouse: &Warehouse) {
    let owned: Vec<u32> = table.buckets().owned.iter().copied().collect();
    let opened = open_of(warehouse, &owned).await;
    assert_eq!((table.figures(), table.state(), table.version()), (opened.figures(), opened.state(), opened.version()));
    let path = |table: &Table, id| {
        let address: RowAddress = table.live(RecordKey::Int(id).as_ref())?;
        Some((table.files[&address.file].add.path.clone(), address.row))
    };
    for bucket in 0..COUNT {
        for n in 0..3 {
            let id = id_in(bucket, n);
            assert_eq!(path(table, id), path(&opened, id), "{id} of {bucket}");
        }
    }
}

#[tokio::test]
async fn the_first_buckets_owner_splits_a_file_and_the_others_take_that_in() {
    let warehouse = in_memory();
    let mut expected = two_rows_a_bucket(&warehouse, true).await;
    let mut others = open_of(&warehouse, &[2, 3, 4]).await;
    put(&mut others, &[(id_in(2, 0), at(31), "new")], &[(id_in(3, 0), at(32)), (id_in(3, 1), at(33))]).await;
    expected.insert(id_in(2, 0), row(at(31), "new"));
    expected.retain(|id, _| bucket_of(*id) != 3);
    assert!(others.compaction(Effort::Steady).is_none() && others.files.values().any(|file| file.bucket.is_none()));

    let mut first = open_of(&warehouse, &[0, 1]).await;
    split(&mut first).await;
    // Of bucket 3 no row was left; the update of 2 lies in a file of its own.
    assert_eq!(buckets_told(&warehouse).await, [0, 1, 2, 2, 4].map(Some));
    holds(&warehouse, &expected).await;
    knows_as_opened(&first, &warehouse).await;
    assert!(first.compaction(Effort::Steady).is_none());

    let change = sharded_change(&others, &[(id_in(4, 0), at(41), "later")], &[]);
    assert!(!went_in(&mut others, change).await);
    assert_eq!(others.absorb().await.unwrap(), Absorbed::Beside);
    knows_as_opened(&others, &warehouse).await;
    put(&mut others, &[(id_in(4, 0), at(41), "later")], &[]).await;
    put(&mut first, &[(id_in(0, 0), at(42), "ours")], &[]).await;
    expected.extend([(id_in(4, 0), row(at(41), "later")), (id_in(0, 0), row(at(42), "ours"))]);
    holds(&warehouse, &expected).await;
    assert_eq!(open_of(&warehouse, &[0, 1, 2, 3, 4]).await.index_figures().0, expected.len());
}

#[tokio::test]
async fn rows_that_die_while_a_file_is_split_are_dead_in_the_new_files() {
    let warehouse = in_memory();
    let mut expected = two_rows_a_bucket(&warehouse, true).await;
    let (mut first, mut others) = (open_of(&warehouse, &[0, 1]).await, open_of(&warehouse, &[2, 3, 4]).await);
    let rewritten = first.compaction(Effort::Steady).unwrap().run().await.unwrap();
    put(&mut first, &[(id_in(1, 1), at(31), "ours")], &[(id_in(0, 0), at(32))]).await;
    let change = sharded_change(&others, &[], &[(id_in(2, 0), at(33))]);
    assert!(!went_in(&mut others, change).await, "each change of the file moves the other writer");
    others.absorb().await.unwrap();
    put(&mut others, &[(id_in(4, 1), at(34), "theirs")], &[(id_in(2, 0), at(33)), (id_in(2, 1), at(35))]).await;
    is_in(first.commit_rewritten(rewritten).await.unwrap());
    expected.extend([(id_in(1, 1), row(at(31), "ours")), (id_in(4, 1), row(at(34), "theirs"))]);
    expected.retain(|id, _| bucket_of(*id) != 2 && *id != id_in(0, 0));
    holds(&warehouse, &expected).await;
    knows_as_opened(&first, &warehouse).await;
    // Of bucket 2 every row has died meanwhile: its file was not needed.
    assert_eq!(buckets_told(&warehouse).await, [0, 1, 1, 3, 4, 4].map(Some));
    let files = objects(&**warehouse.store()).await;
    let named = Log::new(&warehouse, &id()).replay(None).await.unwrap().unwrap().files.len();
    // Beside those that are named: the ten of the first two commits, and the file that was split.
    assert_eq!(files.iter().filter(|path| path.ends_with(".parquet")).count(), named + 10 + 1);
}

/// Another owner's commit is put between what the splitter has read of the log and its own.
#[tokio::test]
async fn a_split_that_another_writer_overtakes_is_worked_out_again_behind_it() {
    let store = Arc::new(FaultyStore::default());
    let warehouse = Warehouse::in_store(store.clone());
    let mut expected = two_rows_a_bucket(&warehouse, true).await;
    let (mut first, mut other) = (open_of(&warehouse, &[0, 1]).await, open_of(&warehouse, &[2]).await);
    let (reached, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    store.plan(&commit_name(first.version() + 1), Fault::Stalled { reached: reached.clone(), go: go.clone() });
    let rewritten = first.compaction(Effort::Steady).unwrap().run().await.unwrap();
    let (split, ()) = tokio::join!(first.commit_rewritten(rewritten), async {
        reached.notified().await;
        put(&mut other, &[(id_in(2, 0), at(31), "overtakes")], &[(id_in(2, 1), at(32))]).await;
        go.notify_one();
    });
    is_in(split.unwrap());
    expected.insert(id_in(2, 0), row(at(31), "overtakes"));
    expected.remove(&id_in(2, 1));
    holds(&warehouse, &expected).await;
    knows_as_opened(&first, &warehouse).await;
    assert_eq!(first.version(), other.version() + 1);
    assert_eq!(buckets_told(&warehouse).await, [0, 1, 2, 3, 4].map(Some));
}

#[tokio::test]
async fn a_split_that_loses_again_and_again_is_given_up_and_leaves_nothing() {
    let store = Arc::new(FaultyStore::default());
    let warehouse = Warehouse::in_store(store.clone());
    let expected = two_rows_a_bucket(&warehouse, true).await;
    let mut table = open_of(&warehouse, &[0, 1]).await;
    let before = objects(&*store).await.len();
    // As a foreign writer's that changes no row.
    let info = delta::CommitInfo {
        timestamp: 1,
        operation: "SET TBLPROPERTIES".into(),
        operation_parameters: None,
        engine_info: None,
        weir: None,
    };
    let foreign = serialise(&[Action { commit_info: Some(info), ..Action::default() }]);
    for n in 1..=i64::from(UPKEEP_TRIES_MAX) {
        store.plan(&commit_name(table.version() + n), Fault::Overtaken(foreign.clone()));
    }
    let rewritten = table.compaction(Effort::Steady).unwrap().run().await.unwrap();
    assert!(matches!(table.commit_rewritten(rewritten).await.unwrap(), Some(CommitOutcome::Moved)));
    assert_eq!(objects(&*store).await.len(), before + UPKEEP_TRIES_MAX as usize);
    table.absorb().await.unwrap();
    split(&mut table).await;
    holds(&warehouse, &expected).await;
}

/// A file of several buckets, read to be split by two that both took themselves for the first bucket's owner.
#[tokio::test]
async fn of_two_that_split_a_file_one_does() {
    let warehouse = in_memory();
    let expected = two_rows_a_bucket(&warehouse, true).await;
    let (mut old, mut new) = (open_of(&warehouse, &[0, 1]).await, open_of(&warehouse, &[0, 2]).await);
    let before = objects(&**warehouse.store()).await.len();
    let of_old = old.compaction(Effort::Steady).unwrap().run().await.unwrap();
    let of_new = new.compaction(Effort::Steady).unwrap().run().await.unwrap();
    is_in(new.commit_rewritten(of_new).await.unwrap());
    assert!(old.commit_rewritten(of_old).await.unwrap().is_none());
    holds(&warehouse, &expected).await;
    assert_eq!(objects(&**warehouse.store()).await.len(), before + COUNT as usize + 1);
    knows_as_opened(&old, &warehouse).await;
}

#[tokio::test]
async fn what_was_read_is_of_no_use_once_dead_rows_live_again_or_cleaning_may_take_it_for_an_orphan() {
    let warehouse = in_memory();
    let mut expected = two_rows_a_bucket(&warehouse, true).await;
    let mut table = open_of(&warehouse, &[0]).await;
    put(&mut table, &[], &[(id_in(0, 0), at(31))]).await;
    let rewritten = table.compaction(Effort::Steady).unwrap().run().await.unwrap();
    // As a RESTORE does it: the file without its vector.
    let mixed = table.files.values().find(|file| file.bucket.is_none()).unwrap();
    let revived = delta::Add { deletion_vector: None, ..mixed.add.clone() };
    let actions = [
        Action { remove: Some(mixed.remove(0)), ..Action::default() },
        Action { add: Some(revived), ..Action::default() },
    ];
    table.log.put(table.version() + 1, serialise(&actions)).await.unwrap();
    expected.insert(id_in(0, 0), row(at(10), "x"));
    // Opened anew the file has the number that it had.
    let mut table = open_of(&warehouse, &[0]).await;
    assert!(table.commit_rewritten(rewritten).await.unwrap().is_none());
    holds(&warehouse, &expected).await;

    let before = objects(&**warehouse.store()).await.len();
    let mut rewritten = table.compaction(Effort::Steady).unwrap().run().await.unwrap();
    rewritten.written_ms -= CHUNK_FILE_AGE_MAX.as_millis() as i64 + 1;
    assert!(table.commit_rewritten(rewritten).await.unwrap().is_none());
    assert_eq!(objects(&**warehouse.store()).await.len(), before);
    split(&mut table).await;
    holds(&warehouse, &expected).await;
}

#[tokio::test]
async fn a_file_a_bucket_and_partition_comes_of_a_file_a_partition() {
    let warehouse = in_memory();
    let schema = partitions::partitioned(schema(), &["part"]);
    let mut table = create_shared_of(&warehouse, &schema).await;
    let mut expected = Rows::new();
    for (n, text) in ["0", "1", "3"].into_iter().enumerate() {
        let order = at(n as i64 + 1);
        let staged =
            chunk_of(&table, &(0..COUNT).map(|bucket| (id_in(bucket, n), text)).collect::<Vec<_>>(), order).await;
        merge_all(&mut table, staged, order).await;
        expected.extend((0..COUNT).map(|bucket| (id_in(bucket, n), row(order, text))));
    }
    optimise(&warehouse, &table).await;
    let parts: BTreeSet<Option<i16>> = ["0", "1", "3"].into_iter().map(part).collect();
    assert_eq!((parts.len(), buckets_told(&warehouse).await), (3, vec![None; 3]));
    let mut table = open_of(&warehouse, &[0, 3]).await;
    for _ in 0..parts.len() {
        split(&mut table).await;
    }
    let each = (0..COUNT).flat_map(|bucket| [Some(bucket); 3]);
    assert_eq!(buckets_told(&warehouse).await, each.collect::<Vec<_>>());
    holds(&warehouse, &expected).await;
    partitions::told_truly(&warehouse, &schema).await;
    knows_as_opened(&table, &warehouse).await;
}

async fn chunk_of(table: &Table, rows: &[(i64, &str)], order0: Order) -> Vec<StagedChunk> {
    let mut writer = ChunkWriter::create(table.files(), table.schema().clone(), order0, Window(0), COUNT).unwrap();
    writer.write(&source_rows(table.schema(), rows)).await.unwrap();
    writer.finish().await.unwrap()
}

async fn merge_all(table: &mut Table, staged: Vec<StagedChunk>, order0: Order) {
    let mut state = table.state().clone();
    state.order = state.order.max(OrderState(order0));
    committed(table, TableChange { staged, ..TableChange::to(state) }).await;
}

#[tokio::test]
async fn a_log_with_a_key_and_one_without_are_split_by_what_they_have() {
    for key in [vec![0], Vec::new()] {
        let warehouse = in_memory();
        let is_keyed = !key.is_empty();
        let layout = Layout { mode: TableMode::Append, ..Layout::default() };
        let mut table = create_shared_of(&warehouse, &TableSchema { key, layout, ..schema() }).await;
        for seq in 1..4 {
            let rows: Vec<_> = (0..12).map(|id| (100 * seq + id, "read")).collect();
            let staged = chunk_of(&table, &rows, at(seq)).await;
            merge_all(&mut table, staged, at(seq)).await;
        }
        let before = scan(&warehouse, None).await;
        optimise(&warehouse, &table).await;
        assert_eq!(buckets_told(&warehouse).await, [None]);
        let mut table = open_of(&warehouse, &[0, 1]).await;
        split(&mut table).await;
        holds(&warehouse, &before).await;
        let told = buckets_told(&warehouse).await;
        assert_eq!((told.len() > 1, told.contains(&None)), (is_keyed, false), "{told:?}");
        knows_as_opened(&table, &warehouse).await;
    }
}

#[tokio::test]
async fn where_files_are_copied_on_write_whoever_has_a_row_that_dies_splits_the_file() {
    let warehouse = in_memory();
    let layout = Layout { storage: Storage::CopyOnWrite, ..Layout::default() };
    let mut table = create_shared_of(&warehouse, &TableSchema { layout, ..schema() }).await;
    let upserts: Vec<_> = (0..COUNT).flat_map(|bucket| [0, 1].map(|n| (id_in(bucket, n), at(10), "x"))).collect();
    put(&mut table, &upserts, &[]).await;
    optimise(&warehouse, &table).await;
    let mut expected: Rows = upserts.into_iter().map(|(id, order, text)| (id, row(order, text))).collect();

    let (mut first, mut other) = (open_of(&warehouse, &[0, 1]).await, open_of(&warehouse, &[3]).await);
    let rewritten = first.compaction(Effort::Steady).unwrap().run().await.unwrap();
    put(&mut other, &[(id_in(3, 0), at(31), "new")], &[(id_in(3, 1), at(32))]).await;
    expected.insert(id_in(3, 0), row(at(31), "new"));
    expected.remove(&id_in(3, 1));
    holds(&warehouse, &expected).await;
    assert_eq!(buckets_told(&warehouse).await, [0, 1, 2, 3, 4].map(Some));
    knows_as_opened(&other, &warehouse).await;
    // The file that the first was about to split is gone.
    assert!(first.commit_rewritten(rewritten).await.unwrap().is_none());
    put(&mut first, &[(id_in(1, 0), at(33), "ours")], &[]).await;
    expected.insert(id_in(1, 0), row(at(33), "ours"));
    holds(&warehouse, &expected).await;
    knows_as_opened(&first, &warehouse).await;
}

/// Changes rows of its buckets, and splits what there is to split if the first bucket is among them; gives the rows that
/// it has changed, and how often it has split.
async fn write_and_split(mut table: Table, rounds: i64) -> (Rows, usize) {
    let (mut rows, mut splits) = (Rows::new(), 0);
    let ids: Vec<i64> = (0..200).filter(|id| table.buckets().owns(bucket_of(*id))).collect();
    for round in 1..=rounds {
        let (id, order) = (ids[(round * 7) as usize % ids.len()], at(10 + round));
        loop {
            let change = sharded_change(&table, &[(id, order, "changed")], &[]);
            if went_in(&mut table, change).await {
                break;
            }
            assert_eq!(table.absorb().await.unwrap(), Absorbed::Beside);
        }
        rows.insert(id, row(order, "changed"));
        // Others go on meanwhile.
        while let Some(rewriting) = table.compaction(Effort::Full).filter(|_| round > rounds / 4) {
            let rewritten = rewriting.run().await.unwrap();
            let outcome = table.commit_rewritten(rewritten).await.unwrap();
            splits += usize::from(matches!(outcome, Some(CommitOutcome::Committed { .. })));
        }
    }
    (rows, splits)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_split_beside_writers_that_never_stop() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    let warehouse = Warehouse::open(&url, &BTreeMap::new()).unwrap();
    let mut table = create_shared_of(&warehouse, &schema()).await;
    let upserts: Vec<_> = (0..200).map(|id| (id, at(1), "first")).collect();
    put(&mut table, &upserts, &[]).await;
    optimise(&warehouse, &table).await;
    let mut expected: Rows = upserts.into_iter().map(|(id, order, text)| (id, row(order, text))).collect();
    let mut writers = tokio::task::JoinSet::new();
    for owned in [&[0, 3][..], &[1], &[2, 4]] {
        let table = open_of(&warehouse, owned).await;
        writers.spawn(write_and_split(table, 24));
    }
    let mut splits = 0;
    while let Some(written) = writers.join_next().await {
        let (rows, done) = written.unwrap();
        expected.extend(rows);
        splits += done;
    }
    holds(&warehouse, &expected).await;
    assert!(splits > 0 && !buckets_told(&warehouse).await.contains(&None), "{splits}");
}

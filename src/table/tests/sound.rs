//! A merge of files by another engine that was begun before a compaction of ours and gets in behind it, as delta-rs lets
//! it: no row stays in the table twice.

use object_store::ObjectStoreExt;
use weir_model::layout::{Layout, TableMode};

use super::*;
use crate::table::delta::{Action, Remove};
use crate::table::files::removal;
use crate::table::log::{Log, serialise};

fn laid_out(mode: TableMode) -> TableSchema {
    let key = if mode == TableMode::Append { Vec::new() } else { vec![0] };
    TableSchema { key, layout: Layout { mode, ..Layout::default() }, ..schema() }
}

/// A table of three files.
async fn of_three(warehouse: &Warehouse, mode: TableMode) -> Table {
    let mut table =
        Table::create(warehouse, &laid_out(mode), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    for n in 0..3 {
        upsert(&mut table, &[(n, at(n + 1), "row")]).await;
    }
    table
}

async fn compact(table: &mut Table) {
    let rewritten = table.compaction(Effort::Full).unwrap().run().await.unwrap();
    assert!(matches!(table.commit_rewritten(rewritten).await.unwrap(), Some(CommitOutcome::Committed { .. })));
}

/// Puts a version that replaces the files of version `read` by a copy of the one file that holds their rows by now.
async fn merge_behind(table: &Table, read: i64) {
    let log = Log::new(&table.warehouse, &id());
    let (before, now) = (log.replay(Some(read)).await.unwrap().unwrap(), log.replay(None).await.unwrap().unwrap());
    let merged = now.files.values().next().unwrap().clone();
    let place = |name: &str| table.path.clone().join(name);
    table.warehouse.store().copy(&place(&merged.path), &place("theirs.parquet")).await.unwrap();
    let removes = before.files.values().map(|add| Remove { data_change: false, ..removal(add, 0) });
    let removes = removes.map(|remove| Action { remove: Some(remove), ..Action::default() });
    let add = crate::table::delta::Add { path: "theirs.parquet".into(), tags: None, data_change: false, ..merged };
    let actions: Vec<Action> = removes.chain([Action { add: Some(add), ..Action::default() }]).collect();
    log.put(now.version + 1, serialise(&actions)).await.unwrap();
}

async fn live_rows(warehouse: &Warehouse) -> usize {
    let mut rows = 0;
    let scan = Scan::open(warehouse, &id(), None, None).await.unwrap();
    scan.for_each(|batch| {
        rows += batch.num_rows();
        Ok(())
    })
    .await
    .unwrap();
    rows
}

/// The table and the version before its compaction, with the other engine's merge behind that.
async fn doubled(warehouse: &Warehouse, mode: TableMode) -> Table {
    let mut table = of_three(warehouse, mode).await;
    let read = table.version();
    compact(&mut table).await;
    merge_behind(&table, read).await;
    assert_eq!(live_rows(warehouse).await, 6, "or there is nothing to undo");
    table
}

#[tokio::test]
async fn it_is_undone_by_the_writers_next_commit() {
    for mode in [TableMode::Upsert, TableMode::Append] {
        let warehouse = in_memory();
        let mut table = doubled(&warehouse, mode).await;
        let change = stream_change(&table, &[(9, at(50), "later")], &[]);
        assert!(matches!(table.commit(change).await.unwrap(), CommitOutcome::Moved));
        assert_eq!(table.absorb().await.unwrap(), Absorbed::Beside);
        assert_eq!(live_rows(&warehouse).await, 3, "{mode:?}");
        upsert(&mut table, &[(9, at(50), "later")]).await;
        assert_eq!(live_rows(&warehouse).await, 4);
        assert_eq!(open(&warehouse, 1).await.figures(), table.figures());
    }
}

#[tokio::test]
async fn it_is_undone_by_whoever_opens_the_table_and_by_one_of_them() {
    for mode in [TableMode::Upsert, TableMode::Append] {
        let warehouse = in_memory();
        let table = doubled(&warehouse, mode).await;
        let told = verify::verify(&warehouse, &id()).await.unwrap();
        assert!(told.problems.iter().any(|problem| problem.contains("files that had gone already")), "{told:?}");
        // Another merge of files on top of it goes with it.
        merge_behind(&table, table.version() + 1).await;
        let before = Log::new(&warehouse, &id()).versions().await.unwrap().commits.len();
        let (one, other) = tokio::join!(open(&warehouse, 1), open(&warehouse, 1));
        assert_eq!(one.figures(), other.figures());
        let after = Log::new(&warehouse, &id()).versions().await.unwrap().commits.len();
        assert_eq!((live_rows(&warehouse).await, after), (3, before + 1));
        assert_eq!(verify::verify(&warehouse, &id()).await.unwrap().problems, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_merge_of_files_that_are_there_stays() {
    let warehouse = in_memory();
    let mut table = of_three(&warehouse, TableMode::Append).await;
    compact(&mut table).await;
    merge_behind(&table, table.version()).await;
    let opened = open(&warehouse, 1).await;
    assert_eq!((opened.version(), opened.figures().1), (table.version() + 1, 3));
}

#[tokio::test]
async fn removals_say_that_rows_go_unless_somebody_may_follow_the_rows_that_are_appended() {
    for (mode, told) in [(TableMode::Upsert, true), (TableMode::Append, false)] {
        let warehouse = in_memory();
        let mut table = of_three(&warehouse, mode).await;
        compact(&mut table).await;
        let actions = table.log.read(table.version()).await.unwrap();
        let removes: Vec<bool> = actions.iter().filter_map(|a| Some(a.remove.as_ref()?.data_change)).collect();
        let adds: Vec<bool> = actions.iter().filter_map(|a| Some(a.add.as_ref()?.data_change)).collect();
        assert_eq!((removes, adds), (vec![told; 3], vec![false]), "{mode:?}");
    }
}

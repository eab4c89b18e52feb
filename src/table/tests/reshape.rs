//! Columns that change: every file is written again, in one commit, whatever the table's layout, whoever writes beside, and
//! wherever the process ends.

use weir_model::layout::{Deletes, Storage, TableMode};
use weir_model::{Absences, Layout};

use super::buckets::{COUNT, id_in, of, open_of, optimise, put, sharded_change, went_in};
use super::cleaning::{at_once, clean_all, now_ms};
use super::partitions::partitioned;
use super::*;
use crate::table::delta::Add;
use crate::table::faulty::{Fault, FaultyStore};
use crate::table::log::{Replay, commit_name};
use crate::table::mortal::{Last, MortalStore};

fn decimal(precision: u8, scale: u8) -> ColumnType {
    ColumnType::Decimal { precision, scale }
}

/// The tables of this room with further columns, whose values follow from the id: `n`, `f` and `d`, of these types.
fn with(base: TableSchema, id: ColumnType, [n, f, d]: [ColumnType; 3]) -> TableSchema {
    let mut schema = base;
    schema.columns[0].ty = id;
    schema.columns.extend([column("n", n), column("f", f), column("d", d)]);
    schema
}

fn narrow(base: TableSchema) -> TableSchema {
    with(base, ColumnType::Int32, [ColumnType::Int16, ColumnType::Float, decimal(10, 2)])
}

/// What [`narrow`] can become.
fn wide(base: TableSchema) -> TableSchema {
    with(base, ColumnType::Int64, [decimal(12, 3), ColumnType::Double, decimal(14, 4)])
}

fn laid_out(layout: Layout) -> TableSchema {
    TableSchema { layout, ..schema() }
}

fn layouts() -> Vec<TableSchema> {
    vec![
        schema(),
        composite_schema(),
        laid_out(Layout { storage: Storage::CopyOnWrite, ..Layout::default() }),
        laid_out(Layout { deletes: Deletes::Soft, ..Layout::default() }),
        laid_out(Layout { mode: TableMode::Append, ..Layout::default() }),
        partitioned(schema(), &["part"]),
        partitioned(composite_schema(), &["code", "day = day(at)", "b = bucket(2, text)"]),
    ]
}

async fn replay(table: &Table) -> Replay {
    table.log.replay(None).await.unwrap().unwrap()
}

/// The values of a column by id and order, as text.
async fn values(warehouse: &Warehouse, name: &str) -> BTreeMap<(i64, Order), Option<String>> {
    let mut values = BTreeMap::new();
    let scan = Scan::open(warehouse, &id(), None, None).await.unwrap();
    scan.for_each(|batch| {
        let as_type = |name: &str, ty: &arrow_schema::DataType| cast(batch.column_by_name(name).unwrap(), ty).unwrap();
        let longs = |name: &str| as_type(name, &arrow_schema::DataType::Int64).as_primitive::<Int64Type>().clone();
        let (ids, ts, seq) = (longs("id"), longs("_weir_ts_ms"), longs("_weir_seq"));
        let texts = as_type(name, &arrow_schema::DataType::Utf8).as_string::<i32>().clone();
        for row in 0..batch.num_rows() {
            let text = texts.is_valid(row).then(|| texts.value(row).to_owned());
            values.insert((ids.value(row), Order::new(ts.value(row), seq.value(row))), text);
        }
        Ok(())
    })
    .await
    .unwrap();
    values
}

async fn sound(warehouse: &Warehouse) {
    assert_eq!(verify::verify(warehouse, &id()).await.unwrap().problems, Vec::<String>::new());
}

async fn reshaped(table: &mut Table, next: TableSchema) {
    let absences = table.state().absences.clone();
    let outcome = table.reshape(next, absences).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");
}

/// A table of some files, of which rows have died.
async fn filled(warehouse: &Warehouse, schema: &TableSchema) -> Table {
    let mut table = Table::create(warehouse, schema, writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    upsert(&mut table, &[(1, at(1), "a"), (2, at(2), "b"), (3, at(3), "c"), (4, at(4), "d")]).await;
    upsert(&mut table, &[(5, at(5), "e"), (2, at(6), "B")]).await;
    let hard = schema.layout.deletes == Deletes::Hard && !schema.layout.is_append();
    let deletes = [(4, at(8))];
    let change = stream_change(&table, &[(6, at(7), "f")], if hard { &deletes } else { &[] });
    committed(&mut table, change).await;
    table
}

fn addresses(table: &Table) -> Vec<Option<RowAddress>> {
    if table.schema().layout.is_append() {
        return Vec::new();
    }
    (0..9).map(|id| table.live(record_key(table.schema(), id).as_ref())).collect()
}

/// What must stay of entries, by what tells a file from others that are written again.
fn lasting(replay: &Replay) -> Vec<String> {
    let told = |add: &Add| format!("{:?} {:?} {:?}", add.tags, add.partition_values, add.deletion_vector);
    let mut told: Vec<String> = replay.files.values().map(told).collect();
    told.sort();
    told
}

#[tokio::test]
async fn widened_files_keep_their_rows_their_places_and_their_vectors() {
    for base in layouts() {
        let warehouse = in_memory();
        let mut table = filled(&warehouse, &narrow(base.clone())).await;
        let (before, figures, rows) = (replay(&table).await, table.figures(), addresses(&table));
        let (texts, numbers) = (values(&warehouse, "text").await, values(&warehouse, "f").await);
        reshaped(&mut table, wide(base.clone())).await;
        let after = replay(&table).await;
        assert_eq!((after.version, lasting(&after)), (before.version + 1, lasting(&before)));
        assert!(after.files.keys().all(|path| !before.files.contains_key(path)));
        assert_eq!((table.figures().0, table.figures().1, addresses(&table)), (figures.0, figures.1, rows));
        assert_eq!(values(&warehouse, "text").await, texts);
        assert_eq!(values(&warehouse, "f").await, numbers);
        assert_eq!(values(&warehouse, "d").await[&(1, at(1))].as_deref(), Some("10.0000"));
        assert_eq!(values(&warehouse, "n").await[&(1, at(1))].as_deref(), Some("10.000"));
        sound(&warehouse).await;
        // Of the same values, statistics are as they were.
        for add in after.files.values() {
            let stats: serde_json::Value = serde_json::from_str(add.stats.as_ref().unwrap()).unwrap();
            assert_eq!(stats["tightBounds"] == true, add.deletion_vector.is_none(), "{stats}");
            assert!(stats["maxValues"]["id"].is_i64(), "{stats}");
        }
        // Readers that follow changes of rows have nothing to see; those of the log see one version.
        let actions = table.log.read(after.version).await.unwrap();
        assert!(actions.iter().filter_map(|action| action.add.as_ref()).all(|add| !add.data_change));
        assert!(actions.iter().any(|action| action.meta_data.is_some()));
        // It goes on, and so does whoever opens it.
        upsert(&mut table, &[(1, at(10), "A"), (7, at(11), "g")]).await;
        let mut opened = open(&warehouse, 1).await;
        assert_eq!((opened.figures(), opened.schema()), (table.figures(), table.schema()));
        upsert(&mut opened, &[(3, at(12), "C")]).await;
        assert_eq!(values(&warehouse, "n").await[&(3, at(12))].as_deref(), Some("30.000"));
        sound(&warehouse).await;
    }
}

#[tokio::test]
async fn what_is_not_exact_or_would_move_rows_is_refused_before_anything_is_written() {
    let warehouse = in_memory();
    let mut table = filled(&warehouse, &narrow(partitioned(composite_schema(), &["part"]))).await;
    let objects_before = objects(&**warehouse.store()).await.len();
    let refused: [fn(&mut TableSchema); 6] = [
        |next| next.columns[0].ty = ColumnType::Text,
        |next| next.columns[0].ty = decimal(20, 0),
        |next| next.key = vec![0],
        |next| next.columns[3].ty = ColumnType::Int64,
        |next| next.columns.swap(0, 1),
        |next| next.columns.truncate(2),
    ];
    for change in refused {
        let mut next = table.schema().as_ref().clone();
        change(&mut next);
        let absences = table.state().absences.clone();
        let outcome = table.reshape(next, absences).await;
        assert!(matches!(outcome, Err(TableError::Rule { .. })), "{outcome:?}");
    }
    assert_eq!(objects(&**warehouse.store()).await.len(), objects_before);
    // Nor is a commit of rows the place for it.
    let wide = wide(partitioned(composite_schema(), &["part"]));
    let change = TableChange { evolve: Some(wide), ..TableChange::to(table.state().clone()) };
    assert!(matches!(table.commit(change).await, Err(TableError::Rule { .. })));
}

/// The source was without `n` up to an order, and uses the name again.
fn used_again(table: &Table, absent: Order) -> Absences {
    let mut absences = table.state().absences.clone();
    absences.note_absent("n", absent);
    absences.note_emptied("n");
    absences
}

#[tokio::test]
async fn a_column_whose_name_is_used_again_is_empty_in_rows_from_before() {
    for base in layouts() {
        for ty in [ColumnType::Int16, ColumnType::Int64, ColumnType::Text, ColumnType::Date] {
            let warehouse = in_memory();
            let mut table = filled(&warehouse, &narrow(base.clone())).await;
            let mut next = table.schema().as_ref().clone();
            let n = next.column_index("n").unwrap();
            next.columns[n].ty = ty.clone();
            // The last row's order is above: its value is of the column as it is by then, if it is of its type.
            let absences = used_again(&table, at(6));
            let outcome = table.reshape(next, absences).await.unwrap();
            assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");
            let is_kept = ColumnType::Int16.fits(&ty);
            for ((id, order), value) in values(&warehouse, "n").await {
                let expected = (order > at(6) && is_kept).then(|| (id * 10).to_string());
                assert_eq!(value, expected, "{id} at {order} of {ty:?}");
            }
            assert_eq!(values(&warehouse, "d").await[&(1, at(1))].as_deref(), Some("10.00"));
            let actions = table.log.read(table.version()).await.unwrap();
            assert!(actions.iter().filter_map(|action| action.add.as_ref()).all(|add| add.data_change));
            sound(&warehouse).await;
            assert_eq!(open(&warehouse, 1).await.state(), table.state());
        }
    }
}

#[tokio::test]
async fn rows_that_are_marked_as_deleted_do_not_carry_values_of_a_column_over_its_absence() {
    let warehouse = in_memory();
    let base = laid_out(Layout { deletes: Deletes::Soft, ..Layout::default() });
    let mut table = filled(&warehouse, &narrow(base)).await;
    let mut state = table.state().clone();
    state.absences.note_absent("n", at(9));
    committed(&mut table, TableChange::to(state)).await;
    let mut state = table.state().clone();
    raise(&mut state, at(20));
    committed(&mut table, TableChange { clear: Some(clear(at(20))), ..TableChange::to(state) }).await;
    let mut absences = table.state().absences.clone();
    absences.note_emptied("n");
    let next = table.schema().as_ref().clone();
    assert!(matches!(table.reshape(next, absences).await.unwrap(), CommitOutcome::Committed { .. }));
    let numbers = values(&warehouse, "n").await;
    assert!(numbers.len() == 6 && numbers.values().all(Option::is_none), "{numbers:?}");
    assert!(values(&warehouse, "f").await.values().all(Option::is_some));
}

#[tokio::test]
async fn a_chunk_that_was_read_before_has_the_columns_of_the_table() {
    for base in [schema(), partitioned(composite_schema(), &["code"])] {
        let warehouse = in_memory();
        let schema = narrow(base.clone());
        let table =
            Table::create(&warehouse, &schema, writer(1), TableState::default(), Buckets::whole()).await.unwrap();
        let mut table = begin_seed(table).await;
        let mut state = table.state().clone();
        state.order = OrderState(at(6));
        committed(&mut table, TableChange::to(state)).await;
        let staged = chunk(&table, &[(1, "a"), (2, "b"), (3, "c")], at(5)).await;
        let lost = chunk(&table, &[(4, "d")], at(6)).await;
        reshaped(&mut table, wide(base.clone())).await;
        merge(&mut table, staged).await;
        assert_eq!(values(&warehouse, "n").await[&(1, at(5))].as_deref(), Some("10.000"));
        // Dropped and used again since, as a text.
        let mut next = table.schema().as_ref().clone();
        let n = next.column_index("n").unwrap();
        next.columns[n].ty = ColumnType::Text;
        let absences = used_again(&table, at(7));
        assert!(matches!(table.reshape(next, absences).await.unwrap(), CommitOutcome::Committed { .. }));
        merge(&mut table, lost).await;
        let numbers = values(&warehouse, "n").await;
        assert!(numbers.len() == 4 && numbers.values().all(Option::is_none), "{numbers:?}");
        assert!(values(&warehouse, "d").await.values().all(Option::is_some));
        sound(&warehouse).await;
        assert_eq!(open(&warehouse, 1).await.figures(), table.figures());
    }
}

#[tokio::test]
async fn a_kept_index_is_of_use_behind_files_that_were_written_again() {
    let (warehouse, folder) = (in_memory(), tempfile::tempdir().unwrap());
    let home = || Writer { index_home: IndexHome::new(IndexBudget::new(usize::MAX), folder.path()), ..writer(1) };
    let narrow = narrow(schema());
    let mut table = Table::create(&warehouse, &narrow, home(), TableState::default(), Buckets::whole()).await.unwrap();
    upsert(&mut table, &[(1, at(1), "a"), (2, at(2), "b")]).await;
    upsert(&mut table, &[(2, at(3), "B"), (3, at(4), "c")]).await;
    table.keep().unwrap().write().unwrap();
    reshaped(&mut table, wide(schema())).await;
    // As it was kept before, and as it is kept now.
    for _ in 0..2 {
        let opened = Table::open(&warehouse, &id(), home(), Buckets::whole()).await.unwrap().unwrap();
        let path = |table: &Table, id| {
            table
                .live(record_key(table.schema(), id).as_ref())
                .map(|address| (table.files[&address.file].add.path.clone(), address.row))
        };
        for id in 0..5 {
            assert_eq!(path(&opened, id), path(&table, id));
        }
        assert!(table.unkept_rows > 0 || opened.unkept_rows == 0);
        table.keep().unwrap().write().unwrap();
    }
}

#[tokio::test]
async fn wherever_the_process_ends_all_is_as_before_or_as_after() {
    for base in [schema(), partitioned(schema(), &["part"])] {
        for last in [Last::NotDone, Last::Done] {
            let mut steps = 0;
            while !ends_at(&base, steps, last).await {
                steps += 1;
            }
            assert!(steps > 12, "{steps}");
        }
    }
}

/// Ends the process after so many requests of a widening; whether it was done before.
async fn ends_at(base: &TableSchema, step: usize, last: Last) -> bool {
    let lake = Arc::new(InMemory::new());
    let (store, warehouse) = (MortalStore::over(lake.clone()), Warehouse::in_store(lake));
    let mut table = filled(&Warehouse::in_store(Arc::new(store.clone())), &narrow(base.clone())).await;
    let (rows, version) = (values(&warehouse, "text").await, table.version());
    store.expose(step, last);
    let absences = table.state().absences.clone();
    let outcome = store.outlives(table.reshape(wide(base.clone()), absences)).await;
    let is_done = outcome.is_some();
    assert!(matches!(outcome, None | Some(Ok(CommitOutcome::Committed { .. }))), "step {step}: {outcome:?}");
    drop(table);
    let mut next = open(&warehouse, 2).await;
    let is_in = next.version() > version;
    assert!(is_in || !is_done, "step {step}");
    assert_eq!(next.schema().as_ref(), &if is_in { wide(base.clone()) } else { narrow(base.clone()) }, "step {step}");
    assert_eq!(values(&warehouse, "text").await, rows, "step {step}");
    sound(&warehouse).await;
    if !is_in {
        reshaped(&mut next, wide(base.clone())).await;
        assert_eq!(values(&warehouse, "text").await, rows, "step {step}");
    }
    upsert(&mut next, &[(2, at(20), "again")]).await;
    sound(&warehouse).await;
    only_named_files_after_cleaning(&warehouse, &mut next).await;
    is_done
}

async fn only_named_files_after_cleaning(warehouse: &Warehouse, table: &mut Table) {
    clean_all(table, warehouse).await;
    sound(warehouse).await;
    let named = replay(table).await.files.len();
    let left = objects(&**warehouse.store()).await;
    assert_eq!(left.iter().filter(|path| path.ends_with(".parquet")).count(), named, "{left:?}");
}

/// A table of several buckets with two rows in each, one of them dead, and one file that is nobody's own.
async fn shared(warehouse: &Warehouse) -> Rows {
    let mut all = Table::create(warehouse, &narrow(schema()), writer(1), TableState::default(), Buckets::all(COUNT))
        .await
        .unwrap();
    let mut rows = Rows::new();
    for bucket in 0..COUNT {
        let (seq, first, second) = (i64::from(bucket) * 4, id_in(bucket, 0), id_in(bucket, 1));
        put(&mut all, &[(first, at(seq + 1), "x"), (second, at(seq + 2), "y")], &[]).await;
        rows.extend([(first, row(at(seq + 1), "x")), (second, row(at(seq + 2), "y"))]);
        if bucket == 1 {
            optimise(warehouse, &all).await;
            all.absorb().await.unwrap();
        }
        put(&mut all, &[], &[(second, at(seq + 3))]).await;
        rows.remove(&second);
    }
    rows
}

#[tokio::test]
async fn one_writer_widens_the_files_of_all_and_the_others_go_on() {
    let warehouse = in_memory();
    let mut rows = shared(&warehouse).await;
    let (mut a, mut b) = (open_of(&warehouse, &[0, 1]).await, open_of(&warehouse, &[2, 3, 4]).await);
    // Worked out before, and put behind it: with narrow columns it must not go in.
    let late = sharded_change(&b, &[(id_in(2, 0), at(50), "late")], &[]);
    reshaped(&mut a, wide(schema())).await;
    assert_eq!(scan(&warehouse, None).await, rows);
    assert!(!went_in(&mut b, late).await);
    assert_eq!(b.absorb().await.unwrap(), Absorbed::Beside);
    assert_eq!(b.schema().as_ref(), &wide(schema()));
    put(&mut b, &[(id_in(2, 0), at(50), "late")], &[]).await;
    put(&mut a, &[(id_in(0, 0), at(51), "wide")], &[]).await;
    rows.extend([(id_in(2, 0), row(at(50), "late")), (id_in(0, 0), row(at(51), "wide"))]);
    assert_eq!(scan(&warehouse, None).await, rows);
    sound(&warehouse).await;
    for (table, owned) in [(&mut a, &[0, 1][..]), (&mut b, &[2, 3, 4])] {
        // What the other one has changed of the file that is nobody's own it need not know yet.
        table.absorb().await.unwrap();
        let opened = open_of(&warehouse, owned).await;
        assert_eq!((opened.figures(), opened.index_figures().0), (table.figures(), table.index_figures().0));
    }
}

#[tokio::test]
async fn a_writer_of_no_file_learns_of_a_column_that_was_emptied() {
    let warehouse = in_memory();
    let narrow = narrow(schema());
    let mut all =
        Table::create(&warehouse, &narrow, writer(1), TableState::default(), Buckets::all(COUNT)).await.unwrap();
    put(&mut all, &[(id_in(0, 0), at(1), "x")], &[]).await;
    let mut beside = Table::open(&warehouse, &id(), writer(1), of(&[3])).await.unwrap().unwrap();
    let former = sharded_change(&beside, &[(id_in(3, 0), at(2), "former")], &[]);
    let absences = used_again(&all, at(5));
    assert!(matches!(all.reshape(narrow, absences).await.unwrap(), CommitOutcome::Committed { .. }));
    assert!(!went_in(&mut beside, former).await, "a value of the column as it was would be seen again");
}

#[tokio::test]
async fn what_was_written_for_a_lost_commit_is_of_use_for_the_next() {
    let store = Arc::new(FaultyStore::default());
    let warehouse = Warehouse::in_store(store.clone());
    let mut rows = shared(&warehouse).await;
    let (mut a, mut b) = (open_of(&warehouse, &[0, 1]).await, open_of(&warehouse, &[2, 3, 4]).await);
    put(&mut b, &[(id_in(4, 2), at(40), "dies"), (id_in(4, 3), at(41), "stays")], &[]).await;
    a.absorb().await.unwrap();
    let (reached, go) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let next = commit_name(a.version() + 1);
    store.plan(&next, Fault::Stalled { reached: reached.clone(), go: go.clone() });
    let files = replay(&a).await.files.len();
    let beside = async {
        reached.notified().await;
        store.take_written();
        // A file comes, and a row of one that has been written again dies.
        put(&mut b, &[(id_in(2, 1), at(60), "between")], &[(id_in(4, 2), at(61))]).await;
        go.notify_one();
    };
    let absences = a.state().absences.clone();
    let (outcome, ()) = tokio::join!(a.reshape(wide(schema()), absences.clone()), beside);
    assert!(matches!(outcome.unwrap(), CommitOutcome::Moved));
    rows.extend([(id_in(2, 1), row(at(60), "between")), (id_in(4, 3), row(at(41), "stays"))]);
    assert_eq!((scan(&warehouse, None).await, a.drafts_figure()), (rows.clone(), files));
    store.take_written();
    a.absorb().await.unwrap();
    // One file came, and none of the others is written once more.
    reshaped(&mut a, wide(schema())).await;
    let written = store.take_written();
    assert_eq!(written.iter().filter(|path| path.ends_with(".parquet")).count(), 1, "{written:?}");
    assert_eq!((scan(&warehouse, None).await, a.drafts_figure()), (rows, 0));
    sound(&warehouse).await;
}

#[tokio::test]
async fn what_was_written_for_a_lost_commit_and_is_to_be_removed_is_written_once_more() {
    let store = Arc::new(FaultyStore::default());
    let warehouse = Warehouse::in_store(store.clone());
    let rows = shared(&warehouse).await;
    let (mut a, mut b) = (open_of(&warehouse, &[1]).await, open_of(&warehouse, &[0, 2, 3, 4]).await);
    let (reached, go) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    store.plan(&commit_name(a.version() + 1), Fault::Stalled { reached: reached.clone(), go: go.clone() });
    let beside = async {
        reached.notified().await;
        let mut garbage = clean::find_garbage(&warehouse, &id(), at_once(true), now_ms()).await.unwrap();
        let (_, names) = b.commit_cleaning(&mut garbage).await.unwrap();
        go.notify_one();
        names
    };
    let absences = a.state().absences.clone();
    let (outcome, names) = tokio::join!(a.reshape(wide(schema()), absences), beside);
    assert!(matches!(outcome.unwrap(), CommitOutcome::Moved));
    a.absorb().await.unwrap();
    reshaped(&mut a, wide(schema())).await;
    clean::remove(&a.files(), &names).await;
    assert_eq!(scan(&warehouse, None).await, rows);
    sound(&warehouse).await;
}

#[tokio::test]
async fn what_a_commit_names_that_may_be_in_stays() {
    let store = Arc::new(FaultyStore::default());
    let warehouse = Warehouse::in_store(store.clone());
    let mut table = filled(&warehouse, &narrow(schema())).await;
    let next = commit_name(table.version() + 1);
    store.plan(&next, Fault::AnswerLost);
    store.plan(&next, Fault::CleanedAway);
    let absences = table.state().absences.clone();
    assert!(matches!(table.reshape(wide(schema()), absences).await.unwrap(), CommitOutcome::Moved));
    table.discard_drafts().await;
    let files = replay(&table).await.files.len();
    let stored = objects(store.as_ref()).await.into_iter().filter(|path| path.ends_with(".parquet")).count();
    assert_eq!(stored, 2 * files, "those of before, and those that the commit names");
}

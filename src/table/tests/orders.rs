//! Of each key the greater order stays, whatever the source was thought to hold: rows come and go without events when
//! another table takes this one's name, so a chunk may find what the stream has deleted.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::table::writer::FileOrders;

#[tokio::test]
async fn a_delete_before_the_chunks_order_loses_to_it() {
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    upsert(&mut table, &[(1, at(2), "a")]).await;
    let change = stream_change(&table, &[], &[(1, at(3))]);
    committed(&mut table, change).await;
    let staged = chunk(&table, &[(1, "back")], at(4)).await;
    merge(&mut table, staged).await;
    assert_eq!(scan(&warehouse, None).await, Rows::from([(1, row(at(4), "back"))]));
    assert_eq!(open(&warehouse, 1).await.figures(), table.figures());
}

#[tokio::test]
async fn a_chunk_at_or_below_the_floor_is_refused_by_the_table_itself() {
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    let staged = chunk(&table, &[(1, "old")], at(3)).await;
    let change = stream_change(&table, &[], &[(1, at(5))]);
    committed(&mut table, change).await;
    let mut table = open(&warehouse, 1).await;
    let change = TableChange { staged, ..TableChange::to(table.state().clone()) };
    assert!(matches!(table.commit(change).await, Err(TableError::Rule { .. })));
    assert_eq!(scan(&warehouse, None).await, Rows::new());
}

#[tokio::test]
async fn a_file_whose_orders_are_not_known_is_read_row_by_row() {
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    upsert(&mut table, &[(1, at(2), "a"), (2, at(9), "b")]).await;
    // As a foreign OPTIMIZE, or a checkpoint without tags, leaves it.
    table.files.values_mut().for_each(|file| file.orders = FileOrders::UNKNOWN);
    let staged = chunk(&table, &[(1, "chunk"), (2, "chunk")], at(5)).await;
    merge(&mut table, staged).await;
    assert_eq!(scan(&warehouse, None).await, Rows::from([(1, row(at(5), "chunk")), (2, row(at(9), "b"))]));
    // Read once, it need not be doubted again.
    assert!(table.files.values().all(|file| file.orders != FileOrders::UNKNOWN));

    table.files.values_mut().for_each(|file| file.orders = FileOrders::UNKNOWN);
    let state = TableState { seed: None, ..table.state().clone() };
    committed(&mut table, TableChange { remove_below: Some(below(at(9))), ..TableChange::to(state) }).await;
    assert_eq!(scan(&warehouse, None).await, Rows::from([(2, row(at(9), "b"))]));
}

#[tokio::test]
async fn a_column_that_the_source_spells_anew_keeps_its_name_in_a_chunk() {
    let warehouse = in_memory();
    let mut table = seeding(&warehouse).await;
    let mut respelled = schema();
    respelled.columns[0].name = "ID".into();
    respelled.columns[1].name = "Text".into();
    let mut writer = ChunkWriter::create(table.files(), Arc::new(respelled.clone()), at(2), Window(0), 1).unwrap();
    let rows = source_rows(&schema(), &[(1, "a"), (2, "b")]);
    writer.write(&RecordBatch::try_new(respelled.arrow(), rows.columns().to_vec()).unwrap()).await.unwrap();
    let staged = writer.finish().await.unwrap();
    merge(&mut table, staged).await;
    assert_eq!(scan(&warehouse, None).await, Rows::from([(1, row(at(2), "a")), (2, row(at(2), "b"))]));
    assert_eq!(open(&warehouse, 1).await.figures(), table.figures());
}

const IDS: i64 = 12;

#[derive(Debug, Clone)]
enum Step {
    Stream {
        upserts: BTreeSet<i64>,
        deletes: BTreeSet<i64>,
    },
    BeginSeed,
    /// A chunk's order is handed out; it has these rows, which the stream need not have told.
    ReadChunk(BTreeSet<i64>),
    /// Merges the chunk read longest ago, or gives it up.
    MergeChunk,
    EndSeed,
    Clear,
    Reopen,
    /// What the log says of the files' orders is lost.
    ForgetTags,
}

fn step() -> impl Strategy<Value = Step> {
    let ids = || prop::collection::btree_set(0..IDS, 0..6);
    prop_oneof![
        8 => (ids(), ids()).prop_map(|(upserts, deletes)| {
            let deletes = &deletes - &upserts;
            Step::Stream { upserts, deletes }
        }),
        2 => Just(Step::BeginSeed),
        4 => prop::collection::btree_set(0..IDS, 1..8).prop_map(Step::ReadChunk),
        4 => Just(Step::MergeChunk),
        1 => Just(Step::EndSeed),
        1 => Just(Step::Clear),
        2 => Just(Step::Reopen),
        2 => Just(Step::ForgetTags),
    ]
}

struct World {
    warehouse: Warehouse,
    table: Table,
    seq: i64,
    /// Newest change of every id ever seen, and whether it left a row.
    newest: BTreeMap<i64, (Order, bool)>,
    read: Vec<(Vec<StagedChunk>, BTreeSet<i64>, Order)>,
}

impl World {
    fn next(&mut self) -> Order {
        self.seq += 1;
        at(self.seq)
    }

    fn state(&self) -> TableState {
        self.table.state().clone()
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Stream { upserts, deletes } => {
                let mut ordered = |ids: BTreeSet<i64>| ids.into_iter().map(|id| (id, self.next())).collect::<Vec<_>>();
                let (upserts, deletes) = (ordered(upserts), ordered(deletes));
                self.newest.extend(upserts.iter().map(|(id, order)| (*id, (*order, true))));
                self.newest.extend(deletes.iter().map(|(id, order)| (*id, (*order, false))));
                let upserts: Vec<_> = upserts.into_iter().map(|(id, order)| (id, order, "")).collect();
                let change = stream_change(&self.table, &upserts, &deletes);
                committed(&mut self.table, change).await;
            }
            Step::BeginSeed => {
                let start = self.next();
                begin_load(&mut self.table, 1, start).await;
                self.read.clear();
            }
            Step::ReadChunk(ids) => {
                let order0 = self.next();
                let rows: Vec<(i64, &str)> = ids.iter().map(|id| (*id, "")).collect();
                self.read.push((chunk(&self.table, &rows, order0).await, ids, order0));
            }
            Step::MergeChunk if self.read.is_empty() => {}
            Step::MergeChunk => {
                let (staged, ids, order0) = self.read.remove(0);
                if self.table.may_merge(0, order0) {
                    merge(&mut self.table, staged).await;
                    let newest = &mut self.newest;
                    let won = |id: &i64| newest.get(id).is_none_or(|(order, _)| *order < order0);
                    let won: Vec<i64> = ids.into_iter().filter(won).collect();
                    newest.extend(won.into_iter().map(|id| (id, (order0, true))));
                }
            }
            Step::EndSeed => {
                let mut state = self.state();
                let Some(seed) = state.seed.take() else { return };
                let change = TableChange { remove_below: Some(below(seed.start)), ..TableChange::to(state) };
                committed(&mut self.table, change).await;
                self.newest.values_mut().filter(|(order, _)| *order < seed.start).for_each(|(_, live)| *live = false);
                self.read.clear();
            }
            Step::Clear => {
                let order = self.next();
                let mut state = self.state();
                raise(&mut state, order);
                committed(&mut self.table, TableChange { clear: Some(clear(order)), ..TableChange::to(state) }).await;
                self.newest = (0..IDS).map(|id| (id, (order, false))).collect();
            }
            Step::Reopen => self.table = open(&self.warehouse, 1).await,
            Step::ForgetTags => self.table.files.values_mut().for_each(|file| file.orders = FileOrders::UNKNOWN),
        }
    }

    async fn check(&self) {
        let live = self.newest.iter().filter(|(_, (_, live))| *live);
        let expected: Rows = live.map(|(id, (order, _))| (*id, row(*order, ""))).collect();
        assert_eq!(scan(&self.warehouse, None).await, expected);
        let rebuilt = open(&self.warehouse, 1).await;
        assert_eq!(rebuilt.figures(), self.table.figures());
        for id in 0..IDS {
            assert_eq!(place(&rebuilt, id), place(&self.table, id), "row of {id}");
            assert_eq!(place(&rebuilt, id).is_some(), expected.contains_key(&id));
        }
    }
}

/// Where the index has a row.
fn place(table: &Table, id: i64) -> Option<(String, u32)> {
    match table.locate(record_key(table.schema(), id).as_ref()) {
        Located::Live(address) => Some((table.files[&address.file].add.path.clone(), address.row)),
        Located::Deleted(_) | Located::Absent => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_greatest_order_stays_whatever_a_chunk_finds(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let warehouse = in_memory();
            let table = Table::create(&warehouse, &schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap();
            let mut world = World { warehouse, table, seq: 0, newest: BTreeMap::new(), read: Vec::new() };
            for step in steps {
                world.take(step).await;
                world.check().await;
            }
        });
    }
}

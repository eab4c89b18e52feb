//! Random sequences of everything that can happen to a table, against a map that forgets nothing. In any of them the process
//! may be killed at any request, and the next one goes on from what is durable.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::cleaning::{at_once, clean_all, now_ms};
use super::*;
use crate::table::mortal::{Last, MortalStore};
use crate::table::writer::FileOrders;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// Changes of the stream in one commit: id → new text, or a delete.
    Stream(BTreeMap<i64, Option<u8>>),
    /// Rows of the table that the source does not have: what an earlier fault may have left.
    Ghosts(Vec<i64>),
    /// A load begins.
    BeginSeed,
    /// A chunk of the ids from..to is opened and read; it waits.
    Read {
        from: i64,
        to: i64,
    },
    /// A chunk of single ids is opened and read, of which some may be absent; it waits.
    ReadKeys(BTreeSet<i64>),
    /// The oldest chunk that waits is merged, or refused.
    Merge,
    /// The load ends.
    EndSeed,
    Truncate,
    AddColumn,
    /// A column that was added becomes wider.
    WidenColumn,
    /// The process is killed and starts anew.
    Restart,
    Checkpoint,
    /// Files are read to be written again; the new one waits.
    Rewrite,
    /// What waits is committed, whatever has happened meanwhile.
    Rewritten,
    /// Someone else compacts the whole table.
    ForeignCompaction,
    /// Someone else writes all files of a partition as one, without a record of ours.
    ForeignOptimise,
    /// Someone else deletes rows, by a vector and without a record of ours.
    ForeignDelete(Vec<i64>),
    /// What nothing names goes at once; nothing that is under way survives it.
    Clean,
}

const IDS: std::ops::Range<i64> = 0..24;

fn step() -> impl Strategy<Value = Step> {
    let stream = prop::collection::btree_map(IDS, prop::option::weighted(0.7, any::<u8>()), 1..8);
    prop_oneof![
        12 => stream.prop_map(Step::Stream),
        1 => prop::collection::vec(IDS, 1..3).prop_map(Step::Ghosts),
        2 => Just(Step::BeginSeed),
        6 => (IDS, 1_i64..12).prop_map(|(from, len)| Step::Read { from, to: from + len }),
        3 => prop::collection::btree_set(IDS, 1..6).prop_map(Step::ReadKeys),
        6 => Just(Step::Merge),
        2 => Just(Step::EndSeed),
        1 => Just(Step::Truncate),
        1 => Just(Step::AddColumn),
        1 => Just(Step::WidenColumn),
        2 => Just(Step::Restart),
        1 => Just(Step::Checkpoint),
        3 => Just(Step::Rewrite),
        3 => Just(Step::Rewritten),
        1 => Just(Step::ForeignCompaction),
        1 => Just(Step::ForeignOptimise),
        1 => prop::collection::vec(IDS, 1..4).prop_map(Step::ForeignDelete),
        1 => Just(Step::Clean),
    ]
}

/// Where the process is killed in a step: at the request behind so many, and what becomes of that.
type Death = Option<(usize, bool)>;

fn steps(longest: usize) -> impl Strategy<Value = Vec<(Step, Death)>> {
    // Most steps make few requests.
    let left = prop_oneof![3 => 0_usize..6, 1 => 6_usize..40];
    let death = prop::option::weighted(0.25, (left, any::<bool>()));
    prop::collection::vec((step(), death), 1..longest)
}

fn partition_by() -> impl Strategy<Value = Vec<&'static str>> {
    let all = vec!["part", "text", "d = day(at)", "h = hour(at)", "b = bucket(2, id)", "p = bucket(3, part)"];
    prop::sample::subsequence(all, 1..=2)
}

/// A chunk that has been read and waits for the stream.
struct Waiting {
    staged: Vec<StagedChunk>,
    rows: Vec<(i64, String)>,
    /// Ids that were looked for and not found.
    absent: Vec<i64>,
    order0: Order,
}

/// A table, what its source holds, and what it must hold.
struct World {
    lake: Arc<InMemory>,
    /// As the process that lives sees the lake.
    store: MortalStore,
    warehouse: Warehouse,
    table: Table,
    source: BTreeMap<i64, String>,
    expected: Rows,
    /// Order of the last accepted change of each id, deletes included, never forgotten.
    last: BTreeMap<i64, Order>,
    orders: OrderState,
    waiting: Vec<Waiting>,
    rewritten: Option<Rewritten>,
    epoch: u64,
}

impl World {
    async fn new(schema: &TableSchema) -> Self {
        let lake = Arc::new(InMemory::new());
        let store = MortalStore::over(lake.clone());
        let warehouse = Warehouse::in_store(Arc::new(store.clone()));
        let table =
            Table::create(&warehouse, schema, writer(1), TableState::default(), Buckets::whole()).await.unwrap();
        Self {
            lake,
            store,
            warehouse,
            table,
            source: BTreeMap::new(),
            expected: Rows::new(),
            last: BTreeMap::new(),
            orders: OrderState::default(),
            waiting: Vec::new(),
            rewritten: None,
            epoch: 1,
        }
    }

    fn state(&self) -> TableState {
        self.table.state().clone()
    }

    fn next_order(&mut self) -> Order {
        self.orders.assign(1_000)
    }

    /// A step in which the process may be killed. What it was about to commit is in or not; if not, the next process begins the
    /// step again, as the service does with what it reads from the stream once more.
    async fn take(&mut self, step: Step, death: Death) {
        let Some((left, done)) = death else { return self.step(step).await };
        let (source, expected, last) = (self.source.clone(), self.expected.clone(), self.last.clone());
        let (store, version) = (self.store.clone(), self.table.version());
        store.expose(left, if done { Last::Done } else { Last::NotDone });
        if store.outlives(self.step(step.clone())).await.is_some() {
            return store.spare();
        }
        self.store = MortalStore::over(self.lake.clone());
        self.warehouse = Warehouse::in_store(Arc::new(self.store.clone()));
        self.restart().await;
        if self.table.version() == version {
            (self.source, self.expected, self.last) = (source, expected, last);
            self.step(step).await;
        }
    }

    async fn restart(&mut self) {
        self.waiting.clear();
        self.rewritten = None;
        self.epoch += 1;
        self.table = open(&self.warehouse, self.epoch).await;
        self.orders = self.table.state().order;
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Stream(changes) => {
                for (id, text) in &changes {
                    match text {
                        Some(text) => self.source.insert(*id, text.to_string()),
                        None => self.source.remove(id),
                    };
                }
                self.stream(changes).await;
            }
            Step::Ghosts(ids) => {
                let ghosts = ids.into_iter().filter(|id| !self.source.contains_key(id));
                let ghosts = ghosts.map(|id| (id, Some(0))).collect();
                self.stream(ghosts).await;
            }
            Step::BeginSeed => {
                self.waiting.clear();
                let start = self.next_order();
                begin_load(&mut self.table, 1, start).await;
            }
            Step::Read { from, to } => self.read(self.source.range(from..to).map(|(id, _)| *id).collect()).await,
            Step::ReadKeys(ids) => self.read(ids).await,
            Step::Merge => self.merge().await,
            Step::EndSeed => self.end_seed().await,
            Step::Truncate => {
                let order = self.next_order();
                self.source.clear();
                self.expected.clear();
                self.last = IDS.map(|id| (id, order)).collect();
                let mut state = self.state();
                raise(&mut state, order);
                committed(&mut self.table, TableChange { clear: Some(clear(order)), ..TableChange::to(state) }).await;
            }
            Step::AddColumn => {
                let mut schema = self.table.schema().as_ref().clone();
                let name = format!("n{}", schema.columns.len());
                schema.columns.push(column(&name, ColumnType::Int64));
                let state = self.state();
                committed(&mut self.table, TableChange { evolve: Some(schema), ..TableChange::to(state) }).await;
            }
            Step::WidenColumn => {
                let (mut schema, absences) = (self.table.schema().as_ref().clone(), self.state().absences);
                let narrow = |column: &&mut Column| column.name.starts_with('n') && column.ty == ColumnType::Int64;
                let Some(column) = schema.columns.iter_mut().find(narrow) else { return };
                column.ty = ColumnType::Decimal { precision: 24, scale: 3 };
                let outcome = self.table.reshape(schema, absences).await.unwrap();
                assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");
            }
            Step::Restart => self.restart().await,
            Step::Checkpoint => self.store.heard(checkpoint::write(&self.warehouse, &self.table.path)).await,
            Step::Rewrite => {
                if let Some(rewriting) = self.table.compaction(Effort::Full) {
                    self.rewritten = Some(rewriting.run().await.unwrap());
                }
            }
            Step::Rewritten => {
                if let Some(rewritten) = self.rewritten.take() {
                    let outcome = self.table.commit_rewritten(rewritten).await.unwrap();
                    assert!(matches!(outcome, None | Some(CommitOutcome::Committed { .. })));
                }
            }
            Step::ForeignCompaction => {
                let mut other = open(&self.warehouse, self.epoch).await;
                while let Some(rewriting) = other.compaction(Effort::Full) {
                    let rewritten = rewriting.run().await.unwrap();
                    other.commit_rewritten(rewritten).await.unwrap();
                }
                assert_eq!(self.table.absorb().await.unwrap(), Absorbed::Beside);
            }
            Step::ForeignOptimise => {
                buckets::optimise(&self.warehouse, &self.table).await;
                assert_eq!(self.table.absorb().await.unwrap(), Absorbed::Beside);
            }
            Step::ForeignDelete(ids) => self.foreign_delete(&ids).await,
            Step::Clean => self.clean().await,
        }
    }

    async fn foreign_delete(&mut self, ids: &[i64]) {
        if self.table.schema().layout.copies_on_write() {
            return;
        }
        let mut dying: BTreeMap<u32, roaring::RoaringBitmap> = BTreeMap::new();
        for id in ids {
            if let Some(address) = self.table.live(record_key(self.table.schema(), *id).as_ref()) {
                dying.entry(address.file).or_default().insert(address.row);
                self.expected.remove(id);
            }
        }
        let uuid = uuid::Uuid::new_v4();
        let mut vectors = deletes::VectorFile::new(uuid);
        let mut actions = Vec::new();
        for (number, rows) in dying {
            let file = &self.table.files[&number];
            actions.push(delta::Action { remove: Some(file.remove(0)), ..Default::default() });
            let dead = &file.dead | &rows;
            if dead.len() < u64::from(file.rows) {
                let add = file.with_vector(vectors.push(&dead));
                actions.push(delta::Action { add: Some(add), ..Default::default() });
            }
        }
        self.table.files().put(&delta::vector_file_name(uuid), vectors.finish()).await.unwrap();
        self.table.log.put(self.table.version() + 1, log::serialise(&actions)).await.unwrap();
        assert_eq!(self.table.absorb().await.unwrap(), Absorbed::Beside);
    }

    async fn clean(&mut self) {
        self.waiting.clear();
        self.rewritten = None;
        clean_all(&mut self.table, &self.warehouse).await;
        let again = clean::find_garbage(&self.warehouse, &id(), at_once(true), now_ms()).await.unwrap();
        assert_eq!(again.names, Vec::<String>::new());
    }

    /// Commits changes of the stream.
    async fn stream(&mut self, changes: BTreeMap<i64, Option<u8>>) {
        let mut upserts = Vec::new();
        let mut deletes = Vec::new();
        for (id, text) in changes {
            let order = self.next_order();
            self.last.insert(id, order);
            match text.map(|text| text.to_string()) {
                Some(text) => {
                    self.expected.insert(id, row(order, &text));
                    upserts.push((id, order, text));
                }
                None => {
                    self.expected.remove(&id);
                    deletes.push((id, order));
                }
            }
        }
        let upserts: Vec<_> = upserts.iter().map(|(id, order, text)| (*id, *order, text.as_str())).collect();
        let change = stream_change(&self.table, &upserts, &deletes);
        committed(&mut self.table, change).await;
    }

    /// A chunk of these ids of the source as it is now, under a fresh order.
    async fn read(&mut self, ids: BTreeSet<i64>) {
        if self.table.state().seed.is_none() {
            return;
        }
        let order0 = self.next_order();
        let (present, absent): (Vec<i64>, Vec<i64>) = ids.into_iter().partition(|id| self.source.contains_key(id));
        let rows: Vec<(i64, String)> = present.into_iter().map(|id| (id, self.source[&id].clone())).collect();
        let texts: Vec<(i64, &str)> = rows.iter().map(|(id, text)| (*id, text.as_str())).collect();
        let staged = chunk(&self.table, &texts, order0).await;
        self.waiting.push(Waiting { staged, rows, absent, order0 });
    }

    async fn merge(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let Waiting { staged, rows, absent, order0 } = self.waiting.remove(0);
        if !self.table.may_merge(0, order0) {
            return;
        }
        for (id, text) in rows {
            if self.last.get(&id).is_none_or(|last| *last < order0) {
                self.last.insert(id, order0);
                self.expected.insert(id, row(order0, &text));
            }
        }
        for id in &absent {
            if self.expected.get(id).is_some_and(|(order, _)| *order < order0) {
                self.expected.remove(id);
                self.last.insert(*id, order0);
            }
        }
        let mut state = self.state();
        state.order = state.order.max(OrderState(order0));
        let keys = absent.iter().map(|id| record_key(self.table.schema(), *id)).collect();
        let absent = vec![AbsentKeys { bucket: 0, order0, keys }];
        committed(&mut self.table, TableChange { staged, absent, ..TableChange::to(state) }).await;
    }

    async fn end_seed(&mut self) {
        let mut state = self.state();
        let Some(seed) = state.seed.take() else { return };
        self.waiting.clear();
        self.expected.retain(|_, (order, _)| *order >= seed.start);
        committed(&mut self.table, TableChange { remove_below: Some(below(seed.start)), ..TableChange::to(state) })
            .await;
    }

    /// The table holds what it must, and its index is the one that a restart would build.
    async fn check(&mut self) {
        assert_eq!(scan(&self.warehouse, None).await, self.expected);
        partitions::told_truly(&self.warehouse, self.table.schema()).await;
        let rebuilt = open(&self.warehouse, self.epoch).await;
        assert_eq!((rebuilt.state(), rebuilt.schema()), (self.table.state(), self.table.schema()));
        let files = |table: &Table| -> BTreeMap<String, _> {
            let files = table.files.values();
            files.map(|file| (file.add.path.clone(), (file.rows, file.dead.clone()))).collect()
        };
        assert_eq!(files(&rebuilt), files(&self.table));
        for (ours, theirs) in self.table.files.values().flat_map(|file| {
            let same = rebuilt.files.values().filter(|other| other.add.path == file.add.path);
            same.map(|other| (file.orders, other.orders))
        }) {
            // Those of a foreign file are known once they have been read.
            assert!(theirs == ours || theirs == FileOrders::UNKNOWN);
        }
        // It may go on naming rows that someone else has taken out.
        assert!(self.table.index_figures().0 >= self.expected.len());
        assert_eq!(self.table.figures().1, self.expected.len() as u64);
        assert_eq!(verify::verify(&self.warehouse, &id()).await.unwrap().problems, Vec::<String>::new());
        let path_of = |table: &Table, id| match table.locate(record_key(table.schema(), id).as_ref()) {
            Located::Live(address) => Some((table.files[&address.file].add.path.clone(), address.row)),
            Located::Deleted(_) | Located::Absent => None,
        };
        for id in IDS {
            assert_eq!(path_of(&rebuilt, id), path_of(&self.table, id), "row of {id}");
        }
        let ids: Vec<i64> = self.expected.keys().copied().collect();
        let address = |id: &i64| match self.table.locate(record_key(self.table.schema(), *id).as_ref()) {
            Located::Live(address) => address,
            other => panic!("{id} is {other:?}"),
        };
        let addresses: Vec<RowAddress> = ids.iter().map(address).collect();
        let orders = self.table.orders_of(&addresses).await.unwrap();
        let expected: Vec<Order> = self.expected.values().map(|(order, _)| *order).collect();
        assert_eq!(orders, expected);
        for (address, order) in addresses.iter().zip(orders) {
            assert!(order <= self.table.file_greatest(*address));
        }
    }
}

/// A load of every id, with changes of the stream between reading and merging: whatever was before, the table is then
/// equal to its source.
async fn load_all(world: &mut World) {
    world.step(Step::BeginSeed).await;
    for from in IDS.step_by(8) {
        world.step(Step::Read { from, to: from + 8 }).await;
        world.step(Step::Stream(BTreeMap::from([(from, None), (from + 1, Some(7)), (from + 9, Some(8))]))).await;
        world.step(Step::Merge).await;
    }
    world.step(Step::EndSeed).await;
    let texts: BTreeMap<i64, String> =
        scan(&world.warehouse, None).await.into_iter().map(|(id, (_, text))| (id, text.unwrap())).collect();
    assert_eq!(texts, world.source);
}

fn run(schema: &TableSchema, steps: Vec<(Step, Death)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(schema).await;
        for (step, death) in steps {
            world.take(step, death).await;
            world.check().await;
        }
        load_all(&mut world).await;
        world.check().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_table_holds_the_greatest_order_of_each_key(steps in steps(24)) {
        run(&schema(), steps);
    }

    /// Texts change at random, and with them the partitions of rows, NULL among them.
    #[test]
    fn so_does_one_with_partitions(steps in steps(20), by in partition_by()) {
        run(&partitions::partitioned(schema(), &by), steps);
    }

    #[test]
    fn so_does_one_whose_key_is_told_by_partitions(steps in steps(16), by in partition_by()) {
        let by: Vec<&str> = by.into_iter().chain(["code"]).collect();
        run(&partitions::partitioned(composite_schema(), &by), steps);
    }

    #[test]
    fn so_does_one_that_is_copied_on_write(steps in steps(16)) {
        let layout = weir_model::Layout { storage: weir_model::layout::Storage::CopyOnWrite, ..Default::default() };
        run(&TableSchema { layout, ..schema() }, steps);
    }

    #[test]
    fn so_does_one_with_a_key_of_several_columns(steps in steps(16)) {
        run(&composite_schema(), steps);
    }
}

//! Random sequences of what can happen to a table that several writers share by buckets, against a map of the newest
//! change of each key. Writers learn of each other's commits only when they commit themselves.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;
use weir_model::key::KeyRef;
use weir_model::layout::{Layout, Storage};

use super::buckets::{optimise, sharded_change};
use super::*;

const COUNT: u32 = 4;
const WRITERS: usize = 3;
const IDS: i64 = 24;

#[derive(Debug, Clone)]
enum Step {
    /// Changes of the topic that a writer takes in: those of its own buckets.
    Stream {
        writer: usize,
        upserts: BTreeSet<i64>,
        deletes: BTreeSet<i64>,
    },
    BeginLoad(u32),
    /// A chunk is read and described to all.
    ReadChunk(BTreeSet<i64>),
    /// The owner of the bucket merges its part of the chunk read longest ago, or gives it up.
    MergeChunk(u32),
    EndLoad(u32),
    Clear(u32),
    AddColumn(usize),
    Restart(usize),
    /// The buckets are shared out anew.
    Rebalance([usize; COUNT as usize]),
    /// Someone else writes all files as one.
    Optimise,
    /// Someone else writes all files as one, and while the first bucket's owner splits it a writer takes in changes.
    Split {
        writer: usize,
        upserts: BTreeSet<i64>,
        deletes: BTreeSet<i64>,
    },
    /// A writer reads files to be written again, or as one a bucket; the new ones wait.
    Rewrite(usize),
    /// What waits is committed, whatever has happened meanwhile.
    Rewritten(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let ids = || prop::collection::btree_set(0..IDS, 0..10);
    let changes = || {
        let apart = |(writer, upserts, deletes): (usize, BTreeSet<i64>, BTreeSet<i64>)| {
            let deletes = &deletes - &upserts;
            (writer, upserts, deletes)
        };
        (0..WRITERS, ids(), ids()).prop_map(apart)
    };
    let bucket = 0..COUNT;
    prop_oneof![
        12 => changes().prop_map(|(writer, upserts, deletes)| Step::Stream { writer, upserts, deletes }),
        3 => bucket.clone().prop_map(Step::BeginLoad),
        3 => prop::collection::btree_set(0..IDS, 1..16).prop_map(Step::ReadChunk),
        6 => bucket.clone().prop_map(Step::MergeChunk),
        2 => bucket.clone().prop_map(Step::EndLoad),
        1 => bucket.prop_map(Step::Clear),
        1 => (0..WRITERS).prop_map(Step::AddColumn),
        1 => (0..WRITERS).prop_map(Step::Restart),
        1 => prop::array::uniform4(0..WRITERS).prop_map(Step::Rebalance),
        2 => Just(Step::Optimise),
        2 => changes().prop_map(|(writer, upserts, deletes)| Step::Split { writer, upserts, deletes }),
        3 => (0..WRITERS).prop_map(Step::Rewrite),
        3 => (0..WRITERS).prop_map(Step::Rewritten),
    ]
}

fn bucket_of(id: i64) -> u32 {
    KeyRef::Int(id).bucket(COUNT)
}

fn buckets_of(owners: &[usize; COUNT as usize], writer: usize) -> Buckets {
    let owned = (0..COUNT).filter(|bucket| owners[*bucket as usize] == writer).collect();
    Buckets { count: COUNT, owned }
}

/// A chunk's part of one bucket.
struct Waiting {
    told: StagedFile,
    ids: Vec<i64>,
}

struct World {
    warehouse: Warehouse,
    /// As it began.
    schema: TableSchema,
    owners: [usize; COUNT as usize],
    tables: Vec<Table>,
    seq: i64,
    columns: usize,
    /// Newest change of every id ever seen, and whether it left a row.
    newest: BTreeMap<i64, (Order, bool)>,
    waiting: BTreeMap<u32, VecDeque<Waiting>>,
    /// By the writer that has read the files.
    rewritten: BTreeMap<usize, Rewritten>,
}

impl World {
    async fn new(schema: TableSchema) -> Self {
        let warehouse = in_memory();
        let owners = [0, 1, 2, 0];
        let mut tables = Vec::new();
        for at in 0..WRITERS {
            let (state, buckets) = (TableState::default(), buckets_of(&owners, at));
            tables.push(Table::open_or_create(&warehouse, &schema, writer(1), state, buckets).await.unwrap());
        }
        let (newest, waiting, rewritten) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { warehouse, schema, owners, tables, seq: 0, columns: 0, newest, waiting, rewritten }
    }

    fn next(&mut self) -> Order {
        self.seq += 1;
        at(self.seq)
    }

    async fn reopen(&mut self, at: usize) {
        let buckets = buckets_of(&self.owners, at);
        self.tables[at] = Table::open(&self.warehouse, &id(), writer(1), buckets).await.unwrap().unwrap();
    }

    fn owner(&self, bucket: u32) -> usize {
        self.owners[bucket as usize]
    }

    /// Commits what `change` makes of the writer's table; one that has moved is opened anew.
    async fn commit(&mut self, writer: usize, change: impl Fn(&Table) -> TableChange) {
        for _ in 0..2 {
            let table = &mut self.tables[writer];
            match table.commit(change(table)).await.unwrap() {
                CommitOutcome::Committed { .. } => return,
                CommitOutcome::Moved => self.reopen(writer).await,
                CommitOutcome::Fenced { epoch } => panic!("fenced by {epoch}"),
            }
        }
        panic!("the table moves though nobody else writes it");
    }

    /// A commit of `bucket` by its owner, whose state is changed by `edit`.
    async fn commit_bucket(&mut self, bucket: u32, edit: impl Fn(&mut TableState) -> TableChange) {
        let change = |table: &Table| {
            let mut state = table.state().clone();
            state.shares[bucket as usize].offset += 1;
            let mut change = edit(&mut state);
            change.state = state;
            change
        };
        self.commit(self.owner(bucket), change).await;
    }

    fn seed(&self, bucket: u32) -> Option<SeedProgress> {
        self.tables[self.owner(bucket)].state().shares[bucket as usize].seed.clone()
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Stream { writer, upserts, deletes } => self.stream(writer, upserts, deletes).await,
            Step::BeginLoad(bucket) => {
                let start = self.next();
                self.waiting.remove(&bucket);
                let seed = SeedProgress { plan: 1, done: Vec::new(), start, part: false };
                let edit = |state: &mut TableState| {
                    state.shares[bucket as usize].seed = Some(seed.clone());
                    TableChange::to(TableState::default())
                };
                self.commit_bucket(bucket, edit).await;
            }
            Step::ReadChunk(ids) => self.read(ids).await,
            Step::MergeChunk(bucket) => self.merge(bucket).await,
            Step::EndLoad(bucket) => {
                let Some(seed) = self.seed(bucket) else { return };
                self.waiting.remove(&bucket);
                let below = RemoveBelow { order: seed.start, buckets: [bucket].into() };
                let edit = |state: &mut TableState| {
                    state.shares[bucket as usize].seed = None;
                    TableChange { remove_below: Some(below.clone()), ..TableChange::to(TableState::default()) }
                };
                self.commit_bucket(bucket, edit).await;
                let gone =
                    |(id, (order, _)): &(&i64, &mut (Order, bool))| bucket_of(**id) == bucket && *order < seed.start;
                self.newest.iter_mut().filter(gone).for_each(|(_, (_, live))| *live = false);
            }
            Step::Clear(bucket) => {
                let order = self.next();
                let cleared = Clear { at: order, buckets: [bucket].into() };
                let edit = |state: &mut TableState| {
                    state.greatest[bucket as usize] = order;
                    TableChange { clear: Some(cleared.clone()), ..TableChange::to(TableState::default()) }
                };
                self.commit_bucket(bucket, edit).await;
                self.newest.extend((0..IDS).filter(|id| bucket_of(*id) == bucket).map(|id| (id, (order, false))));
            }
            Step::AddColumn(writer) => {
                self.columns += 1;
                let mut wider = self.schema.clone();
                wider.columns.extend((0..self.columns).map(|n| column(&format!("c{n}"), ColumnType::Int64)));
                let change = |table: &Table| TableChange {
                    evolve: Some(wider.clone()),
                    ..TableChange::to(table.state().clone())
                };
                self.commit(writer, change).await;
            }
            Step::Restart(writer) => self.reopen(writer).await,
            Step::Rebalance(owners) => {
                let before = std::mem::replace(&mut self.owners, owners);
                for at in (0..WRITERS).filter(|at| buckets_of(&before, *at) != buckets_of(&owners, *at)) {
                    self.reopen(at).await;
                }
            }
            Step::Optimise => optimise(&self.warehouse, &self.tables[0]).await,
            Step::Split { writer, upserts, deletes } => {
                optimise(&self.warehouse, &self.tables[0]).await;
                let owner = self.owner(0);
                self.rewrite(owner).await;
                self.stream(writer, upserts, deletes).await;
                self.commit_rewritten(owner).await;
            }
            Step::Rewrite(writer) => self.rewrite(writer).await,
            Step::Rewritten(writer) => self.commit_rewritten(writer).await,
        }
    }

    async fn rewrite(&mut self, writer: usize) {
        assert_eq!(self.tables[writer].absorb().await.unwrap(), Absorbed::Beside);
        if let Some(rewriting) = self.tables[writer].compaction(Effort::Full) {
            self.rewritten.insert(writer, rewriting.run().await.unwrap());
        }
    }

    async fn commit_rewritten(&mut self, writer: usize) {
        let Some(rewritten) = self.rewritten.remove(&writer) else { return };
        let outcome = self.tables[writer].commit_rewritten(rewritten).await.unwrap();
        assert!(matches!(outcome, None | Some(CommitOutcome::Committed { .. })), "{outcome:?}");
    }

    async fn stream(&mut self, writer: usize, upserts: BTreeSet<i64>, deletes: BTreeSet<i64>) {
        let owners = self.owners;
        let ours = |id: &i64| owners[bucket_of(*id) as usize] == writer;
        let mut ordered =
            |ids: BTreeSet<i64>| ids.into_iter().filter(ours).map(|id| (id, self.next())).collect::<Vec<_>>();
        let (upserts, deletes) = (ordered(upserts), ordered(deletes));
        self.newest.extend(upserts.iter().map(|(id, order)| (*id, (*order, true))));
        self.newest.extend(deletes.iter().map(|(id, order)| (*id, (*order, false))));
        let upserts: Vec<_> = upserts.into_iter().map(|(id, order)| (id, order, "")).collect();
        self.commit(writer, |table| sharded_change(table, &upserts, &deletes)).await;
    }

    async fn read(&mut self, ids: BTreeSet<i64>) {
        let order0 = self.next();
        let rows: Vec<(i64, &str)> = ids.iter().map(|id| (*id, "")).collect();
        let files = self.tables[0].files();
        let mut writer = ChunkWriter::create(files, Arc::new(self.schema.clone()), order0, Window(0), COUNT).unwrap();
        writer.write(&source_rows(&self.schema, &rows)).await.unwrap();
        for part in writer.finish().await.unwrap() {
            let ids = ids.iter().copied().filter(|id| bucket_of(*id) == part.bucket()).collect();
            self.waiting.entry(part.bucket()).or_default().push_back(Waiting { told: part.describe(), ids });
        }
    }

    async fn merge(&mut self, bucket: u32) {
        let Some(Waiting { told, ids }) = self.waiting.get_mut(&bucket).and_then(VecDeque::pop_front) else { return };
        let (order0, owner) = (told.order0, self.owner(bucket));
        for _ in 0..2 {
            if self.seed(bucket).is_none() || !self.tables[owner].may_merge(bucket, order0) {
                return;
            }
            let table = &mut self.tables[owner];
            let part = StagedChunk::open(table.files(), told.clone()).await.unwrap().unwrap();
            let mut state = table.state().clone();
            state.shares[bucket as usize].offset += 1;
            state.order = state.order.max(OrderState(order0));
            match table.commit(TableChange { staged: vec![part], ..TableChange::to(state) }).await.unwrap() {
                CommitOutcome::Committed { .. } => {
                    let newest = &mut self.newest;
                    let won = |id: &i64| newest.get(id).is_none_or(|(order, _)| *order < order0);
                    let won: Vec<i64> = ids.into_iter().filter(won).collect();
                    newest.extend(won.into_iter().map(|id| (id, (order0, true))));
                    return;
                }
                _ => self.reopen(owner).await,
            }
        }
        panic!("the table moves though nobody else writes it");
    }

    async fn check(&self) {
        let live = self.newest.iter().filter(|(_, (_, live))| *live);
        let expected: Rows = live.map(|(id, (order, _))| (*id, row(*order, ""))).collect();
        assert_eq!(scan(&self.warehouse, None).await, expected);
        assert_eq!(verify::verify(&self.warehouse, &id()).await.unwrap().problems, Vec::<String>::new());
        let all = Table::open(&self.warehouse, &id(), writer(1), Buckets::all(COUNT)).await.unwrap().unwrap();
        assert_eq!((all.index_figures().0, all.figures().1), (expected.len(), expected.len() as u64));
        for id in 0..IDS {
            let found = matches!(all.locate(KeyRef::Int(id)), Located::Live(_));
            assert_eq!(found, expected.contains_key(&id), "{id}");
            let owner = &self.tables[self.owner(bucket_of(id))];
            assert_eq!(matches!(owner.locate(KeyRef::Int(id)), Located::Live(_)), found, "{id} at its owner");
        }
        for bucket in 0..COUNT {
            let (owner, bucket) = (self.tables[self.owner(bucket)].state(), bucket as usize);
            assert_eq!(owner.shares[bucket], all.state().shares[bucket]);
            assert_eq!(owner.greatest[bucket], all.state().greatest[bucket]);
        }
    }
}

fn run(schema: TableSchema, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(schema).await;
        for step in steps {
            world.take(step).await;
            world.check().await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_newest_change_of_each_key_stays_whoever_writes_its_bucket(steps in prop::collection::vec(step(), 1..40)) {
        run(schema(), steps);
    }

    #[test]
    fn it_does_where_files_are_copied_on_write(steps in prop::collection::vec(step(), 1..30)) {
        let layout = Layout { storage: Storage::CopyOnWrite, ..Layout::default() };
        run(TableSchema { layout, ..schema() }, steps);
    }
}

//! Workers of a table whose columns change: random sequences of changes, of wider types, of columns that go and come back,
//! against what the source says. Each worker is somewhere else in the stream, with some of the buckets.

use std::collections::{BTreeSet, VecDeque};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow_cast::cast;
use arrow_schema::DataType;
use proptest::prelude::*;
use weir_model::key::KeyRef;
use weir_model::layout::{Deletes, Storage, TableMode};
use weir_model::{Column, ColumnType, EventId, Images, Layout, Op, TableSchema, Window};

use super::*;
use crate::state::Appeals;
use crate::table::faulty::FaultyStore;
use crate::table::verify::verify;
use crate::table::{BucketShare, Buckets, Effort, Scan, TableState, Warehouse, Writer};
use crate::trace::Tally;
use crate::transport::{Changes, Marker, Share};

const WRITERS: usize = 2;

/// What happens to the source, and who comes how far with it.
#[derive(Debug, Clone)]
enum Step {
    Write {
        ids: Vec<i64>,
        deletes: bool,
    },
    WidenId,
    WidenNumber,
    /// The column goes if it is there, and comes if it is not.
    DropOrAdd {
        ty: ColumnType,
    },
    /// In one statement.
    DropAndAdd {
        ty: ColumnType,
    },
    /// Capture reads so many events of the log.
    Capture(usize),
    /// A writer takes in so many of those that were captured.
    TakeIn {
        writer: usize,
        events: usize,
    },
    /// All writers do so at once.
    TakeInTogether {
        events: usize,
    },
    Restart(usize),
    Compact(usize),
    /// Everybody comes to the end.
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    let types =
        || prop::sample::select(vec![ColumnType::Int16, ColumnType::Int32, ColumnType::Text, ColumnType::Double]);
    prop_oneof![
        12 => (prop::collection::vec(0_i64..10, 1..5), prop::bool::weighted(0.2))
            .prop_map(|(ids, deletes)| Step::Write { ids, deletes }),
        1 => Just(Step::WidenId),
        2 => Just(Step::WidenNumber),
        3 => types().prop_map(|ty| Step::DropOrAdd { ty }),
        1 => types().prop_map(|ty| Step::DropAndAdd { ty }),
        6 => (1_usize..12).prop_map(Step::Capture),
        8 => (0..WRITERS, 1_usize..6).prop_map(|(writer, events)| Step::TakeIn { writer, events }),
        8 => (1_usize..16).prop_map(|events| Step::TakeInTogether { events }),
        1 => (0..WRITERS).prop_map(Step::Restart),
        1 => (0..WRITERS).prop_map(Step::Compact),
        1 => Just(Step::Settle),
    ]
}

fn layouts() -> impl Strategy<Value = Layout> {
    prop::sample::select(vec![
        Layout::default(),
        Layout { storage: Storage::CopyOnWrite, ..Layout::default() },
        Layout { deletes: Deletes::Soft, ..Layout::default() },
        Layout { mode: TableMode::Append, ..Layout::default() },
        Layout { partitions: vec!["b = bucket(2, p)".parse().unwrap()], ..Layout::default() },
    ])
}

/// Something in the source's log.
#[derive(Debug, Clone)]
enum Event {
    /// Changes of one statement.
    Changes(Vec<Change>),
    Dropped(Order),
    /// A statement, behind which capture asks for the columns; they may be newer.
    Statement,
    Columns(Arc<TableSchema>),
}

#[derive(Debug, Clone)]
struct Change {
    id: i64,
    deletes: bool,
    order: Order,
    schema: Arc<TableSchema>,
}

/// The source's columns: `id`, `n`, `p`, and sometimes `c`. Values follow from the order of the change.
fn source_schema(id: ColumnType, n: ColumnType, c: Option<ColumnType>) -> Arc<TableSchema> {
    let column = |name: &str, ty| Column { name: name.into(), ty, nullable: true };
    let mut columns = vec![column("id", id), column("n", n), column("p", ColumnType::Int64)];
    columns.extend(c.map(|ty| column("c", ty)));
    Arc::new(TableSchema { table: TableId::new("shop", "orders"), columns, key: vec![0], layout: Layout::default() })
}

fn number_types() -> [ColumnType; 4] {
    [ColumnType::Int16, ColumnType::Int32, ColumnType::Int64, ColumnType::Decimal { precision: 24, scale: 4 }]
}

struct World {
    warehouse: Warehouse,
    layout: Layout,
    shared: bool,
    hurries: bool,
    tables: Vec<Option<Table>>,
    log: Vec<Event>,
    captured: usize,
    taken_in: Vec<usize>,
    seq: i64,
    id_types: usize,
    n_types: usize,
    c: Option<ColumnType>,
    /// When the source last dropped `c`.
    dropped: Option<Order>,
}

impl World {
    async fn new(layout: Layout, shared: bool, pace: u64) -> Self {
        let store = Arc::new(FaultyStore::default());
        store.dawdle(pace);
        let warehouse = Warehouse::in_store(store);
        let mut world = Self {
            warehouse,
            layout,
            shared,
            hurries: pace.is_multiple_of(2),
            tables: Vec::new(),
            log: Vec::new(),
            captured: 0,
            taken_in: Vec::new(),
            seq: 1,
            id_types: 0,
            n_types: 0,
            c: Some(ColumnType::Int32),
            dropped: None,
        };
        for writer in 0..world.writers() {
            let table = world.open(writer).await;
            world.tables.push(Some(table));
            world.taken_in.push(0);
        }
        world
    }

    fn writers(&self) -> usize {
        if self.shared { WRITERS } else { 1 }
    }

    fn schema(&self) -> Arc<TableSchema> {
        let id = [ColumnType::Int16, ColumnType::Int32, ColumnType::Int64][self.id_types].clone();
        source_schema(id, number_types()[self.n_types].clone(), self.c.clone())
    }

    fn buckets(&self, writer: usize) -> Buckets {
        if self.shared { Buckets { count: WRITERS as u32, owned: [writer as u32].into() } } else { Buckets::whole() }
    }

    fn writer() -> Writer {
        Writer::new("shop", 1)
    }

    async fn open(&self, writer: usize) -> Table {
        let lake = TableSchema { layout: self.layout.clone(), ..self.schema().as_ref().clone() };
        let shares = if self.shared { vec![BucketShare::default(); WRITERS] } else { Vec::new() };
        let state = TableState { shares, ..TableState::default() };
        let buckets = self.buckets(writer);
        Table::open_or_create(&self.warehouse, &lake, Self::writer(), state, buckets).await.unwrap()
    }

    fn next(&mut self) -> Order {
        self.seq += 1;
        Order::new(1, self.seq)
    }

    fn drop_column(&mut self) {
        let at = self.next();
        (self.c, self.dropped) = (None, Some(at));
        self.log.push(Event::Dropped(at));
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Write { ids, deletes } => {
                let schema = self.schema();
                let change = |id| Change { id, deletes, order: self.next(), schema: schema.clone() };
                let changes = ids.into_iter().map(change).collect();
                self.log.push(Event::Changes(changes));
            }
            Step::WidenId => {
                self.id_types = (self.id_types + 1).min(2);
                self.log.push(Event::Statement);
            }
            Step::WidenNumber => {
                self.n_types = (self.n_types + 1).min(number_types().len() - 1);
                self.log.push(Event::Statement);
            }
            Step::DropOrAdd { ty } => {
                match self.c {
                    Some(_) => self.drop_column(),
                    None => self.c = Some(ty),
                }
                self.log.push(Event::Statement);
            }
            Step::DropAndAdd { ty } => {
                if self.c.is_some() {
                    self.drop_column();
                }
                self.c = Some(ty);
                self.log.push(Event::Statement);
            }
            Step::Capture(events) => self.capture(events),
            Step::TakeIn { writer, events } => self.take_in(&[writer % self.writers()], events).await,
            Step::TakeInTogether { events } => {
                let all: Vec<usize> = (0..self.writers()).collect();
                self.take_in(&all, events).await;
            }
            Step::Restart(writer) => {
                let writer = writer % self.writers();
                let id = self.schema().table.clone();
                let table = Table::open(&self.warehouse, &id, Self::writer(), self.buckets(writer));
                self.tables[writer] = table.await.unwrap();
            }
            Step::Compact(writer) => {
                let writer = writer % self.writers();
                let table = self.tables[writer].as_mut().unwrap();
                if let Some(rewriting) = table.compaction(Effort::Full) {
                    let rewritten = rewriting.run().await.unwrap();
                    if let Some(CommitOutcome::Moved) = table.commit_rewritten(rewritten).await.unwrap() {
                        table.absorb().await.unwrap();
                    }
                }
            }
            Step::Settle => self.settle().await,
        }
    }

    fn capture(&mut self, events: usize) {
        let schema = self.schema();
        let end = (self.captured + events).min(self.log.len());
        for event in &mut self.log[self.captured..end] {
            if matches!(event, Event::Statement) {
                *event = Event::Columns(schema.clone());
            }
        }
        self.captured = end;
    }

    fn bucket_of(&self, id: i64) -> usize {
        KeyRef::Int(id).bucket(self.writers() as u32) as usize
    }

    /// These writers take in so many events, at once.
    async fn take_in(&mut self, writers: &[usize], events: usize) {
        let workers: Vec<_> = writers.iter().map(|writer| self.worker(*writer, events)).collect();
        let tables = futures::future::join_all(workers.into_iter().map(Worker::run_to_end)).await;
        for (writer, table) in writers.iter().zip(tables) {
            self.tables[*writer] = Some(table.unwrap());
        }
    }

    fn worker(&mut self, writer: usize, events: usize) -> Worker<Sent> {
        let from = self.taken_in[writer];
        let to = (from + events).min(self.captured);
        self.taken_in[writer] = to;
        let mut deliveries = VecDeque::new();
        for (nth, event) in self.log[from..to].iter().enumerate() {
            let number = PublishNumber((from + nth) as u64 + 1);
            let item = match event {
                Event::Changes(changes) => {
                    let ours: Vec<&Change> = changes.iter().filter(|c| self.bucket_of(c.id) == writer).collect();
                    if ours.is_empty() {
                        continue;
                    }
                    Item::Changes(Changes { batch: batch(&ours), sent: Tally::default(), partial_rows: 0 })
                }
                Event::Dropped(at) => Item::Marker(Marker::ColumnsDropped { at: *at, names: vec!["C".into()] }),
                Event::Columns(schema) => Item::Marker(Marker::Schema(schema.clone())),
                Event::Statement => unreachable!("it was captured"),
            };
            let share = self.shared.then(|| Share {
                bucket: writer as u32,
                topic: "t".into(),
                offset: number.0 as i64,
                publish: Some(number),
            });
            let boundary = Arc::new(Boundary::default());
            deliveries.push_back(Delivery { number, boundary, item, last: true, share, hold: None });
        }
        let (reports, _) = mpsc::unbounded_channel();
        // A channel whose sender is gone never changes any more.
        let (hurry, pressure) = (watch::channel(false).1, watch::channel(false).1);
        // Either each by itself; or the first at once, and the rest together, but for what a marker comes behind.
        let interval = if self.hurries { Duration::ZERO } else { Duration::from_secs(3_600) };
        let pace = Pace { interval, bytes_max: 8 << 20, hurry, pressure };
        let table = self.tables[writer].take().unwrap();
        let worker = Worker::new(table, Sent(deliveries), ChunkDesk::default(), reports, pace);
        if !self.shared {
            return worker;
        }
        let appeals = Appeals::new(self.warehouse.store().clone(), self.warehouse.state_path("shop"));
        worker.shared(SharedTable { warehouse: self.warehouse.clone(), writer: Self::writer(), appeals })
    }

    async fn settle(&mut self) {
        self.capture(self.log.len());
        for writer in 0..self.writers() {
            self.take_in(&[writer], self.log.len()).await;
        }
        let mut expected = BTreeSet::new();
        let mut newest = BTreeMap::new();
        let changes = |event: &'_ Event| -> Vec<Change> {
            match event {
                Event::Changes(changes) => changes.clone(),
                _ => Vec::new(),
            }
        };
        for change in &self.log.iter().flat_map(changes).collect::<Vec<_>>() {
            let row = self.row(change);
            if self.layout.is_append() {
                expected.insert(row);
            } else if change.deletes && !self.layout.deletes_softly() {
                newest.remove(&change.id);
            } else {
                newest.insert(change.id, row);
            }
        }
        expected.extend(newest.into_values());
        assert_eq!(self.rows().await, expected);
    }

    /// A change as the lake has it once everything is in: its id, its order, `n`, and `c` if the source has it.
    fn row(&self, change: &Change) -> (i64, i64, Option<i64>, Option<i64>) {
        let value = change.order.seq;
        let is_of_column = change.schema.column_index("c").is_some() && self.dropped.is_none_or(|at| change.order > at);
        (change.id, value, Some(value), (self.c.is_some() && is_of_column).then_some(value))
    }

    async fn rows(&self) -> BTreeSet<(i64, i64, Option<i64>, Option<i64>)> {
        let mut rows = BTreeSet::new();
        let scan = Scan::open(&self.warehouse, &self.schema().table, None, None).await.unwrap();
        scan.for_each(|batch| {
            let longs = |name: &str| -> Option<Int64Array> {
                let values = batch.column_by_name(name)?;
                Some(cast(values, &DataType::Int64).unwrap().as_primitive::<Int64Type>().clone())
            };
            let (ids, seqs, n) = (longs("id").unwrap(), longs("_weir_seq").unwrap(), longs("n").unwrap());
            let c = self.c.as_ref().and_then(|_| longs("c"));
            for row in 0..batch.num_rows() {
                let value = |values: &Int64Array| values.is_valid(row).then(|| values.value(row));
                rows.insert((ids.value(row), seqs.value(row), value(&n), c.as_ref().and_then(value)));
            }
            Ok(())
        })
        .await
        .unwrap();
        rows
    }

    /// Whatever has happened, the table holds together: every file has its types, and no key two rows.
    async fn check(&self) {
        let found = verify(&self.warehouse, &self.schema().table).await.unwrap();
        assert_eq!(found.problems, Vec::<String>::new());
    }
}

/// What a table is sent, one after another.
struct Sent(VecDeque<Delivery>);

impl Subscription for Sent {
    async fn next(&mut self) -> Option<Delivery> {
        self.0.pop_front()
    }
}

/// Changes of one schema.
fn batch(changes: &[&Change]) -> ChangeBatch {
    let schema = changes[0].schema.clone();
    let columns = schema.columns.iter().map(|column| -> ArrayRef {
        let value = |change: &&Change| if column.name == "id" { change.id } else { change.order.seq };
        cast(&changes.iter().map(value).collect::<Int64Array>(), &column.ty.arrow()).unwrap()
    });
    ChangeBatch {
        rows: RecordBatch::try_new(schema.arrow(), columns.collect()).unwrap(),
        images: Images::default(),
        ops: changes.iter().map(|change| if change.deletes { Op::Delete } else { Op::Create }).collect(),
        orders: changes.iter().map(|change| change.order).collect(),
        ids: changes.iter().map(|change| EventId(change.order.seq as u128)).collect(),
        windows: vec![Window(0); changes.len()],
        schema,
    }
}

fn run(layout: Layout, shared: bool, pace: u64, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(layout, shared, pace).await;
        for step in steps.into_iter().chain([Step::Settle]) {
            world.take(step).await;
            world.check().await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn columns_become_wider_go_and_come_back_and_the_table_is_what_the_source_says(
        layout in layouts(),
        shared: bool,
        pace: u64,
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run(layout, shared, pace, steps);
    }
}

fn write(id: i64) -> Step {
    Step::Write { ids: vec![id], deletes: false }
}

#[test]
fn a_bucket_that_lags_behind_takes_no_value_from_one_that_is_ahead() {
    let ids: Vec<i64> = (0..2).map(|bucket| (0..).find(|id| KeyRef::Int(*id).bucket(2) == bucket).unwrap()).collect();
    let ty = || ColumnType::Int32;
    let steps = vec![
        write(ids[0]),
        write(ids[1]),
        Step::DropOrAdd { ty: ty() },
        write(ids[0] + 10),
        write(ids[1]),
        Step::DropOrAdd { ty: ty() },
        write(ids[0]),
        Step::Capture(100),
        // One has the column again while the other has not even heard that it was gone.
        Step::TakeIn { writer: 0, events: 100 },
        Step::TakeIn { writer: 1, events: 1 },
        Step::TakeIn { writer: 1, events: 100 },
        Step::Settle,
    ];
    for layout in [Layout::default(), Layout { mode: TableMode::Append, ..Layout::default() }] {
        run(layout, true, 1, steps.clone());
    }
}

#[test]
fn what_one_bucket_takes_in_while_another_ones_writer_gives_the_table_other_columns_is_kept() {
    let both = || Step::Write { ids: (0..10).collect(), deletes: false };
    let steps = |change: Step, deletes: bool| {
        let few = |n: i64| Step::Write { ids: vec![n, n + 5], deletes: deletes && n % 2 == 0 };
        let before = [both(), both(), Step::Settle, both(), few(0), few(1), few(2), few(3), few(4), Step::Capture(6)];
        let one = Step::TakeIn { writer: 0, events: 6 };
        // The other one has all of it before it when they go on together.
        let together = [change, Step::Capture(9), Step::TakeInTogether { events: 9 }];
        before.into_iter().chain([one]).chain(together).collect::<Vec<_>>()
    };
    for pace in 0..24 {
        run(Layout::default(), true, pace, steps(Step::WidenNumber, pace % 4 < 2));
        run(Layout::default(), true, pace, steps(Step::DropAndAdd { ty: ColumnType::Text }, pace % 4 < 2));
    }
}

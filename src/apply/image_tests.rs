//! Random histories whose images leave columns out, through a worker: whatever is read at the source, and however late, the lake's
//! rows end as the source's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, Int64Array, RecordBatch};
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::memory::InMemory;
use proptest::prelude::*;
use tokio::sync::{mpsc, watch};
use weir_model::change::Stamp;
use weir_model::image::Rest;
use weir_model::layout::{Deletes, Storage};
use weir_model::{
    ChangeBuilder, Column, ColumnType, EventId, GtidSet, Half, Layout, Op, OrderState, PartialImage, RecordKey,
    TableId, TableSchema, Window, ZeroDates,
};

use super::chunks::ChunkDesk;
use super::current::{CurrentRows, Found, ReadError};
use super::*;
use crate::table::{Buckets, Scan, TableState, Warehouse, Writer};
use crate::trace::{Hop, Tally};
use crate::transport::direct::{Direct, DirectSubscription};
use crate::transport::{Boundary, Changes, Item, Marker, Publish, PublishNumber, Publisher};

const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

/// Two columns beside the key.
type Values = [Option<i64>; 2];

/// The source's rows.
type Rows = BTreeMap<i64, Values>;

fn schema() -> Arc<TableSchema> {
    let column = |name: &str| Column { name: name.into(), ty: ColumnType::Int64, nullable: true };
    Arc::new(TableSchema {
        table: TableId::new("shop", "orders"),
        columns: ["id", "a", "b"].iter().map(|name| column(name)).collect(),
        key: vec![0],
        layout: Layout::default(),
    })
}

/// A source that is read long after its changes were made.
#[derive(Debug, Default)]
struct LateSource {
    rows: Rows,
    /// What was asked of it, and whether everything with an image that leaves something out was to be shown.
    reads: Mutex<Vec<(usize, GtidSet)>>,
}

impl CurrentRows for LateSource {
    fn read<'a>(
        &'a self,
        _: &'a TableSchema,
        keys: &'a [RecordKey],
        shown: &'a GtidSet,
    ) -> BoxFuture<'a, Result<Vec<Found>, ReadError>> {
        self.reads.lock().unwrap().push((keys.len(), shown.clone()));
        let key = |key: &RecordKey| if let RecordKey::Int(id) = key { *id } else { panic!("{key:?}") };
        let rows: Vec<(i64, Values)> =
            keys.iter().filter_map(|k| self.rows.get(&key(k)).map(|values| (key(k), *values))).collect();
        let column = |nth: usize| Arc::new(rows.iter().map(|row| row.1[nth]).collect::<Int64Array>()) as _;
        let ids = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()) as _;
        let rows = RecordBatch::try_new(schema().arrow(), vec![ids, column(0), column(1)]).unwrap();
        let keys = RecordKeys::of(&rows, &["id"]).unwrap();
        async move { Ok(vec![Found { schema: schema(), rows, keys }]) }.boxed()
    }
}

/// What somebody does at the source: a key, another for a change of key, new values for some columns, and whether the image is
/// whole.
#[derive(Debug, Clone)]
struct Step {
    does: Op,
    key: i64,
    to: Option<i64>,
    sets: [Option<Option<i64>>; 2],
    is_whole: bool,
}

fn steps() -> impl Strategy<Value = Vec<Vec<Vec<Step>>>> {
    let set = || prop::option::weighted(0.6, prop::option::weighted(0.8, 0_i64..100));
    let does = prop::sample::select(vec![Op::Create, Op::Update, Op::Update, Op::Update, Op::Delete]);
    let to = prop::option::weighted(0.15, 0_i64..6);
    let step = (does, 0_i64..6, to, [set(), set()], prop::bool::weighted(0.3));
    let step = step.prop_map(|(does, key, to, sets, is_whole)| Step { does, key, to, sets, is_whole });
    let batch = prop::collection::vec(step, 1..8);
    prop::collection::vec(prop::collection::vec(batch, 1..3), 1..8)
}

/// Makes changes of steps, as the source logs them.
struct Log {
    rows: Rows,
    builder: ChangeBuilder,
    seq: i64,
}

impl Log {
    /// Of an image what is known of each column.
    fn emit(&mut self, op: Op, key: i64, known: [Option<Option<i64>>; 2], rest: Rest) {
        let mut image = PartialImage::unknown(3, rest);
        image.set_known(0);
        self.builder.columns_mut()[0].push_int(key).unwrap();
        for (nth, value) in known.iter().enumerate() {
            let column = &mut self.builder.columns_mut()[nth + 1];
            match value.flatten() {
                Some(value) => column.push_int(value).unwrap(),
                None => column.push_null(),
            }
            if value.is_some() {
                image.set_known(nth + 1);
            }
        }
        match known.iter().all(Option::is_some) {
            true => self.builder.end_row(op, Half::First),
            false => self.builder.end_partial_row(op, Half::First, image),
        }
    }

    /// What cannot be done as the rows are is not done.
    fn take(&mut self, Step { does, key, to, sets, is_whole }: &Step) {
        let whole = |values: Values| values.map(Some);
        let was = self.rows.get(key).copied();
        match (does, was) {
            (Op::Create, None) => {
                // The default of the first column is 7, of the second NULL.
                let values = [sets[0].unwrap_or(Some(7)), sets[1].unwrap_or(None)];
                self.rows.insert(*key, values);
                self.emit(Op::Create, *key, if *is_whole { whole(values) } else { *sets }, Rest::AtSource);
            }
            (Op::Delete, Some(was)) => {
                self.rows.remove(key);
                self.emit(Op::Delete, *key, if *is_whole { whole(was) } else { [None; 2] }, Rest::Unchanged);
            }
            (Op::Update, Some(was)) => {
                let values = [0, 1].map(|nth| sets[nth].unwrap_or(was[nth]));
                let known = if *is_whole { whole(values) } else { *sets };
                match to.filter(|to| !self.rows.contains_key(to)) {
                    None => {
                        self.rows.insert(*key, values);
                        self.emit(Op::Update, *key, known, Rest::Unchanged);
                    }
                    Some(to) => {
                        self.rows.remove(key);
                        self.rows.insert(to, values);
                        self.emit(Op::Delete, *key, if *is_whole { whole(was) } else { [None; 2] }, Rest::Unchanged);
                        self.emit(Op::Create, to, known, Rest::AtSource);
                    }
                }
            }
            _ => {}
        }
    }

    fn batch(&mut self, steps: &[Step], gno: u64) -> weir_model::ChangeBatch {
        steps.iter().for_each(|step| self.take(step));
        self.builder.note_partial_transaction(&format!("{SERVER}:{gno}").parse().unwrap());
        let seq = &mut self.seq;
        self.builder.stamp(|_, _| {
            *seq += 1;
            Stamp { order: Order::new(1, *seq), id: EventId(*seq as u128), window: Window(0) }
        });
        self.builder.finish()
    }
}

async fn rows_of(warehouse: &Warehouse) -> Rows {
    let scan = Scan::open(warehouse, &schema().table, None, None).await.unwrap();
    let mut rows = BTreeMap::new();
    scan.for_each(|batch| {
        let column = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
        let (ids, a, b) = (column("id"), column("a"), column("b"));
        let value = |column: &Int64Array, row| column.is_valid(row).then(|| column.value(row));
        let marked = batch.column_by_name("_weir_deleted").map(|column| column.as_boolean().clone());
        for row in (0..batch.num_rows()).filter(|row| !marked.as_ref().is_some_and(|marked| marked.value(*row))) {
            assert_eq!(rows.insert(ids.value(row), [value(&a, row), value(&b, row)]), None);
        }
        Ok(())
    })
    .await
    .unwrap();
    rows
}

/// A worker, what is sent to it, and the source whose changes are sent.
struct Scene {
    warehouse: Warehouse,
    transport: Direct,
    worker: Worker<DirectSubscription>,
    reports: mpsc::UnboundedReceiver<Report>,
    _hurry: watch::Sender<bool>,
    log: Log,
    published: u64,
}

/// The lake's rows, the counts, and what was read at the source.
struct Outcome {
    lake: Rows,
    accounts: Vec<StageCount>,
    reads: Vec<(usize, GtidSet)>,
}

impl Scene {
    async fn new(layout: Layout) -> Self {
        let warehouse = Warehouse::in_store(Arc::new(InMemory::new()));
        let lake = TableSchema { layout, ..schema().as_ref().clone() };
        let (writer, state) = (Writer::new("shop", 1), TableState::default());
        let table = Table::create(&warehouse, &lake, writer, state, Buckets::whole()).await.unwrap();
        let transport = Direct::new(64 << 20);
        let (sender, reports) = mpsc::unbounded_channel();
        let (hurry, hurried) = watch::channel(false);
        let pressure = transport.pressure();
        let pace = Pace { interval: Duration::ZERO, bytes_max: 8 << 20, hurry: hurried, pressure };
        let worker = Worker::new(table, transport.subscribe(&lake.table), ChunkDesk::default(), sender, pace);
        let log = Log { rows: Rows::new(), builder: ChangeBuilder::new(schema(), ZeroDates::Null), seq: 0 };
        Self { warehouse, transport, worker, reports, _hurry: hurry, log, published: 0 }
    }

    async fn publish(&mut self, items: Vec<Item>) {
        self.published += 1;
        let gtid_set = format!("{SERVER}:1-{}", self.published).parse().unwrap();
        let publish = Publish {
            number: PublishNumber(self.published),
            boundary: Arc::new(Boundary { gtid_set, ..Boundary::default() }),
            items: items.into_iter().map(|item| (schema().table.clone(), item)).collect(),
            order: OrderState::default(),
            partial_rows: BTreeMap::new(),
            standings: Vec::new(),
        };
        self.transport.publish(publish).await.unwrap();
    }

    /// Sends what the source does, in batches.
    async fn send(&mut self, batches: &[Vec<Step>]) {
        let gno = self.published + 1;
        let changes = |batch| Item::Changes(Changes { batch, sent: Tally::default(), partial_rows: 0 });
        let items = batches.iter().map(|steps| changes(self.log.batch(steps, gno))).collect();
        self.publish(items).await;
    }

    /// Lets the worker take all of it in, with a commit a publish if it `hastens`, while the source has `rows`.
    async fn end(self, rows: Rows, hastens: bool) -> Outcome {
        let Self { warehouse, transport, worker, mut reports, _hurry, .. } = self;
        transport.close();
        let source = Arc::new(LateSource { rows, ..LateSource::default() });
        let mut worker = worker.with_source(source.clone());
        while hastens && let Some(delivery) = worker.subscription.next().await {
            let last = delivery.last;
            worker.receive(delivery).await.unwrap();
            if last {
                worker.commit_changes().await.unwrap();
            }
        }
        worker.run().await;
        let reports = std::iter::from_fn(|| reports.try_recv().ok());
        let accounts = reports.flat_map(|report| match report {
            Report::Committed { accounts, .. } => accounts,
            Report::SeedBegun { .. } => Vec::new(),
            other => panic!("{other:?}"),
        });
        let accounts = accounts.collect();
        let reads = source.reads.lock().unwrap().clone();
        Outcome { lake: rows_of(&warehouse).await, accounts, reads }
    }
}

/// Lets a worker take in `publishes`, long after they were made; gives the source's rows, too.
async fn run(layout: Layout, publishes: Vec<Vec<Vec<Step>>>, hastens: bool) -> (Outcome, Rows) {
    let mut scene = Scene::new(layout).await;
    for batches in &publishes {
        scene.send(batches).await;
    }
    let rows = scene.log.rows.clone();
    (scene.end(rows.clone(), hastens).await, rows)
}

fn step(does: Op, key: i64, sets: [Option<Option<i64>>; 2], is_whole: bool) -> Step {
    Step { does, key, to: None, sets, is_whole }
}

#[tokio::test]
async fn updates_are_folded_onto_the_lake_and_only_what_it_lacks_is_read_at_the_source() {
    let set = |value| Some(Some(value));
    let publishes = vec![
        vec![vec![step(Op::Create, 1, [set(1), set(2)], true), step(Op::Create, 2, [set(3), None], false)]],
        vec![vec![step(Op::Update, 1, [set(5), None], false), step(Op::Update, 2, [None, set(6)], false)]],
        vec![vec![step(Op::Update, 1, [None, Some(None)], false)]],
    ];
    let (Outcome { lake, accounts, reads }, source) = run(Layout::default(), publishes, true).await;
    assert_eq!(lake, BTreeMap::from([(1, [Some(5), None]), (2, [Some(3), Some(6)])]));
    assert_eq!(lake, source);
    // The insert whose image had no second column, once its transaction is shown.
    assert_eq!(reads, [(1, format!("{SERVER}:1").parse().unwrap())]);
    let upserted = accounts.iter().filter(|account| account.hop == Hop::Upserted).map(|account| account.count);
    assert_eq!(upserted.sum::<u64>(), 5);
}

#[tokio::test]
async fn a_row_that_a_load_under_way_may_replace_is_read_at_the_source() {
    let set = |value| Some(Some(value));
    for is_loaded in [false, true] {
        let mut scene = Scene::new(Layout::default()).await;
        scene.send(&[vec![step(Op::Create, 1, [set(1), set(2)], true)]]).await;
        if is_loaded {
            scene.log.seq += 1;
            let start = Order::new(1, scene.log.seq);
            let begin = Marker::SeedBegin { plan: 1, start, schema: schema(), reset: false, part: true };
            scene.publish(vec![Item::Marker(begin)]).await;
        }
        scene.send(&[vec![step(Op::Update, 1, [set(5), None], false)]]).await;
        // What is above the load's beginning is as it is.
        scene.send(&[vec![step(Op::Update, 1, [set(6), None], false)]]).await;
        // The second column has changed without an event.
        let Outcome { lake, reads, .. } = scene.end(BTreeMap::from([(1, [Some(6), Some(99)])]), true).await;
        let expected = if is_loaded { 99 } else { 2 };
        assert_eq!(lake, BTreeMap::from([(1, [Some(6), Some(expected)])]));
        assert_eq!(reads.len(), usize::from(is_loaded));
    }
}

#[tokio::test]
async fn a_row_that_is_gone_by_the_time_it_is_read_loses_to_nothing_from_before() {
    let set = |value| Some(Some(value));
    for deletes in [Deletes::Hard, Deletes::Soft] {
        let mut scene = Scene::new(Layout { deletes, ..Layout::default() }).await;
        scene.send(&[vec![step(Op::Create, 1, [set(1), None], false)]]).await;
        let Outcome { lake, accounts, reads } = scene.end(Rows::new(), true).await;
        assert_eq!((lake, reads.len()), (Rows::new(), 1));
        let upserted = accounts.iter().filter(|account| account.hop == Hop::Upserted).map(|account| account.count);
        assert_eq!(upserted.sum::<u64>(), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn images_that_leave_columns_out_end_as_the_source(publishes in steps(), soft: bool, copies: bool, hastens: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let deletes = if soft { Deletes::Soft } else { Deletes::Hard };
        let storage = if copies { Storage::CopyOnWrite } else { Storage::MergeOnRead };
        let layout = Layout { deletes, storage, ..Layout::default() };
        let (Outcome { lake, accounts, .. }, source) = runtime.block_on(run(layout, publishes, hastens));
        prop_assert_eq!(lake, source);
        let total = |hops: &[Hop]| -> u64 {
            accounts.iter().filter(|account| hops.contains(&account.hop)).map(|account| account.count).sum()
        };
        let ends = [Hop::Upserted, Hop::Deleted, Hop::Duplicate, Hop::Superseded, Hop::Stale];
        prop_assert_eq!(total(&[Hop::Consumed]), total(&ends));
    }
}

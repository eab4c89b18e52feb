//! A worker between a real transport and a real table: what a stream says, copies included, is what the table holds.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use proptest::prelude::*;
use weir_model::layout::Deletes;
use weir_model::{Column, ColumnType, Digest, EventId, Images, Layout, Op, OrderState, TableSchema, Window};

use super::upkeep::Done;
use super::*;
use crate::limits::AMBIGUOUS_PUT_TRIES;
use crate::table::faulty::{Fault, FaultyStore};
use crate::table::{Buckets, Effort, PartialTransaction, Scan, TableState, Warehouse, Writer};
use crate::trace::{Hop, Tally};
use crate::transport::direct::{Direct, DirectSubscription};
use crate::transport::{Changes, Publish, Publisher};

const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

fn id() -> TableId {
    TableId::new("shop", "orders")
}

/// `(id, n)` with the names in the case that the source has them in.
fn schema(names: [&str; 2]) -> Arc<TableSchema> {
    let columns = names.map(|name| Column { name: name.into(), ty: ColumnType::Int64, nullable: true });
    Arc::new(TableSchema { table: id(), columns: columns.into(), key: vec![0], layout: weir_model::Layout::default() })
}

/// One change; its order, its id and its value follow from its number.
#[derive(Debug, Clone, Copy)]
struct Change {
    number: i64,
    key: i64,
    op: Op,
}

impl Change {
    fn order(self) -> Order {
        Order::new(1_000, self.number)
    }
}

fn batch(schema: &Arc<TableSchema>, changes: &[Change]) -> ChangeBatch {
    let column = |value: fn(&Change) -> i64| Arc::new(changes.iter().map(value).collect::<Int64Array>()) as ArrayRef;
    ChangeBatch {
        schema: schema.clone(),
        rows: RecordBatch::try_new(schema.arrow(), vec![column(|c| c.key), column(|c| c.number)]).unwrap(),
        images: Images::default(),
        ops: changes.iter().map(|c| c.op).collect(),
        orders: changes.iter().map(|c| c.order()).collect(),
        ids: changes.iter().map(|c| EventId((u128::MAX / 3).wrapping_mul(c.number as u128))).collect(),
        windows: changes.iter().map(|c| Window(c.number / 8 * Window::LENGTH_MS)).collect(),
    }
}

fn boundary(last: u64, partial: Option<u64>) -> Arc<Boundary> {
    Arc::new(Boundary {
        gtid_set: format!("{SERVER}:1-{last}").parse().unwrap(),
        partial: partial.map(|gno| format!("{SERVER}:{gno}").parse().unwrap()),
        ..Boundary::default()
    })
}

struct World {
    warehouse: Warehouse,
    transport: Direct,
    published: u64,
    reports: mpsc::UnboundedReceiver<Report>,
    worker: Option<Worker<DirectSubscription>>,
    _switches: [watch::Sender<bool>; 1],
}

impl World {
    async fn new() -> Self {
        Self::of(Layout::default()).await
    }

    /// With a table of this layout.
    async fn of(layout: Layout) -> Self {
        Self::in_store(Arc::new(InMemory::new()), layout).await
    }

    async fn in_store(store: Arc<dyn ObjectStore>, layout: Layout) -> Self {
        let warehouse = Warehouse::in_store(store);
        let writer = Writer::new("shop", 1);
        let lake = TableSchema { layout, ..schema(["id", "n"]).as_ref().clone() };
        let table = Table::create(&warehouse, &lake, writer, TableState::default(), Buckets::whole()).await.unwrap();
        let transport = Direct::new(64 << 20);
        let (reports, inbox) = mpsc::unbounded_channel();
        let (hurry, hurried) = watch::channel(false);
        let pace =
            Pace { interval: Duration::ZERO, bytes_max: 8 << 20, hurry: hurried, pressure: transport.pressure() };
        let worker = Worker::new(table, transport.subscribe(&id()), ChunkDesk::default(), reports, pace);
        let published = 0;
        Self { warehouse, transport, published, reports: inbox, worker: Some(worker), _switches: [hurry] }
    }

    async fn publish(&mut self, boundary: Arc<Boundary>, items: Vec<Item>) {
        self.published += 1;
        let items = items.into_iter().map(|item| (id(), item)).collect();
        let publish = Publish {
            number: PublishNumber(self.published),
            boundary,
            items,
            order: OrderState::default(),
            partial_rows: BTreeMap::new(),
            standings: Vec::new(),
        };
        self.transport.publish(publish).await.unwrap();
    }

    /// Lets the worker do all that was published. Gives its reports.
    async fn run(&mut self) -> Vec<Report> {
        self.transport.close();
        self.worker.take().expect("run once").run().await;
        std::iter::from_fn(|| self.reports.try_recv().ok()).collect()
    }

    async fn rows(&self) -> BTreeMap<i64, i64> {
        self.marked_rows().await.into_iter().filter(|(_, (_, deleted))| !deleted).map(|(id, (n, _))| (id, n)).collect()
    }

    /// Every row, and whether it is marked as deleted.
    async fn marked_rows(&self) -> BTreeMap<i64, (i64, bool)> {
        let scan = Scan::open(&self.warehouse, &id(), None, None).await.unwrap();
        let mut rows = BTreeMap::new();
        scan.for_each(|batch| {
            let column = |name| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
            let deleted = batch.column_by_name("_weir_deleted").map(|column| column.as_boolean().clone());
            let deleted = (0..batch.num_rows()).map(|row| deleted.as_ref().is_some_and(|deleted| deleted.value(row)));
            let rows_of = column("id").into_iter().zip(column("n").into_iter().zip(deleted));
            rows.extend(rows_of);
            Ok(())
        })
        .await
        .unwrap();
        rows
    }

    async fn state(&self) -> TableState {
        let writer = Writer::new("shop", 1);
        Table::open(&self.warehouse, &id(), writer, Buckets::whole()).await.unwrap().unwrap().state().clone()
    }
}

fn changes_of(batch: ChangeBatch, partial_rows: u64) -> Item {
    Item::Changes(Changes { batch, sent: Tally::default(), partial_rows })
}

fn create(number: i64, key: i64) -> Change {
    Change { number, key, op: Op::Create }
}

#[tokio::test]
async fn a_part_of_a_transaction_is_held_back_until_its_end_is_told() {
    let mut world = World::new().await;
    let schema = schema(["id", "n"]);
    world.publish(boundary(4, Some(5)), vec![changes_of(batch(&schema, &[create(1, 7)]), 1)]).await;
    let mut worker = world.worker.take().unwrap();
    let delivery = worker.subscription.next().await.unwrap();
    worker.receive(delivery).await.unwrap();
    assert_eq!(worker.due(), None);

    // The rest of the transaction concerns other tables, and the next large one has begun.
    world.publish(boundary(5, Some(6)), vec![Item::TransactionEnd]).await;
    let delivery = worker.subscription.next().await.unwrap();
    worker.receive(delivery).await.unwrap();
    assert!(worker.due().is_some());
    worker.commit_changes().await.unwrap();
    let state = world.state().await;
    assert_eq!((state.gtid_set, state.partial), (boundary(5, None).gtid_set.clone(), None));
    assert_eq!(world.rows().await, BTreeMap::from([(7, 1)]));
}

/// A worker that has made two small files, and the store that they lie in.
async fn two_files() -> (Arc<FaultyStore>, World, Worker<DirectSubscription>) {
    let store = Arc::new(FaultyStore::default());
    let mut world = World::in_store(store.clone(), Layout::default()).await;
    let schema = schema(["id", "n"]);
    let mut worker = world.worker.take().unwrap();
    for number in [1, 2] {
        let items = vec![changes_of(batch(&schema, &[create(number, number)]), 0)];
        world.publish(boundary(number as u64, None), items).await;
        let delivery = worker.subscription.next().await.unwrap();
        worker.receive(delivery).await.unwrap();
        worker.commit_changes().await.unwrap();
    }
    (store, world, worker)
}

#[tokio::test]
async fn a_store_that_is_away_while_upkeep_is_committed_is_waited_for_as_for_any_commit() {
    let (store, world, mut worker) = two_files().await;
    let rewritten = worker.table.compaction(Effort::Full).unwrap().run().await.unwrap();
    for _ in 0..=AMBIGUOUS_PUT_TRIES {
        store.plan(".json", Fault::Lost);
    }
    let ended = worker.end_upkeep(Done::Compacted(rewritten)).await;
    assert!(ended.as_ref().is_err_and(WorkerError::is_away), "{ended:?}");
    assert_eq!(world.rows().await, BTreeMap::from([(1, 1), (2, 2)]));
}

#[tokio::test]
async fn a_store_that_is_away_while_anothers_commit_is_taken_in_does_not_begin_the_next_incarnation_at_once() {
    let (store, world, mut worker) = two_files().await;
    let writer = Writer::new("shop", 1);
    let mut beside = Table::open(&world.warehouse, &id(), writer, Buckets::whole()).await.unwrap().unwrap();
    let rewritten = beside.compaction(Effort::Full).unwrap().run().await.unwrap();
    beside.commit_rewritten(rewritten).await.unwrap().unwrap();
    store.plan(".json", Fault::Unreadable);
    let taken = worker.absorb().await;
    assert!(taken.as_ref().is_err_and(WorkerError::is_away), "{taken:?}");
    worker.absorb().await.unwrap();
    assert_eq!(worker.table.version(), beside.version());
}

#[tokio::test]
async fn columns_that_the_source_spells_anew_go_where_they_were() {
    let mut world = World::new().await;
    world.publish(boundary(1, None), vec![changes_of(batch(&schema(["id", "n"]), &[create(1, 7)]), 0)]).await;
    world.publish(boundary(2, None), vec![changes_of(batch(&schema(["ID", "N"]), &[create(2, 8)]), 0)]).await;
    let reports = world.run().await;
    assert!(reports.iter().all(|report| matches!(report, Report::Committed { .. })), "{reports:?}");
    assert_eq!(world.rows().await, BTreeMap::from([(7, 1), (8, 2)]));
}

/// Key, operation, and perhaps a pick of an earlier change that comes once more instead.
type Step = (i64, Op, Option<u8>);

/// A history, cut into publishes of some batches each.
fn histories() -> impl Strategy<Value = Vec<Vec<Vec<Step>>>> {
    let op = prop::sample::select(Op::STREAM.to_vec());
    let change = (0_i64..8, op, prop::option::weighted(0.3, any::<u8>()));
    let batch = prop::collection::vec(change, 1..8);
    prop::collection::vec(prop::collection::vec(batch, 1..3), 1..8)
}

fn next_change(history: &mut Vec<Change>, (key, op, copy): Step) -> Change {
    if let Some(pick) = copy.filter(|_| !history.is_empty()) {
        return history[usize::from(pick) % history.len()];
    }
    let change = Change { number: history.len() as i64 + 1, key, op };
    history.push(change);
    change
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn copies_change_nothing_and_every_change_is_accounted_for(publishes in histories(), soft: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let deletes = if soft { Deletes::Soft } else { Deletes::Hard };
            let layout = Layout { deletes, ..Layout::default() };
            let (mut world, schema, mut history) = (World::of(layout).await, schema(["id", "n"]), Vec::new());
            let mut sent = 0_u64;
            for (gno, batches) in publishes.into_iter().enumerate() {
                let mut items = Vec::new();
                for changes in batches {
                    let changes: Vec<Change> =
                        changes.into_iter().map(|step| next_change(&mut history, step)).collect();
                    sent += changes.len() as u64;
                    items.push(changes_of(batch(&schema, &changes), 0));
                }
                world.publish(boundary(gno as u64 + 1, None), items).await;
            }
            let reports = world.run().await;
            let accounts: Vec<StageCount> = reports
                .into_iter()
                .flat_map(|report| match report {
                    Report::Committed { accounts, .. } => accounts,
                    other => panic!("{other:?}"),
                })
                .collect();

            let newest: BTreeMap<i64, Change> = history.iter().map(|change| (change.key, *change)).collect();
            let live = newest.values().filter(|change| change.op != Op::Delete);
            assert_eq!(world.rows().await, live.map(|change| (change.key, change.number)).collect());
            if soft {
                let marked = newest.values().map(|change| (change.key, (change.number, change.op == Op::Delete)));
                assert_eq!(world.marked_rows().await, marked.collect());
            }
            let deleted = newest.values().filter(|change| change.op == Op::Delete).count() as u64;
            let counted = accounts.iter().filter(|account| account.hop == Hop::Deleted).map(|account| account.count);
            assert!(counted.sum::<u64>() >= deleted);

            let total = |hops: &[Hop]| -> (u64, Digest) {
                let counted = accounts.iter().filter(|account| hops.contains(&account.hop));
                counted.fold((0, Digest::default()), |sum, one| (sum.0 + one.count, sum.1 + one.digest))
            };
            let ends = [Hop::Upserted, Hop::Deleted, Hop::Duplicate, Hop::Superseded, Hop::Stale];
            assert_eq!(total(&[Hop::Consumed]), total(&ends));
            assert_eq!(total(&[Hop::Consumed]).0, sent);
        });
    }
}

fn state_of(set: &str, partial: Option<(&str, u64)>) -> TableState {
    TableState {
        gtid_set: format!("{SERVER}:{set}").parse().unwrap(),
        partial: partial
            .map(|(gno, rows_done)| PartialTransaction { gtid: format!("{SERVER}:{gno}").parse().unwrap(), rows_done }),
        ..TableState::default()
    }
}

#[test]
fn a_table_ahead_of_a_stream_read_again_keeps_its_set_and_its_part() {
    let ahead = state_of("1-20", Some(("21", 7)));
    let after = state_at(&ahead, &boundary(12, None), None);
    assert_eq!((after.gtid_set, after.partial), (ahead.gtid_set, ahead.partial));
}

#[test]
fn a_part_is_recorded_and_forgotten_once_its_transaction_is_whole() {
    let part = state_at(&state_of("1-4", None), &boundary(4, Some(5)), Some(900));
    assert_eq!(part.partial.as_ref().map(|p| p.rows_done), Some(900));
    let whole = state_at(&part, &boundary(5, None), Some(1_200));
    assert_eq!(whole.partial, None);
}

//! A worker of a table that keeps every change: nothing enters twice, whichever way it comes again.

use std::collections::VecDeque;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use object_store::memory::InMemory;
use proptest::prelude::*;
use tokio::sync::oneshot;
use weir_model::layout::TableMode;
use weir_model::{Column, ColumnType, EventId, Images, Layout, Op, Order, TableSchema, Window};

use super::chunks::{ChunkFiles, ChunkOutcome, WaitingChunk};
use super::*;
use crate::state::Appeals;
use crate::table::{BucketShare, Buckets, ChunkWriter, Scan, StagedChunk, TableFiles, TableState, Warehouse, Writer};
use crate::trace::{Hop, Tally};
use crate::transport::{Changes, ChunkContent, ChunkId, Marker, Share};

/// What a table is sent, one after another.
struct Sent(VecDeque<Delivery>);

impl Subscription for Sent {
    async fn next(&mut self) -> Option<Delivery> {
        self.0.pop_front()
    }
}

fn schema() -> Arc<TableSchema> {
    let column = Column { name: "n".into(), ty: ColumnType::Int64, nullable: true };
    let layout = Layout { mode: TableMode::Append, ..Layout::default() };
    Arc::new(TableSchema { table: TableId::new("shop", "events"), columns: vec![column], key: Vec::new(), layout })
}

fn rows(numbers: &[i64]) -> RecordBatch {
    let column = Arc::new(numbers.iter().copied().collect::<Int64Array>()) as ArrayRef;
    RecordBatch::try_new(schema().arrow(), vec![column]).unwrap()
}

/// Changes whose orders and values are their numbers.
fn changes(numbers: &[i64]) -> Item {
    let op = |n: &i64| Op::STREAM[n.unsigned_abs() as usize % 3];
    let batch = ChangeBatch {
        schema: schema(),
        rows: rows(numbers),
        images: Images::default(),
        ops: numbers.iter().map(op).collect(),
        orders: numbers.iter().map(|n| Order::new(1, *n)).collect(),
        ids: numbers.iter().map(|n| EventId(*n as u128)).collect(),
        windows: vec![Window(0); numbers.len()],
    };
    Item::Changes(Changes { batch, sent: Tally::default(), partial_rows: 0 })
}

/// Items one after another behind the first `before`, through a topic if it is `shared`.
fn deliveries(items: Vec<Item>, before: u64, shared: bool) -> Sent {
    let delivery = |(nth, item): (usize, Item)| {
        let number = PublishNumber(before + nth as u64 + 1);
        let share = Share { bucket: 0, topic: "t".into(), offset: number.0 as i64, publish: Some(number) };
        let (boundary, share) = (Arc::new(Boundary::default()), shared.then_some(share));
        Delivery { number, boundary, item, last: true, share, hold: None }
    };
    Sent(items.into_iter().enumerate().map(delivery).collect())
}

struct World {
    warehouse: Warehouse,
    writer: Writer,
    shared: bool,
    /// Items that it was sent.
    sent: std::cell::Cell<u64>,
}

impl World {
    fn new(shared: bool) -> Self {
        let warehouse = Warehouse::in_store(Arc::new(InMemory::new()));
        Self { warehouse, writer: Writer::new("shop", 1), shared, sent: Default::default() }
    }

    async fn table(&self) -> Table {
        let shares = if self.shared { vec![BucketShare::default()] } else { Vec::new() };
        let state = TableState { shares, ..TableState::default() };
        Table::open_or_create(&self.warehouse, &schema(), self.writer.clone(), state, Buckets::whole()).await.unwrap()
    }

    fn files(&self) -> TableFiles {
        TableFiles::of(&self.warehouse, &schema().table)
    }

    async fn chunk(&self, numbers: &[i64], order0: Order) -> Vec<StagedChunk> {
        let mut writer = ChunkWriter::create(self.files(), schema(), order0, Window(0), 1).unwrap();
        writer.write(&rows(numbers)).await.unwrap();
        writer.finish().await.unwrap()
    }

    /// Lets a worker of the table do all of `items`; gives what it counted.
    async fn run(&self, items: Vec<Item>, desk: &ChunkDesk) -> Vec<StageCount> {
        let (reports, mut inbox) = mpsc::unbounded_channel();
        let (_hurry, hurry) = watch::channel(false);
        let (_pressure, pressure) = watch::channel(false);
        let pace = Pace { interval: Duration::ZERO, bytes_max: 8 << 20, hurry, pressure };
        let table = self.table().await;
        let before = self.sent.replace(self.sent.get() + items.len() as u64);
        let mut worker = Worker::new(table, deliveries(items, before, self.shared), desk.clone(), reports, pace);
        if self.shared {
            let appeals = Appeals::new(self.warehouse.store().clone(), self.warehouse.state_path("shop"));
            let (warehouse, writer) = (self.warehouse.clone(), self.writer.clone());
            worker = worker.shared(SharedTable { warehouse, writer, appeals });
        }
        worker.run().await;
        let mut counts = Vec::new();
        while let Ok(report) = inbox.try_recv() {
            match report {
                Report::Committed { accounts, .. } => counts.extend(accounts),
                Report::Stopped { error, .. } => panic!("{error}"),
                Report::Reached { .. } | Report::SeedBegun { .. } | Report::SeedEnded { .. } => {}
            }
        }
        counts
    }

    /// The operation and the value of every row, in the order of their orders.
    async fn log(&self) -> Vec<(String, i64)> {
        let mut log = Vec::new();
        let scan = Scan::open(&self.warehouse, &schema().table, None, None).await.unwrap();
        scan.for_each(|batch| {
            let longs = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
            let ops = batch.column_by_name("_weir_op").unwrap().as_string::<i32>();
            for row in 0..batch.num_rows() {
                log.push((longs("_weir_seq").value(row), ops.value(row).to_owned(), longs("n").value(row)));
            }
            Ok(())
        })
        .await
        .unwrap();
        log.sort();
        log.into_iter().map(|(_, op, n)| (op, n)).collect()
    }
}

fn total(counts: &[StageCount], hop: Hop) -> u64 {
    counts.iter().filter(|count| count.hop == hop).map(|count| count.count).sum()
}

fn read(numbers: &[i64]) -> Vec<(String, i64)> {
    numbers.iter().map(|n| ("r".to_owned(), *n)).collect()
}

fn begin() -> Item {
    Item::Marker(Marker::SeedBegin { plan: 1, start: Order::new(1, 1), schema: schema(), reset: false, part: false })
}

#[tokio::test]
async fn a_chunk_that_is_read_twice_enters_a_bucket_once() {
    let world = World::new(true);
    let mut items = vec![begin()];
    for (attempt, order0) in [(1, Order::new(1, 2)), (2, Order::new(1, 3))] {
        let staged = world.chunk(&[10, 11], order0).await;
        let files = staged.iter().map(StagedChunk::describe).collect();
        let content =
            serde_json::to_value(ChunkFiles { plan: 1, ordinal: 0, order0, files, absent: Vec::new() }).unwrap();
        let content = ChunkContent::Files(Arc::new(content));
        items.push(Item::Marker(Marker::Chunk { chunk: ChunkId(attempt), content }));
    }
    items.push(Item::Marker(Marker::SeedEnd { plan: 1 }));
    let counts = world.run(items, &ChunkDesk::default()).await;
    assert_eq!(world.log().await, read(&[10, 11]));
    assert_eq!((total(&counts, Hop::ChunkRead), total(&counts, Hop::ChunkUpserted)), (2, 2));
    let appeals = Appeals::new(world.warehouse.store().clone(), world.warehouse.state_path("shop"));
    assert_eq!(appeals.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_chunk_that_is_left_twice_at_the_desk_enters_once_and_leaves_no_file() {
    let world = World::new(false);
    let desk = ChunkDesk::default();
    let mut items = vec![begin()];
    let mut outcomes = Vec::new();
    let mut names = Vec::new();
    for (attempt, order0) in [(1, Order::new(1, 2)), (2, Order::new(1, 3))] {
        let staged = world.chunk(&[10, 11], order0).await;
        names.extend(staged.iter().map(|staged| staged.name().to_owned()));
        let (outcome, merged) = oneshot::channel();
        let waiting = WaitingChunk { plan: 1, ordinal: 0, order0, staged, absent: Vec::new(), outcome };
        desk.leave(&schema().table, ChunkId(attempt), waiting);
        outcomes.push(merged);
        items.push(Item::Marker(Marker::Chunk { chunk: ChunkId(attempt), content: ChunkContent::Desk }));
    }
    world.run(items, &desk).await;
    for outcome in outcomes {
        assert_eq!(outcome.await.unwrap(), ChunkOutcome::Merged);
    }
    assert_eq!(world.log().await, read(&[10, 11]));
    let left = world.warehouse.list(&world.warehouse.table_path(&schema().table)).await.unwrap();
    assert_eq!(left.into_iter().map(|object| object.name).collect::<Vec<_>>(), names[..1]);
}

#[tokio::test]
async fn truncation_and_the_end_of_a_load_leave_a_log_as_it_is() {
    for shared in [false, true] {
        let world = World::new(shared);
        let clear = Item::Marker(Marker::Clear { at: Order::new(1, 20) });
        let end = Item::Marker(Marker::SeedEnd { plan: 1 });
        let mut begin = begin();
        if let Item::Marker(Marker::SeedBegin { start, .. }) = &mut begin {
            *start = Order::new(1, 30);
        }
        world.run(vec![changes(&[3, 4, 5]), clear, begin, end, changes(&[33])], &ChunkDesk::default()).await;
        let numbers: Vec<i64> = world.log().await.into_iter().map(|(_, n)| n).collect();
        assert_eq!(numbers, [3, 4, 5, 33], "shared: {shared}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A history in messages, of which some are sent again later.
    #[test]
    fn messages_that_come_again_append_nothing(
        sizes in prop::collection::vec(1_i64..5, 1..12),
        copies in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..8),
        shared: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut next = 1;
            let mut messages: Vec<Vec<i64>> = Vec::new();
            for size in sizes {
                messages.push((next..next + size).collect());
                next += size;
            }
            let (mut sent, mut copied) = (messages.clone(), 0);
            for (of, behind) in copies {
                let of = of.index(messages.len());
                let original = sent.iter().position(|message| *message == messages[of]).unwrap();
                sent.insert(original + 1 + behind.index(sent.len() - original), messages[of].clone());
                copied += messages[of].len() as u64;
            }
            let world = World::new(shared);
            // Some of it before a restart.
            let after = sent.split_off(sent.len() / 2);
            let mut counts = Vec::new();
            for part in [sent, after] {
                let items = part.iter().map(|message| changes(message)).collect();
                counts.extend(world.run(items, &ChunkDesk::default()).await);
            }
            let log = world.log().await;
            let numbers: Vec<i64> = log.iter().map(|(_, n)| *n).collect();
            assert_eq!(numbers, (1..next).collect::<Vec<_>>());
            assert_eq!(total(&counts, Hop::Duplicate), copied);
            let ends = total(&counts, Hop::Upserted) + total(&counts, Hop::Deleted);
            assert_eq!((ends, total(&counts, Hop::Consumed)), (log.len() as u64, ends + copied));
            let deletes = log.iter().filter(|(op, _)| op == "d").count() as u64;
            assert_eq!(total(&counts, Hop::Deleted), deletes);
        });
    }
}

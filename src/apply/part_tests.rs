//! Loads of a part of a table: what they find enters, what they look for in vain goes, everything else stays.

use std::collections::BTreeMap;

use arrow_array::Int64Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use object_store::memory::InMemory;
use weir_model::{Column, ColumnType, Layout, RecordKey, TableSchema, Window};

use super::chunks::{ChunkOutcome, UNPLANNED, WaitingChunk};
use super::*;
use crate::table::{Buckets, ChunkWriter, Scan, TableState, Warehouse, Writer};
use crate::transport::direct::{Direct, DirectSubscription};
use crate::transport::{ChunkContent, ChunkId, Marker, Publish, Publisher};

fn schema() -> Arc<TableSchema> {
    let columns = ["id", "v"].map(|name| Column { name: name.into(), ty: ColumnType::Int64, nullable: false });
    let table = TableId::new("shop", "orders");
    Arc::new(TableSchema { table, columns: columns.into(), key: vec![0], layout: Layout::default() })
}

fn at(seq: i64) -> Order {
    Order::new(1_000, seq)
}

/// A worker on a table of the rows 1 to 4, whose load of the whole table has ended, and what will be sent to it.
struct World {
    warehouse: Warehouse,
    transport: Direct,
    desk: ChunkDesk,
    reports: mpsc::UnboundedReceiver<Report>,
    worker: Worker<DirectSubscription>,
    items: Vec<Item>,
    chunks: u64,
    _hurry: watch::Sender<bool>,
}

impl World {
    async fn new() -> Self {
        let warehouse = Warehouse::in_store(Arc::new(InMemory::new()));
        let (state, buckets) = (TableState::default(), Buckets::whole());
        let table = Table::create(&warehouse, &schema(), Writer::new("shop", 1), state, buckets).await.unwrap();
        let transport = Direct::new(64 << 20);
        let (sender, reports) = mpsc::unbounded_channel();
        let (hurry, hurried) = watch::channel(false);
        let pace =
            Pace { interval: Duration::ZERO, bytes_max: 8 << 20, hurry: hurried, pressure: transport.pressure() };
        let desk = ChunkDesk::default();
        let worker = Worker::new(table, transport.subscribe(&schema().table), desk.clone(), sender, pace);
        let (items, chunks) = (Vec::new(), 0);
        let mut world = Self { warehouse, transport, desk, reports, worker, items, chunks, _hurry: hurry };
        world.begin(1, 1, false);
        world.chunk(1, 0, 2, &[1, 2, 3, 4], &[]).await;
        world.items.push(Item::Marker(Marker::SeedEnd { plan: 1 }));
        world
    }

    fn begin(&mut self, plan: u64, start: i64, part: bool) {
        let marker = Marker::SeedBegin { plan, start: at(start), schema: schema(), reset: false, part };
        self.items.push(Item::Marker(marker));
    }

    /// A chunk that found these ids, and looked for those in vain.
    async fn chunk(&mut self, plan: u64, ordinal: u32, order0: i64, found: &[i64], absent: &[i64]) -> Fate {
        let files = self.worker.table.files();
        let mut writer = ChunkWriter::create(files, schema(), at(order0), Window(0), 1).unwrap();
        if !found.is_empty() {
            let ids = Arc::new(Int64Array::from(found.to_vec()));
            let values = Arc::new(Int64Array::from_value(order0, found.len()));
            writer
                .write(&arrow_array::RecordBatch::try_new(schema().arrow(), vec![ids, values]).unwrap())
                .await
                .unwrap();
        }
        let staged = writer.finish().await.unwrap();
        let absent = absent.iter().map(|id| RecordKey::Int(*id)).collect();
        let (outcome, fate) = tokio::sync::oneshot::channel();
        self.chunks += 1;
        let waiting = WaitingChunk { plan, ordinal, order0: at(order0), staged, absent, outcome };
        self.desk.leave(&schema().table, ChunkId(self.chunks), waiting);
        self.items.push(Item::Marker(Marker::Chunk { chunk: ChunkId(self.chunks), content: ChunkContent::Desk }));
        fate
    }

    /// Lets the worker take in all of it; the rows then, with the order of each as its value.
    async fn run(mut self) -> (BTreeMap<i64, i64>, Vec<Report>) {
        for (nth, item) in self.items.into_iter().enumerate() {
            let publish = Publish {
                number: PublishNumber(nth as u64 + 1),
                boundary: Arc::new(Boundary::default()),
                items: vec![(schema().table.clone(), item)],
                order: weir_model::OrderState::default(),
                partial_rows: BTreeMap::new(),
                standings: Vec::new(),
            };
            self.transport.publish(publish).await.unwrap();
        }
        self.transport.close();
        self.worker.run().await;
        let reports = std::iter::from_fn(|| self.reports.try_recv().ok()).collect();
        let mut rows = BTreeMap::new();
        let scan = Scan::open(&self.warehouse, &schema().table, None, None).await.unwrap();
        let take = |batch: arrow_array::RecordBatch| {
            let column = |name| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
            rows.extend(column("id").into_iter().zip(column("v")));
            Ok(())
        };
        scan.for_each(take).await.unwrap();
        (rows, reports)
    }
}

type Fate = tokio::sync::oneshot::Receiver<ChunkOutcome>;

#[tokio::test]
async fn a_part_takes_out_what_it_looked_for_and_leaves_what_it_did_not() {
    let mut world = World::new().await;
    world.begin(2, 10, true);
    let first = world.chunk(2, 0, 11, &[1], &[]).await;
    let second = world.chunk(2, UNPLANNED, 12, &[2], &[3, 99]).await;
    world.items.push(Item::Marker(Marker::SeedEnd { plan: 2 }));
    let (rows, reports) = world.run().await;
    assert_eq!(rows, BTreeMap::from([(1, 11), (2, 12), (4, 2)]));
    assert_eq!((first.await, second.await), (Ok(ChunkOutcome::Merged), Ok(ChunkOutcome::Merged)));
    assert!(matches!(reports.last(), Some(Report::SeedEnded { plan: 2, .. })), "{reports:?}");
}

#[tokio::test]
async fn the_late_end_of_another_load_ends_nothing() {
    let mut world = World::new().await;
    world.begin(2, 10, true);
    world.begin(3, 20, false);
    // The job of the part was cancelled meanwhile.
    world.items.push(Item::Marker(Marker::SeedEnd { plan: 2 }));
    let merged = world.chunk(3, 0, 21, &[1, 2, 3], &[]).await;
    world.items.push(Item::Marker(Marker::SeedEnd { plan: 3 }));
    let (rows, _) = world.run().await;
    assert_eq!(rows, BTreeMap::from([(1, 21), (2, 21), (3, 21)]));
    assert_eq!(merged.await, Ok(ChunkOutcome::Merged));
}

#[tokio::test]
async fn a_chunk_of_a_part_that_was_given_up_is_refused() {
    let mut world = World::new().await;
    world.begin(2, 10, true);
    world.items.push(Item::Marker(Marker::SeedEnd { plan: 2 }));
    let refused = world.chunk(2, 0, 11, &[1], &[4]).await;
    let (rows, _) = world.run().await;
    assert_eq!(rows, BTreeMap::from([(1, 2), (2, 2), (3, 2), (4, 2)]));
    assert_eq!(refused.await, Ok(ChunkOutcome::Refused));
}

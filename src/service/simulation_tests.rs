//! The way of changes from the binlog's events into tables, simulated: capture, workers and the table engine as they are, over a
//! store in memory whose client dies at any request, with a source and a clock that follow from a seed. The same seed prints
//! the same log.
//!
//! `WEIR_SIMULATIONS=10000 WEIR_SIMULATION_SEED=1` before `cargo test … simulat` runs more of them than `make test` does.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weir_model::{Column, ColumnType, Gtid, GtidSet, Layout, LogPosition, RowRules, TableId, TableSchema, ZeroDates};

use crate::apply::chunks::ChunkDesk;
use crate::apply::{Pace, Worker, WorkerError};
use crate::binlog::table_map::{MapColumn, Signs, WireType, Writer as MapWriter};
use crate::binlog::{EventBody, RowsImage, RowsKind, SourceEvent, TableMap, TransactionHead};
use crate::capture::lane::{LaneKey, LaneStart};
use crate::capture::request::{Catalogued, Described, RegisterError, Registrar, Registration};
use crate::capture::xa::Prepared;
use crate::capture::{Capture, CaptureStart, ReadAhead, Settings};
use crate::state::PreparedStore;
use crate::table::mortal::{Last, MortalStore};
use crate::table::{Buckets, Scan, Table, TableState, Warehouse, Writer, history};
use crate::trace::Hop;
use crate::transport::{Boundary, Delivery, Publish, PublishError, Publisher, Subscription};

const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const TABLES: [&str; 2] = ["orders", "items"];
/// Few, so that changes meet.
const KEYS: u64 = 12;
/// Requests that an incarnation makes, and some more: it dies in one of them, or in none.
const REQUESTS: u64 = 60;
/// Runs in `make test`.
const RUNS: u64 = 60;

/// Numbers that follow from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

fn id(table: &str) -> TableId {
    TableId::new("shop", table)
}

fn schema(table: &str) -> TableSchema {
    let column = |name: &str, nullable| Column { name: name.into(), ty: ColumnType::Int64, nullable };
    TableSchema {
        table: id(table),
        columns: vec![column("id", false), column("v", true)],
        key: vec![0],
        layout: Layout::default(),
    }
}

fn map(table: &str) -> Arc<TableMap> {
    let column = |name: &str, nullable| MapColumn {
        wire: WireType::LongLong,
        nullable,
        unsigned: false,
        name: Some(name.into()),
        collation: None,
        members: Vec::new(),
        geometry_type: None,
        dimensions: None,
        visible: true,
    };
    Arc::new(TableMap {
        table_id: 1,
        database: "shop".into(),
        table: table.into(),
        columns: vec![column("id", false), column("v", true)],
        primary_key: vec![0],
        signs: Signs::Told,
        writer: MapWriter::Mysql,
    })
}

/// A row image of both columns.
fn image((key, value): (i64, i64)) -> Vec<u8> {
    [&[0][..], &key.to_le_bytes(), &value.to_le_bytes()].concat()
}

/// A source: what it holds, and its log.
struct Source {
    rows: [BTreeMap<i64, i64>; 2],
    maps: [Arc<TableMap>; 2],
    transactions: Vec<Vec<SourceEvent>>,
    /// Half-events of the log, by table.
    half_events: [u64; 2],
    clock_us: u64,
}

impl Source {
    fn new() -> Self {
        Self {
            rows: Default::default(),
            maps: TABLES.map(map),
            transactions: Vec::new(),
            half_events: [0; 2],
            clock_us: 1_700_000_000_000_000,
        }
    }

    /// One more transaction, of a few changes; its clock goes on, now and then back.
    fn commit(&mut self, random: &mut Random) {
        let number = self.transactions.len() as u64 + 1;
        let steps_us = [0, 1_000, 700_000, 61_000_000];
        self.clock_us += steps_us[random.below(4) as usize];
        let back_us = if random.below(8) == 0 { 90_000_000 } else { 0 };
        let at_us = self.clock_us - back_us;
        let head = TransactionHead {
            gtid: Gtid::new(UUID, "", number),
            original_commit_us: at_us,
            immediate_commit_us: at_us,
            checksum: None,
        };
        let mut bodies = vec![EventBody::Begin(head)];
        for _ in 0..=random.below(4) {
            bodies.push(self.change(random));
        }
        bodies.push(EventBody::Commit);
        let end = LogPosition { file: "binlog.000001".into(), offset: number * 1_000 };
        self.transactions.push(bodies.into_iter().map(|body| SourceEvent { end: end.clone(), body }).collect());
    }

    fn change(&mut self, random: &mut Random) -> EventBody {
        let table = random.below(2) as usize;
        let rows = &mut self.rows[table];
        let (key, other, value) = (random.below(KEYS) as i64, random.below(KEYS) as i64, random.below(1_000) as i64);
        let (kind, bytes, halves) = match rows.get(&key).copied() {
            None => {
                rows.insert(key, value);
                (RowsKind::Insert, image((key, value)), 1)
            }
            Some(before) if random.below(3) == 0 => {
                rows.remove(&key);
                (RowsKind::Delete, image((key, before)), 1)
            }
            Some(before) if key != other && !rows.contains_key(&other) && random.below(2) == 0 => {
                rows.remove(&key);
                rows.insert(other, value);
                (RowsKind::Update, [image((key, before)), image((other, value))].concat(), 2)
            }
            Some(before) => {
                rows.insert(key, value);
                (RowsKind::Update, [image((key, before)), image((key, value))].concat(), 1)
            }
        };
        self.half_events[table] += halves;
        let present = Bytes::from_static(&[0b11]);
        EventBody::Rows(RowsImage {
            map: self.maps[table].clone(),
            kind,
            present: present.clone(),
            present_after: if kind == RowsKind::Update { present } else { Bytes::new() },
            has_differences: false,
            rows: bytes.into(),
            described: Bytes::new(),
        })
    }
}

/// The transport: what is published lies here until the workers have their turn.
#[derive(Clone, Default)]
struct Queue(Arc<Mutex<Vec<Publish>>>);

impl Publisher for Queue {
    async fn publish(&mut self, publish: Publish) -> Result<(), PublishError> {
        self.0.lock().unwrap().push(publish);
        Ok(())
    }
}

impl Queue {
    /// What each table receives.
    fn deliveries(&self) -> BTreeMap<TableId, Sent> {
        let mut sent: BTreeMap<TableId, Sent> = TABLES.iter().map(|table| (id(table), Sent::default())).collect();
        for Publish { number, boundary, items, .. } in self.0.lock().unwrap().drain(..) {
            let mut left: BTreeMap<TableId, usize> = BTreeMap::new();
            items.iter().for_each(|(table, _)| *left.entry(table.clone()).or_default() += 1);
            for (table, item) in items {
                let left = left.get_mut(&table).unwrap();
                *left -= 1;
                let (boundary, last) = (boundary.clone(), *left == 0);
                let delivery = Delivery { number, boundary, item, last, share: None, hold: None };
                sent.get_mut(&table).unwrap().0.push_back(delivery);
            }
        }
        sent
    }
}

#[derive(Default)]
struct Sent(VecDeque<Delivery>);

impl Subscription for Sent {
    async fn next(&mut self) -> Option<Delivery> {
        self.0.pop_front()
    }
}

/// Every table has its lane from the start, so nothing is asked.
struct Nobody;

impl Registrar for Nobody {
    async fn register(&self, _: &TableId, _: &GtidSet) -> Result<Registration, RegisterError> {
        Ok(Registration::Gone)
    }

    async fn wait_until_visible(&self, _: &Gtid, _: &[TableId]) -> Result<(), RegisterError> {
        Ok(())
    }

    async fn catalogued(&self, _: &TableId) -> Result<Result<Option<Catalogued>, String>, RegisterError> {
        Ok(Ok(None))
    }

    async fn describe(&self, _: &TableId) -> Result<Described, RegisterError> {
        Ok(Described::Gone)
    }
}

/// A worker that has received its changes and sleeps.
struct Asleep {
    table: Table,
    sent: Sent,
}

/// One run: the source, the lake, and what is durable beside it.
struct World {
    random: Random,
    source: Source,
    store: Arc<InMemory>,
    /// The checkpoint's set; that it is written late, or not at all, costs reading again.
    checkpoint: GtidSet,
    epoch: u64,
    /// Of an earlier incarnation, which its system has stopped.
    asleep: Vec<Asleep>,
    log: String,
}

impl World {
    async fn new(seed: u64) -> Self {
        let store = Arc::new(InMemory::new());
        let warehouse = Warehouse::in_store(store.clone());
        for table in TABLES {
            let (writer, buckets) = (Writer::new("shop", 0), Buckets::whole());
            Table::create(&warehouse, &schema(table), writer, TableState::default(), buckets).await.unwrap();
        }
        Self {
            random: Random(seed),
            source: Source::new(),
            store,
            checkpoint: GtidSet::default(),
            epoch: 0,
            asleep: Vec::new(),
            log: String::new(),
        }
    }

    /// An incarnation that dies somewhere, or not.
    async fn incarnation(&mut self, dies: Option<(usize, Last)>) -> bool {
        let client = MortalStore::over(self.store.clone());
        if let Some((left, last)) = dies {
            client.expose(left, last);
        }
        let warehouse = Warehouse::in_store(Arc::new(client.clone()));
        let ended = client.outlives(self.live(&warehouse)).await;
        let epoch = self.epoch;
        let how = match ended {
            None => "was killed".to_owned(),
            Some(Ok(())) => format!("came to {}", self.checkpoint),
            Some(Err(why)) => why,
        };
        writeln!(self.log, "incarnation {epoch} {how}").unwrap();
        how.starts_with("came")
    }

    /// What a service does: opens the tables, reads from the checkpoint on, and lets the workers take it in.
    async fn live(&mut self, warehouse: &Warehouse) -> Result<(), String> {
        self.epoch += 1;
        let mut tables = BTreeMap::new();
        // A worker that will be stopped asks its own store: it is another process by the time that it wakes.
        let sleeper = (self.random.below(5) == 0).then(|| TABLES[self.random.below(2) as usize]);
        let of_sleeper = Warehouse::in_store(self.store.clone());
        for table in TABLES {
            let warehouse = if sleeper == Some(table) { &of_sleeper } else { warehouse };
            let (writer, buckets) = (Writer::new("shop", self.epoch), Buckets::whole());
            tables.insert(id(table), Table::open(warehouse, &id(table), writer, buckets).await.unwrap().unwrap());
        }
        let (queue, boundary) = self.capture(warehouse, &tables).await;
        let mut sent = queue.deliveries();
        // One that was asleep wakes in the midst of it.
        for Asleep { table, sent } in std::mem::take(&mut self.asleep) {
            let outcome = work(table, sent, 0).await;
            writeln!(self.log, "one that was asleep: {}", outcome.unwrap_or_else(|why| why)).unwrap();
        }
        for (table_id, table) in tables {
            let sent = sent.remove(&table_id).unwrap();
            if sleeper.is_some_and(|sleeper| *table_id.table == *sleeper) {
                self.asleep.push(Asleep { table, sent });
                return Err("was stopped".into());
            }
            let bytes_max = [0, 60, 400, 1 << 20][self.random.below(4) as usize];
            let done = work(table, sent, bytes_max).await?;
            writeln!(self.log, "{table_id} {done}").unwrap();
        }
        if self.random.below(4) > 0 {
            self.checkpoint = boundary;
        }
        Ok(())
    }

    /// Reads some transactions, each of which is a publish; gives them, and the set behind them.
    async fn capture(&self, warehouse: &Warehouse, tables: &BTreeMap<TableId, Table>) -> (Queue, GtidSet) {
        let settings = Settings {
            source: "shop".into(),
            filter: Arc::new(|_| true),
            transaction_bytes_max: 1 << 20,
            follow_truncate: true,
            seeds: false,
            shares_order: false,
        };
        let begun = Boundary { gtid_set: self.checkpoint.clone(), ..Boundary::default() };
        let prepared = PreparedStore::new(warehouse.store().clone(), Path::from("_weir/shop"));
        let prepared = Prepared::open(prepared, &begun.gtid_set, 0).await.unwrap();
        let (queue, (told, _hears)) = (Queue::default(), mpsc::unbounded_channel());
        let start = CaptureStart { boundary: begun, ..CaptureStart::default() };
        let mut capture = Capture::new(settings, queue.clone(), Arc::new(Nobody), told, start, prepared);
        for (id, table) in tables {
            let state = table.state();
            capture.add_lane(
                id.clone(),
                LaneStart {
                    gtid_set: state.gtid_set.clone(),
                    partial: None,
                    order: state.order,
                    key: LaneKey { columns: table.schema().key_columns(), is_primary: true },
                    zero_dates: ZeroDates::Null,
                    rules: RowRules::default(),
                    catalogued: None,
                    awaits_load: false,
                },
            );
        }
        capture.reconnected(UUID, None);
        let (_asks, mut requests) = mpsc::channel(1);
        let first = self.checkpoint.count().unwrap() as usize;
        for transaction in &self.source.transactions[first..] {
            let (sender, mut events) = mpsc::channel(transaction.len());
            for event in transaction {
                sender.send(Ok(ReadAhead { event: event.clone(), hold: None })).await.unwrap();
            }
            drop(sender);
            capture.run(&mut events, &mut requests, &CancellationToken::new()).await.unwrap();
        }
        (queue, capture.published().gtid_set.clone())
    }

    /// Every table holds what the source holds, and every change was counted once at every hop.
    async fn check(&self) {
        let warehouse = Warehouse::in_store(self.store.clone());
        for (table, (rows, half_events)) in TABLES.iter().zip(self.source.rows.iter().zip(self.source.half_events)) {
            let (mut found, mut doubled) = (BTreeMap::new(), 0);
            let scan = Scan::open(&warehouse, &id(table), None, None).await.unwrap();
            let each = scan.for_each(|batch| {
                let longs = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
                for (key, value) in longs("id").values().iter().zip(longs("v").values()) {
                    doubled += usize::from(found.insert(*key, *value).is_some());
                }
                Ok(())
            });
            each.await.unwrap();
            assert_eq!((&found, doubled), (rows, 0), "{table}\n{}", self.log);
            let mut hops: BTreeMap<Hop, u64> = BTreeMap::new();
            for commit in history::commits_since(&warehouse, &id(table), None).await.unwrap() {
                for count in commit.record.into_iter().flat_map(|record| record.accounts) {
                    *hops.entry(count.hop).or_default() += count.count;
                }
            }
            let of = |hop| hops.get(&hop).copied().unwrap_or(0);
            let taken = of(Hop::Upserted) + of(Hop::Deleted) + of(Hop::Superseded);
            let counted = [of(Hop::Captured), of(Hop::Published), of(Hop::Consumed), taken];
            assert_eq!(
                (counted, of(Hop::Duplicate), of(Hop::Stale)),
                ([half_events; 4], 0, 0),
                "{table}\n{}",
                self.log
            );
        }
    }
}

/// Lets a worker take in what it was sent; says how far it came, or why it came to nothing.
async fn work(table: Table, sent: Sent, bytes_max: usize) -> Result<String, String> {
    let ((reports, _inbox), (_hurry, hurry), (_pressure, pressure)) =
        (mpsc::unbounded_channel(), watch::channel(false), watch::channel(false));
    let pace = Pace { interval: Duration::from_secs(3_600), bytes_max, hurry, pressure };
    match Worker::new(table, sent, ChunkDesk::default(), reports, pace).run_to_end().await {
        Ok(table) => Ok(format!("at version {}", table.version())),
        Err(WorkerError::Moved) => Err("found that somebody else had written".into()),
        Err(WorkerError::Fenced { epoch }) => Err(format!("is fenced off by {epoch}")),
        Err(error) => panic!("{error}"),
    }
}

/// One run, to its log.
async fn run(seed: u64) -> String {
    /// Says which run it was that failed.
    struct Told(u64);
    impl Drop for Told {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the simulation of seed {} failed", self.0);
            }
        }
    }
    let _told = Told(seed);
    let mut world = World::new(seed).await;
    for _ in 0..8 {
        for _ in 0..world.random.below(6) {
            world.source.commit(&mut world.random);
        }
        let last = if world.random.below(2) == 0 { Last::NotDone } else { Last::Done };
        let left = world.random.below(REQUESTS) as usize;
        world.incarnation(Some((left, last))).await;
    }
    // Whoever slept has woken by then, or wakes now.
    let mut tries = 0;
    while !world.incarnation(None).await || !world.asleep.is_empty() {
        tries += 1;
        assert!(tries < 50, "stuck\n{}", world.log);
    }
    world.check().await;
    world.log
}

#[tokio::test]
async fn simulated_runs_lose_and_double_nothing() {
    let number =
        |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect("a whole number"));
    let (first, runs) = (number("WEIR_SIMULATION_SEED", 1), number("WEIR_SIMULATIONS", RUNS));
    eprintln!("{runs} simulated runs from seed {first} on");
    let (mut killed, mut slept) = (0, 0);
    for seed in first..first + runs {
        let log = run(seed).await;
        killed += log.matches("was killed").count();
        slept += log.matches("one that was asleep").count();
    }
    eprintln!("{killed} incarnations were killed, {slept} workers woke behind another's back");
    assert!(killed as u64 > runs && slept > 0, "nothing went wrong in them");
}

#[tokio::test]
async fn the_same_seed_prints_the_same_log_twice() {
    for seed in 1..8 {
        assert_eq!(run(seed).await, run(seed).await, "seed {seed}");
    }
}

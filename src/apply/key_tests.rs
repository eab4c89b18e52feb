//! A worker of a shared table that meets rows by another record key, and the load that makes up for it.

use std::collections::{BTreeSet, VecDeque};

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use object_store::memory::InMemory;
use weir_model::{Column, ColumnType, EventId, Images, Layout, Op, TableSchema, Window};

use super::*;
use crate::state::{AppealKind, Appeals};
use crate::table::{BucketShare, Buckets, TableState, Warehouse, Writer};
use crate::trace::Tally;
use crate::transport::{Changes, Marker, Share};

const BUCKETS: u32 = 2;

/// What a table is sent, one after another.
struct Sent(VecDeque<Delivery>);

impl Subscription for Sent {
    async fn next(&mut self) -> Option<Delivery> {
        self.0.pop_front()
    }
}

/// Columns `a` and `b`, of which the one at `key` tells rows apart.
fn schema(key: usize) -> Arc<TableSchema> {
    let columns = ["a", "b"].map(|name| Column { name: name.into(), ty: ColumnType::Int64, nullable: false });
    let table = TableId::new("shop", "orders");
    Arc::new(TableSchema { table, columns: columns.into(), key: vec![key], layout: Layout::default() })
}

fn row_by_other_key() -> Item {
    let schema = schema(1);
    let column = || Arc::new(Int64Array::from(vec![7])) as ArrayRef;
    let batch = ChangeBatch {
        rows: RecordBatch::try_new(schema.arrow(), vec![column(), column()]).unwrap(),
        images: Images::default(),
        ops: vec![Op::Create],
        orders: vec![Order::new(1, 1)],
        ids: vec![EventId(1)],
        windows: vec![Window(0)],
        schema,
    };
    Item::Changes(Changes { batch, sent: Tally::default(), partial_rows: 0 })
}

fn begin() -> Item {
    let (start, schema) = (Order::new(1, 2), schema(1));
    Item::Marker(Marker::SeedBegin { plan: 1, start, schema, reset: false, part: false })
}

/// A worker of `owned` buckets is sent, in one publish, a row by another key, and in the next the beginning of a load; gives the
/// columns of the key that the table has then, and what was asked of capture.
async fn meets_other_key(owned: &[u32]) -> (Vec<String>, Vec<AppealKind>) {
    let warehouse = Warehouse::in_store(Arc::new(InMemory::new()));
    let (writer, buckets) =
        (Writer::new("shop", 1), Buckets { count: BUCKETS, owned: owned.iter().copied().collect() });
    let all = Buckets { count: BUCKETS, owned: BTreeSet::from([0, 1]) };
    let state = TableState { shares: vec![BucketShare::default(); BUCKETS as usize], ..TableState::default() };
    Table::create(&warehouse, &schema(0), writer.clone(), state, all).await.unwrap();
    let table = Table::open(&warehouse, &schema(0).table, writer.clone(), buckets).await.unwrap().unwrap();

    let mut sent = VecDeque::new();
    for (number, item) in [(1, row_by_other_key as fn() -> Item), (2, begin)] {
        for bucket in owned {
            let share = Share {
                bucket: *bucket,
                topic: "t".into(),
                offset: number as i64,
                publish: Some(PublishNumber(number)),
            };
            let (last, boundary) = (owned.last() == Some(bucket), Arc::new(Boundary::default()));
            let number = PublishNumber(number);
            sent.push_back(Delivery { number, boundary, item: item(), last, share: Some(share), hold: None });
        }
    }
    let (reports, _inbox) = mpsc::unbounded_channel();
    let (hurry, pressure) = (watch::channel(false).1, watch::channel(false).1);
    let pace = Pace { interval: Duration::from_secs(3_600), bytes_max: 8 << 20, hurry, pressure };
    let appeals = Appeals::new(warehouse.store().clone(), warehouse.state_path("shop"));
    let shared = SharedTable { warehouse: warehouse.clone(), writer: writer.clone(), appeals: appeals.clone() };
    let mut worker = Worker::new(table, Sent(sent), ChunkDesk::default(), reports, pace).shared(shared);
    // As if one commit had just been made: what comes waits for the next.
    worker.last_commit = Some(Instant::now());
    worker.run().await;

    let owned = Buckets { count: BUCKETS, owned: BTreeSet::from([0, 1]) };
    let table = Table::open(&warehouse, &schema(0).table, writer, owned).await.unwrap().unwrap();
    let key = table.schema().key_names().into_iter().map(str::to_owned).collect();
    (key, appeals.list().await.unwrap().into_iter().map(|appeal| appeal.kind).collect())
}

#[tokio::test]
async fn a_load_that_comes_while_rows_by_another_key_wait_for_a_commit_makes_up_for_them() {
    let (key, asked) = meets_other_key(&[0, 1]).await;
    assert_eq!(key, ["b"]);
    assert_eq!(asked, [], "nobody is told of a stop that was made up for");
}

#[tokio::test]
async fn who_does_not_own_all_buckets_stops_and_asks_for_no_other_load() {
    let (key, asked) = meets_other_key(&[0]).await;
    assert_eq!(key, ["a"]);
    let [AppealKind::Stopped { error, other_key: false, .. }] = &asked[..] else { panic!("{asked:?}") };
    assert!(error.contains("owns all of its buckets") && error.contains("weir snapshot --table"), "{error}");
}

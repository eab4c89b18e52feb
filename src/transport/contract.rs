//! What every transport must do, run against each of them.
//!
//! A test hands over an empty transport: a publisher, and the subscriptions of two tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use weir_model::change::Stamp;
use weir_model::{
    ChangeBatch, ChangeBuilder, Column, ColumnType, EventId, Half, Op, Order, OrderState, RecordKeys, TableId,
    TableSchema, Window, ZeroDates,
};

use super::{
    Boundary, Changes, ChunkContent, ChunkId, Delivery, Item, Marker, Publish, PublishNumber, Publisher, Subscription,
};
use crate::trace::{Hop, Tally};

/// The two tables whose subscriptions are handed over.
pub fn tables() -> [TableId; 2] {
    [TableId::new("shop", "orders"), TableId::new("shop", "odd na.me")]
}

/// Columns of `table`; its key is `id`.
pub fn schema(table: &TableId) -> Arc<TableSchema> {
    let column = |name: &str, ty| Column { name: name.into(), ty, nullable: true };
    let columns = vec![column("id", ColumnType::Int64), column("v", ColumnType::Binary)];
    Arc::new(TableSchema { table: table.clone(), columns, key: vec![0], layout: weir_model::Layout::default() })
}

/// Runs the whole contract.
///
/// # Panics
/// When it is broken.
pub async fn upheld_by<P: Publisher, S: Subscription>(mut publisher: P, mut first: S, mut second: S) {
    let [orders, odd] = tables();
    let mut sent: BTreeMap<TableId, Vec<ChangeBatch>> = BTreeMap::new();
    let mut number = PublishNumber(0);

    // Publishes of one table or of both, of one batch or of several.
    for round in 0..6_i64 {
        let mut items = Vec::new();
        for table in tables().iter().take(1 + round as usize % 2) {
            for part in 0..=(round % 3) {
                let changes = batch(table, round * 10_000 + part * 1_000, 40);
                sent.entry(table.clone()).or_default().push(changes.batch.clone());
                items.push((table.clone(), Item::Changes(changes)));
            }
        }
        number = publish(&mut publisher, number, items, None).await;
    }
    let received =
        [receive(&mut first, changes_in(&sent[&orders])).await, receive(&mut second, changes_in(&sent[&odd])).await];
    for (table, received) in tables().iter().zip(&received) {
        every_change_arrives_once_as_it_was(&sent[table], received);
        orders_of_a_key_rise(received);
        publishes_come_in_order_and_end(received);
    }

    a_marker_comes_behind_what_was_before_it(&mut publisher, &mut first, number).await;
    a_partial_transaction_is_told(&mut publisher, &mut first).await;
}

async fn a_marker_comes_behind_what_was_before_it<P: Publisher, S: Subscription>(
    publisher: &mut P,
    subscription: &mut S,
    before: PublishNumber,
) {
    let [orders, _] = tables();
    let schema = schema(&orders);
    let markers = [
        Marker::Schema(schema.clone()),
        Marker::ColumnsDropped { at: Order::new(9, 89_999), names: vec!["gone".into()] },
        Marker::SeedBegin { plan: 3, start: Order::new(9, 90_000), schema, reset: true, part: true },
        Marker::Chunk {
            chunk: ChunkId(u64::MAX),
            content: ChunkContent::Files(Arc::new(serde_json::json!({"a": [1, "b"]}))),
        },
        Marker::SeedEnd { plan: 3 },
        Marker::Clear { at: Order::new(9, 90_001) },
    ];
    let mut number = before;
    for (n, marker) in markers.iter().enumerate() {
        let changes = batch(&orders, 100_000 + n as i64 * 1_000, 5);
        number = publish(publisher, number, vec![(orders.clone(), Item::Changes(changes))], None).await;
        number = publish(publisher, number, vec![(orders.clone(), Item::Marker(marker.clone()))], None).await;
    }
    for marker in &markers {
        let changes = receive(subscription, 5).await;
        assert!(changes.iter().all(|delivery| matches!(delivery.item, Item::Changes(_))), "{marker:?} came too early");
        // A table of several buckets gets a copy for each, in one publish.
        loop {
            let delivery = next(subscription).await;
            assert!(matches!(&delivery.item, Item::Marker(found) if found == marker), "{marker:?}");
            if delivery.last {
                break;
            }
        }
    }
}

async fn a_partial_transaction_is_told<P: Publisher, S: Subscription>(publisher: &mut P, subscription: &mut S) {
    let [orders, _] = tables();
    let gtid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:7";
    let number = PublishNumber(1_000);
    let changes = batch(&orders, 200_000, 3);
    let number = publish(publisher, number, vec![(orders.clone(), Item::Changes(changes))], Some(gtid)).await;
    publish(publisher, number, vec![(orders, Item::TransactionEnd)], None).await;
    for delivery in receive(subscription, 3).await {
        assert_eq!(delivery.boundary.partial, Some(gtid.parse().unwrap()));
    }
    let end = next(subscription).await;
    assert!(matches!(end.item, Item::TransactionEnd), "{end:?}");
    assert_eq!(end.boundary.partial, None);
}

fn every_change_arrives_once_as_it_was(sent: &[ChangeBatch], received: &[Delivery]) {
    assert_eq!(rows_by_order(&batches(received)), rows_by_order(&sent.iter().collect::<Vec<_>>()));
    for batch in batches(received) {
        assert_eq!(batch.schema, sent[0].schema);
    }
}

fn orders_of_a_key_rise(received: &[Delivery]) {
    let mut last: BTreeMap<i64, Order> = BTreeMap::new();
    for batch in batches(received) {
        let RecordKeys::Int(keys) = RecordKeys::of(&batch.rows, &["id"]).unwrap() else { panic!("integer keys") };
        for (key, order) in keys.into_iter().zip(&batch.orders) {
            assert!(last.insert(key, *order).is_none_or(|before| before < *order), "key {key} at {order}");
        }
    }
}

fn publishes_come_in_order_and_end(received: &[Delivery]) {
    let numbers: Vec<PublishNumber> = received.iter().map(|delivery| delivery.number).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    for pair in received.windows(2) {
        assert_eq!(pair[0].last, pair[0].number != pair[1].number, "only a publish's last item is its last");
    }
    assert!(received.last().is_none_or(|delivery| delivery.last));
}

/// `(ts_ms, seq)`, operation, id, window and value of every row, by order.
type Rows = BTreeMap<Order, (Op, EventId, Window, Vec<u8>)>;

fn rows_by_order(batches: &[&ChangeBatch]) -> Rows {
    use arrow_array::cast::AsArray;
    let mut rows = Rows::new();
    for batch in batches {
        let values = batch.rows.column(1).as_binary::<i32>();
        for row in 0..batch.len() {
            let entry = (batch.ops[row], batch.ids[row], batch.windows[row], values.value(row).to_vec());
            assert_eq!(rows.insert(batch.orders[row], entry), None, "{} came twice", batch.orders[row]);
        }
    }
    rows
}

fn batches(received: &[Delivery]) -> Vec<&ChangeBatch> {
    received
        .iter()
        .filter_map(|delivery| match &delivery.item {
            Item::Changes(changes) => Some(&changes.batch),
            _ => None,
        })
        .collect()
}

fn changes_in(batches: &[ChangeBatch]) -> usize {
    batches.iter().map(ChangeBatch::len).sum()
}

/// Deliveries until `changes` changes have come, and the publish of the last is whole.
async fn receive(subscription: &mut impl Subscription, changes: usize) -> Vec<Delivery> {
    let (mut deliveries, mut seen) = (Vec::new(), 0);
    while seen < changes {
        let delivery = next(subscription).await;
        if let Item::Changes(received) = &delivery.item {
            seen += received.batch.len();
        }
        deliveries.push(delivery);
    }
    deliveries
}

async fn next(subscription: &mut impl Subscription) -> Delivery {
    let next = tokio::time::timeout(Duration::from_secs(30), subscription.next()).await;
    next.expect("what was published arrives").expect("the transport is open")
}

async fn publish(
    publisher: &mut impl Publisher,
    before: PublishNumber,
    items: Vec<(TableId, Item)>,
    partial: Option<&str>,
) -> PublishNumber {
    let number = PublishNumber(before.0 + 1);
    let gtid_set = format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-{}", number.0).parse().unwrap();
    let boundary = Boundary { gtid_set, partial: partial.map(|gtid| gtid.parse().unwrap()), ..Boundary::default() };
    let order = OrderState(Order::new(10, 1_000_000 + number.0 as i64));
    let sent_in_part = |(table, _): &(TableId, Item)| (table.clone(), 1);
    let partial_rows = partial.map(|_| items.iter().map(sent_in_part).collect()).unwrap_or_default();
    let standings = Vec::new();
    let publish = Publish { number, boundary: Arc::new(boundary), items, order, partial_rows, standings };
    publisher.publish(publish).await.expect("an open transport takes it");
    number
}

/// `count` changes of a few keys, with orders from `from` on.
fn batch(table: &TableId, from: i64, count: i64) -> Changes {
    let mut builder = ChangeBuilder::new(schema(table), ZeroDates::Null);
    for n in 0..count {
        builder.columns_mut()[0].push_int(n % 7).unwrap();
        builder.columns_mut()[1].push_binary(&(from + n).to_be_bytes()).unwrap();
        builder.end_row(Op::STREAM[n as usize % 3], Half::First);
    }
    let (mut seq, mut sent) = (from, Tally::default());
    builder.stamp(|op, _| {
        seq += 1;
        let stamp =
            Stamp { order: Order::new(5, seq), id: EventId(seq as u128 * 31), window: Window(seq / 9 * 60_000) };
        sent.event(Hop::Captured, op, stamp.window, stamp.id);
        sent.event(Hop::Published, op, stamp.window, stamp.id);
        stamp
    });
    Changes { batch: builder.finish(), sent, partial_rows: 1 }
}

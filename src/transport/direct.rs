//! The transport within one process: a channel a table, bounded by the bytes under way.
//!
//! Durable is only the binlog: a table's commits say how far it is, and a restart reads again from the checkpoint.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};
use weir_model::TableId;

use super::memory::{Memory, bytes_of};
use super::{Delivery, Publish, PublishError, Publisher, Subscription};
use crate::limits::PUBLISHES_IN_FLIGHT_MAX;

/// Connects one publisher with the subscriptions of many tables, which may join and leave.
#[derive(Debug, Clone)]
pub struct Direct {
    inboxes: Arc<Mutex<HashMap<TableId, mpsc::Sender<Delivery>>>>,
    memory: Memory,
}

impl Direct {
    /// A transport whose undelivered and unreleased items stay within `memory_bytes`.
    pub fn new(memory_bytes: usize) -> Self {
        Self { inboxes: Arc::default(), memory: Memory::new(memory_bytes) }
    }

    /// The receiving end for `table`; a later one for the same table replaces it.
    pub fn subscribe(&self, table: &TableId) -> DirectSubscription {
        let (sender, inbox) = mpsc::channel(PUBLISHES_IN_FLIGHT_MAX);
        self.lock().insert(table.clone(), sender);
        DirectSubscription { inbox }
    }

    /// The memory that its undelivered and unreleased items share.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// True while the publisher waits for memory: whoever holds some should let it go.
    pub fn pressure(&self) -> watch::Receiver<bool> {
        self.memory.pressure()
    }

    /// Items for `table` are dropped from here on.
    pub fn unsubscribe(&self, table: &TableId) {
        self.lock().remove(table);
    }

    /// Closes every inbox: subscriptions end after what they have been sent.
    pub fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TableId, mpsc::Sender<Delivery>>> {
        self.inboxes.lock().expect("no code panics while holding the inboxes")
    }
}

impl Publisher for Direct {
    /// Waits for the memory of all of the publish at once: a table that has received a part of one cannot commit, so it
    /// must never hold what the rest waits for.
    async fn publish(&mut self, publish: Publish) -> Result<(), PublishError> {
        let mut hold = self.memory.hold(publish.items.iter().map(|(_, item)| bytes_of(item)).sum()).await;
        let mut left: HashMap<TableId, usize> = HashMap::new();
        for (table, _) in &publish.items {
            *left.entry(table.clone()).or_default() += 1;
        }
        for (table, item) in publish.items {
            let left = left.get_mut(&table).expect("counted above");
            *left -= 1;
            let last = *left == 0;
            let hold = Memory::share(&mut hold, bytes_of(&item));
            let Some(inbox) = self.lock().get(&table).cloned() else { continue };
            let delivery =
                Delivery { number: publish.number, boundary: publish.boundary.clone(), item, last, share: None, hold };
            // A table that stopped has dropped its inbox; the others go on.
            let _ = inbox.send(delivery).await;
        }
        Ok(())
    }
}

/// The receiving end of one table.
#[derive(Debug)]
pub struct DirectSubscription {
    inbox: mpsc::Receiver<Delivery>,
}

impl Subscription for DirectSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        self.inbox.recv().await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use weir_model::{ChangeBuilder, Column, ColumnType, Half, Op, Order, OrderState, TableSchema, Window, ZeroDates};

    use super::*;
    use crate::trace::Tally;
    use crate::transport::{Boundary, Changes, Item, PublishNumber};

    fn item(table: &TableId, bytes: usize) -> (TableId, Item) {
        let columns = vec![Column { name: "v".into(), ty: ColumnType::Binary, nullable: true }];
        let schema = Arc::new(TableSchema {
            table: table.clone(),
            columns,
            key: vec![0],
            layout: weir_model::Layout::default(),
        });
        let mut builder = ChangeBuilder::new(schema, ZeroDates::Null);
        builder.columns_mut()[0].push_binary(&vec![0; bytes]).unwrap();
        builder.end_row(Op::Create, Half::First);
        builder.stamp(|_, _| weir_model::change::Stamp {
            order: Order::new(1, 1),
            id: weir_model::EventId(1),
            window: Window(0),
        });
        (table.clone(), Item::Changes(Changes { batch: builder.finish(), sent: Tally::default(), partial_rows: 0 }))
    }

    fn publish(number: u64, items: Vec<(TableId, Item)>) -> Publish {
        Publish {
            number: PublishNumber(number),
            boundary: Arc::new(Boundary::default()),
            items,
            order: OrderState::default(),
            partial_rows: BTreeMap::new(),
            standings: Vec::new(),
        }
    }

    #[tokio::test]
    async fn the_contract_is_upheld() {
        use crate::transport::contract;
        let direct = Direct::new(64 << 20);
        let [first, second] = contract::tables().map(|table| direct.subscribe(&table));
        contract::upheld_by(direct, first, second).await;
    }

    #[tokio::test]
    async fn a_publish_waits_as_a_whole_until_memory_is_let_go() {
        let table = TableId::new("shop", "orders");
        let mut direct = Direct::new(1 << 20);
        let mut subscription = direct.subscribe(&table);
        direct.publish(publish(1, vec![item(&table, 700 << 10)])).await.unwrap();
        let first = subscription.next().await.unwrap();
        let pressure = direct.pressure();
        let items = vec![item(&table, 200 << 10), item(&table, 300 << 10)];
        let sending = tokio::spawn(async move { direct.publish(publish(2, items)).await });
        while !*pressure.borrow() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Not even the part that there would be room for.
        let early = tokio::time::timeout(Duration::from_millis(20), subscription.next()).await;
        assert!(early.is_err());
        drop(first);
        let (second, third) = (subscription.next().await.unwrap(), subscription.next().await.unwrap());
        assert_eq!((second.last, third.last), (false, true));
        sending.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_publish_larger_than_all_memory_passes_alone() {
        let table = TableId::new("shop", "orders");
        let mut direct = Direct::new(64 << 10);
        let mut subscription = direct.subscribe(&table);
        direct.publish(publish(1, vec![item(&table, 1 << 20)])).await.unwrap();
        direct.close();
        assert!(subscription.next().await.is_some_and(|delivery| delivery.last));
        assert!(subscription.next().await.is_none());
    }
}
